"""Which modules compute exactly what the fused functions compute."""

import inspect
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

from steps.train.kernels import elementwise

if TYPE_CHECKING:
    from collections.abc import Container

    from peft import PeftModel


HEAD_SCALES = ("final_logit_softcapping", "logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling")
"""What a model's configuration names where its logits are more than hidden states times weights."""


def head_scales(config: Any) -> list[str]:
    """The names of those that the configuration sets."""
    return [name for name in HEAD_SCALES if getattr(config, name, None) is not None]


def obstacle(layer: Any) -> str | None:
    """Why a LoRA layer cannot be fused, or None."""
    from bitsandbytes.nn.modules import Linear4bit

    base, active = layer.base_layer, list(layer.active_adapters)
    checks = (
        (not isinstance(base, Linear4bit), f"{type(base).__name__} is no 4-bit layer"),
        (len(active) != 1 or active[0] not in layer.lora_A, "not exactly one active adapter"),
        (bool(layer.lora_variant), "a variant of LoRA (DoRA, aLoRA)"),
        (layer.merged, "the adapter is merged"),
        (getattr(base, "bias", None) is not None, "the layer has a bias"),
    )
    for there, why in checks:
        if there:
            return why
    if layer.lora_B[active[0]].bias is not None:
        return "the adapter has a bias"
    if getattr(base.weight.quant_state, "packing_format_for_cpu", False):
        return "bitsandbytes repacked the weight for the CPU"
    return None


def is_swiglu(module: torch.nn.Module) -> bool:
    """Whether the module's class computes down(silu(gate(x)) * up(x)): tried on stand-ins for its three layers."""
    gate, up = torch.linspace(-4, 4, 16).view(2, 8), torch.linspace(1, 3, 16).view(2, 8)
    stand_in = SimpleNamespace(
        gate_proj=lambda _: gate,
        up_proj=lambda _: up,
        down_proj=lambda product: product,
        act_fn=getattr(module, "act_fn", None),
    )
    try:
        result = type(module).forward(stand_in, gate)
    except (AttributeError, TypeError):  # it reads more of itself than the three layers and the activation
        return False
    expected = torch.nn.functional.silu(gate) * up
    return isinstance(result, torch.Tensor) and result.shape == expected.shape and torch.allclose(result, expected)


def is_llama_norm(module: torch.nn.Module) -> bool:
    """Whether the module is an RMSNorm as Llama has it, with a frozen weight: tried on a few numbers."""
    weight, epsilon = getattr(module, "weight", None), getattr(module, "variance_epsilon", None)
    if not isinstance(weight, torch.Tensor) or not isinstance(epsilon, float) or weight.requires_grad:
        return False
    x = torch.linspace(-2, 3, weight.numel(), dtype=weight.dtype, device=weight.device).view(1, -1)
    with torch.no_grad():
        result = type(module).forward(module, x)
        expected = elementwise.rms_norm(x, weight, epsilon)
    tolerance = 4 * torch.finfo(weight.dtype).eps
    return isinstance(result, torch.Tensor) and torch.allclose(result, expected, rtol=tolerance, atol=tolerance)


def is_llama_attention(module: torch.nn.Module) -> bool:
    """Whether a module's class rotates halves of queries and keys, as Llama's, and does nothing else to them.

    Tried on stand-ins for its projections, and for the attention function that it looks up in transformers.
    """
    from transformers import AttentionInterface

    if {name for name, _ in module.named_children()} != {"q_proj", "k_proj", "v_proj", "o_proj"}:
        return False
    seen: dict[str, Any] = {}

    def function(
        stand_in: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: None, **options: Any
    ) -> tuple[torch.Tensor, None]:
        seen.update(options, q=q, k=k, v=v)
        return v.transpose(1, 2), None

    AttentionInterface.register("stand_in", function)
    config = getattr(module, "config", None)
    config = config.to_dict() if config else {}
    stand_in = SimpleNamespace(
        **{f"{name}_proj": getattr(torch, of) for name, of in (("q", "sin"), ("k", "cos"), ("v", "exp"))},
        o_proj=torch.square,
        config=SimpleNamespace(**{**config, "_attn_implementation": "stand_in"}),
        training=True,
        head_dim=4,
        layer_idx=0,
        **{name: getattr(module, name, None) for name in ("scaling", "attention_dropout", "sliding_window")},
    )
    place = next(module.parameters()).device  # a function that rotates may be a kernel
    x = torch.linspace(-2, 2, 24, device=place).view(1, 3, 8)
    angles = torch.linspace(0, 3, 6, device=place).view(1, 3, 2).repeat(1, 1, 2)
    tables = angles.cos(), angles.sin()
    try:
        result, _ = inspect.unwrap(type(module).forward)(stand_in, x, position_embeddings=tables, attention_mask=None)
    except (AttributeError, TypeError, ValueError, RuntimeError):  # it reads more of itself, or is called otherwise
        return False
    finally:
        AttentionInterface._global_mapping.pop("stand_in")
    scaling = seen.pop("scaling", None)
    expected = {"q": rotated(_heads(x.sin()), *tables), "k": rotated(_heads(x.cos()), *tables), "v": _heads(x.exp())}
    same = all(torch.allclose(seen.pop(name), tensor) for name, tensor in expected.items())
    plain = same and torch.equal(result, x.exp().square()) and scaling == getattr(module, "head_dim", 0) ** -0.5
    return plain and not any(seen.values())  # a window, a cap of the scores, dropout


def _heads(x: torch.Tensor) -> torch.Tensor:
    return x.view(1, 3, 2, 4).transpose(1, 2)


def rotated(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Llama's rotary embedding of [..., tokens, width] by tables of [tokens, width]."""
    one, two = heads.chunk(2, dim=-1)
    return heads * cos + torch.cat((-two, one), dim=-1) * sin


def is_norm_first(module: torch.nn.Module) -> bool:
    """Whether a decoder layer is r = x + attention(norm(x)); r + MLP(norm(r)): tried on stand-ins for its children.

    All that it is called with besides x must reach the attention under the same name.
    """
    children = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
    if {name for name, _ in module.named_children()} != children:
        return False
    seen: dict[str, Any] = {}

    def attention(hidden_states: torch.Tensor, **rest: Any) -> tuple[torch.Tensor, None]:
        seen.update(rest)
        return hidden_states.square(), None

    stand_in = SimpleNamespace(
        self_attn=attention,
        mlp=torch.exp,
        input_layernorm=torch.sin,
        post_attention_layernorm=torch.cos,
    )
    names = ("attention_mask", "position_ids", "past_key_values", "use_cache", "position_embeddings", "cu_seq_lens_q")
    given = {name: object() for name in names}
    x = torch.linspace(-2, 2, 16).view(1, 2, 8)
    try:
        result = inspect.unwrap(type(module).forward)(stand_in, x, **given)
    except (AttributeError, TypeError):  # it reads more of itself than its children, or is called otherwise
        return False
    middle = x + torch.sin(x).square()
    return (
        isinstance(result, torch.Tensor)
        and torch.equal(result, middle + torch.exp(torch.cos(middle)))
        and seen == given
    )


def other_dropout(model: "PeftModel", left: "Container[str]") -> str | None:
    """What draws random numbers in training besides the fused layers, or None; ``left`` are those that are not."""
    config: Any = model.get_base_model().config
    if getattr(config, "attention_dropout", 0):
        return f"attention_dropout {config.attention_dropout}"
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Dropout) and module.p:
            owner = name.split(".lora_dropout.")[0]
            if owner == name or owner in left:
                return f"{name} with p={module.p}"
    return None
