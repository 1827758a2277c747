"""The trainer of a task by a plan: model, adapter, kernels, and what watches it."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import Dataset, DatasetDict

from steps.device import Device
from steps.provenance import read_provenance
from steps.quantize.load import load_quantized
from steps.rows import list_lengths
from steps.tokenizer import load_tokenizer
from steps.train.distributed.ranks import ALONE, Ranks
from steps.train.optimizer import loraplus_optimizer, optimizer_arguments
from steps.train.params import TrainingParameters
from steps.train.plan.plan import Plan

if TYPE_CHECKING:
    from peft import PeftModel
    from trl.trainer.sft_config import SFTConfig

    from steps.train.callbacks import Recorder
    from steps.train.trainer import ResumableTrainer


@dataclass(frozen=True)
class Task:
    """What is learned, from what and on which device."""

    blocks: DatasetDict  # splits train and validation
    model_folder: Path  # the quantised base model
    tokenizer_folder: Path
    training: TrainingParameters
    device: Device
    ranks: Ranks = ALONE  # this process among those that share the training


def without_padding(blocks: DatasetDict) -> DatasetDict:
    """Blocks that don't say where their sequences begin, each as one sequence.

    Flash attention then takes them one after the other, with neither padding nor mask, and sees what it saw before.
    """
    return DatasetDict(
        {
            name: split
            if "seq_lengths" in split.column_names or not len(split)
            else split.add_column("seq_lengths", [[int(length)] for length in list_lengths(split, "input_ids")])
            for name, split in blocks.items()
        }
    )


def build_trainer(task: Task, plan: Plan, recorder: "Recorder", working: str) -> "ResumableTrainer":
    """Load the model, give it its adapter, and put the plan's kernels into it.

    Args:
        task: what is learned.
        plan: how.
        recorder: takes the figures.
        working: a folder that transformers asks for; nothing is written there.
    """
    from transformers.trainer_callback import PrinterCallback

    from steps.train.distributed.shard import require_parts, shard
    from steps.train.initialization import initialize

    training = task.training
    if plan.sharded:
        require_parts(training)
    trainer = _with_adapter(task, plan, recorder, working)
    initialize(trainer, training, read_provenance(task.model_folder)["base_model"])
    trainer.remove_callback(PrinterCallback)  # it prints every log as a dictionary; the progress line says it
    _set_types(trainer.adapted, task.device)
    trainer.start()
    if plan.sharded:
        shard(trainer.adapted, task.device, task.ranks)
    if training.lora.loraplus_lr_ratio is not None:
        trainer.optimizer = loraplus_optimizer(trainer, training, training.lora.loraplus_lr_ratio)
    if plan.fused:
        install = _make_faster if task.device.kind == "cpu" else _fuse
        trainer.kernels = install(trainer, task, plan)
        where = "the CPU, since PyTorch finds no GPU" if task.device.kind == "cpu" else task.device.name
        print(f"  train: on {where}; {trainer.kernels}", flush=True)
    return trainer


def _with_adapter(task: Task, plan: Plan, recorder: "Recorder", working: str) -> "ResumableTrainer":
    """The trainer with the model that is on the disk and the adapter that PEFT gives it."""
    from transformers import set_seed

    from steps.train.adapter import lora_config
    from steps.train.callbacks import BestAdapter, EvaluateAtEnd
    from steps.train.distributed.order import share
    from steps.train.distributed.parts import Parts
    from steps.train.divergence import DivergenceGuard
    from steps.train.trainer import ResumableTrainer

    training, blocks, ranks = task.training, task.blocks, task.ranks
    best = BestAdapter(training.early_stopping, recorder.course)
    guard = DivergenceGuard(training.divergence, recorder, blocks["train"], sharded=plan.sharded)
    set_seed(training.seed)  # before the adapter is made: its A matrices are random
    model = load_quantized(task.model_folder, task.device, in_memory=plan.sharded)
    return ResumableTrainer(
        recorder,
        best,
        guard,
        Parts(ranks, plan.sharded),
        model=model,
        args=sft_config(task, plan, working),
        train_dataset=blocks["train"],
        eval_dataset=share(blocks["validation"], ranks) if len(blocks["validation"]) else None,
        processing_class=load_tokenizer(task.tokenizer_folder),
        peft_config=lora_config(model, training.lora),
        callbacks=[EvaluateAtEnd(), recorder, best, guard],
    )


def _set_types(model: "PeftModel", device: Device) -> None:
    """TRL made the adapter bfloat16, which other arithmetic is not; nor can a norm's weight of 1.0 move in it."""
    from steps.train.adapter import trainable

    for name, parameter in trainable(model).items():
        if device.precision != "bfloat16" or ".lora_" not in name:
            parameter.data = parameter.data.float()


