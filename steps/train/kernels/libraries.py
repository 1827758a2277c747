"""What well-kept libraries give to a fused model, each with the reason where it is not used."""

import importlib.util
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def rotary(model: "PeftModel") -> str:
    """Rotate queries and keys in place by liger's kernel where it can run; says what was chosen.

    It replaces the function of the model's module in transformers, so in every model of that architecture.
    """
    base = cast("PreTrainedModel", model.get_base_model())
    kind = str(base.config.model_type)
    if next(base.parameters()).device.type != "cuda":
        return "rotary in plain torch: liger's kernel needs a GPU"
    if importlib.util.find_spec("liger_kernel") is None:
        return "rotary in plain torch: liger-kernel is not installed (pip install -e '.[liger]')"
    from liger_kernel.transformers.monkey_patch import (
        MODEL_TYPE_TO_APPLY_LIGER_FN,
        _apply_liger_kernel_to_instance,
    )

    if kind not in MODEL_TYPE_TO_APPLY_LIGER_FN:
        return f"rotary in plain torch: liger-kernel does not know {kind}"
    others = ("rms_norm", "swiglu", "geglu", "cross_entropy", "fused_linear_cross_entropy", "layer_norm")
    _apply_liger_kernel_to_instance(model=base, rope=True, **dict.fromkeys(others, False))
    return "rotary by liger-kernel"


def attention(model: "PeftModel") -> str:
    """What the attention runs on; chosen when the model was loaded."""
    chosen = str(cast("PreTrainedModel", model.get_base_model()).config._attn_implementation)
    if chosen == "flash_attention_2":
        return "flash_attention_2 over packed blocks: no mask"
    return f"attention {chosen}: a mask keeps packed examples apart, and memory grows with the square of a micro-batch"
