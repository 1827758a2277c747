"""The merged model is base + adapter, or the step fails."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, pipeline
from transformers.utils.chat_template_utils import Chat

from steps.chat_template import bind_template
from steps.errors import ModelError
from steps.format.params import PromptParameters
from steps.format.tokenize import Encoder
from steps.merge.report import MergeReport
from steps.merge.stream import plan_merge
from steps.merge.verify import changed_weights
from steps.template import template_names
from tests.format.sequences import encoded
from tests.real_tokenizers import LLAMA_2_CHAT
from tests.tiny_run import FEW_ANSWERS, TinyRun


def test_the_report_counts_the_weights(tiny_merge: tuple[Path, MergeReport]) -> None:
    folder, report = tiny_merge
    assert report.changed_weights == 14
    assert report.unchanged_weights == len(load_file(folder / "model.safetensors")) - 14
    assert 0 < report.max_logit_difference < 0.5
    assert report.rows == FEW_ANSWERS.max_prompts


def test_weights_are_base_plus_scaled_adapter(tiny_run: TinyRun, merged: Path) -> None:
    base = load_file(Path(tiny_run.lock.folder) / "model.safetensors")
    adapter = load_file(tiny_run.adapter / "adapter_model.safetensors")
    result = load_file(merged / "model.safetensors")
    name = "model.layers.1.mlp.down_proj"
    prefix = f"base_model.model.{name}"
    update = adapter[f"{prefix}.lora_B.weight"].float() @ adapter[f"{prefix}.lora_A.weight"].float() * (16 / 64)
    assert update.abs().max() > 0
    expected = base[f"{name}.weight"].float() + update
    torch.testing.assert_close(result[f"{name}.weight"].float(), expected, rtol=2**-7, atol=1e-4)


def served_ids(generate: Any, chat: Any) -> list[int]:
    """The token ids that transformers' pipeline makes of a chat."""
    ids: list[int] = generate.preprocess(Chat(chat))["input_ids"][0].tolist()
    return ids


@pytest.mark.parametrize("name", [*template_names(), "own"])
def test_a_chat_request_builds_the_trained_prompt(tiny_run: TinyRun, merged: Path, tmp_path: Path, name: str) -> None:
    """Every template through transformers' own pipeline: the prompt's token ids, one turn and two."""
    tokenizer: Any = AutoTokenizer.from_pretrained(merged)
    tokenizer.chat_template = LLAMA_2_CHAT
    tokenizer.save_pretrained(tmp_path)
    template = PromptParameters(template={"prompt": "Do: {instruction} Done: "} if name == "own" else name).template
    bound = bind_template(template, None, tmp_path)
    shutil.copytree(merged, tmp_path / "model")
    bound.tokenizer.save_pretrained(tmp_path / "model")
    generate: Any = pipeline("text-generation", model=str(tmp_path / "model"))
    chat = [{"role": "user", "content": "Print 3."}]
    trained = encoded(Encoder(bound), "Print 3.", "print(3)")
    assert served_ids(generate, chat) == trained.prompt_ids
    answer = generate(chat, max_new_tokens=4)[0]["generated_text"]
    assert [message["role"] for message in answer] == ["user", "assistant"]
    assert (
        generate.model.generation_config.eos_token_id == generate.tokenizer.eos_token_id == trained.completion_ids[-1]
    )
    later = [*chat, {"role": "assistant", "content": "print(3)"}, {"role": "user", "content": "Now 4."}]
    assert served_ids(generate, later)[: len(trained)] == [*trained.prompt_ids, *trained.completion_ids]


def test_the_directory_says_what_it_was_made_from(merged: Path) -> None:
    assert json.loads((merged / "provenance.json").read_text())["adapter"]["training"]["lora"]["r"] == 64
    assert AutoTokenizer.from_pretrained(merged).pad_token == "<pad>"


def test_difference_above_its_bound_fails(tiny_run: TinyRun, tmp_path: Path) -> None:
    strict = FEW_ANSWERS.model_copy(update={"max_logit_difference": 1e-9})
    with pytest.raises(
        ModelError, match=r"parameters\.merging\.max_logit_difference: merged and base \+ adapter differ by"
    ):
        tiny_run.merge(tmp_path, strict)


def test_an_adapter_that_changes_nothing_is_found(tiny_run: TinyRun, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(tiny_run.adapter, adapter)
    weights = load_file(adapter / "adapter_model.safetensors")
    zeros = {name: weight * 0 if "lora_B" in name else weight for name, weight in weights.items()}
    save_file(zeros, adapter / "adapter_model.safetensors")
    with pytest.raises(ModelError, match=r"_proj\.weight did not change; the adapter does not fit"):
        replace(tiny_run, adapter=adapter).merge(tmp_path / "merged")


def test_a_weight_that_changed_without_being_targeted_is_found(tiny_run: TinyRun, merged: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "merged"
    shutil.copytree(merged, damaged)
    weights = load_file(damaged / "model.safetensors")
    weights["model.norm.weight"] += 1
    base = Path(tiny_run.lock.folder)
    save_file(weights, damaged / "model.safetensors")
    with pytest.raises(ModelError, match=r"model\.norm\.weight changed although the adapter does not target it"):
        changed_weights(base, damaged, plan_merge(base, [tiny_run.adapter]), "cpu")
