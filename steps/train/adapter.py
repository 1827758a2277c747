"""The LoRA adapter: made, kept at its best, and saved."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from steps.errors import ModelError
from steps.train.params import LoraParameters

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedModel


def lora_config(model: "PreTrainedModel", lora: LoraParameters) -> "LoraConfig":
    """PEFT's configuration for the parameters.

    Raises:
        ModelError: a target names no linear layer of the model; lists those that it has.
    """
    import torch
    from peft import LoraConfig

    linear = {name.rsplit(".", 1)[-1] for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    missing = [name for name in lora.target_modules if name not in linear]
    if missing:
        raise ModelError(
            f"parameters.training.lora.target_modules: {type(model).__name__} has no linear layer "
            f"{', '.join(missing)}; it has {', '.join(sorted(linear))}"
        )
    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # PEFT says int and divides
        lora_dropout=lora.dropout,
        target_modules=list(lora.target_modules),
        bias="none",
        task_type="CAUSAL_LM",
    )


def trainable(model: "torch.nn.Module") -> dict[str, "torch.nn.Parameter"]:
    """The adapter's weights by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def digest(model: "torch.nn.Module") -> str:
    """SHA-256 of the adapter's weights, for the record of how it started."""
    result = hashlib.sha256()
    for name, parameter in sorted(trainable(model).items()):
        result.update(name.encode())
        result.update(parameter.detach().float().cpu().numpy().tobytes())
    return result.hexdigest()


def save_adapter(model: "PeftModel", base_name: str, base_commit: str, output: Path) -> None:
    """Write the adapter in PEFT's layout, naming the base model by id and commit rather than by a local path."""
    config = model.peft_config["default"]
    config.base_model_name_or_path = base_name
    config.revision = base_commit or None
    for name, value in list(vars(config).items()):
        if isinstance(value, set):
            setattr(config, name, sorted(value))  # a set's order, in which PEFT writes it, changes with the process
    model.save_pretrained(str(output), save_embedding_layers=False)
    (output / "README.md").unlink(missing_ok=True)  # PEFT's card template, all placeholders
