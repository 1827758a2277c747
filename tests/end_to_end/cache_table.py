"""The cache table: what is changed, and which steps then run; its test and docs/cache.md have it from here."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STEPS = ("ingest", "validate", "split", "format", "quantize", "train", "evaluate", "merge", "promote")
"""All but ``resolve``, which always runs."""

AFTER_EVALUATE = {"merge", "promote"}
AFTER_TRAIN = {"evaluate", *AFTER_EVALUATE}


@dataclass(frozen=True)
class Edit:
    """A change of one file: of the checkout, or of ``work/``, where rows and base model lie."""

    path: str
    change: Callable[[bytes], bytes]


@dataclass(frozen=True)
class Row:
    """One change, made alone against the same first run, and undone after its own run."""

    title: str
    runs: set[str]
    note: str = ""
    parameters: dict[str, dict[str, Any]] = field(default_factory=dict)
    top: dict[str, Any] = field(default_factory=dict)
    edits: tuple[Edit, ...] = ()
    library: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    slow: bool = False
    """Left to ``make test-slow``."""


def replaced(old: str, new: str) -> Callable[[bytes], bytes]:
    """The first ``old`` becomes ``new``; it must be there."""

    def change(content: bytes) -> bytes:
        assert old.encode() in content, old
        return content.replace(old.encode(), new.encode(), 1)

    return change


def appended(text: str) -> Callable[[bytes], bytes]:
    """``text`` after all else."""
    return lambda content: content + text.encode()


def other_body(content: bytes) -> bytes:
    """The first function that returns something does one thing more before."""
    return re.sub(rb"\n( +)return ", rb"\n\1_ = 0\n\1return ", content, count=1)


def other_weights(content: bytes) -> bytes:
    """The last weight of a safetensors file is another number."""
    return content[:-2] + b"\x00\x3c"


ROWS = (
    Row("nothing", set()),
    Row("the run's name", set(), top={"run_name": "another"}, slow=True),
    Row(
        "the model's name",
        set(),
        top={"model": {"name": "another"}},
        note="its version links the same artifacts",
        slow=True,
    ),
    Row("the log level", set(), environment={"ZENML_LOGGING_VERBOSITY": "ERROR"}, slow=True),
    Row(
        "a data row",
        {*STEPS} - {"quantize"},
        edits=(Edit("work/rows.jsonl", replaced("plus 3.", "plus three.")),),
        slow=True,
    ),
    Row(
        "the data's revision, its rows the same",
        {"ingest", "split", "merge"},
        edits=(Edit("work/rows.jsonl", replaced('", "completion": ', '",  "completion": ')),),
        note="its report and the model card name the revision",
        slow=True,
    ),
    Row(
        "a validation rule",
        {"validate", "split"},
        parameters={"validation": {"completion_length": {"max": 7999}}},
        slow=True,
    ),
    Row(
        "a split's share", {"split", "format", "train", *AFTER_TRAIN}, parameters={"splits": {"test": 0.25}}, slow=True
    ),
    Row(
        "the prompt template",
        {"validate", "split", "format", "train", *AFTER_TRAIN},
        note="the validation report is on a page of the split",
        parameters={"prompt": {"template": "alpaca"}},
        slow=True,
    ),
    Row(
        "the text of a shipped template",
        {"validate", "split", "format", "train", *AFTER_TRAIN},
        edits=(Edit("steps/templates/notebook.yaml", replaced("return only the code", "return the code")),),
        slow=True,
    ),
    Row(
        "a tokenizer file",
        {"quantize", "validate", "format", "train", "evaluate", "merge", "promote"},
        note="the lock of a folder names all its files",
        edits=(
            Edit(
                "work/base/tokenizer_config.json",
                replaced('max_length": 1000000000000000019884624838656', 'max_length": 500'),
            ),
        ),
        slow=True,
    ),
    Row(
        "the base model's weights or revision",
        {"quantize", "train", *AFTER_TRAIN},
        edits=(Edit("work/base/model.safetensors", other_weights),),
        slow=True,
    ),
    Row(
        "quantisation kind",
        {"quantize", "train", *AFTER_TRAIN},
        parameters={"quantization": {"kind": "fp4"}},
        slow=True,
    ),
    Row("LoRA rank r", {"train", *AFTER_TRAIN}, parameters={"training": {"lora": {"r": 4}}}, slow=True),
    Row("learning rate", {"train", *AFTER_TRAIN}, parameters={"training": {"learning_rate": 0.004}}),
    Row("training seed", {"train", *AFTER_TRAIN}, parameters={"training": {"seed": 7}}, slow=True),
    Row(
        "the memory plan, the processes, or where checkpoints lie",
        set(),
        parameters={
            "plan": {"recompute": "layers", "distributed": {"processes": 1}},
            "checkpoints": {"folder": "{work}/elsewhere", "every_steps": 3, "keep": 1},
        },
    ),
    Row("evaluation batch size", {"evaluate"}, parameters={"evaluation": {"batch_size": 3}}),
    Row(
        "tokens of an answer",
        {"evaluate", *AFTER_EVALUATE},
        parameters={"evaluation": {"max_new_tokens": 3}},
        slow=True,
    ),
    Row(
        "what the adapter is merged into", AFTER_EVALUATE, parameters={"merging": {"target": "dequantized"}}, slow=True
    ),
    Row(
        "a threshold of the promotion",
        {"promote"},
        parameters={"promotion": {"gains": [{"figure": "loss", "by": 0.001}]}},
        slow=True,
    ),
    Row(
        "a comment, or a parameter's description, in steps/train",
        set(),
        edits=(
            Edit("steps/train/train.py", appended("# a comment\n")),
            Edit("steps/train/params.py", replaced('description="rank"', 'description="rank of the update"')),
        ),
    ),
    Row(
        "a page",
        set(),
        edits=(Edit("steps/train/page.py", other_body), Edit("materializers/page.py", other_body)),
        slow=True,
    ),
    Row(
        "a function body in steps/evaluate",
        {"evaluate"},
        edits=(Edit("steps/evaluate/losses.py", other_body),),
        note="equal figures: what follows stays cached",
    ),
    Row(
        "a function body in a module that train/step.py imports",
        {"train"},
        edits=(Edit("steps/train/targets.py", other_body),),
        note="equal adapter: what follows stays cached",
        slow=True,
    ),
    Row(
        "a function body in the data sets' materializer",
        {*STEPS} - {"quantize", "promote"},
        edits=(Edit("materializers/dataset.py", other_body),),
        note="all who save or load a data set",
        slow=True,
    ),
    Row(
        "a function body in the directories' materializer",
        {"format", "quantize", "train", "evaluate", "merge", "promote"},
        edits=(Edit("materializers/directory.py", other_body),),
        note="all who save or load a directory",
        slow=True,
    ),
    Row("the version of tokenizers", {"validate", "format", "evaluate"}, library="tokenizers", slow=True),
    Row("the version of bitsandbytes", {"quantize", "train", "evaluate", "merge"}, library="bitsandbytes", slow=True),
    Row("the version of trl", {"train"}, library="trl", slow=True),
)


def markdown() -> str:
    """The table for ``docs/cache.md``."""
    lines = [f"| changed | {' | '.join(STEPS)} | |", f"|---|{'---|' * len(STEPS)}---|"]
    for row in ROWS:
        cells = ("**runs**" if step in row.runs else "cached" for step in STEPS)
        lines.append(f"| {row.title} | {' | '.join(cells)} | {row.note} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    page = Path(__file__).parents[2] / "docs" / "cache.md"
    before, _, rest = page.read_text(encoding="utf-8").partition("| changed |")
    _, _, after = rest.partition("|\n\n")
    page.write_text(f"{before}{markdown()}\n{after}", encoding="utf-8")
