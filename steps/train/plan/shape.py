"""What a plan must know of a model: the sizes of its layers, without their weights."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steps.quantize.params import FOUR_BITS, QuantizationParameters
from steps.train.params import LoraParameters

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel
    from transformers.pytorch_utils import Conv1D

QUANTISATION_BLOCK, SECOND_BLOCK = 64, 256
"""Weights that share a quantisation constant, and constants that share one of their own (bitsandbytes' defaults)."""
ATTENTION = ("q_proj", "k_proj", "v_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
SIBLINGS = (ATTENTION, MLP[:2])
"""Children of one module that read the same input."""


@dataclass(frozen=True)
class Linear:
    """One linear layer inside the decoder."""

    name: str  # in full, as in the model
    inputs: int
    outputs: int
    bias: bool = False

    @property
    def child(self) -> str:
        """Its name within its module, such as ``q_proj``."""
        return self.name.rsplit(".", 1)[-1]

    @property
    def weights(self) -> int:
        """Number of its weights, without the bias."""
        return self.inputs * self.outputs


@dataclass(frozen=True)
class ModelShape:
    """Sizes in numbers, not bytes, unless a name says otherwise."""

    layers: int
    hidden: int
    inner: int  # width of the MLP
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    linear: tuple[Linear, ...]  # of all decoder layers
    other: int  # parameters that are not quantised: embedding, output layer, norms, biases
    swiglu: bool  # whether the MLPs have gate, up and down and the activation is SiLU

    @cached_property
    def linear_weights(self) -> int:
        """Weights of the decoder's linear layers."""
        return sum(layer.weights for layer in self.linear)

    @cached_property
    def largest(self) -> int:
        """Weights of the largest linear layer."""
        return max((layer.weights for layer in self.linear), default=0)

    @property
    def output_weights(self) -> int:
        """Weights of the output layer."""
        return self.vocabulary * self.hidden

    def targeted(self, lora: LoraParameters) -> list[Linear]:
        """The layers that get an adapter."""
        if lora.target_modules == "all-linear":
            return list(self.linear)
        if isinstance(lora.target_modules, str):
            return [one for one in self.linear if re.fullmatch(lora.target_modules, one.name)]
        names = lora.target_modules
        return [one for one in self.linear if any(f".{one.name}".endswith(f".{name}") for name in names)]

    def absent(self, lora: LoraParameters) -> list[str]:
        """Those of ``lora.target_modules`` that no layer is called."""
        names = lora.target_modules
        if isinstance(names, str):
            return [] if self.targeted(lora) else [names]
        return [name for name in names if not self.targeted(lora.model_copy(update={"target_modules": (name,)}))]

    def lora_parameters(self, lora: LoraParameters) -> int:
        """Parameters of A and B, and of DoRA's magnitudes."""
        targeted = self.targeted(lora)
        magnitudes = sum(one.outputs for one in targeted) if lora.dora else 0
        return lora.r * sum(one.inputs + one.outputs for one in targeted) + magnitudes

    def saved_parameters(self, lora: LoraParameters) -> int:
        """Parameters of the modules trained as a whole, embedding and output layer; others are too small to count."""
        return self.output_weights * sum(name in ("lm_head", "embed_tokens") for name in lora.modules_to_save)

    def weight_bytes(self, quantization: QuantizationParameters, element: int) -> int:
        """Bytes of the stored model on the device.

        Args:
            quantization: how the linear layers are stored; all else has the device's precision.
            element: bytes of a number in the device's precision.
        """
        count = self.linear_weights
        if quantization.kind in FOUR_BITS:
            constants = count // QUANTISATION_BLOCK
            each = 1 + 4 / SECOND_BLOCK if quantization.nested else 4
            return count // 2 + int(constants * each) + self.other * element
        each_weight = 1 if quantization.kind == "int8" else element
        return count * each_weight + self.other * element

    def obstacle(self, lora: LoraParameters, quantization: QuantizationParameters) -> str:
        """Why no layer can have the fused kernels, as far as the shape tells; "" where some can."""
        targeted = self.targeted(lora)
        if quantization.kind not in FOUR_BITS:
            return f"quantization.kind {quantization.kind} has no 4-bit layers"
        if lora.dora:
            return "DoRA is not plain LoRA"
        if not targeted:
            return "the decoder has no layer that lora.target_modules names"
        if all(one.bias for one in targeted):
            return "the layers have biases"
        return ""

    def fuses_mlp(self, lora: LoraParameters) -> bool:
        """Whether the whole MLP can be one function: SwiGLU with an adapter on all its layers."""
        return self.swiglu and set(MLP) <= {one.child for one in self.targeted(lora) if not one.bias}


def shape_of(config: "PretrainedConfig", *, trust_remote_code: bool = False) -> ModelShape:
    """Build the model on torch's meta device, which takes no memory, and measure it."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.pytorch_utils import Conv1D

    if hasattr(config, "quantization_config"):
        del config.quantization_config  # the layers are wanted as they were before
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]  # transformers' own
            config, trust_remote_code=trust_remote_code
        )
    output = model.get_output_embeddings()  # type: ignore[no-untyped-call]  # transformers has no types there
    linear = tuple(
        Linear(name, *_sizes(module), module.bias is not None)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not output
    )
    text = config.get_text_config()
    values = text.to_dict()
    total = sum(parameter.numel() for parameter in model.parameters())
    heads = int(text.num_attention_heads)
    return ModelShape(
        layers=int(text.num_hidden_layers),
        hidden=int(text.hidden_size),
        inner=_inner(linear, values),
        heads=heads,
        kv_heads=int(values.get("num_key_value_heads") or heads),
        head_size=int(values.get("head_dim") or text.hidden_size // heads),
        vocabulary=int(text.vocab_size),
        linear=linear,
        other=total - sum(layer.weights for layer in linear),
        swiglu=values.get("hidden_act") == "silu" and set(MLP) <= {layer.child for layer in linear},
    )


def _sizes(module: "torch.nn.Linear | Conv1D") -> tuple[int, int]:
    """Inputs and outputs; GPT-2's layers have their weights turned over."""
    first, second = module.weight.shape
    return (first, second) if type(module).__name__ == "Conv1D" else (second, first)


def _inner(linear: Sequence[Linear], values: dict[str, Any]) -> int:
    for layer in linear:
        if layer.child == "up_proj":
            return layer.outputs
    named = values.get("intermediate_size") or values.get("n_inner")
    return int(named or max((one.outputs for one in linear), default=0))


def shape_of_folder(folder: Path, *, trust_remote_code: bool = False) -> ModelShape:
    """The shape of the model in a folder, quantised or not: read from its config.json alone."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    return shape_of(config, trust_remote_code=trust_remote_code)
