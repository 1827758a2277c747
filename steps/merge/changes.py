"""What adapters do to each tensor of a base model, and the arithmetic of it."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from steps.errors import ModelError
from steps.merge.layout import Layout
from steps.merge.tensors import StoredTensor

if TYPE_CHECKING:
    from peft import LoraConfig
    from torch import Tensor

PREFIX = "base_model.model."
PARTS = re.compile(r"(.+)\.(lora_A\.weight|lora_B\.weight|lora_embedding_[AB]|lora_magnitude_vector(?:\.weight)?)")
LEAVES_BASE = (True, False, "gaussian", "eva", "orthogonal")
"""PEFT's initialisations after which the base weights are as they were; PiSSA's, for one, are not."""

Rows = Callable[["Tensor", "Tensor", int], "Tensor"]
"""New rows of a weight from the rows so far, the base model's and the first one's number; all float32."""


@dataclass(frozen=True)
class Whole:
    """A weight that the adapter holds whole (modules_to_save, a trained bias) and that replaces the base's."""

    path: Path
    key: str

    def rows(self, device: str) -> Rows:
        """The trained rows, whatever was there."""
        from safetensors import safe_open

        def apply(weight: "Tensor", base: "Tensor", start: int) -> "Tensor":
            with safe_open(self.path, framework="pt") as tensors:
                trained: Tensor = tensors.get_slice(self.key)[start : start + len(weight)]
            return trained.to(device).float()

        return apply


@dataclass(frozen=True)
class LowRank:
    """A weight to which scale x B A is added (LoRA), its magnitudes then set where the adapter has some (DoRA)."""

    path: Path
    a: str
    b: str
    scale: float
    transposed: bool  # the weight is stored as inputs x outputs
    magnitude: str | None

    @property
    def needs_all_rows(self) -> bool:
        """Whether rows of the weight depend on each other."""
        return self.transposed and self.magnitude is not None

    def rows(self, device: str) -> Rows:
        """PEFT's formula in float32: what ``Linear.merge`` and ``DoraLinearVariant`` do, rounded once at the end."""
        import torch
        from safetensors import safe_open

        with safe_open(self.path, framework="pt") as tensors:
            a, b = (tensors.get_tensor(key).to(device).float() for key in (self.a, self.b))
            magnitude = tensors.get_tensor(self.magnitude).to(device).float() if self.magnitude else None

        def apply(weight: "Tensor", base: "Tensor", start: int) -> "Tensor":
            rows = slice(start, start + len(weight))
            left, right = (a[:, rows].T, b.T) if self.transposed else (b[rows], a)
            if magnitude is None:
                return weight.addmm_(left, right, alpha=self.scale)
            trained = base.addmm(left, right, alpha=self.scale)  # of the base's weights, whatever was merged before
            norms = torch.linalg.norm(trained, dim=0 if self.transposed else 1)  # of every output
            scales = magnitude / norms if self.transposed else (magnitude[rows] / norms)[:, None]
            return weight.addmm_(left, right, alpha=self.scale).mul_(scales)

        return apply


Change = Whole | LowRank


def changes_of(adapters: Iterable[Path], layout: Layout, stored: dict[str, StoredTensor]) -> dict[str, list[Change]]:
    """What the adapters, in their order, do to each tensor of the checkpoint.

    Args:
        adapters: folders in PEFT's layout.
        layout: the base model's.
        stored: its tensors by name.

    Raises:
        ModelError: an adapter is no LoRA adapter on this base model, or is of a kind that cannot be merged.
    """
    changes: dict[str, list[Change]] = {}
    for adapter in adapters:
        for parameter, change in _changes(adapter, layout):
            name = _tensor(adapter, parameter, layout)
            _require_shape(adapter, change, stored[name])
            changes.setdefault(name, []).append(change)
    return changes


