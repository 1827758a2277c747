"""The merged model's card, README.md in its directory.

All of it comes from locks, reports and provenance; what they don't know is left out. Nothing in it differs between two
runs that made the same model: those ids are in ``provenance.json`` beside it.
"""

import json
import math
import shlex
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from steps.evaluate.report import EvaluationReport, Figure, Verdicts
from steps.files import sha256_of
from steps.format.report import FormatReport
from steps.ingest.report import IngestedSource, IngestReport
from steps.markdown import code, fenced, table
from steps.merge.report import MergeReport
from steps.provenance import PROVENANCE, read_provenance
from steps.quantize.params import QuantizationParameters
from steps.resolve.locks import DataLock, ModelLock
from steps.train.params import TrainingParameters
from steps.train.report import TrainingReport

CARD = "README.md"
LIBRARIES = ("torch", "transformers", "peft", "safetensors")
SHOWN_SAMPLES = 2
SHOWN_FILES = 5
PLACE = "path/of/this/folder"


@dataclass(frozen=True)
class Origins:
    """What the model was made from and what was found out about it."""

    base: ModelLock
    adapter: Path
    data: DataLock
    ingested: IngestReport
    formatted: FormatReport
    training: TrainingReport
    evaluation: EvaluationReport
    merge: MergeReport


def write_card(folder: Path, origins: Origins) -> None:
    """Write README.md into the merged model's directory, whose ``provenance.json`` is there already."""
    from huggingface_hub import ModelCard

    sections = {
        "Use": _use(origins),
        "Data": _data(origins),
        "Recipe": _recipe(origins, read_provenance(folder)["adapter"]),
        "Figures": _figures(origins.evaluation),
        "Sample answers": _samples(origins.evaluation),
        "The merge": _fidelity(origins.merge),
        "Limits": _limits(origins.evaluation),
        "Lineage": _lineage(origins),
    }
    text = "\n\n".join(f"## {title}\n\n{body}" for title, body in sections.items() if body)
    card = ModelCard(f"---\n{_front_matter(origins)}\n---\n\n# {_name(origins)}\n\n{_lead(origins)}\n\n{text}\n")
    card.save(folder / CARD)


def _name(origins: Origins) -> str:
    return f"{' '.join(origins.base.name.rsplit('/', 1)[-1].split())}, tuned"


def _lead(origins: Origins) -> str:
    base = origins.base
    source = f"https://huggingface.co/{base.hub}" if base.hub else base.package and f"package {base.package}"
    word = "version" if base.package else "revision"
    where = ", ".join(part for part in (source, base.commit and f"{word} {code(base.commit)}") if part)
    return (
        f"{code(base.name)}{f' ({where})' if where else ''}, tuned with a LoRA adapter on "
        f"{_trained_rows(origins):,} rows. The adapter is merged in: this is a plain transformers model, with the "
        f"tokenizer and the chat template that it was trained with."
    )


def _trained_rows(origins: Origins) -> int:
    return next(split.sequences for split in origins.formatted.splits if split.name == "train")


def _front_matter(origins: Origins) -> str:
    from huggingface_hub import ModelCardData

    data = ModelCardData(
        base_model=origins.base.hub or None,
        datasets=[source.name for source in origins.ingested.sources if source.kind == "hub"] or None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["lora", "qlora", "conversational"],
        model_name=_name(origins),
        eval_results=_results(origins) or None,
    )
    return data.to_yaml()


def _results(origins: Origins) -> list[Any]:
    """The tuned model's figures, those that are numbers, as the hub's model-index."""
    from huggingface_hub import EvalResult

    report, sources = origins.evaluation, origins.ingested.sources
    only = sources[0] if len(sources) == 1 and sources[0].kind == "hub" else None
    sets = [("held-out rows", only.name if only else "held-out", only.state if only else None, report.figures)]
    sets += [(one.name, one.name, None, one.figures) for one in report.sets]
    return [
        EvalResult(
            task_type="text-generation",
            dataset_name=name,
            dataset_type=kind,
            dataset_revision=revision,
            dataset_split="test" if revision else None,
            metric_type=figure.name.replace(" ", "_"),
            metric_name=f"{figure.name} ({figure.unit})" if figure.unit else figure.name,
            metric_value=round(figure.tuned, 6),
        )
        for name, kind, revision, figures in sets
        for figure in figures
        if math.isfinite(figure.tuned)
    ]


