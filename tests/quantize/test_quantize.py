"""Real 4-bit layers on the CPU: stored, loaded, and safe to train on."""

from pathlib import Path

import pytest
import torch
from bitsandbytes.nn.modules import Linear4bit
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from steps.quantize.device import describe_device
from steps.quantize.load import load_quantized
from steps.quantize.params import QuantizationParameters
from steps.quantize.quantize import quantize_model
from steps.resolve.base_model import lock_model
from steps.resolve.params import BaseModelParameters
from tests.tiny import write_model
from tests.tiny_run import TinyRun


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("double", [True, False])
def test_artifact_loads_with_from_pretrained_alone(tmp_path: Path, kind: str, double: bool) -> None:
    lock = lock_model(BaseModelParameters(folder=str(write_model(tmp_path / "base"))))
    output = tmp_path / "quantized"
    output.mkdir()
    parameters = QuantizationParameters.model_validate({"kind": kind, "double_quantization": double})
    report = quantize_model(lock, parameters, output)
    assert report.layers == 14
    assert 0.05 < report.relative_error < 0.2
    assert report.quantized_bytes < report.full_precision_bytes
    loaded = AutoModelForCausalLM.from_pretrained(output)
    layers = [module for module in loaded.modules() if isinstance(module, Linear4bit)]
    assert len(layers) == 14
    state = layers[0].weight.quant_state  # type: ignore[attr-defined]  # bitsandbytes' own parameter class
    assert (state.quant_type, state.nested) == (kind, double)
    with safe_open(output / "model.safetensors", framework="pt") as tensors:
        name = "model.layers.0.mlp.up_proj.weight"
        assert tensors.get_tensor(name).dtype == torch.uint8


def test_gradients_are_the_same_before_and_after_an_evaluation(tiny_run: TinyRun) -> None:
    """bitsandbytes repacks 4-bit layers in a forward pass without gradients, where the processor has avx512_bf16."""
    model = load_quantized(tiny_run.model, describe_device())
    ids = torch.arange(4, 68).view(1, -1)

    def gradient() -> torch.Tensor:
        embeddings = model.get_input_embeddings()(ids).detach().requires_grad_()
        model(inputs_embeds=embeddings, labels=ids).loss.backward()
        assert embeddings.grad is not None
        return torch.clone(embeddings.grad)

    before = gradient()
    with torch.inference_mode():
        model(input_ids=ids)
    assert before.abs().max() > 0
    torch.testing.assert_close(gradient(), before, rtol=0, atol=0)
