"""A tiny random 4-bit Llama with an adapter, and one step of it: what the kernels' tests hold against each other."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

from steps.quantize.device import describe_device
from steps.quantize.load import keep_trainable
from steps.train.params import SEVEN_PROJECTIONS


def tiny_peft(
    folder: Path,
    precision: str = "float32",
    key_value_heads: int = 2,
    heads: int = 4,
    attention: str = "sdpa",
    **lora: Any,
) -> PeftModel:
    """A random Llama of two layers in 4 bits with an adapter whose B is not 0."""
    torch.manual_seed(0)
    device = describe_device(precision, attention)
    config = LlamaConfig(
        vocab_size=400,
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=heads,
        num_key_value_heads=key_value_heads,
        max_position_embeddings=512,
    )
    original = LlamaForCausalLM(config)
    original.to(dtype=device.dtype)  # type: ignore[call-arg]  # transformers' decorator hides the signature
    original.save_pretrained(folder)
    quantization = BitsAndBytesConfig(  # type: ignore[no-untyped-call]  # transformers has no types there
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=device.dtype,
    )
    base = AutoModelForCausalLM.from_pretrained(
        folder,
        quantization_config=quantization,
        dtype=device.dtype,
        device_map=device.map,
        attn_implementation=attention,
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
    ids = tokens(seed).to(model.device)
    output = model(input_ids=ids, labels=ids, use_cache=False)
    output.loss.backward()
    gradients = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    return output.logits.detach(), gradients
