"""Every artifact of a small training, made by the plain functions alone."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datasets import DatasetDict

from steps.format.format import format_rows
from steps.format.params import PromptParameters
from steps.format.report import FormatReport
from steps.ingest.ingest import ingest_sources
from steps.ingest.report import IngestReport
from steps.merge.merge import merge_adapter
from steps.merge.params import MergeParameters
from steps.merge.report import MergeReport
from steps.merge.shards import waiting_shards
from steps.quantize.params import QuantizationParameters
from steps.quantize.quantize import quantize_model
from steps.resolve.base_model import lock_model
from steps.resolve.data import lock_data
from steps.resolve.locks import DataLock, ModelLock
from steps.resolve.params import BaseModelParameters, DataParameters, Source
from steps.split.params import SplitParameters
from steps.split.split import split_rows
from steps.train.checkpoint import Checkpoints
from steps.train.params import TrainingParameters
from steps.train.plan.params import PlanParameters
from steps.train.report import TrainingReport
from steps.train.tracking import OnMetrics, nowhere
from steps.train.train import train_adapter
from tests.tiny import write_model, write_rows

FEW_ANSWERS = MergeParameters(max_prompts=2, max_new_tokens=4)
"""For merges whose test looks at something else than the comparison of models: by default most of their time."""


@dataclass(frozen=True)
class TinyRun:
    """Every artifact of a small training, made in one folder."""

    lock: ModelLock
    model: Path
    tokenizer: Path
    blocks: DatasetDict
    examples: DatasetDict
    adapter: Path
    training: TrainingParameters
    report: TrainingReport
    data: DataLock
    ingested: IngestReport
    formatted: FormatReport

    def train(
        self,
        output: Path,
        blocks: DatasetDict | None = None,
        *,
        store: Checkpoints | None = None,
        plan: PlanParameters | None = None,
        on_metrics: OnMetrics = nowhere,
        **changes: Any,
    ) -> TrainingReport:
        """Train another adapter into ``output``; ``changes`` are the recipe's and are not validated."""
        output.mkdir(parents=True)
        training = self.training.model_copy(update=changes)
        return train_adapter(
            blocks or self.blocks, self.model, self.tokenizer, training, output, store, on_metrics, plan
        )

    def merge(self, output: Path, merging: MergeParameters = FEW_ANSWERS) -> MergeReport:
        """Merge the adapter into a folder of its own, as the step does."""
        output.mkdir(exist_ok=True)
        models = self.lock, self.model, self.adapter
        shards = waiting_shards(*models, merging.target, output.parent)
        report = merge_adapter(*models, self.tokenizer, self.examples["test"], merging, output, shards)
        shards.remove()
        return report


def make_tiny_run(folder: Path, width: int = 64) -> TinyRun:
    """A tiny Llama in 4 bits, of so many dimensions, trained for a few steps."""
    names = ("base", "tokenizer", "quantized", "adapter")
    base, tokenizer, quantized, adapter = (folder / name for name in names)
    for path in (base, tokenizer, quantized, adapter):
        path.mkdir()
    write_model(base, width=width)
    data = DataParameters(sources=(Source(files=str(write_rows(folder / "rows.jsonl"))),))
    data_lock = lock_data(data)
    raw_rows, _, ingested = ingest_sources(data, data_lock)
    parameters = SplitParameters(validation=0.15, test=0.15, near_duplicate_threshold=None)  # the rows are alike
    splits, _, _ = split_rows(raw_rows, parameters, DataLock(sources=[]))
    lock = lock_model(BaseModelParameters(folder=str(base)))
    blocks, examples, _, formatted = format_rows(splits, lock, PromptParameters(max_length=512), tokenizer)
    quantize_model(lock, QuantizationParameters(), quantized)
    training = TrainingParameters(
        max_steps=12, batch_size=2, gradient_accumulation=1, learning_rate=5e-3, evaluate_every=4
    )
    report = train_adapter(blocks, quantized, tokenizer, training, adapter)
    return TinyRun(
        lock, quantized, tokenizer, blocks, examples, adapter, training, report, data_lock, ingested, formatted
    )


def with_biases(run: TinyRun, folder: Path, *, tied: bool = False) -> TinyRun:
    """The run on another base model, quantised into ``folder``: its linear layers have biases."""
    for name in ("base", "quantized"):
        (folder / name).mkdir(parents=True)
    write_model(folder / "base", biases=True, tied=tied)
    lock = lock_model(BaseModelParameters(folder=str(folder / "base")))
    quantize_model(lock, QuantizationParameters(), folder / "quantized")
    return replace(run, lock=lock, model=folder / "quantized")
