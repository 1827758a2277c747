"""The lineage of a model directory, told from its ``provenance.json`` and from what came after it."""

from collections.abc import Iterator, Mapping
from typing import Any

from steps.errors import ModelError
from steps.lineage.report import DIRECTORY, Branch, Entry, Lineage
from steps.parameters import flat
from steps.provenance import PROVENANCE, decisive_part
from steps.record import ArtifactRecord, Record, read_record
from steps.resolve.locks import Environment, ModelLock

MADE_BY = {
    "raw_rows": "ingest",
    "rows": "validate",
    "split_rows": "split",
    "examples": "format",
    "blocks": "format",
    "tokenizer": "format",
    "quantized_model": "quantize",
    "adapter": "train",
    "model_lock": "resolve",
}
"""Artifact -> its step, in the picture."""

SPLITS = ("train", "validation", "test")

Figures = Mapping[str, Mapping[str, Any]]


def tell(name: str, provenance: str, later: Figures) -> Lineage:
    """The lineage of the directory with this ``provenance.json``.

    Args:
        name: what the reader calls it.
        provenance: the file's text.
        later: numbers of reports that came after it, by the reports' names; those of its own record are there anyway.

    Raises:
        ModelError: nothing was recorded there, so that its run is not known.
    """
    record = read_record(provenance)
    if record is None:
        raise ModelError(
            f"{name}: its {PROVENANCE} has no record of a run; only directories that a step stored have one, since "
            "this version of the pipeline: run it again"
        )
    origins: dict[str, Any] = dict(decisive_part(provenance))
    figures = {**record.figures, **later}
    artifacts = {one.id: one for one in artifacts_of(record)}.values()
    records = records_of(record)
    branches = [
        Branch(title="data", entries=list(_data(records.get("train", record)))),
        Branch(title="base model", entries=list(_base(ModelLock.model_validate(origins["base_model"])))),
        Branch(title="recipe", entries=list(_recipe(origins, record.config))),
        *_measured(figures),
        Branch(title="code", entries=[Entry(name=step, value=_code(one.environment)) for step, one in records.items()]),
        Branch(title="libraries", entries=list(_libraries(records))),
        Branch(
            title="hardware", entries=[Entry(name=step, value=_hardware(o.environment)) for step, o in records.items()]
        ),
        Branch(title="runs and steps", entries=[Entry(name=step, value=_run(one)) for step, one in records.items()]),
        Branch(title="hashes", entries=list(_hashed(record, list(artifacts)))),
    ]
    return Lineage(
        name=name, branches=[branch for branch in branches if branch.entries], facts=_facts(origins, record, figures)
    )


def artifacts_of(record: Record) -> Iterator[ArtifactRecord]:
    """Every artifact that the record names, its parents' parents too; some more than once."""
    for parent in record.parents.values():
        yield parent
        if parent.record is not None:
            yield from artifacts_of(parent.record)
    yield from record.data


def records_of(record: Record) -> dict[str, Record]:
    """The records of the directory and of all that it was made from, by their steps, the last step first."""
    found = {record.run.step: record}
    for parent in record.parents.values():
        if parent.record is not None:
            found |= {step: one for step, one in records_of(parent.record).items() if step not in found}
    return found


def _data(record: Record) -> Iterator[Entry]:
    for source in record.sources:
        count = len(source.files)
        yield Entry(name=source.name, value=source.revision + (f" ({count} file{'s' * (count > 1)})" if count else ""))
    for one in record.data:
        named = [(split, one.rows[f"{split}_rows"]) for split in SPLITS if f"{split}_rows" in one.rows]
        counts = [f"{count:,} {split}" for split, count in named]
        rows = f"{one.rows['rows']:,} rows" if "rows" in one.rows else ", ".join(counts)
        yield Entry(name=one.name, value=rows, stands_for=one.id, step=MADE_BY[one.name])


def _base(lock: ModelLock) -> Iterator[Entry]:
    yield Entry(name="name", value=lock.name)
    where = lock.hub or lock.folder or lock.package
    yield Entry(name="from", value=where)
    yield Entry(name="revision", value=lock.commit or "the files' hashes")
    for name, digest in sorted(lock.files.items()):
        if name.endswith((".safetensors", ".gguf", ".bin")):
            yield Entry(name=name, value=digest)


