"""The adapter alone can be shipped: PEFT's layout, and a config that says which base model at which revision."""

import json
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from steps.train.adapter import save_adapter
from tests.merge.bases import write_base
from tests.tiny_run import TinyRun


def test_its_config_names_the_base_model_and_its_revision(tmp_path: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(write_base(tmp_path, "llama", "bfloat16"))
    tuned: Any = get_peft_model(model, LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
    save_adapter(tuned, "organisation/model", "0123456789abcdef", tmp_path / "adapter")
    config = PeftConfig.from_pretrained(str(tmp_path / "adapter"))
    assert (config.base_model_name_or_path, config.revision) == ("organisation/model", "0123456789abcdef")
    assert str(tmp_path) not in (tmp_path / "adapter" / "adapter_config.json").read_text()


def test_peft_and_transformers_load_it_as_it_is(tiny_run: TinyRun) -> None:
    config = json.loads((tiny_run.adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == tiny_run.lock.name
    base: Any = AutoModelForCausalLM.from_pretrained(tiny_run.lock.folder)
    ids = torch.tensor([tiny_run.examples["test"][0]["prompt_ids"]])
    with torch.inference_mode():
        before = base(ids).logits
        tuned = PeftModel.from_pretrained(base, str(tiny_run.adapter))
        assert not torch.equal(tuned(ids).logits, before)
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_run.adapter)
    assert tokenizer.apply_chat_template([{"role": "user", "content": "Add 1."}], add_generation_prompt=True)
