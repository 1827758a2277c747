"""What a training has learned, and how far two trainings lie apart; without pytest, so that a script can use it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import Dataset, DatasetDict

from steps.format.pack import pack
from steps.train.params import LoraParameters, TrainingParameters
from steps.train.plan.params import PlanParameters
from steps.train.report import TrainingReport
from tests.tiny_run import TinyRun

if TYPE_CHECKING:
    import torch

PLAIN: dict[str, Any] = {
    "lora": LoraParameters(r=8, dropout=0),  # other batches would draw other masks
    "optimizer": "sgd",  # Adam divides by a gradient's size, and so makes a rounding of tiny ones large
    "learning_rate": 0.3,
    "schedule": "constant",
    "warmup_ratio": 0,
    "early_stopping": None,
    "precision": "float32",
    "epochs": 3,
    "batch_size": 2,
    "gradient_accumulation": 1,
    "evaluate_every": 1,
}
"""Only what a test changes may change what is learned."""


@dataclass(frozen=True)
class Learned:
    """Losses of training and validation, nats per token, and the adapter's weights."""

    losses: list[float]
    weights: "dict[str, torch.Tensor]"


def learn(
    run: TinyRun,
    output: Path,
    blocks: DatasetDict | None = None,
    plan: PlanParameters | None = None,
    **changes: Any,
) -> Learned:
    """Train the tiny model as ``PLAIN`` and the changes say."""
    training = TrainingParameters.model_validate({**PLAIN, **changes})
    report = replace(run, training=training).train(output, blocks, plan=plan)
    return learned(report, output)


def learned(report: TrainingReport, adapter: Path) -> Learned:
    """What a training's report and its adapter's folder hold."""
    from safetensors.torch import load_file

    losses = [step.loss for step in report.steps] + [point.loss for point in report.validation]
    return Learned(losses, load_file(adapter / "adapter_model.safetensors"))


@dataclass(frozen=True)
class Distance:
    """The largest difference between two losses, in nats, and the relative one between what the adapters add."""

    loss: float
    adapter: float

    def within(self, loss: float, adapter: float) -> bool:
        """Whether both are at most so large."""
        return self.loss <= loss and self.adapter <= adapter


def distance(one: Learned, other: Learned) -> Distance:
    """How far two trainings of the same steps lie apart.

    The adapters' B matrices are compared, since they start at zero: all that they are was learned.
    """
    losses = max(abs(a - b) for a, b in zip(one.losses, other.losses, strict=True))
    weights = {name: weight.double() for name, weight in one.weights.items() if "lora_B" in name}
    apart = sum(float((weight - other.weights[name].double()).norm()) ** 2 for name, weight in weights.items())
    size = sum(float(weight.norm()) ** 2 for weight in weights.values())
    return Distance(losses, (apart / size) ** 0.5)


def unpacked(blocks: DatasetDict) -> DatasetDict:
    """Each sequence of the packed blocks in a block of its own."""
    return DatasetDict({name: pack(_sequences(split), 512, "none") for name, split in blocks.items()})


def _sequences(split: Dataset) -> Dataset:
    rows = []
    for block in split:
        start = 0
        for row, length in zip(block["row_ids"], block["seq_lengths"], strict=True):
            span = slice(start, start + length)
            rows.append({"row_id": row, "input_ids": block["input_ids"][span], "labels": block["labels"][span]})
            start += length
    return Dataset.from_list(rows)
