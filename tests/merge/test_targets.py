"""Merged into the dequantised weights the model is what was trained; merged at full precision it is near to it."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import PeftModel
from peft.utils.integrations import dequantize_module_weight
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from steps.device import describe_device
from steps.errors import ModelError
from steps.files import hashes
from steps.merge.compare import Outputs, compare, outputs
from steps.merge.params import MAX_KL_DIVERGENCE, MergeParameters, Target
from steps.merge.report import MergeReport
from steps.merge.stream import Merging, plan_merge
from steps.merge.tensors import weight_files
from steps.merge.verify import changed_weights, check_bounds
from steps.quantize.load import load_quantized
from steps.quantize.params import QuantizationParameters
from steps.quantize.quantize import quantize_model, quantized_layers
from steps.resolve.base_model import lock_model
from steps.resolve.params import BaseModelParameters
from tests.merge.bases import stored_weights, write_adapter, write_base, write_merged
from tests.tiny import write_tokenizer
from tests.tiny_run import TinyRun

KINDS: dict[str, dict[str, Any]] = {
    "nf4": {"kind": "nf4"},
    "nf4, constants in full": {"kind": "nf4", "double_quantization": False},
    "fp4": {"kind": "fp4"},
    "int8": {"kind": "int8"},
}
TARGETS = {"llama": ["q_proj", "down_proj"], "gpt2": ["c_attn", "mlp.c_proj"]}
Reports = dict[Target, MergeReport]
ROWS = Dataset.from_dict({"prompt_ids": [[1, 20, 30], [1, 7]], "completion_ids": [[40, 50, 2], [60, 70, 80, 2]]})


@dataclass(frozen=True)
class Bases:
    """A base in several shards, the same quantised, and an adapter on some of its layers."""

    base: Path
    quantized: Path
    adapter: Path

    def plan(self) -> Merging:
        return plan_merge(self.base, [self.adapter])

    def dequantized(self) -> Merging:
        return self.plan().into_dequantized(self.quantized)

    def trained(self) -> PeftModel:
        return PeftModel.from_pretrained(load_quantized(self.quantized, describe_device("float32")), str(self.adapter))


def bases(folder: Path, architecture: str = "llama", dtype: str = "bfloat16", **quantization: Any) -> Bases:
    base = write_base(folder, architecture, dtype)
    write_tokenizer(base)
    (folder / "quantized").mkdir()
    lock = lock_model(BaseModelParameters(folder=str(base)))
    quantize_model(lock, QuantizationParameters(**quantization), folder / "quantized")
    adapter = write_adapter(folder / "adapter", base, target_modules=TARGETS[architecture])
    return Bases(base, folder / "quantized", adapter)


@pytest.mark.parametrize("architecture", TARGETS)
@pytest.mark.parametrize("name", KINDS)
def test_every_quantised_weight_is_dequantised(tmp_path: Path, name: str, architecture: str) -> None:
    """By PEFT's own dequantising, through the loaded layers; GPT-2's are stored the other way round."""
    made = bases(tmp_path, architecture, **KINDS[name])
    plan = made.dequantized()
    output = write_merged(plan, made.base, tmp_path / "merged")
    counts = changed_weights(made.base, output, plan, "cpu")
    assert counts == (4, len(plan.stored) - 4)
    found, before = stored_weights(output), stored_weights(made.base)
    tuned: Any = made.trained().base_model.model
    layers = quantized_layers(tuned)
    for name, layer in layers.items():
        weight = f"{name.removesuffix('.base_layer')}.weight"
        expected = dequantize_module_weight(layer).float()
        targeted = name.endswith(".base_layer")
        if targeted:
            update = tuned.get_submodule(name.removesuffix(".base_layer")).get_delta_weight("default")
            expected = expected + update.float()
        expected = (expected.T if architecture == "gpt2" else expected).bfloat16()
        rtol, atol = (2**-7, 2**-11) if targeted else (0, 0)  # rounded to bfloat16 before and after the update
        torch.testing.assert_close(found[weight], expected, rtol=rtol, atol=atol)
        assert not torch.equal(found.pop(weight), before[weight])
    assert len(layers) == len(plan.dequantized) == {"llama": 14, "gpt2": 8}[architecture]
    assert all(torch.equal(found[name], before[name]) for name in found)


@pytest.mark.parametrize("name", KINDS)
def test_only_the_dequantised_model_is_what_was_trained(tmp_path: Path, name: str) -> None:
    """In float32 throughout, so that nothing is left but int8's rounding of activations."""
    four_bits = KINDS[name]["kind"] != "int8"
    arithmetic = {"compute_dtype": "float32"} if four_bits else {}  # auto is bfloat16 where the processor has it
    made = bases(tmp_path, dtype="float32", **KINDS[name], **arithmetic)
    trained = outputs(made.trained(), ROWS, tmp_path / "trained")
    found = {}
    for target, plan in (("full_precision", made.plan()), ("dequantized", made.dequantized())):
        model = AutoModelForCausalLM.from_pretrained(
            write_merged(plan, made.base, tmp_path / target), dtype=torch.float32
        )
        found[target] = compare(trained, outputs(model, ROWS, tmp_path / f"of {target}"))
    same, near = found["dequantized"], found["full_precision"]
    if four_bits:
        assert same.max_logit_difference < 1e-5 < 1e-2 < near.max_logit_difference
        assert same.kl_divergence < 1e-2 * near.kl_divergence  # below it float32 sums of equal models differ from 0
    else:
        assert same.max_logit_difference < near.max_logit_difference
    assert same.positions == 7


