"""Puts what is faster on a processor into a loaded model, in place, and says what and why not."""

from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

CAUSAL = ("llama", "mistral", "qwen2", "qwen3")
"""Model types whose layers see all earlier tokens of a sequence, or name their window."""


def make_faster(model: "PeftModel", *, packed: bool) -> str:
    """Let a model on a processor compute its loss where there is a label, and attend within sequences.

    Call it once, after the trainer has made the PEFT model and before training. Random numbers, weights, names and
    saved files stay as they were; losses differ by rounding.

    Args:
        model: with TRL's output layer, which SFTTrainer gives it.
        packed: whether blocks hold several sequences, flattened into one row.

    Returns:
        What was chosen, and why.
    """
    from steps.train.cpu.attention import NAME, register
    from steps.train.cpu.head import install_head, obstacle

    base = cast("PreTrainedModel", model.get_base_model())
    why = obstacle(base)
    if why is None:
        install_head(base)
    choices = ["loss of trained tokens alone" if why is None else f"TRL's output layer: {why}"]
    attention, kind = str(base.config._attn_implementation), str(base.config.model_type)
    if packed and attention == "sdpa" and kind in CAUSAL:
        register()
        base.set_attn_implementation(NAME)
        choices.append("attention one sequence at a time")
    else:
        reason = "blocks are not packed" if not packed else f"of a {kind}"
        choices.append(f"attention {attention}: {reason}")
    return "; ".join(choices)