def _recipe(origins: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[Entry]:
    merged = origins.get("merged", origins)  # an export's, else the directory is merged or an adapter
    made = {"prompt": config.get("format", {}).get("prompt", {}), **merged.get("adapter", merged)}
    for room in ("prompt", "quantization", "training"):
        for name, value in flat(made.get(room, {})):
            if value is not None and value != []:
                said = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
                yield Entry(name=f"{room}.{name}", value=said)


def _measured(figures: Figures) -> Iterator[Branch]:
    for report, title in (
        ("training_report", "training"),
        ("evaluation_report", "evaluation"),
        ("merge_report", "merge"),
        ("promotion_decision", "promotion"),
    ):
        values = figures.get(report, {})
        pairs = [name.removeprefix("base_") for name in values if name.startswith("base_")]
        entries = [
            Entry(name=name.replace("_", " "), value=f"{values[f'base_{name}']} base, {values[f'tuned_{name}']} tuned")
            for name in sorted(pairs)
            if f"tuned_{name}" in values
        ]
        paired = {f"{side}_{name}" for name in pairs for side in ("base", "tuned")}
        entries += [
            Entry(name=name.replace("_", " "), value=str(value))
            for name, value in sorted(values.items())
            if name not in paired and name != "storage_size"
        ]
        yield Branch(title=title, entries=entries)


def _code(environment: Environment) -> str:
    if not environment.code_commit:
        return "no git repository"
    return f"{environment.code_commit} ({'with uncommitted changes' if environment.code_dirty else 'clean'})"


def _libraries(records: Mapping[str, Record]) -> Iterator[Entry]:
    """Each library once, with the steps where they had different versions."""
    used: dict[str, dict[str, list[str]]] = {}
    for step, record in records.items():
        for name, version in {"python": record.environment.python, **record.environment.libraries}.items():
            used.setdefault(name, {}).setdefault(version, []).append(step)
    for name, versions in used.items():
        many = len(versions) > 1
        said = [f"{version} ({', '.join(steps)})" if many else version for version, steps in versions.items()]
        yield Entry(name=name, value="; ".join(said))


def _hardware(environment: Environment) -> str:
    cards = ", ".join(environment.accelerators) or "no accelerator"
    host = f"{environment.processor}, {environment.cores} cores, {environment.memory_gb:g} GB"
    return f"{host}; {cards}; {environment.platform}"


def _run(record: Record) -> str:
    run = record.run
    version = f"{run.model}:{run.version}, " if run.model else ""
    return f"{record.at}, {version}run {run.name} ({run.id}), step {run.step_id}"


def _hashed(record: Record, artifacts: list[ArtifactRecord]) -> Iterator[Entry]:
    yield Entry(
        name="this directory", value=f"{len(record.files) + 1} files", stands_for=DIRECTORY, step=record.run.step
    )
    data = {one.id for one in record.data}
    for one in artifacts:
        if one.id not in data:
            value = f"version {one.version}, content {one.content_hash[:12]}"
            yield Entry(name=one.name, value=value, stands_for=one.id, step=MADE_BY.get(one.name, ""))


def _facts(origins: Mapping[str, Any], record: Record, figures: Figures) -> dict[str, str]:
    rows = {one.name: one.rows for one in record.data}
    facts = {"resolve": str(origins["base_model"]["name"])}
    for name, step in (("raw_rows", "ingest"), ("rows", "validate")):
        if name in rows:
            facts[step] = f"{rows[name]['rows']:,} rows"
    for name, step, unit in (("split_rows", "split", "rows"), ("blocks", "format", "blocks")):
        if name in rows:
            facts[step] = f"{rows[name]['train_rows']:,} {unit} to train on"
    if (kind := figures.get("quantization_report", {}).get("kind")) is not None:
        facts["quantize"] = str(kind)
    training = figures.get("training_report", {})
    if training:
        facts["train"] = f"{training['steps']} steps, {training['tokens']:,} tokens"
    evaluation = figures.get("evaluation_report", {})
    if evaluation:
        facts["evaluate"] = f"loss {evaluation['base_loss']:.3f} to {evaluation['tuned_loss']:.3f}"
    facts["merge"] = f"{len(record.files) + 1} files" if record.run.step == "merge" else ""
    if "promotion_decision" in figures:
        decision = figures["promotion_decision"]
        facts["promote"] = str(decision["stage"]) if decision["promoted"] else "kept back"
    return facts
