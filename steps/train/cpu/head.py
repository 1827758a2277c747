"""The output layer with its loss: only positions that count, and no pass over memory that is not needed.

TRL's own scores every position on a processor, those without a label too, makes the logits twice, and takes some ten
passes over them; in a small model with a large vocabulary that is half the time of a step.
"""

import types
from typing import TYPE_CHECKING, Any, cast

import torch

from steps.tokenizer import IGNORED
from steps.train.kernels.recognise import head_scales

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ROWS = 64
"""Positions whose logits are in work at a time: so few that they stay in the processor's cache."""


class TokenScores(torch.autograd.Function):
    """Log-probability of each target; entropy, and whether the target is the most probable token, for the log.

    The gradient is made in the forward pass while the logits are there, so they are made once and never kept:
    sum over the vocabulary of p_v W_v, less W_target.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """``hidden`` [positions, width], ``weight`` [vocabulary, width] in one type; frozen weight."""
        count, vocabulary = len(hidden), len(weight)
        scores, entropy = hidden.new_empty(count, dtype=torch.float32), hidden.new_empty(count, dtype=torch.float32)
        first = torch.empty(count, dtype=torch.bool, device=hidden.device)
        gradient = hidden.new_empty(hidden.shape, dtype=torch.float32)
        # Memory is asked for once: new pages for every part would cost more than the arithmetic
        logits = hidden.new_empty(ROWS, vocabulary)
        wide, powers = (hidden.new_empty(ROWS, vocabulary, dtype=torch.float32) for _ in range(2))
        for start in range(0, count, ROWS):
            rows = slice(start, min(start + ROWS, count))
            size = rows.stop - rows.start
            narrow, shifted, power, target = logits[:size], wide[:size], powers[:size], targets[rows, None]
            shifted.copy_(torch.mm(hidden[rows], weight.t(), out=narrow))
            largest, most_probable = shifted.max(dim=1, keepdim=True)
            total = torch.exp(shifted.sub_(largest), out=power).sum(dim=1)
            scores[rows] = shifted.gather(1, target)[:, 0] - total.log()
            entropy[rows] = total.log() - shifted.mul_(power).sum(dim=1) / total
            first[rows] = most_probable[:, 0] == target[:, 0]
            if ctx.needs_input_grad[0]:
                gradient[rows] = weight[target[:, 0]] - torch.mm(narrow.copy_(power), weight) / total[:, None]
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(entropy, first)
        ctx.type = hidden.dtype
        return scores, entropy, first

    @staticmethod
    def backward(ctx: Any, by_scores: torch.Tensor, *_: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        """Gradient of the hidden states."""
        (gradient,) = ctx.saved_tensors
        return (by_scores[:, None] * gradient).to(ctx.type), None, None


def obstacle(base: "PreTrainedModel") -> str | None:
    """Why a model keeps TRL's output layer, or None."""
    config = base.config.get_text_config()
    head = cast("Any", base).get_output_embeddings()
    scaled = head_scales(config)
    checks = (
        (type(head) is not torch.nn.Linear, f"its output layer is a {type(head).__name__}"),
        (getattr(head, "bias", None) is not None, "its output layer has a bias"),
        (any(one.requires_grad for one in head.parameters()), "its output layer is trained"),
        (bool(scaled), f"it has {', '.join(scaled)}"),
        (hasattr(config, "output_router_logits"), "it is a mixture of experts"),
    )
    return next((why for there, why in checks if there), None)


def install_head(base: "PreTrainedModel") -> None:
    """Replace the forward that TRL gave the model, where it is asked for its fused output layer."""
    from trl.trainer.utils import FusedCausalLMOutput

    before = base.forward

    def forward(
        self: Any, *arguments: Any, fused_lm_head: bool = False, labels: torch.Tensor | None = None, **named: Any
    ) -> Any:
        if not fused_lm_head or labels is None:
            return before(*arguments, labels=labels, **named)
        named["use_cache"] = False
        states = self.base_model(*arguments, **named).last_hidden_state[:, :-1]
        following = labels[:, 1:]
        mask = following != IGNORED
        weight = self.get_output_embeddings().weight
        with torch.autocast(weight.device.type, enabled=False):
            scored = TokenScores.apply(states[mask].to(weight.dtype), weight, following[mask])  # type: ignore[no-untyped-call]  # torch has no types there
        scores, entropy, first = (one.new_zeros(mask.shape).masked_scatter(mask, one) for one in scored)
        loss = -scores.sum() / mask.sum().clamp(min=1)
        return FusedCausalLMOutput(loss=loss, log_probs=scores, entropy=entropy, is_top1=first, label_mask=mask)

    cast("Any", base).forward = types.MethodType(forward, base)
