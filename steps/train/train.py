"""Training the adapter: TRL's SFTTrainer on packed blocks and the stored 4-bit model."""

import resource
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from datasets import DatasetDict

from steps.errors import DataError, ModelError
from steps.files import require_space
from steps.provenance import read_provenance, write_provenance
from steps.quantize.device import Device, describe_device
from steps.quantize.load import load_quantized
from steps.tokenizer import load_tokenizer
from steps.train.params import TrainingParameters
from steps.train.report import TrainingReport

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import TrainerCallback
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    from steps.train.callbacks import BestAdapter, Recorder


def train_adapter(
    blocks: DatasetDict, model_folder: Path, tokenizer_folder: Path, training: TrainingParameters, output: Path
) -> TrainingReport:
    """Train LoRA weights and write the best ones, by validation loss, into ``output``.

    Args:
        blocks: splits train and validation with ``input_ids``, ``labels`` and, if packed, ``seq_lengths``.
        model_folder: the 4-bit model.
        tokenizer_folder: the tokenizer with its chat template; copied beside the adapter.
        training: what is learned.
        output: folder of the adapter, PEFT layout.

    Raises:
        DataError: there is no block to train on.
        ModelError: the model lacks a targeted layer, or training changed nothing.
    """
    from steps.train.adapter import digest, save_adapter, trainable
    from steps.train.callbacks import BestAdapter, Recorder

    if not len(blocks["train"]):
        raise DataError("the training split has no block; give more rows or a larger parameters.prompt.max_length")
    device = describe_device(training.precision, training.attention)
    recorder, best = Recorder(), BestAdapter(training.early_stopping)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="training-") as working:
        config = sft_config(training, device, blocks, working)
        trainer = _trainer(blocks, model_folder, tokenizer_folder, training, device, config, [recorder, best])
        model = cast("PeftModel", trainer.model)
        initial = digest(model)
        require_space(output, sum(weight.numel() * 4 for weight in trainable(model).values()), "the adapter")
        trainer.train()
    if best.weights:
        best.restore(model)
    if digest(model) == initial:
        raise ModelError(
            f"parameters.training: {len(recorder.steps)} optimiser steps left the adapter as it was; raise max_steps, "
            "epochs or learning_rate (the first step of a warm-up has a learning rate of 0)"
        )

    base = read_provenance(model_folder)["base_model"]
    save_adapter(model, str(base["hub"] or base["name"]), str(base["commit"]), output)
    load_tokenizer(tokenizer_folder).save_pretrained(output)
    write_provenance(output, base_model=base, training=training)
    course = Course(recorder, best, trainer.state.max_steps, initial, time.monotonic() - start)
    return _report(course, blocks, model, training, device)


def _trainer(
    blocks: DatasetDict,
    model_folder: Path,
    tokenizer_folder: Path,
    training: TrainingParameters,
    device: Device,
    config: "SFTConfig",
    callbacks: "list[TrainerCallback]",
) -> "SFTTrainer":
    from transformers import set_seed
    from transformers.trainer_callback import PrinterCallback
    from trl.trainer.sft_trainer import SFTTrainer

    from steps.train.adapter import lora_config, trainable

    set_seed(training.seed)  # before the adapter is made: its A matrices are random
    model = load_quantized(model_folder, device)
    trainer = SFTTrainer(
        model=model,
        args=config,
        train_dataset=blocks["train"],
        eval_dataset=blocks["validation"] if len(blocks["validation"]) else None,
        processing_class=load_tokenizer(tokenizer_folder),
        peft_config=lora_config(model, training.lora),
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)  # it prints every log as a dictionary; the progress line says it
    if device.precision != "bfloat16":
        for parameter in trainable(cast("PeftModel", trainer.model)).values():
            parameter.data = parameter.data.float()  # TRL made them bfloat16, which this arithmetic is not
    return trainer


def sft_config(training: TrainingParameters, device: Device, blocks: DatasetDict, working: str) -> "SFTConfig":
    """TRL's configuration for the parameters; the data are tokenised and packed already."""
    from trl.trainer.sft_config import SFTConfig

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
        learning_rate=training.learning_rate,
        lr_scheduler_type=training.schedule,
        warmup_steps=training.warmup_ratio,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        optim=training.optimizer,
        bf16=device.precision == "bfloat16",
        fp16=device.precision == "float16",
        tf32=device.tf32,
        use_cpu=on_cpu,
        dataloader_pin_memory=not on_cpu,
        eval_strategy="steps" if len(blocks["validation"]) else "no",
        eval_steps=training.evaluate_every,
        save_strategy="no",
        logging_steps=1,
        logging_first_step=True,
        disable_tqdm=True,
        report_to="none",
        seed=training.seed,
        data_seed=training.seed,
        max_length=None,
        padding_free="seq_lengths" in blocks["train"].column_names,
        dataset_kwargs={"skip_prepare_dataset": True},
    )


@dataclass(frozen=True)
class Course:
    """What the training's own objects know when it is over."""

    recorder: "Recorder"
    best: "BestAdapter"
    planned_steps: int
    initial_adapter: str
    seconds: float


def _report(
    course: Course, blocks: DatasetDict, model: "PeftModel", training: TrainingParameters, device: Device
) -> TrainingReport:
    done = course.recorder.steps[-1].step
    tokens = sum(map(len, blocks["train"]["input_ids"]))
    per_step = round(training.batch_size * training.gradient_accumulation * tokens / len(blocks["train"]))
    early = f"validation loss no longer fell after step {course.best.step}"
    trained, total = model.get_nb_trainable_parameters()
    return TrainingReport(
        steps=course.recorder.steps,
        validation=course.recorder.validation,
        best_step=course.best.step or done,
        stopped=early if course.best.stopped_early else "all steps done",
        planned_steps=course.planned_steps,
        blocks=len(blocks["train"]),
        tokens_per_step=per_step,
        trainable_parameters=trained,
        total_parameters=total,
        initial_adapter_sha256=course.initial_adapter,
        device=device.reason,
        seconds=course.seconds,
        tokens_per_second=done * per_step / course.seconds,
        peak_memory_bytes=_peak_memory(device),
        parameters=training.model_dump(mode="json"),
    )


def _peak_memory(device: Device) -> int:
    """Bytes: of the GPU, or the process's largest resident size on the CPU."""
    import torch

    if device.kind == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
