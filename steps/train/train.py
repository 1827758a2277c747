"""Training the adapter: TRL's SFTTrainer on packed blocks and the stored 4-bit model."""

import resource
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import DatasetDict

from steps.errors import DataError
from steps.files import require_space
from steps.format.tokenizer import load_tokenizer
from steps.provenance import read_provenance, write_provenance
from steps.quantize.device import Device, describe_device
from steps.quantize.load import load_quantized
from steps.train.params import TrainingParameters
from steps.train.report import TrainingReport

if TYPE_CHECKING:
    from trl import SFTConfig, SFTTrainer


def train_adapter(
    blocks: DatasetDict,
    model_folder: Path,
    tokenizer_folder: Path,
    training: TrainingParameters,
    output: Path,
) -> TrainingReport:
    """Train LoRA weights and write the best ones, by validation loss, into ``output``.

    Args:
        blocks: splits train and validation with ``input_ids``, ``labels`` and, if packed, ``seq_lengths``.
        model_folder: the 4-bit model.
        tokenizer_folder: the tokenizer with its chat template; copied beside the adapter.
        training: what is learned.
        output: folder of the adapter, PEFT layout.
    """
    from transformers import set_seed
    from trl import SFTTrainer

    from steps.train.adapter import digest, lora_config, save_adapter, trainable
    from steps.train.callbacks import BestAdapter, Recorder

    if not len(blocks["train"]):
        raise DataError("the training split has no block; give more rows or a larger parameters.prompt.max_length")
    device = describe_device(training.precision, training.attention)
    set_seed(training.seed)  # before the adapter is made: its A matrices are random
    model = load_quantized(model_folder, device)
    tokenizer = load_tokenizer(tokenizer_folder)
    recorder, best = Recorder(), BestAdapter(training.early_stopping)
    validation = blocks["validation"] if len(blocks["validation"]) else None
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="training-") as working:
        trainer = SFTTrainer(
            model=model,
            args=sft_config(training, device, blocks, working),
            train_dataset=blocks["train"],
            eval_dataset=validation,
            processing_class=tokenizer,
            peft_config=lora_config(model, training.lora),
            callbacks=[recorder, best],
        )
        _silence(trainer)
        if device.precision != "bfloat16":
            for parameter in trainable(trainer.model).values():
                parameter.data = parameter.data.float()  # TRL made them bfloat16, which this arithmetic is not
        initial = digest(trainer.model)
        require_space(output, _bytes(trainable(trainer.model).values()), "the adapter")
        trainer.train()
    if validation is not None and best.weights:
        best.restore(trainer.model)
    seconds = time.monotonic() - start

    base = read_provenance(model_folder)["base_model"]
    save_adapter(trainer.model, str(base["hub"] or base["name"]), str(base["commit"]), output)
    tokenizer.save_pretrained(output)
    write_provenance(output, base_model=base, training=training)
    done = recorder.steps[-1].step
    planned = trainer.state.max_steps
    stopped = f"validation loss no longer fell after step {best.step}" if best.stopped_early else "all steps done"
    block_tokens = sum(map(len, blocks["train"]["input_ids"])) / len(blocks["train"])
    per_step = round(training.batch_size * training.gradient_accumulation * block_tokens)
    return TrainingReport(
        steps=recorder.steps,
        validation=recorder.validation,
        best_step=best.step or done,
        stopped=stopped,
        planned_steps=planned,
        blocks=len(blocks["train"]),
        tokens_per_step=per_step,
        trainable_parameters=sum(parameter.numel() for parameter in trainable(trainer.model).values()),
        total_parameters=trainer.model.num_parameters(),
        initial_adapter_sha256=initial,
        device=device.reason,
        seconds=seconds,
        tokens_per_second=done * per_step / seconds,
        peak_memory_bytes=_peak_memory(device),
        parameters=training.model_dump(mode="json"),
    )


def sft_config(training: TrainingParameters, device: Device, blocks: DatasetDict, working: str) -> "SFTConfig":
    """TRL's configuration for the parameters; the data are tokenised and packed already."""
    from trl import SFTConfig

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


def _silence(trainer: "SFTTrainer") -> None:
    """Remove the callback that prints every log as a dictionary: the progress line says it."""
    from transformers.trainer_callback import PrinterCallback

    trainer.remove_callback(PrinterCallback)


def _bytes(tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _peak_memory(device: Device) -> int:
    """Bytes: of the GPU, or the process's largest resident size on the CPU."""
    import torch

    if device.kind == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
