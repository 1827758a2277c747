"""Seconds of an optimiser step of the quickstart on a processor: plain TRL against the pipeline's own trainer.

Run by ``make bench``. Both train on the quickstart's blocks and 4-bit model with its parameters: plain TRL as a
notebook does it (SFTTrainer, PEFT, the model by from_pretrained), ours by the function that the train step builds its
trainer with. The sides alternate, each time in a process of its own.
"""

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import DatasetDict

    from steps.train.params import TrainingParameters

CONFIG = Path(__file__).parents[2] / "configs" / "quickstart.yaml"


@dataclass(frozen=True)
class Measured:
    """What one process took."""

    seconds: list[float]  # of each optimiser step
    losses: list[float]
    gib: float  # largest resident memory


def make(folder: Path) -> None:
    """Blocks, tokenizer and 4-bit model of the quickstart, by the plain functions of its rooms."""
    from steps.format.format import format_rows
    from steps.format.params import PromptParameters
    from steps.ingest.ingest import ingest_sources
    from steps.quantize.params import QuantizationParameters
    from steps.quantize.quantize import quantize_model
    from steps.resolve.base_model import lock_model
    from steps.resolve.data import lock_data
    from steps.resolve.locks import DataLock
    from steps.resolve.params import BaseModelParameters, DataParameters
    from steps.split.params import SplitParameters
    from steps.split.split import split_rows

    parameters = _parameters()
    for name in ("tokenizer", "quantized"):
        (folder / name).mkdir()
    data = DataParameters.model_validate(parameters["data"])
    rows, _, _ = ingest_sources(data, lock_data(data))
    splits, _, _ = split_rows(rows, SplitParameters.model_validate(parameters["splits"]), DataLock(sources=[]))
    lock = lock_model(BaseModelParameters.model_validate(parameters["base_model"]))
    blocks, _, _, _ = format_rows(splits, lock, PromptParameters(), folder / "tokenizer")
    blocks.save_to_disk(folder / "blocks")
    quantize_model(lock, QuantizationParameters(), folder / "quantized")


def _parameters() -> dict[str, Any]:
    import yaml

    parameters: dict[str, Any] = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["parameters"]
    return parameters


def _work(folder: Path, steps: int) -> "tuple[DatasetDict, TrainingParameters]":
    """Blocks without a validation split, and the quickstart's parameters for so many steps."""
    from datasets import DatasetDict

    from steps.train.params import TrainingParameters

    blocks = DatasetDict.load_from_disk(str(folder / "blocks"))
    blocks["validation"] = blocks["validation"].select([])
    return blocks, TrainingParameters.model_validate({**_parameters()["training"], "max_steps": steps})


def plain(folder: Path, steps: int) -> Measured:
    """As a notebook does it."""
    import torch
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    from steps.device import describe_device
    from steps.train.optimizer import optimizer_arguments

    blocks, training = _work(folder, steps)
    device, lora = describe_device(), training.lora
    model = AutoModelForCausalLM.from_pretrained(folder / "quantized", device_map="cpu", dtype=device.dtype)
    with tempfile.TemporaryDirectory() as working:
        config = SFTConfig(
            output_dir=working,
            max_steps=steps,
            per_device_train_batch_size=training.batch_size,
            gradient_accumulation_steps=training.gradient_accumulation,
            gradient_checkpointing=False,
            **optimizer_arguments(training),
            bf16=device.dtype == torch.bfloat16,
            use_cpu=True,
            save_strategy="no",
            logging_steps=1,
            disable_tqdm=True,
            report_to="none",
            seed=training.seed,
            data_seed=training.seed,
            max_length=None,
            padding_free=True,
            dataset_kwargs={"skip_prepare_dataset": True},
        )
        adapter = LoraConfig(
            r=lora.r,
            lora_alpha=int(lora.alpha),
            lora_dropout=lora.dropout,
            target_modules=list(lora.target_modules),
            task_type="CAUSAL_LM",
        )
        trainer = SFTTrainer(
            model=model,
            args=config,
            train_dataset=blocks["train"],
            processing_class=AutoTokenizer.from_pretrained(folder / "tokenizer"),
            peft_config=adapter,
        )
        seconds = _timed(trainer, trainer.train)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return Measured(seconds, losses, _peak_gib())


def ours(folder: Path, steps: int) -> Measured:
    """As the train step does it."""
    from steps.device import describe_device
    from steps.train.build import Task, build_trainer
    from steps.train.callbacks import Recorder
    from steps.train.checkpoint import Checkpoints
    from steps.train.params import CheckpointParameters
    from steps.train.plan.params import PlanParameters
    from steps.train.planning import planned
    from steps.train.tracking import nowhere

    blocks, training = _work(folder, steps)
    device = describe_device(training.precision, training.attention)
    task = Task(blocks, folder / "quantized", folder / "tokenizer", training, device)
    recorder = Recorder(nowhere, on_gpu=False)
    with tempfile.TemporaryDirectory() as working:
        trainer = build_trainer(task, planned(task, PlanParameters()).plans[0], recorder, working)
        store = Checkpoints(Path(working), "checkpoints", CheckpointParameters())
        seconds = _timed(trainer, lambda: trainer.run(store))
    return Measured(seconds, [step.loss for step in recorder.course.steps], _peak_gib())


def _timed(trainer: Any, train: Callable[[], object]) -> list[float]:
    """Train; the seconds from the beginning of each optimiser step to its end."""
    from transformers import TrainerCallback

    marks: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            marks.append(-time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            marks[-1] += time.perf_counter()

    trainer.add_callback(Clock())
    train()
    return marks


def _peak_gib() -> float:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Measure both sides in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=6, help="optimiser steps of a process; the first is not counted")
    parser.add_argument("--pairs", type=int, default=3, help="processes of each side")
    arguments = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with spawn.Pool(1) as pool:
            pool.apply(make, (folder,))
        print(f"{'':<6} {'seconds a step':>15} {'GiB':>6}  losses", flush=True)
        ratios, largest = [], 0.0
        for _ in range(arguments.pairs):
            found = {}
            for side in (plain, ours):
                with spawn.Pool(1) as pool:
                    found[side.__name__] = one = pool.apply(side, (folder, arguments.steps))
                losses = " ".join(f"{loss:.4f}" for loss in one.losses)
                print(f"{side.__name__:<6} {median(one.seconds[1:]):>15.2f} {one.gib:>6.2f}  {losses}", flush=True)
            ratios.append(median(found["plain"].seconds[1:]) / median(found["ours"].seconds[1:]))
            pairs = zip(found["plain"].losses, found["ours"].losses, strict=True)
            largest = max(largest, *(abs(one - other) for one, other in pairs))
        print(f"\nplain / ours: {', '.join(f'{ratio:.2f}' for ratio in ratios)}, median {median(ratios):.2f}")
        print(f"largest difference of a step's loss: {largest:.4f}")


if __name__ == "__main__":
    main()