def _use(origins: Origins) -> str:
    samples = origins.evaluation.samples
    prompt = min((sample.instruction for sample in samples), key=len, default="Write a function that adds two numbers.")
    chat, tokens = [{"role": "user", "content": prompt}], origins.evaluation.max_new_tokens
    trusted = origins.base.trust_remote_code
    python = (
        "from transformers import pipeline\n\n"
        f'generate = pipeline("text-generation", model="{PLACE}"{", trust_remote_code=True" if trusted else ""})\n'
        f"chat = {json.dumps(chat, ensure_ascii=False)}\n"
        f'print(generate(chat, max_new_tokens={tokens})[0]["generated_text"][-1]["content"])'
    )
    body = json.dumps({"model": PLACE, "messages": chat, "max_tokens": tokens, "temperature": 0}, ensure_ascii=False)
    shell = (
        f"transformers serve {PLACE}{' --trust-remote-code' if trusted else ''}"
        '   # pip install "transformers[serving]"; or: vllm serve\n'
        "curl http://localhost:8000/v1/chat/completions -H 'Content-Type: application/json' \\\n"
        f"  -d {shlex.quote(body)}"
    )
    return (
        f"{fenced(python, 'python')}\n\nBehind an endpoint that speaks OpenAI's protocol:\n\n{fenced(shell, 'sh')}\n\n"
        "It answers greedily unless a request says otherwise, as it was measured."
    )


def _data(origins: Origins) -> str:
    rows = [
        [
            code(source.name if source.kind != "files" else source.name.rsplit("/", 1)[-1]),
            _state(source, lock.files),
            f"{source.rows:,}",
            ", ".join(f"{code(name) if name else 'unknown'} {count:,}" for name, count in source.licenses.items()),
        ]
        for source, lock in zip(origins.ingested.sources, origins.data.sources, strict=True)
    ]
    splits = ", ".join(f"{split.sequences:,} {split.name}" for split in origins.formatted.splits)
    return (
        f"{table(['source', 'exact state', 'rows read', 'licences, rows'], rows)}\n\n"
        f"Rows in use after rules, duplicates and leaks were taken out: {splits}."
    )


def _state(source: IngestedSource, files: dict[str, str]) -> str:
    """A commit or a version; of one file its SHA-256."""
    if source.kind != "files":
        return code(source.state)
    if len(files) == 1:
        return f"SHA-256 {code(*files.values())}"
    return f"{len(files):,} files, each by its SHA-256 in {code(PROVENANCE)}"


def _recipe(origins: Origins, adapter: dict[str, Any]) -> str:
    training = TrainingParameters.model_validate(adapter["training"])
    lora, report, prompt = training.lora, origins.training, origins.formatted
    targets = lora.target_modules if isinstance(lora.target_modules, str) else ", ".join(lora.target_modules)
    kinds = [name for name, on in (("rank-stabilised", lora.rslora), ("DoRA", lora.dora)) if on]
    warmup = f", warm-up over {training.warmup_ratio:.0%} of the steps" if training.warmup_ratio else ""
    rows = [
        ("base while training", _quantization(QuantizationParameters.model_validate(adapter["quantization"]), origins)),
        ("LoRA", ", ".join([f"r {lora.r}, alpha {lora.alpha:g}, dropout {lora.dropout:g}", *kinds])),
        ("on", code(targets)),
        ("trained as a whole", ", ".join(map(code, lora.modules_to_save))),
        ("parameters trained", f"{report.trainable_parameters:,} ({report.trainable_share:.2%})"),
        ("prompt", f"template {code(prompt.template)}, at most {prompt.max_length:,} tokens, loss on {prompt.loss_on}"),
        ("optimiser", f"{training.optimizer}, learning rate {training.learning_rate:g}, {training.schedule}{warmup}"),
        ("weight decay", f"{training.weight_decay:g}, gradients clipped at {training.max_grad_norm:g}"),
        ("optimiser steps", f"{len(report.steps):,} of {report.tokens_per_step:,} tokens; kept: {report.best_step:,}"),
        ("tokens seen", f"{report.tokens:,} ({report.epochs:.3g} epochs)"),
        ("seed", str(training.seed)),
    ]
    return table(["", ""], [[name, value] for name, value in rows if value])


def _quantization(quantization: QuantizationParameters, origins: Origins) -> str:
    if origins.base.quantization is not None:
        return f"{origins.base.quantization.kind}, as it was published"
    if quantization.kind == "none":
        return "full precision"
    return f"{quantization.kind}{', double quantisation' if quantization.nested else ''} (bitsandbytes)"


