"""A tiny random 4-bit Llama with an adapter, and one step of it: what the kernels' tests hold against each other."""

from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM, set_seed
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from steps.device import describe_device
from steps.quantize.load import keep_trainable, load_quantized
from steps.tokenizer import load_tokenizer
from steps.train.params import SEVEN_PROJECTIONS
from steps.train.plan.plan import Plan
from tests.tiny_run import TinyRun

PLANS = {
    "nothing": Plan(1, 1, recompute="nothing"),
    "norms": Plan(1, 1, recompute="norms"),
    "mlp": Plan(1, 1, recompute="mlp"),
    "mixed": Plan(1, 1, recompute="mlp", recomputed_layers=1),
    "layers": Plan(1, 1, recomputed_layers=2),
}
"""From the one that keeps most to the one that keeps least."""
PLAIN = PLANS["nothing"]


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
            parameter.data.copy_(torch.empty(parameter.shape).normal_(0, 0.05, generator=generator))
    return model.train()


def decoder(model: PeftModel) -> Any:
    """Llama without its head."""
    return cast(Any, model).base_model.model.model


def first_layer(model: PeftModel) -> Any:
    """Its first decoder layer."""
    return decoder(model).layers[0]


def differ(one: torch.Tensor, other: torch.Tensor) -> float:
    """Norm of the difference over the norm."""
    return float((one.float() - other.float()).norm() / other.float().norm())


def tokens(seed: int = 0) -> torch.Tensor:
    """On the device that the models are on."""
    ids = torch.randint(0, 400, (2, 24), generator=torch.Generator().manual_seed(seed))
    return ids.to("cuda" if torch.cuda.is_available() else "cpu")


def step(model: PeftModel, seed: int = 0) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Logits and the adapter's gradients of one batch."""
    model.zero_grad()
    ids = tokens(seed)
    output = model(input_ids=ids, labels=ids, use_cache=False)
    output.loss.backward()
    gradients = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    return output.logits.detach(), gradients


def float32_trainer(kind: type[SFTTrainer], run: TinyRun, folder: Path, dropout: float, **settings: Any) -> SFTTrainer:
    """A trainer of the tiny run's blocks whose arithmetic and adapter are float32; ``settings`` are SFTConfig's."""
    set_seed(1)
    device = describe_device("float32", "sdpa")
    trainer = kind(
        model=load_quantized(run.model, device),
        args=SFTConfig(
            output_dir=str(folder / "trainer"),
            learning_rate=5e-3,
            bf16=False,
            use_cpu=device.kind == "cpu",
            gradient_checkpointing=False,
            save_strategy="no",
            logging_steps=1,
            disable_tqdm=True,
            report_to="none",
            max_length=None,
            padding_free=True,
            dataset_kwargs={"skip_prepare_dataset": True},
            **settings,
        ),
        train_dataset=run.blocks["train"],
        processing_class=load_tokenizer(run.tokenizer),
        peft_config=LoraConfig(
            r=8, lora_alpha=16, lora_dropout=dropout, target_modules="all-linear", task_type="CAUSAL_LM"
        ),
    )
    for parameter in cast("PeftModel", trainer.model).parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return trainer
