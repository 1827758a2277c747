"""Training the adapter: TRL's SFTTrainer on packed blocks and the stored 4-bit model."""

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from datasets import DatasetDict

from steps.device import describe_device
from steps.distributed.machine import Machine
from steps.errors import DataError, ModelError, TrainingError
from steps.files import require_space
from steps.provenance import read_provenance, write_provenance
from steps.quantize.params import QuantizationParameters
from steps.resolve.locks import ModelLock
from steps.scratch import scratch
from steps.tokenizer import generation_config, load_tokenizer
from steps.train.account import Trained
from steps.train.build import Task, without_padding
from steps.train.checkpoint import Checkpoints
from steps.train.distributed.launch import processes_of, train_by_processes
from steps.train.distributed.ranks import ALONE, Ranks
from steps.train.distributed.task import LeftPlan, SharedTask
from steps.train.params import CheckpointParameters, TrainingParameters
from steps.train.plan.params import PlanParameters
from steps.train.plan.plan import Plan
from steps.train.report import TrainingReport
from steps.train.stepdown import next_plan, step_down
from steps.train.tracking import OnMetrics, nowhere

if TYPE_CHECKING:
    from peft import PeftModel


def train_adapter(
    blocks: DatasetDict,
    model_folder: Path,
    tokenizer_folder: Path,
    training: TrainingParameters,
    output: Path,
    checkpoints: Checkpoints | None = None,
    on_metrics: OnMetrics = nowhere,
    plan: PlanParameters | None = None,
) -> TrainingReport:
    """Train LoRA weights and write the best ones, by validation loss, into ``output``.

    Killed and called again with the same arguments, it goes on from the newest checkpoint. The last checkpoint is
    left for the caller to remove (:meth:`Checkpoints.remove`) when ``output`` is where it belongs.

    Args:
        blocks: splits train and validation with ``input_ids``, ``labels`` and, if packed, ``seq_lengths``.
        model_folder: the 4-bit model.
        tokenizer_folder: the tokenizer with its chat template; copied beside the adapter.
        training: what is learned.
        output: folder of the adapter, PEFT layout.
        checkpoints: where the state is kept; with none, a folder that ends with the call, and nothing resumes.
        on_metrics: is told of every optimiser step's figures and of every validation loss; when work is resumed, of
            those before it first.
        plan: what may be used of the device; with none, all that is free.

    Raises:
        ConfigError, DeviceError: no plan is as ``plan`` wants it, or fits.
        DataError: there is no block to train on, or blocks train no token or no end token.
        ModelError: the model lacks a targeted layer, or training changed nothing.
        TrainingError: the pre-flight failed, the training diverged, a SIGTERM or Ctrl-C stopped it, one of several
            processes was killed, or another process is doing it.
    """
    from steps.train.preemption import signals_noted

    if not len(blocks["train"]):
        raise DataError("the training split has no block; give more rows or a larger parameters.prompt.max_length")
    wanted, machine = plan or PlanParameters(), Machine.here()
    processes = processes_of(wanted, training.batch_size * training.gradient_accumulation, machine)
    with scratch("training") as working:
        store = checkpoints or Checkpoints(working, "checkpoints", CheckpointParameters())
        shared = SharedTask(
            model_folder=model_folder,
            tokenizer_folder=tokenizer_folder,
            training=training,
            plan=wanted,
            output=output,
            checkpoint_root=store.folder.parent,
            work=store.folder.name,
            checkpoints=store.parameters,
            processes=processes,
        )
        with store.held():
            if processes == 1:
                return train_share(shared, blocks, ALONE, on_metrics)
            with signals_noted() as asked_to_go:
                return train_by_processes(shared, blocks, working, machine, asked_to_go, on_metrics)