def _changes(adapter: Path, layout: Layout) -> list[tuple[str, Change]]:
    """Parameters and what happens to them; a whole weight comes before what is added to it."""
    from safetensors import safe_open

    config, path = _config(adapter), adapter / "adapter_model.safetensors"
    if not path.is_file():
        raise ModelError(f"{path}: the adapter's weights are not there; give a folder in PEFT's layout, safetensors")
    whole: dict[str, Change] = {}
    parts: dict[str, dict[str, str]] = {}
    with safe_open(path, framework="pt") as tensors:
        keys = sorted(tensors.keys())
    for key in keys:
        name = key.removeprefix(PREFIX)
        found = PARTS.fullmatch(name)
        if found:
            parts.setdefault(found[1], {})[found[2].removesuffix(".weight").removeprefix("lora_")] = key
        elif not key.startswith(PREFIX) or ".lora_" in name or "trainable_tokens" in name:
            raise ModelError(f"{path}: {key} is a kind of adapter weight that cannot be merged; retrain without it")
        elif ".original_module." not in name:  # the base's own bias beside a trained one, where PEFT stores all biases
            whole[name.replace(".base_layer.", ".").replace(".modules_to_save.", ".")] = Whole(path, key)
    low_rank = [(f"{module}.weight", _low_rank(path, module, found, config, layout)) for module, found in parts.items()]
    return [*whole.items(), *low_rank]


def _config(adapter: Path) -> "LoraConfig":
    from peft import LoraConfig, PeftConfig

    try:
        config = PeftConfig.from_pretrained(str(adapter))
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"{adapter}: no adapter_config.json that PEFT can read ({error})") from error
    if not isinstance(config, LoraConfig):
        raise ModelError(f"{adapter}: an adapter of type {config.peft_type}; only LoRA adapters merge")
    if config.init_lora_weights not in LEAVES_BASE:
        raise ModelError(
            f"{adapter}: its initialisation, {config.init_lora_weights}, changed the base weights; convert it first "
            "(PEFT: save_pretrained with path_initial_model_for_weight_conversion)"
        )
    return config


def _low_rank(path: Path, module: str, found: dict[str, str], config: "LoraConfig", layout: Layout) -> LowRank:
    from peft.utils.other import get_pattern_key
    from safetensors import safe_open

    side = "embedding_" if "embedding_A" in found else ""
    a, b, magnitude = found.get(f"{side}A"), found.get(f"{side}B"), found.get("magnitude_vector")
    if a is None or b is None or (side and magnitude):
        what = "a DoRA adapter on an embedding" if a and b else "only one of A and B"
        raise ModelError(f"{path}: {module} has {what}, which cannot be merged")
    with safe_open(path, framework="pt") as tensors:
        rank = tensors.get_slice(a).get_shape()[0]
    alphas: dict[str, float] = config.alpha_pattern or {}
    alpha = alphas.get(get_pattern_key(list(alphas), module), config.lora_alpha)
    scale = alpha / (rank**0.5 if config.use_rslora else rank)
    return LowRank(path, a, b, scale, module in layout.transposed, magnitude)


def _tensor(adapter: Path, parameter: str, layout: Layout) -> str:
    """The tensor that holds a parameter, and nothing else."""
    if parameter in layout.tied:
        raise ModelError(
            f"{adapter}: {parameter} is one weight with {layout.tied[parameter]} in {layout.architecture}, which "
            "a merge would change too; train an adapter without it, or untie the base model"
        )
    if parameter in layout.converted:
        raise ModelError(
            f"{adapter}: transformers computes {parameter} of {layout.architecture} from other tensors of the "
            "checkpoint; save the base model as it is in memory (save_original_format=False) and merge into that"
        )
    if parameter not in layout.tensors:
        raise ModelError(
            f"{adapter}: it trained {parameter}, and the base model ({layout.architecture}) has no such tensor; they "
            "do not belong together"
        )
    return layout.tensors[parameter]


def _require_shape(adapter: Path, change: Change, tensor: StoredTensor) -> None:
    from safetensors import safe_open

    with safe_open(change.path, framework="pt") as tensors:
        if isinstance(change, Whole):
            shape = tuple(tensors.get_slice(change.key).get_shape())
        else:
            shape = (tensors.get_slice(change.b).get_shape()[0], tensors.get_slice(change.a).get_shape()[1])
            shape = shape[::-1] if change.transposed else shape
    if shape != tensor.shape:
        raise ModelError(
            f"{adapter}: the adapter's {tensor.name} is {_times(shape)} and the base model's {_times(tensor.shape)} "
            "(another vocabulary or size); they do not belong together"
        )


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
