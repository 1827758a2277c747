"""What was trained against the adapter merged at full precision and into the dequantised weights.

One model is in memory at a time, and all but the artifact stay there: nothing else is written.
"""

import gc
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import Dataset

from steps.device import Device
from steps.merge.compare import Outputs, answers, compare, differing, outputs
from steps.merge.load import load_model, put_adapter
from steps.merge.params import MergeParameters, Target
from steps.merge.report import AnswersSideBySide, Differences, FromTrained
from steps.merge.stream import Merging, merged_tensors
from steps.quantize.load import load_quantized
from steps.scratch import scratch

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SHOWN = 4
"""Prompts whose differing answers the report has."""


@dataclass(frozen=True)
class Models:
    """Where the models come from; ``plans`` has one target only where both are the same."""

    base: Path
    quantized: Path
    adapter: Path
    output: Path
    plans: Mapping[Target, Merging]
    device: Device
    trust_remote_code: bool


@dataclass(frozen=True)
class Said:
    """What one model makes of the rows."""

    outputs: Outputs
    answers: list[str]


def compare_models(
    models: Models, rows: Dataset, tokenizer: "PreTrainedTokenizerBase", merging: MergeParameters
) -> tuple[Differences, list[FromTrained], list[AnswersSideBySide]]:
    """The artifact against the same model unmerged; each target against what was trained; the answers that differ."""
    with scratch("comparison") as folder:

        def said(model: "PreTrainedModel | PeftModel", name: str) -> Said:
            heard = outputs(model, rows, folder / name)
            return Said(heard, answers(model, tokenizer, rows, merging.max_new_tokens, name))

        trained = said(_trained(models), "as trained")
        unmerged = outputs(_unmerged(models, merging.target), rows, folder / "unmerged")
        merged = {target: said(_merged(models, target, merging.target), f"merged, {target}") for target in models.plans}
        arithmetic = compare(unmerged, merged[merging.target].outputs)
        figures = [
            FromTrained(
                target=target,
                written=target == merging.target,
                answers_that_differ=len(differing(trained.answers, one.answers)),
                **compare(trained.outputs, one.outputs).model_dump(),
            )
            for target, one in merged.items()
        ]
    return arithmetic, figures, _samples(rows, trained.answers, {name: one.answers for name, one in merged.items()})


def _samples(rows: Dataset, trained: list[str], merged: Mapping[Target, list[str]]) -> list[AnswersSideBySide]:
    different = sorted({index for found in merged.values() for index in differing(trained, found)})
    return [
        AnswersSideBySide(
            instruction=rows[index]["instruction"],
            trained=trained[index],
            merged={target: found[index] for target, found in merged.items()},
        )
        for index in different[:SHOWN]
    ]


def _trained(models: Models) -> "PeftModel":
    """The quantised base with the adapter, loaded as the evaluation loads it."""
    from peft import PeftModel

    gc.collect()  # models hold themselves in circles: without it the one before would still be in memory
    return PeftModel.from_pretrained(load_quantized(models.quantized, models.device), str(models.adapter))


def _unmerged(models: Models, target: Target) -> "PeftModel":
    """The target's base with the adapter beside it."""
    gc.collect()
    plan = models.plans[target]
    base = _base(models)
    for name in plan.dequantized.sources:
        _put(base, plan, name, plan.dequantized.weight(plan.stored[name], models.device.kind))
    return put_adapter(base, models.adapter, plan.rounding)


def _merged(models: Models, target: Target, written: Target) -> "PreTrainedModel":
    """The artifact, reloaded; or the base with the tensors that the artifact of the other target would have."""
    gc.collect()
    if target == written:
        return load_model(models.output, models.device, trust_remote_code=models.trust_remote_code)
    plan, model = models.plans[target], _base(models)
    for name, weight in merged_tensors(plan, models.device.kind):
        _put(model, plan, name, weight)
    return model


def _base(models: Models) -> "PreTrainedModel":
    return load_model(models.base, models.device, trust_remote_code=models.trust_remote_code)


def _put(model: "PreTrainedModel", plan: Merging, tensor: str, weight: Any) -> None:
    """A tensor of the checkpoint into the parameter that holds it."""
    import torch

    parameter = next(parameter for parameter, name in plan.layout.tensors.items() if name == tensor)
    with torch.no_grad():
        model.get_parameter(parameter).copy_(weight)
