"""The proof that the merged model is base + adapter."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from datasets import Dataset

from steps.errors import ModelError
from steps.merge.changes import Change, Whole
from steps.merge.report import MergeReport
from steps.merge.tensors import read_header, weight_files

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Outputs:
    """What a model says of one row's completion: logits (tokens x vocabulary) and the tokens themselves."""

    logits: "torch.Tensor"
    targets: "torch.Tensor"


def outputs(model: "PreTrainedModel | PeftModel", rows: Dataset) -> list[Outputs]:
    """Logits at every completion token of every row, float32 on the CPU, one row at a time and unpadded."""
    import torch

    model.eval()
    results = []
    for row in rows:
        start, ids = len(row["prompt_ids"]), [*row["prompt_ids"], *row["completion_ids"]]
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([ids], device=model.device)).logits[0, start - 1 : -1]
        results.append(Outputs(logits.float().cpu(), torch.tensor(row["completion_ids"])))
    return results


def compare(expected: list[Outputs], merged: list[Outputs]) -> dict[str, float]:
    """Differences over all rows, as the fields of :class:`MergeReport`; losses in nats per completion token."""
    import torch

    gaps = [(one.logits - other.logits).abs() for one, other in zip(expected, merged, strict=True)]
    agree = [
        (one.logits.argmax(-1) == other.logits.argmax(-1)).float() for one, other in zip(expected, merged, strict=True)
    ]
    positions = sum(len(one.targets) for one in expected)

    def loss(results: list[Outputs]) -> float:
        sums = [torch.nn.functional.cross_entropy(one.logits, one.targets, reduction="sum") for one in results]
        return float(sum(map(float, sums))) / positions

    return {
        "positions": positions,
        "max_logit_difference": max(float(gap.max()) for gap in gaps),
        "mean_logit_difference": float(torch.cat([gap.mean(-1) for gap in gaps]).mean()),
        "top1_agreement": float(torch.cat(agree).mean()),
        "adapter_loss": loss(expected),
        "merged_loss": loss(merged),
    }


def changed_weights(base: Path, merged: Path, changes: Mapping[str, list[Change]]) -> tuple[int, int]:
    """Numbers of weights that the merge changed and left alone, read back from disk, tensor by tensor.

    Args:
        base: the base model.
        merged: the merged model.
        changes: what the adapters do, by the tensor's name.

    Raises:
        ModelError: a weight that an adapter targets is as before, or another one is not, or a weight that an
            adapter holds whole (a bias, a module to save) is not the merged model's.
    """
    import torch

    places = {tensor.name: path for path in weight_files(base) for tensor in read_header(path)[1]}
    changed, unchanged, seen = 0, 0, set()
    for path in weight_files(merged):
        for tensor in read_header(path)[1]:
            name, change = tensor.name, changes.get(tensor.name, [])
            if name not in places:
                raise ModelError(f"{path}: {name} is not a weight of the base model")
            weight = _tensor(path, name)
            same = torch.equal(_tensor(places[name], name), weight)
            if change and isinstance(change[-1], Whole):
                if not torch.equal(_tensor(change[-1].path, change[-1].key).to(weight.dtype), weight):
                    raise ModelError(f"{path}: {name} is not the one that was trained; the merge lost it")
            elif bool(change) == same:
                what = "did not change" if same else "changed although the adapter does not target it"
                raise ModelError(f"{path}: {name} {what}; the adapter does not fit this base model")
            seen.add(name)
            changed += not same
            unchanged += same
    lost = places.keys() - seen
    if lost:
        raise ModelError(f"{merged}: {min(lost)} is missing, which the base model has")
    return changed, unchanged


def check_bounds(report: MergeReport) -> None:
    """Raise :class:`ModelError` where the merged model is further from base + adapter than its bounds allow."""
    if not report.max_logit_difference <= report.max_logit_difference_bound:
        raise ModelError(
            "parameters.merging.max_logit_difference: merged and base + adapter differ by "
            f"{report.max_logit_difference:.4f} in a logit, above {report.max_logit_difference_bound:g}; "
            "the merged model is not what was evaluated"
        )
    if not abs(report.merged_loss - report.adapter_loss) <= report.max_loss_difference_bound:
        raise ModelError(
            f"parameters.merging.max_loss_difference: completion loss {report.merged_loss:.4f} merged against "
            f"{report.adapter_loss:.4f} with the adapter, further apart than {report.max_loss_difference_bound:g}"
        )


def _tensor(path: Path, name: str) -> "torch.Tensor":
    from safetensors import safe_open

    with safe_open(path, framework="pt") as tensors:
        return cast("torch.Tensor", tensors.get_tensor(name))
