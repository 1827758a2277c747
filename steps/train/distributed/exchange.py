"""What every optimiser step's processes exchange: gradients, losses, and the tokens that they come from."""

from collections import defaultdict

import torch

from steps.train.distributed.ranks import Ranks

NO_TOKEN = -1
"""Where a micro-batch has fewer tokens than another."""


class GradientSum:
    """Sums the gradients of all processes, in one message for each type.

    torch's DDP would add hooks to every weight and copy into buckets of its own during the backward pass, which a
    replayed CUDA graph does not run. LoRA's gradients are so small that one message after the last micro-batch costs
    less than 1 % of a step.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self.flat: dict[torch.dtype, torch.Tensor] = {}

    def __call__(self, weights: list[torch.nn.Parameter]) -> None:
        """Give each weight the sum; those of a mixture's expert that saw no token have a gradient of zero then."""
        kinds: dict[torch.dtype, list[torch.Tensor]] = defaultdict(list)
        for weight in weights:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
            kinds[weight.grad.dtype].append(weight.grad)
        for kind, gradients in kinds.items():
            size = sum(gradient.numel() for gradient in gradients)
            if kind not in self.flat or self.flat[kind].numel() != size:
                self.flat[kind] = torch.empty(size, dtype=kind, device=gradients[0].device)
            parts = self.flat[kind].split_with_sizes([gradient.numel() for gradient in gradients])
            views = [part.view_as(gradient) for part, gradient in zip(parts, gradients, strict=True)]
            torch._foreach_copy_(views, gradients)
            self.ranks.add(self.flat[kind])
            torch._foreach_copy_(gradients, views)


def everybodys(
    batches: list[tuple[torch.Tensor, torch.Tensor]], longest: int, ranks: Ranks
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Tokens and loss of each micro-batch of all processes; no batch has more tokens than ``longest``."""
    device = batches[0][1].device
    tokens = torch.full((len(batches), longest), NO_TOKEN, dtype=torch.int32, device=device)
    for row, (ids, _) in zip(tokens, batches, strict=True):
        row[: ids.numel()] = ids.flatten()
    losses = torch.stack([loss.detach().float() for _, loss in batches])
    return list(zip(ranks.gather(tokens).flatten(0, 1), ranks.gather(losses).flatten(), strict=True))
