"""The adapter alone can be shipped: PEFT's layout, and a config that says which base model at which revision."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from steps.quantize.params import QuantizationParameters
from steps.train.adapter import save_adapter
from steps.train.card import write_adapter_card
from tests.merge.bases import write_base
from tests.tiny_run import TinyRun

COMMIT = "0123456789abcdef0123456789abcdef01234567"


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


def test_its_card_says_what_it_belongs_to_and_how_to_load_it(tiny_run: TinyRun, tmp_path: Path) -> None:
    card = ModelCard.load(tiny_run.adapter / "README.md")
    assert (card.data["library_name"], card.data["base_model"]) == ("peft", None)
    assert "LoRA adapter (r 64, alpha 16) for `base`, trained on it in nf4" in card.text
    assert 'PeftModel.from_pretrained(base, "path/of/this/folder")' in card.text
    hub = tiny_run.lock.model_copy(update={"name": "owner/base", "hub": "owner/base", "commit": "abc123"})
    loftq = tiny_run.training.lora.model_copy(update={"initialization": "loftq"})
    training = tiny_run.training.model_copy(update={"lora": loftq})
    write_adapter_card(tmp_path, hub, QuantizationParameters(kind="fp4"), training)
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data["base_model"] == "owner/base"
    assert "`owner/base` at revision `abc123`, trained on it in fp4" in card.text
    assert "it belongs to the base in fp4" in card.text
    assert 'AutoPeftModelForCausalLM.from_pretrained("path/of/this/folder")' in card.text


def test_loaded_from_the_hub_it_asks_for_its_bases_revision(tiny_run: TinyRun, tmp_path: Path) -> None:
    """The base lies in the hub's cache under a revision that is not main; offline, no other one can be found."""
    snapshot = tmp_path / "hub" / "models--owner--base" / "snapshots" / COMMIT
    shutil.copytree(tiny_run.lock.folder, snapshot)
    shutil.copytree(tiny_run.adapter, tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_config.json"
    named = {"base_model_name_or_path": "owner/base", "revision": COMMIT}
    path.write_text(json.dumps({**json.loads(path.read_text()), **named}))
    code = (
        "import sys, peft; model = peft.AutoPeftModelForCausalLM.from_pretrained(sys.argv[1]);"
        "print(sum('lora_' in name for name in model.state_dict()))"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "hub")}
    command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path / "adapter")]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert said.split()[-1] == "28"
