"""Training the adapter: TRL's SFTTrainer on packed blocks and the stored 4-bit model."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, cast

from datasets import DatasetDict

from steps.errors import DataError, ModelError, TrainingError
from steps.files import require_space
from steps.provenance import read_provenance, write_provenance
from steps.quantize.device import Device, describe_device
from steps.quantize.load import load_quantized
from steps.tokenizer import generation_config, load_tokenizer
from steps.train.checkpoint import Checkpoints
from steps.train.optimizer import loraplus_optimizer, optimizer_arguments
from steps.train.params import CheckpointParameters, TrainingParameters
from steps.train.report import TrainingReport
from steps.train.tracking import OnMetrics, nowhere

if TYPE_CHECKING:
    from peft import PeftModel
    from trl.trainer.sft_config import SFTConfig

    from steps.train.callbacks import Recorder
    from steps.train.course import Course
    from steps.train.trainer import ResumableTrainer


def train_adapter(
    blocks: DatasetDict,
    model_folder: Path,
    tokenizer_folder: Path,
    training: TrainingParameters,
    output: Path,
    checkpoints: Checkpoints | None = None,
    on_metrics: OnMetrics = nowhere,
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

    Raises:
        DataError: there is no block to train on, or blocks train no token or no end token.
        ModelError: the model lacks a targeted layer, or training changed nothing.
        TrainingError: the pre-flight failed, the training diverged, a SIGTERM stopped it, or another process is
            doing it.
    """
    from steps.train.account import report_of
    from steps.train.adapter import digest, trainable
    from steps.train.callbacks import Recorder
    from steps.train.course import Course
    from steps.train.meter import Meter
    from steps.train.preemption import CheckpointSchedule, sigterm_noted
    from steps.train.rehearsal import Rehearsal

    if not len(blocks["train"]):
        raise DataError("the training split has no block; give more rows or a larger parameters.prompt.max_length")
    device = describe_device(training.precision, training.attention)
    course = Course()
    recorder = Recorder(course, Meter(course, device.kind == "cuda"), on_metrics)
    with tempfile.TemporaryDirectory(prefix="training-") as working:
        store = checkpoints or Checkpoints(Path(working), "checkpoints", CheckpointParameters())
        with store.held(), sigterm_noted() as asked_to_go:
            config = sft_config(training, device, blocks, working)
            trainer = _trainer(blocks, model_folder, tokenizer_folder, training, device, config, recorder)
            rehearsal = Rehearsal(trainer, blocks, store)
            trainer.add_callback(CheckpointSchedule(store.parameters, asked_to_go))
            trainer.add_callback(rehearsal)
            model = cast("PeftModel", trainer.model)
            initial = digest(model)
            require_space(output, sum(weight.numel() * 4 for weight in trainable(model).values()), "the adapter")
            trainer.run(store)
            recorder.meter.update(wait=True)
            _require_end(course, store)
    trainer.best.restore(model)
    if digest(model) == initial:
        raise ModelError(
            f"parameters.training: {len(course.steps)} optimiser steps left the adapter as it was; raise max_steps, "
            "epochs or learning_rate (the first step of a warm-up has a learning rate of 0)"
        )

    _write(model, model_folder, tokenizer_folder, training, output)
    return report_of(course, initial, blocks["train"], model, training, device, rehearsal.seconds)


def _write(
    model: "PeftModel", model_folder: Path, tokenizer_folder: Path, training: TrainingParameters, output: Path
) -> None:
    """The adapter with its tokenizer, the way it generates, and where it comes from."""
    from steps.train.adapter import save_adapter

    stored = read_provenance(model_folder)
    base = stored["base_model"]
    save_adapter(model, str(base["hub"] or base["name"]), str(base["commit"]), output)
    tokenizer = load_tokenizer(tokenizer_folder)
    tokenizer.save_pretrained(output)
    generation_config(tokenizer).save_pretrained(output)
    write_provenance(output, base_model=base, quantization=stored["quantization"], training=training)


def _require_end(course: "Course", checkpoints: Checkpoints) -> None:
    if not course.finished:
        raise TrainingError(
            f"{checkpoints.folder}: training stopped after step {course.last_step} of {course.planned_steps}, since "
            "the process was asked to end (SIGTERM); run the same pipeline again to go on from there"
        )


def _trainer(
    blocks: DatasetDict,
    model_folder: Path,
    tokenizer_folder: Path,
    training: TrainingParameters,
    device: Device,
    config: "SFTConfig",
    recorder: "Recorder",
) -> "ResumableTrainer":
    from transformers import set_seed
    from transformers.trainer_callback import PrinterCallback

    from steps.train.adapter import lora_config, trainable
    from steps.train.callbacks import BestAdapter
    from steps.train.divergence import DivergenceGuard
    from steps.train.evaluation import EvaluateAtEnd
    from steps.train.initialization import initialize
    from steps.train.trainer import ResumableTrainer

    best = BestAdapter(training.early_stopping, recorder.course)
    guard = DivergenceGuard(training.divergence, recorder.course, blocks["train"])

    set_seed(training.seed)  # before the adapter is made: its A matrices are random
    model = load_quantized(model_folder, device)
    trainer = ResumableTrainer(
        recorder,
        best,
        guard,
        model=model,
        args=config,
        train_dataset=blocks["train"],
        eval_dataset=blocks["validation"] if len(blocks["validation"]) else None,
        processing_class=load_tokenizer(tokenizer_folder),
        peft_config=lora_config(model, training.lora),
        callbacks=[EvaluateAtEnd(), recorder, best, guard],
    )
    initialize(trainer, training, read_provenance(model_folder)["base_model"])
    trainer.remove_callback(PrinterCallback)  # it prints every log as a dictionary; the progress line says it
    for name, parameter in trainable(cast("PeftModel", trainer.model)).items():
        # TRL made them bfloat16, which other arithmetic is not; nor can a norm's weight of 1.0 move in it by a step
        if device.precision != "bfloat16" or ".lora_" not in name:
            parameter.data = parameter.data.float()
    if training.lora.loraplus_lr_ratio is not None:
        trainer.optimizer = loraplus_optimizer(trainer, training, training.lora.loraplus_lr_ratio)
    return trainer


def sft_config(training: TrainingParameters, device: Device, blocks: DatasetDict, working: str) -> "SFTConfig":
    """TRL's configuration for the parameters; the data are tokenised and packed already."""
    from trl.trainer.sft_config import SFTConfig

    from steps.train.evaluation import steps_between

    on_cpu = device.kind == "cpu"
    return SFTConfig(
        output_dir=working,
        num_train_epochs=training.epochs,
        max_steps=training.max_steps or -1,
        per_device_train_batch_size=training.batch_size,
        per_device_eval_batch_size=training.batch_size,
        gradient_accumulation_steps=training.gradient_accumulation,
        gradient_checkpointing=training.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False} if training.gradient_checkpointing else None,
        **optimizer_arguments(training),
        bf16=device.precision == "bfloat16",
        fp16=device.precision == "float16",
        tf32=device.tf32,
        use_cpu=on_cpu,
        dataloader_pin_memory=not on_cpu,
        eval_strategy="steps" if len(blocks["validation"]) else "no",
        eval_steps=steps_between(training, len(blocks["train"])),
        save_strategy="no",
        logging_steps=1,
        logging_first_step=True,
        logging_nan_inf_filter=False,  # it would leave such batches out of the validation loss
        disable_tqdm=True,
        report_to="none",
        seed=training.seed,
        data_seed=training.seed,
        max_length=None,
        padding_free="seq_lengths" in blocks["train"].column_names,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