def _make_faster(trainer: "ResumableTrainer", task: Task, _: Plan) -> str:
    from steps.train.cpu.faster import make_faster

    packed = "seq_lengths" in task.blocks["train"].column_names
    return make_faster(trainer.adapted, packed=packed)


def _fuse(trainer: "ResumableTrainer", task: Task, plan: Plan) -> str:
    import torch

    from steps.train.graph.capture import CapturedStep
    from steps.train.kernels.fuse import fuse

    fusion = fuse(trainer.adapted, plan)
    if plan.captured:
        tokens, sequences = largest_batch(task.blocks["train"], plan.micro_batch)
        trainer.captured = CapturedStep(
            trainer.adapted,
            fusion,
            tokens=tokens,
            block=int(list_lengths(task.blocks["train"], "input_ids").max()),
            sequences=sequences,
            autocast=torch.bfloat16 if trainer.args.bf16 else None,
        )
    return str(fusion)


def largest_batch(blocks: Dataset, count: int) -> tuple[int, int]:
    """Tokens and sequences that no batch of ``count`` packed blocks exceeds, filled up to those tokens.

    What a batch has too few tokens is filled with sequences of up to a block's length.
    """
    lengths, packed = (sorted(list_lengths(blocks, column).tolist()) for column in ("input_ids", "seq_lengths"))
    block, taken = lengths[-1], min(count, len(blocks))
    tokens = block * taken
    filling = -(-(tokens - sum(lengths[:taken])) // block)
    return tokens, sum(packed[-taken:]) + filling


def sft_config(task: Task, plan: Plan, working: str) -> "SFTConfig":
    """TRL's configuration for the task by the plan; the data are tokenised and packed already."""
    from trl.trainer.sft_config import SFTConfig

    training, device = task.training, task.device
    on_cpu = device.kind == "cpu"
    return SFTConfig(
        output_dir=working,
        num_train_epochs=training.epochs,
        max_steps=training.max_steps or -1,
        per_device_train_batch_size=plan.micro_batch,
        per_device_eval_batch_size=plan.micro_batch,
        gradient_accumulation_steps=plan.accumulation,
        **_checkpointing(task, plan),
        **optimizer_arguments(training),
        bf16=device.precision == "bfloat16",
        fp16=device.precision == "float16",
        tf32=device.tf32,
        use_cpu=on_cpu,
        dataloader_pin_memory=not on_cpu,
        accelerator_config={"non_blocking": not on_cpu},  # else each batch waits for the GPU
        eval_strategy="steps" if len(task.blocks["validation"]) else "no",
        eval_steps=_steps_between_evaluations(training, len(task.blocks["train"])),
        save_strategy="no",
        logging_strategy="no",  # every log waits for the GPU; the guard takes the figures when they have arrived
        logging_nan_inf_filter=False,  # it would leave such batches out of the validation loss
        disable_tqdm=True,
        report_to="none",
        seed=training.seed,
        data_seed=training.seed,
        max_length=None,
        padding_free="seq_lengths" in task.blocks["train"].column_names,
        dataset_kwargs={"skip_prepare_dataset": True},
    )


def _steps_between_evaluations(training: TrainingParameters, blocks: int) -> int:
    """Optimiser steps between two measurements of the validation loss, for so many blocks of the training split."""
    if training.evaluations_per_epoch is None:
        return training.evaluate_every
    steps = math.ceil(math.ceil(blocks / training.batch_size) / training.gradient_accumulation)
    return max(1, steps // training.evaluations_per_epoch)


def _checkpointing(task: Task, plan: Plan) -> dict[str, Any]:
    """transformers' own; the kernels for GPUs recompute by themselves."""
    on = plan.recomputed_layers > 0 and not (plan.fused and task.device.kind == "cuda")
    return {
        "gradient_checkpointing": on,
        "gradient_checkpointing_kwargs": {"use_reentrant": False} if on else None,
    }
