"""What the fused path keeps between the passes, and what it makes again."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from steps.train.kernels import elementwise
from steps.train.kernels.fuse import fuse
from steps.train.kernels.lora_linear import Origin
from steps.train.kernels.weights import FrozenWeights
from tests.tiny_peft import PLANS, decoder, step, tiny_peft, tokens


def test_fewer_bytes_are_kept_than_by_peft(tmp_path: Path) -> None:
    """What autograd keeps between the passes, weights aside, falls with every step of recomputation."""
    sizes = []
    for plan in (None, *PLANS):
        model = tiny_peft(tmp_path, lora_dropout=0.1)
        if plan is not None:
            fuse(model, PLANS[plan])
        sizes.append(kept_bytes(model))
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == len(sizes)
    assert sizes[1] < sizes[0] / 2


def kept_bytes(model: PeftModel) -> int:
    weights = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids = tokens().to(model.device)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        hidden = decoder(model)(input_ids=ids, use_cache=False).last_hidden_state
    assert hidden.requires_grad
    return sum(kept.values())


@pytest.mark.parametrize(
    ("plan", "matrices"),
    [
        ("nothing", 14 + 4),  # backward: the last layer's are still there; the first q, k, v have no input's gradient
        ("mixed", 14 + 7),
        ("layers", 14 + 7),  # a recomputed layer's are still there in its backward pass
    ],
)
def test_how_often_weights_are_dequantised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plan: str, matrices: int
) -> None:
    calls: list[object] = []
    plain = elementwise.dequantise

    def counted(weight: Any, out: torch.Tensor) -> None:
        calls.append(weight)
        plain(weight, out)

    monkeypatch.setattr(elementwise, "dequantise", counted)
    model = tiny_peft(tmp_path)
    fuse(model, PLANS[plan])
    step(model)
    assert len(calls) == matrices


@pytest.mark.parametrize(
    ("plan", "dropout", "inputs"),
    [
        ("norms", 0.0, 0),  # gradients of A are made from the norm's own input
        ("norms", 0.1, 4),  # a dropped input is needed as it was
        ("mlp", 0.0, 2),  # gate and up are made from it again
        ("nothing", 0.0, 0),
    ],
)
def test_how_often_a_norm_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plan: str, dropout: float, inputs: int
) -> None:
    model = tiny_peft(tmp_path, lora_dropout=dropout)
    fuse(model, PLANS[plan])
    remade: list[Origin] = []
    plain = Origin.remake

    def counted(origin: Origin, margin: int) -> torch.Tensor:
        remade.append(origin)
        return plain(origin, margin)

    monkeypatch.setattr(Origin, "remake", counted)
    step(model)
    assert len(remade) == inputs


def test_a_recomputed_layer_leaves_out_what_nothing_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once each: gate and up recomputed, the product of `down` in the forward pass alone."""
    made: list[str] = []
    plain = FrozenWeights.beside

    def noted(weights: FrozenWeights, *rest: Any) -> torch.Tensor:
        if weights.kind.startswith(("gate_up", "down")):
            made.append(weights.kind.split()[0])
        return plain(weights, *rest)

    monkeypatch.setattr(FrozenWeights, "beside", noted)
    model = tiny_peft(tmp_path)
    fuse(model, PLANS["layers"])
    step(model)
    forward, recomputed = ["gate_up", "down"], ["gate_up"]
    assert made == forward * 2 + recomputed * 2
