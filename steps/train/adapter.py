"""The LoRA adapter: configured for a model, fingerprinted and saved."""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from steps.errors import ModelError
from steps.train.params import LoraParameters

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedModel

KEY = "parameters.training.lora"

PEFT_INITIALIZATION: "dict[str, Literal[True, 'gaussian', 'eva']]" = {
    "default": True,
    "gaussian": "gaussian",
    "eva": "eva",
    "loftq": True,  # PEFT's own would quantise a second time
}


def lora_config(model: "PreTrainedModel", lora: LoraParameters) -> "LoraConfig":
    """PEFT's configuration for the parameters.

    LoftQ starts like the default: :func:`steps.train.initialization.initialize` sets its weights later.

    Raises:
        ModelError: the model has no such layer, module or bias; the message lists what it has.
    """
    from peft import EvaConfig, LoraConfig

    targets = _targets(model, lora.target_modules)
    whole = _whole_modules(model, lora.modules_to_save)
    if lora.bias != "none":
        _require_biases(model, targets if lora.bias == "lora_only" else None)
    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # PEFT says int and divides
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules),
        bias=lora.bias,
        modules_to_save=whole or None,
        use_rslora=lora.rslora,
        use_dora=lora.dora,
        eva_config=EvaConfig() if lora.initialization == "eva" else None,
        init_lora_weights=PEFT_INITIALIZATION[lora.initialization],
        task_type="CAUSAL_LM",
    )


def _linear(model: "PreTrainedModel") -> dict[str, "torch.nn.Module"]:
    """Linear layers that can have an adapter by their full names."""
    import torch

    output = model.get_output_embeddings()  # type: ignore[no-untyped-call]  # transformers has no types there
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not output
    }


def _targets(model: "PreTrainedModel", targets: tuple[str, ...] | str) -> list[str]:
    """Full names of the layers that get an adapter."""
    linear, every = _linear(model), [name for name, _ in model.named_modules()]
    if targets == "all-linear":
        return list(linear)
    if isinstance(targets, str):
        found = {targets: [name for name in every if re.fullmatch(targets, name)]}
    else:
        found = {target: [name for name in every if _ends_with(name, target)] for target in targets}
    missing = [target for target, names in found.items() if not names]
    matched = [name for names in found.values() for name in names]
    wrong = [name for name in matched if name not in linear]
    if missing or wrong:
        what = f"has no linear layer {', '.join(missing)}" if missing else f"cannot have an adapter on {_names(wrong)}"
        raise ModelError(f"{KEY}.target_modules: {type(model).__name__} {what}; it has {_names(linear)}")
    return matched


def _whole_modules(model: "PreTrainedModel", wanted: Iterable[str]) -> list[str]:
    """Full names of the modules to save: by ``norm`` alone PEFT would take ``input_layernorm`` too."""
    linear = _linear(model)
    own = {
        name: module
        for name, module in model.named_modules()
        if name not in linear and next(module.parameters(recurse=False), None) is not None
    }
    found = {one: [name for name in own if _ends_with(name, one)] for one in wanted}
    missing = [one for one, names in found.items() if not names]
    if missing:
        raise ModelError(
            f"{KEY}.modules_to_save: {type(model).__name__} has no module {', '.join(missing)} that can be trained as "
            f"a whole; it has {_names(own)} (linear layers get an adapter by target_modules)"
        )
    matched = [name for names in found.values() for name in names]
    output = model.get_output_embeddings()  # type: ignore[no-untyped-call]  # transformers has no types there
    tied = [name for name in matched if own[name] in (model.get_input_embeddings(), output)]
    if tied and model.config.get_text_config().tie_word_embeddings:
        raise ModelError(
            f"{KEY}.modules_to_save: {_names(tied)} of {type(model).__name__} is one weight with the other end of the "
            "model, which training it as a whole would split in two; remove it"
        )
    return matched


def _require_biases(model: "PreTrainedModel", targets: list[str] | None) -> None:
    """Some bias to train there must be: of ``targets``, or anywhere."""
    biases = [name for name, _ in model.named_parameters() if name.endswith(".bias")]
    wanted = biases if targets is None else [name for name in biases if name.removesuffix(".bias") in targets]
    if not wanted:
        has = f"it has some in {_names(name.removesuffix('.bias') for name in biases)}" if biases else "it has none"
        raise ModelError(f"{KEY}.bias: {type(model).__name__} has no bias to train there; {has}")


def _ends_with(name: str, wanted: str) -> bool:
    return name == wanted or name.endswith(f".{wanted}")


def _last(name: str) -> str:
    return name.rsplit(".", 1)[-1]


def _names(modules: Iterable[str]) -> str:
    return ", ".join(sorted({_last(name) for name in modules}))


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
    (output / "README.md").unlink(missing_ok=True)  # PEFT's card, all placeholders; card.py writes ours
