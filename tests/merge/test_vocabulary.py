"""Adapter, base model and served tokenizer have one vocabulary, or nothing is merged."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from steps.errors import ModelError
from steps.merge.stream import plan_merge
from tests.tiny_run import TinyRun


def with_another_token(folder: Path, copy: Path) -> Path:
    """A copy of the folder whose tokenizer has one token more."""
    shutil.copytree(folder, copy)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<another>"])
    tokenizer.save_pretrained(copy)
    return copy


@pytest.mark.parametrize("which", ["adapter", "tokenizer"])
def test_tokens_have_one_id(tiny_run: TinyRun, tmp_path: Path, which: str) -> None:
    folder = with_another_token(getattr(tiny_run, which), tmp_path / which)
    run = replace(tiny_run, **{which: folder})  # type: ignore[arg-type]  # both are folders
    with pytest.raises(
        ModelError, match=rf"{which}: the tokenizer gives tokens other ids than that of .* \(vocabulary"
    ):
        run.merge(tmp_path / "merged")
    assert list((tmp_path / "merged").iterdir()) == []


def test_a_chat_template_is_no_other_vocabulary(tiny_run: TinyRun, tmp_path: Path) -> None:
    copy = tmp_path / "tokenizer"
    shutil.copytree(tiny_run.tokenizer, copy)
    (copy / "chat_template.jinja").write_text("{{ messages[0].content }}")
    replace(tiny_run, tokenizer=copy).merge(tmp_path / "merged")
    assert (tmp_path / "merged" / "chat_template.jinja").read_text() == "{{ messages[0].content }}"


def test_every_token_has_an_embedding(tiny_run: TinyRun) -> None:
    plan = plan_merge(Path(tiny_run.lock.folder), [tiny_run.adapter])
    plan.require_vocabulary(400, "tiny")
    with pytest.raises(ModelError, match="tiny: the tokenizer has 401 tokens and the model's vocabulary 400"):
        plan.require_vocabulary(401, "tiny")