def test_a_damaged_byte_is_named(tmp_path: Path) -> None:
    """In a weight that the adapter does not target, which differs from the base's anyway."""
    made = bases(tmp_path)
    plan = made.dequantized()
    output = write_merged(plan, made.base, tmp_path / "merged")
    weight = "model.layers.1.self_attn.k_proj.weight"
    path = next(path for path in weight_files(output) if weight in load_file(path))
    weights = load_file(path)
    weights[weight].view(torch.uint8)[3, 5] ^= 1
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"1\.self_attn\.k_proj\.weight is not the dequantised weight although"):
        changed_weights(made.base, output, plan, "cpu")


def test_a_quantised_model_of_another_base_is_refused(tmp_path: Path) -> None:
    made, other = bases(tmp_path / "a"), bases(tmp_path / "b", "gpt2")
    with pytest.raises(ModelError, match=r"transformer\.h\.0\.attn\.c_attn\.weight is quantised and is not one tensor"):
        made.plan().into_dequantized(other.quantized)


@pytest.fixture(scope="module")
def reports(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Reports:
    """Of both targets, on the tiny run."""
    found: Reports = {}
    for target in MAX_KL_DIVERGENCE:
        parameters = MergeParameters(target=target, max_prompts=3, max_new_tokens=6)
        found[target] = tiny_run.merge(tmp_path_factory.mktemp(target), parameters)
    return found


def test_the_model_in_memory_is_the_one_that_would_be_written(reports: Reports) -> None:
    """Whichever is the artifact: the figures of each target are the same."""
    full, dequantized = reports["full_precision"], reports["dequantized"]
    assert [one.target for one in full.from_trained if one.written] == ["full_precision"]
    assert [one.target for one in dequantized.from_trained if one.written] == ["dequantized"]
    figures = [
        {one.target: one.model_dump(exclude={"written"}) for one in report.from_trained} for report in reports.values()
    ]
    assert figures[0] == figures[1]
    assert figures[0]["dequantized"]["kl_divergence"] < figures[0]["full_precision"]["kl_divergence"]
    assert (full.dequantized_weights, dequantized.dequantized_weights) == (0, 14)
    assert (full.kl_divergence_bound, full.loss_rise_bound) == (0.35, 0.1)
    assert (dequantized.kl_divergence_bound, dequantized.loss_rise_bound) == (0.05, 0.05)
    assert "dequantised (the artifact)" in dequantized.html()
    assert "full precision (the artifact)" in full.html()


def test_above_their_bounds_nothing_is_left(tiny_run: TinyRun, tmp_path: Path) -> None:
    strict = MergeParameters(target="dequantized", max_prompts=1, max_new_tokens=2, max_kl_divergence=1e-9)
    with pytest.raises(
        ModelError, match=r"merging\.max_kl_divergence: KL\(trained \|\| merged\) is .* raise the bound"
    ):
        tiny_run.merge(tmp_path / "output", strict)
    assert [path.name for path in tmp_path.iterdir()] == ["output"]


def test_a_loss_may_fall_but_not_rise(reports: Reports) -> None:
    report = reports["full_precision"]
    for loss in (report.written.expected_loss - 1, report.written.expected_loss + 0.09):
        check_bounds(with_loss(report, loss))
    for loss in (report.written.expected_loss + 0.11, float("nan")):
        with pytest.raises(ModelError, match=r"max_loss_rise: .* set parameters\.merging\.target: dequantized, or"):
            check_bounds(with_loss(report, loss))


def with_loss(report: MergeReport, loss: float) -> MergeReport:
    """The report with another loss of the artifact."""
    figures = [one.model_copy(update={"loss": loss} if one.written else {}) for one in report.from_trained]
    return report.model_copy(update={"from_trained": figures})


def test_without_quantisation_both_targets_are_one(tiny_run: TinyRun, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    quantize_model(tiny_run.lock, QuantizationParameters(kind="none"), plain)
    found = []
    for target in MAX_KL_DIVERGENCE:
        output = tmp_path / target
        parameters = MergeParameters(target=target, max_prompts=1, max_new_tokens=2)
        report = replace(tiny_run, model=plain).merge(output, parameters)
        assert [one.target for one in report.from_trained] == [target]
        assert "both targets are one" in report.html()
        found.append(hashes(output)["model.safetensors"])
        assert json.loads((output / "provenance.json").read_text())["merging"]["target"] == target
    assert found[0] == found[1]


def test_divergence_is_that_of_the_definition(tmp_path: Path) -> None:
    """Two tokens, worked out by hand: the mean of sum p log(p / q)."""
    expected, found = torch.tensor([[0.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    for name, logits in (("one", expected), ("other", found)):
        save_file({"logits": logits}, tmp_path / name)
    result = compare(Outputs([tmp_path / "one"], [[0, 1]]), Outputs([tmp_path / "other"], [[0, 1]]))
    p, q = torch.softmax(expected, -1).double(), torch.softmax(found, -1).double()
    assert result.kl_divergence == pytest.approx(float((p * (p / q).log()).sum() / 2), rel=1e-5)
    assert result.kl_divergence == pytest.approx(0.06006, abs=1e-4)
    assert (result.max_logit_difference, result.mean_logit_difference, result.top1_agreement) == (1.0, 0.25, 0.5)
