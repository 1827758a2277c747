"""The fused path computes what PEFT's own path computes: outputs, gradients, losses, saved files."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

from steps.quantize.device import Device
from steps.quantize.load import keep_trainable
from steps.train.kernels.fuse import Fusion, Recompute, fuse
from steps.train.params import SEVEN_PROJECTIONS

CPU = {name: Device("cpu", "CPU", name, "sdpa", "") for name in ("float32", "bfloat16")}
TOLERANCE = {"float32": 2e-5, "bfloat16": 2e-2}
"""Allowed difference, as a share of the norm: a few roundings of the type."""


def tiny_peft(folder: Path, precision: str = "float32", key_value_heads: int = 2, **lora: Any) -> PeftModel:
    """A random Llama of two layers in 4 bits with an adapter whose B is not 0."""
    torch.manual_seed(0)
    device = CPU[precision]
    config = LlamaConfig(
        vocab_size=400,
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=key_value_heads,
        max_position_embeddings=512,
        attn_implementation="sdpa",
    )
    LlamaForCausalLM(config).to(device.dtype).save_pretrained(folder)
    quantization = BitsAndBytesConfig(  # type: ignore[no-untyped-call]  # transformers has no types there
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=device.dtype,
    )
    base = AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=quantization, dtype=device.dtype, device_map={"": "cpu"}
    )
    keep_trainable(base, device)
    settings = {"r": 8, "lora_alpha": 16, "target_modules": list(SEVEN_PROJECTIONS), "lora_dropout": 0.0, **lora}
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **settings))
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.to(device.dtype)
        if "lora_B" in name:
            parameter.data.normal_(0, 0.05, generator=generator)
    return model.train()


def tokens(seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 400, (2, 24), generator=torch.Generator().manual_seed(seed))


def step(model: PeftModel, seed: int = 0) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Logits and the adapter's gradients of one batch."""
    model.zero_grad()
    ids = tokens(seed)
    output = model(input_ids=ids, labels=ids, use_cache=False)
    output.loss.backward()
    gradients = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    return output.logits.detach(), gradients


def differ(one: torch.Tensor, other: torch.Tensor) -> float:
    """Norm of the difference over the norm."""
    return float((one.float() - other.float()).norm() / other.float().norm())


def compare(model: PeftModel, precision: str, **options: Any) -> Fusion:
    """Fuse the model and hold its step against what it did before."""
    logits, gradients = step(model)
    fusion = fuse(model, **options)
    fused_logits, fused_gradients = step(model)
    assert differ(fused_logits, logits) < TOLERANCE[precision]
    assert fused_gradients.keys() == gradients.keys()
    assert len(gradients) == sum(weight.requires_grad for weight in model.parameters())
    off = {name: differ(fused_gradients[name], gradients[name]) for name in gradients}
    assert max(off.values()) < TOLERANCE[precision] * 3, max(off.items(), key=lambda item: item[1])
    return fusion


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("key_value_heads", [4, 1])
@pytest.mark.parametrize("recompute", ["nothing", "norms", "mlp", "layers"])
def test_outputs_and_gradients_are_pefts(
    tmp_path: Path, precision: str, key_value_heads: int, recompute: Recompute
) -> None:
    model = tiny_peft(tmp_path, precision, key_value_heads)
    fusion = compare(model, precision, recompute=recompute)
    assert (fusion.projections, fusion.mlps, fusion.norms, fusion.left) == (14, 2, 5, {})