def _figures(report: EvaluationReport) -> str:
    lead = (
        f"Base against tuned on the same prompts: loss on {report.loss_rows:,} held-out rows ({report.loss_tokens:,} "
        f"tokens), the rest on {report.answers:,} greedy answers of at most {report.max_new_tokens:,} tokens. "
        f"Intervals are {report.confidence:.0%} of the difference."
    )
    parts = [lead, _figure_table(report.figures)]
    for one in report.sets:
        parts += [f"{code(one.name)}:", _figure_table(one.figures)]
    return "\n\n".join(parts)


def _figure_table(figures: list[Figure]) -> str:
    rows = [[one.name if one.unit in ("", "share") else f"{one.name} ({one.unit})", *one.values()] for one in figures]
    return table(["figure", "base", "tuned", "difference", "interval", ""], rows)


def _samples(report: EvaluationReport) -> str:
    """The first ones of the report, whatever they are worth."""
    return "\n\n".join(
        f"Prompt:\n\n{fenced(sample.instruction)}\n\nAnswer:\n\n{fenced(sample.tuned_answer)}"
        for sample in report.samples[:SHOWN_SAMPLES]
    )


def _fidelity(report: MergeReport) -> str:
    written, logits = report.written, report.max_logit_difference
    losses = f"{report.max_loss_difference_bound:g} from unmerged, {report.loss_rise_bound:g} above trained"
    rows = [
        ["loss as trained, nats/token", f"{written.expected_loss:.5f}", ""],
        ["loss, unmerged", f"{report.adapter_loss:.5f}", ""],
        ["loss, merged", f"{report.merged_loss:.5f}", losses],
        ["KL(trained to merged), nats/token", f"{written.kl_divergence:.5f}", f"{report.kl_divergence_bound:g}"],
        ["same first choice as trained", f"{written.top1_agreement:.2%}", ""],
        ["largest difference of a logit from unmerged", f"{logits:.4f}", f"{report.max_logit_difference_bound:g}"],
    ]
    dequantized = report.dequantized_weights
    where = f"the base's {dequantized:,} quantised weights, dequantised" if dequantized else "the base's own weights"
    return (
        f"Merged into {where}: the adapter changed {report.changed_weights:,} tensors, and "
        f"{report.unchanged_weights:,} are as they were. Written, reloaded and compared with what was trained, and "
        f"with the same weights and the adapter beside them (unmerged), on {report.rows:,} held-out rows "
        f"({report.positions:,} tokens):\n\n"
        f"{table(['', 'measured', 'bound'], rows)}"
    )


def _limits(report: EvaluationReport) -> str:
    lines = [
        "The figures are those of the base as it was trained on, with the adapter; of the merged model only what "
        "stands under The merge was measured.",
        "Held-out rows come from the sources of the training rows; other tasks "
        + (f"than {', '.join(code(one.name) for one in report.sets)} " if report.sets else "")
        + "were not measured, nor were safety, bias and conversations of several turns.",
        "Sampling was not measured; answers are greedy.",
        *_code_limits(report.verdicts, report.answers),
    ]
    return "\n".join(f"- {line}" for line in lines)


def _code_limits(verdicts: Verdicts | None, answers: int) -> list[str]:
    if verdicts is None:
        return ["Generated code was not run."]
    return [f"Tests were run on {verdicts.tested:,} of {answers:,} answers: those whose row has tests that hold."]


def _lineage(origins: Origins) -> str:
    weights = origins.adapter / "adapter_model.safetensors"
    files = [(name, digest) for name, digest in sorted(origins.base.files.items()) if _is_weights(name)]
    rows = [["adapter", code(weights.name), code(sha256_of(weights))]]
    rows += [["base", code(name), code(digest)] for name, digest in files[:SHOWN_FILES]]
    return (
        f"{code(PROVENANCE)} has every parameter and every file of the base, the ZenML run, step and model version "
        "that wrote this directory, the code's commit, the libraries and the data files' hashes.\n\n"
        f"{table(['', 'file', 'SHA-256, or blob id of the hub'], rows)}\n\n"
        f"Merged with {', '.join(f'{name} {version(name)}' for name in LIBRARIES)}."
    )


def _is_weights(name: str) -> bool:
    return name.endswith((".safetensors", ".gguf", ".bin"))
