"""The proof that the merged model is base + adapter."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from datasets import Dataset

from steps.errors import ModelError
from steps.merge.report import MergeReport

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


def changed_weights(base: Path, merged: Path, adapter: Path) -> tuple[int, int]:
    """Numbers of weights that the merge changed and left alone, tensor by tensor.

    What the adapter targets is read from its weights, so that every way to name targets gives the same answer.

    Raises:
        ModelError: a weight that the adapter targets is as before, or another one is not, or a weight that the
            adapter holds whole (a bias, a module to save) is not the merged model's.
    """
    import torch
    from safetensors import safe_open

    updated, whole = _adapted(adapter)
    places = {name: path for path in base.glob("*.safetensors") for name in _names(path)}
    changed, unchanged, seen = 0, 0, set()
    for path in sorted(merged.glob("*.safetensors")):
        with safe_open(path, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - safe_open is no mapping
                if name not in places:
                    raise ModelError(f"{path}: {name} is not a weight of the base model")
                weight = tensors.get_tensor(name)
                with safe_open(places[name], framework="pt") as originals:
                    same = torch.equal(originals.get_tensor(name), weight)
                if name in whole:
                    if not torch.equal(whole[name].to(weight.dtype), weight):
                        raise ModelError(f"{path}: {name} is not the one that was trained; the merge lost it")
                elif (name in updated) == same:
                    what = "did not change" if same else "changed although the adapter does not target it"
                    raise ModelError(f"{path}: {name} {what}; the adapter does not fit this base model")
                seen.add(name)
                changed += not same
                unchanged += same
    lost = (updated | whole.keys()) - seen
    if lost:
        raise ModelError(f"{merged}: {min(lost)} is missing, which the adapter trained")
    return changed, unchanged


def _adapted(adapter: Path) -> "tuple[set[str], dict[str, torch.Tensor]]":
    """Names of the base weights that the adapter adds to, and the weights that replace one of the base."""
    from safetensors.torch import load_file

    updated: set[str] = set()
    whole: dict[str, torch.Tensor] = {}
    for name, weight in load_file(adapter / "adapter_model.safetensors").items():
        base, marker, _ = name.removeprefix("base_model.model.").partition(".lora_")
        if marker:
            updated.add(f"{base}.weight")
        else:
            whole[base.replace(".base_layer.", ".")] = weight
    return updated, whole


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


def _names(path: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as tensors:
        return list(tensors.keys())
