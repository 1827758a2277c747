"""Every kind of quantisation on the CPU: stored once, loaded, trained on, evaluated and merged."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from steps.device import Hardware, describe_device
from steps.errors import DeviceError
from steps.evaluate.evaluate import evaluate_adapter
from steps.evaluate.params import EvaluationParameters, SandboxParameters
from steps.quantize.fit import require_integers
from steps.quantize.load import load_quantized
from steps.quantize.params import QuantizationParameters
from steps.quantize.quantize import quantized_layers
from steps.train.params import TrainingParameters
from steps.train.train import train_adapter
from tests.quantize.conftest import Stored
from tests.tiny_run import TinyRun

ERRORS = {"nf4": (0.05, 0.12), "fp4": (0.08, 0.2), "int8": (0.001, 0.02), "none": (-1e-9, 1e-9)}
"""Bounds of the relative weight error, kind by kind."""

LAYER = "model.layers.0.mlp.up_proj"


def test_artifact_loads_with_from_pretrained_alone(stored: Stored) -> None:
    kind = stored.parameters.kind
    loaded = AutoModelForCausalLM.from_pretrained(stored.folder)
    layers = quantized_layers(loaded)
    assert len(layers) == (0 if kind == "none" else 14)
    if kind == "int8":
        assert all(isinstance(layer, Linear8bitLt) for layer in layers.values())
    elif kind != "none":
        assert all(isinstance(layer, Linear4bit) for layer in layers.values())
        state = layers[LAYER].weight.quant_state
        assert (state.quant_type, state.nested) == (kind, stored.parameters.nested)
    assert {path.name for path in stored.folder.iterdir()} == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "provenance.json",
    }


def test_what_is_stored_is_not_quantised_again(stored: Stored) -> None:
    types = {"nf4": torch.uint8, "fp4": torch.uint8, "int8": torch.int8, "none": torch.bfloat16}
    weight = load_file(stored.folder / "model.safetensors")[f"{LAYER}.weight"]
    assert weight.dtype == types[stored.parameters.kind]
    loaded = load_quantized(stored.folder, describe_device("bfloat16")).get_parameter(f"{LAYER}.weight")
    assert torch.equal(loaded.detach(), weight)


def test_report_says_what_was_done(stored: Stored) -> None:
    report, kind = stored.report, stored.parameters.kind
    low, high = ERRORS[kind]
    assert report.relative_error is not None
    assert low < report.relative_error < high
    assert (report.kind, report.double_quantization, report.came_quantized) == (kind, stored.parameters.nested, False)
    base = load_file(Path(stored.lock.folder) / "model.safetensors")
    projections = sum(weight.numel() for name, weight in base.items() if "_proj" in name)
    assert report.parameters == sum(weight.numel() for weight in base.values())
    assert report.quantized_parameters == (0 if kind == "none" else projections)
    assert report.full_precision_bytes == (Path(stored.lock.folder) / "model.safetensors").stat().st_size
    assert report.quantized_bytes == (stored.folder / "model.safetensors").stat().st_size
    assert (report.quantized_bytes < report.full_precision_bytes) is (kind != "none")
    page = report.html()
    assert {"nf4": "in NF4", "fp4": "in FP4", "int8": "in LLM.int8()", "none": "not quantised"}[kind] in page
    assert ("4 bits" in page) is (kind in ("nf4", "fp4"))


def test_training_evaluation_and_merge(stored: Stored, tiny_run: TinyRun, tmp_path: Path) -> None:
    adapter, merged = tmp_path / "adapter", tmp_path / "merged"
    adapter.mkdir()
    training = TrainingParameters(
        max_steps=6, batch_size=2, gradient_accumulation=1, learning_rate=5e-3, evaluate_every=3
    )
    report = train_adapter(tiny_run.blocks, stored.folder, tiny_run.tokenizer, training, adapter)
    losses = [point.loss for point in report.validation]
    assert losses[-1] < losses[0] - 0.05
    test = tiny_run.examples["test"]
    few = EvaluationParameters(
        max_prompts=2, max_new_tokens=4, max_loss_rows=4, sandbox=SandboxParameters(execute="never")
    )
    figures = evaluate_adapter(test, stored.folder, adapter, tiny_run.tokenizer, few).figures
    loss = next(figure for figure in figures if figure.name == "loss")
    assert loss.tuned < loss.base
    replace(tiny_run, lock=stored.lock, model=stored.folder, adapter=adapter).merge(merged)
    assert "quantization_config" not in json.loads((merged / "config.json").read_text())


def test_gradients_are_the_same_before_and_after_an_evaluation(stored: Stored) -> None:
    """bitsandbytes repacks 4-bit layers in a forward pass without gradients, where the processor has avx512_bf16."""
    model = load_quantized(stored.folder, describe_device("bfloat16"))
    ids = torch.arange(4, 68).view(1, -1)

    def gradient() -> torch.Tensor:
        embeddings = model.get_input_embeddings()(ids).detach().requires_grad_()
        model(inputs_embeds=embeddings, labels=ids).loss.backward()
        assert embeddings.grad is not None
        return torch.clone(embeddings.grad)

    before = gradient()
    model.train(False)
    with torch.inference_mode():
        model(input_ids=ids)
    assert before.abs().max() > 0
    torch.testing.assert_close(gradient(), before, rtol=0, atol=0)


def test_weights_are_the_same_before_and_after_an_evaluation(stored: Stored, tiny_run: TinyRun) -> None:
    """What a layer dequantises to, and what an adapter merged into it gives, are as they were."""

    def tuned() -> PeftModel:
        return PeftModel.from_pretrained(
            load_quantized(stored.folder, describe_device("bfloat16")), str(tiny_run.adapter)
        )

    def merged(model: PeftModel) -> torch.Tensor:
        ids = torch.arange(4, 68).view(1, -1)
        whole = model.merge_and_unload()
        if stored.parameters.kind != "none":
            whole = whole.dequantize(dtype=torch.bfloat16)
        with torch.inference_mode():
            logits: torch.Tensor = whole(input_ids=ids).logits.float()
        return logits

    evaluated = tuned().eval()
    with torch.inference_mode():
        evaluated(input_ids=torch.arange(4, 68).view(1, -1))
    fresh = merged(tuned())
    assert fresh.isfinite().all()
    torch.testing.assert_close(merged(evaluated), fresh, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["int8", "none"])
@pytest.mark.parametrize(
    ("name", "value"),
    [("double_quantization", True), ("double_quantization", False), ("compute_dtype", "bfloat16")],
)
def test_what_means_nothing_with_a_kind_is_refused(kind: str, name: str, value: str | bool) -> None:
    with pytest.raises(ValueError, match=f"{name} has no meaning with kind {kind}; remove it, or use nf4 or fp4"):
        QuantizationParameters.model_validate({"kind": kind, name: value})


def test_parameters_survive_being_written_and_read() -> None:
    for kind in ("nf4", "fp4", "int8", "none"):
        parameters = QuantizationParameters.model_validate({"kind": kind})
        assert QuantizationParameters.model_validate(parameters.model_dump()) == parameters


def test_eight_bits_need_a_turing_gpu() -> None:
    eight, four = (QuantizationParameters.model_validate({"kind": kind}) for kind in ("int8", "nf4"))
    volta = Hardware("cuda", "V100", 2**34, capability=(7, 0))
    with pytest.raises(DeviceError, match=r"parameters\.quantization\.kind: int8 needs a Turing GPU .* V100 is older"):
        require_integers(volta, eight)
    require_integers(volta, four)
    require_integers(Hardware("cuda", "T4", 2**34, capability=(7, 5)), eight)
    require_integers(Hardware("cpu", "CPU", 2**34), eight)