def train_share(shared: SharedTask, blocks: DatasetDict, ranks: Ranks, on_metrics: OnMetrics) -> TrainingReport:
    """One process's share of a training, all of it where it is alone; the first process writes the adapter.

    Raises:
        LeavePlan: memory was short or kernels failed in one of several processes, and there is another plan.
        Others as above.
    """
    from steps.train.account import report_of
    from steps.train.planning import memory_limit, planned
    from steps.train.preemption import signals_noted

    with signals_noted() as asked_to_go:
        device = describe_device(shared.training.precision, shared.training.attention)
        if device.attention == "flash_attention_2":
            blocks = without_padding(blocks)
        task = Task(blocks, shared.model_folder, shared.tokenizer_folder, shared.training, device, ranks)
        options = planned(task, shared.plan)

        def train(plan: Plan, left: list[LeftPlan]) -> Trained:
            return _train(task, plan, left, shared, asked_to_go, on_metrics)

        with memory_limit(shared.plan, device):
            if ranks.alone:
                trained = step_down(options.plans, options.without_kernels, options.fits, train)
            else:
                trained = next_plan(options.plans, options.without_kernels, shared.left, train)
        if ranks.first:
            _write(trained.model, task, shared.output)
        return report_of(task, trained, options.choices(trained.plan))


def _train(
    task: Task,
    plan: Plan,
    left: list[LeftPlan],
    shared: SharedTask,
    asked_to_go: threading.Event,
    on_metrics: OnMetrics,
) -> Trained:
    """Train by one plan, from the newest checkpoint where there is one; the model has the best weights then."""
    from steps.train.adapter import digest, trainable
    from steps.train.build import build_trainer
    from steps.train.callbacks import Recorder
    from steps.train.distributed.shard import gather_adapter
    from steps.train.preemption import CheckpointSchedule
    from steps.train.rehearsal import Rehearsal

    store, recorder = shared.store(), Recorder(on_metrics, on_gpu=task.device.kind == "cuda")
    trainer = build_trainer(task, plan, recorder, str(store.folder))
    rehearsal = Rehearsal(trainer, task.blocks, store)
    trainer.add_callback(CheckpointSchedule(store.parameters, asked_to_go, task.ranks))
    trainer.add_callback(rehearsal)
    model, course = trainer.adapted, trainer.course
    require_space(shared.output, sum(weight.numel() * 4 for weight in trainable(model).values()), "the adapter")
    trainer.run(store)
    trainer.sum_up()
    if not course.finished:
        raise TrainingError(
            f"{store.folder}: training stopped after step {course.last_step} of {course.planned_steps}, since the "
            "process was asked to end (SIGTERM or Ctrl-C); run the same pipeline again to go on from there"
        )
    trainer.best.restore(model)
    if plan.sharded:
        gather_adapter(model)
    if digest(model) == trainer.initial:
        raise ModelError(
            f"parameters.training: {len(course.steps)} optimiser steps left the adapter as it was; raise max_steps, "
            "epochs or learning_rate (the first step of a warm-up has a learning rate of 0)"
        )
    kernels = trainer.kernels + (f"; {trainer.captured}" if trainer.captured else "")
    return Trained(model, course, trainer.initial, trainer.parameters, plan, kernels, left, rehearsal.seconds)


def _write(model: "PeftModel", task: Task, output: Path) -> None:
    """The adapter with its tokenizer, the way it generates, and where it comes from."""
    from steps.train.adapter import save_adapter
    from steps.train.card import write_adapter_card

    stored, training = read_provenance(task.model_folder), task.training
    base = stored["base_model"]
    save_adapter(model, str(base["hub"] or base["name"]), str(base["commit"]), output)
    tokenizer = load_tokenizer(task.tokenizer_folder)
    tokenizer.save_pretrained(output)
    generation_config(tokenizer).save_pretrained(output)
    write_provenance(output, base_model=base, quantization=stored["quantization"], training=training)
    quantization = QuantizationParameters.model_validate(stored["quantization"])
    write_adapter_card(output, ModelLock.model_validate(base), quantization, training)
