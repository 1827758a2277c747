"""The head's loss in one pass computes what torch's cross entropy computes."""

import pytest
import torch

from steps.tokenizer import IGNORED
from steps.train.kernels import head
from steps.train.kernels.head import FrozenHeadLoss


@pytest.mark.parametrize("chunk", [4, 7, 100])
def test_loss_and_gradient_are_torchs(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(head, "CHUNK", chunk)
    generator = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(14, 8, generator=generator), torch.randn(30, 8, generator=generator)
    targets = torch.randint(0, 30, (14,), generator=generator)
    targets[[2, 9, 13]] = IGNORED
    results = []
    for ours in (True, False):
        leaf = hidden.clone().requires_grad_()
        if ours:
            loss = FrozenHeadLoss.apply(leaf, weight, targets, torch.tensor(1 / 50), IGNORED)  # type: ignore[no-untyped-call]  # torch's
        else:
            loss = torch.nn.functional.cross_entropy(leaf @ weight.t(), targets, reduction="sum") / 50
        (3 * loss).backward()
        results.append((loss.detach(), leaf.grad))
    torch.testing.assert_close(results[0], results[1])
