"""Make each change of the cache table in a copy of this checkout and run the pipeline, all in one process of its own.

``python -m tests.end_to_end.cache_runs FOLDER TITLES`` with the copy as working directory; ``FOLDER/ran.json``
tells which steps ran. Code that a row changed is imported anew; another version of a library is that of a distribution
put in front.
"""

import gc
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from tests.end_to_end.cache_table import ROWS, Edit, Row

PARAMETERS: dict[str, dict[str, Any]] = {
    "splits": {"validation": 0.1, "test": 0.15},
    "training": {"max_steps": 2, "batch_size": 1, "gradient_accumulation": 1, "lora": {"r": 8}, "evaluate_every": 2},
    "evaluation": {
        "max_prompts": 1,
        "max_new_tokens": 2,
        "max_loss_rows": 4,
        "noise_rows": 0,
        "sandbox": {"execute": "never"},
    },
    "merging": {"max_prompts": 1, "max_new_tokens": 2},
}
CODE = {"pipelines", "steps", "materializers"}
ROWS_OF_DATA = 80


def main(work: Path, titles: list[str]) -> None:
    """Run the first run and the rows of these titles."""
    from zenml.utils import source_utils

    from tests.tiny import write_model, write_rows

    source_utils.set_custom_source_root(str(Path.cwd()))
    write_rows(work / "rows.jsonl", ROWS_OF_DATA)
    write_model(work / "base")
    ran = {"the first run": _run(work, Row("", set()))}
    gc.freeze()  # what is imported is no garbage to go through in every step
    for row in (row for row in ROWS if row.title in titles):
        begin = time.monotonic()
        with ExitStack() as changes:
            for edit in row.edits:
                changes.enter_context(_edited(work, edit))
            if row.library:
                changes.enter_context(_other_version(work, row.library))
            if any(edit.path.startswith("steps") or edit.path.startswith("materializers") for edit in row.edits):
                changes.callback(_forget_code)
                _forget_code()
            ran[row.title] = _run(work, row)
        print(f"{time.monotonic() - begin:5.1f} s  {row.title}: {' '.join(ran[row.title])}", flush=True)
    (work / "ran.json").write_text(json.dumps(ran, indent=1), encoding="utf-8")


def _run(work: Path, row: Row) -> list[str]:
    from zenml.client import Client
    from zenml.enums import ExecutionStatus

    from pipelines.finetune import finetune

    parameters: dict[str, Any] = {
        "data": {"sources": [{"files": str(work / "rows.jsonl")}]},
        "base_model": {"folder": str(work / "base")},
        **PARAMETERS,
    }
    for name, values in row.parameters.items():
        parameters[name] = {**parameters.get(name, {}), **values}
    text = yaml.safe_dump({"model": {"name": "tiny"}, "parameters": parameters, **row.top})
    (work / "config.yaml").write_text(text.replace("{work}", str(work)), encoding="utf-8")
    before = {name: os.environ.get(name) for name in row.environment}
    os.environ.update(row.environment)
    try:
        run = finetune.with_options(config_path=str(work / "config.yaml"))()
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    assert run is not None
    steps = Client().get_pipeline_run(run.id).steps
    return [name for name, step in steps.items() if step.status == ExecutionStatus.COMPLETED]


@contextmanager
def _edited(work: Path, edit: Edit) -> Iterator[None]:
    path = work / edit.path.removeprefix("work/") if edit.path.startswith("work/") else Path(edit.path)
    content = path.read_bytes()
    path.write_bytes(edit.change(content))
    yield
    path.write_bytes(content)


@contextmanager
def _other_version(work: Path, library: str) -> Iterator[None]:
    """A later distribution of that name, in front of the installed one: what ``importlib.metadata`` finds first."""
    folder = work / library
    record = folder / f"{library}-0.dist-info" / "METADATA"
    record.parent.mkdir(parents=True)
    record.write_text(f"Metadata-Version: 2.1\nName: {library}\nVersion: {version(library)}.post1\n")
    sys.path.insert(0, str(folder))
    yield
    sys.path.remove(str(folder))


def _forget_code() -> None:
    for name in [name for name in sys.modules if name.split(".")[0] in CODE]:
        del sys.modules[name]


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
