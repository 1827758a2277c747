"""The proof that the merged model is base + adapter."""

from pathlib import Path
from typing import TYPE_CHECKING, cast

from steps.errors import ModelError
from steps.merge.changes import Whole
from steps.merge.report import MergeReport
from steps.merge.stream import Merging
from steps.merge.tensors import read_header, weight_files

if TYPE_CHECKING:
    import torch


def changed_weights(base: Path, merged: Path, plan: Merging, device: str) -> tuple[int, int]:
    """Numbers of weights that the adapters changed and left alone, read back from disk, tensor by tensor.

    What they were before is the base's, bit for bit, or the dequantised weight in its place.

    Args:
        base: the base model.
        merged: the merged model.
        plan: what the merge was to do.
        device: where weights are dequantised; the merge's, so that they come out the same.

    Raises:
        ModelError: a weight that an adapter targets is as before, or another one is not, or a weight that an
            adapter holds whole (a bias, a module to save) is not the merged model's.
    """
    import torch

    places = {tensor.name: path for path in weight_files(base) for tensor in read_header(path)[1]}
    changed, unchanged, seen = 0, 0, set()
    for path in weight_files(merged):
        for tensor in read_header(path)[1]:
            name, change = tensor.name, plan.changes.get(tensor.name, [])
            if name not in places:
                raise ModelError(f"{path}: {name} is not a weight of the base model")
            weight = _tensor(path, name)
            replaced = name in plan.dequantized
            before = plan.dequantized.weight(tensor, device).cpu() if replaced else _tensor(places[name], name)
            same = torch.equal(before, weight)
            if change and isinstance(change[-1], Whole):
                if not torch.equal(_tensor(change[-1].path, change[-1].key).to(weight.dtype), weight):
                    raise ModelError(f"{path}: {name} is not the one that was trained; the merge lost it")
            elif bool(change) == same:
                raise ModelError(f"{path}: {name} {_wrong(same=same, replaced=replaced)}")
            seen.add(name)
            changed += not same
            unchanged += same
    lost = places.keys() - seen
    if lost:
        raise ModelError(f"{merged}: {min(lost)} is missing, which the base model has")
    return changed, unchanged


def _wrong(*, same: bool, replaced: bool) -> str:
    if same:
        return "did not change; the adapter does not fit this base model"
    if replaced:
        return "is not the dequantised weight although the adapter does not target it; the merge damaged it"
    return "changed although the adapter does not target it; the adapter does not fit this base model"


def check_bounds(report: MergeReport) -> None:
    """Raise :class:`ModelError` where the merged model is further from base + adapter, or trained, than allowed."""
    if not report.max_logit_difference <= report.max_logit_difference_bound:
        raise ModelError(
            "parameters.merging.max_logit_difference: merged and base + adapter differ by "
            f"{report.max_logit_difference:.4f} in a logit, above {report.max_logit_difference_bound:g}; "
            "the merged model is not what was evaluated"
        )
    if not report.holds:
        raise ModelError(
            f"parameters.merging.max_loss_difference: completion loss {report.merged_loss:.4f} merged against "
            f"{report.adapter_loss:.4f} with the adapter, further apart than {report.max_loss_difference_bound:g}"
        )
    written = report.written
    other = "" if report.target == "dequantized" else "set parameters.merging.target: dequantized, or "
    advice = f"{other}raise the bound if that is acceptable"
    if not written.kl_divergence <= report.kl_divergence_bound:
        raise ModelError(
            f"parameters.merging.max_kl_divergence: KL(trained || merged) is {written.kl_divergence:.4f} nats per "
            f"token, above {report.kl_divergence_bound:g}; {advice}"
        )
    if not report.near_trained:
        raise ModelError(
            f"parameters.merging.max_loss_rise: completion loss {written.loss:.4f} merged against "
            f"{written.expected_loss:.4f} as trained, higher by more than {report.loss_rise_bound:g}; {advice}"
        )


def _tensor(path: Path, name: str) -> "torch.Tensor":
    from safetensors import safe_open

    with safe_open(path, framework="pt") as tensors:
        return cast("torch.Tensor", tensors.get_tensor(name))
