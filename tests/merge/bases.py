"""Small base models and random adapters on them, stored as PEFT stores them."""

import shutil
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from steps.merge.shards import FinishedShards
from steps.merge.stream import Merging, merge_shards
from steps.merge.tensors import weight_files
from tests.tiny import write_model

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def write_base(folder: Path, kind: str, dtype: str) -> Path:
    """``llama`` (with biases), ``tied`` (a Llama, one embedding) or ``gpt2`` (Conv1D), in several shards."""
    if kind == "gpt2":
        torch.manual_seed(0)
        model: Any = GPT2LMHeadModel(
            GPT2Config(vocab_size=400, n_embd=64, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=2)
        )
    else:
        write_model(folder / "original", biases=kind == "llama", tied=kind == "tied")
        model = AutoModelForCausalLM.from_pretrained(folder / "original")
    generator = torch.Generator().manual_seed(3)
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            weight.data.normal_(0, 0.05, generator=generator)
    model.to(DTYPES[dtype]).save_pretrained(folder / "base", max_shard_size="100KB")
    return folder / "base"


def write_adapter(folder: Path, base: Path, seed: int = 1, **lora: Any) -> Path:
    """A random adapter whose every weight matters."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base)
    settings = {"r": 4, "lora_alpha": 8, "task_type": "CAUSAL_LM", **lora}
    tuned = get_peft_model(model, LoraConfig(**settings))
    generator = torch.Generator().manual_seed(seed)
    for weight in tuned.parameters():
        if weight.requires_grad:
            noise = torch.empty(weight.shape).normal_(0, 0.05, generator=generator)
            weight.data = weight.data.float() + noise
    tuned.save_pretrained(str(folder), save_embedding_layers=False)
    return folder


def write_merged(plan: Merging, base: Path, output: Path, device: str = "cpu") -> Path:
    """The whole model that the plan gives, in a new folder."""
    shutil.copytree(base, output, ignore=shutil.ignore_patterns("*.safetensors"))
    finished = FinishedShards(output.with_suffix(".shards"))
    with finished.held():
        merge_shards(plan, finished, device)
        finished.give([path.name for path in plan.files], output)
    finished.remove()
    return output


def stored_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a checkpoint."""
    return {name: weight for path in weight_files(folder) for name, weight in load_file(path).items()}


def merged_by_peft(base: Path, adapters: list[Path], dtype: str = "float32") -> dict[str, torch.Tensor]:
    """State of the model, loaded in a type, after PEFT's own merge."""
    names = [f"adapter{number}" for number in range(len(adapters))]
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=DTYPES[dtype])
    tuned = PeftModel.from_pretrained(model, str(adapters[0]), adapter_name=names[0])
    for name, adapter in zip(names[1:], adapters[1:], strict=True):
        tuned.load_adapter(str(adapter), adapter_name=name)
    merged: Any = tuned.merge_and_unload(safe_merge=True, adapter_names=names)
    state: dict[str, torch.Tensor] = merged.state_dict()
    return state
