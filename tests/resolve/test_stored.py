"""How a model is stored: what its config.json says, and pickles."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from steps.errors import ModelError
from steps.quantize.params import QuantizationParameters
from steps.quantize.quantize import quantize_model
from steps.resolve.base_model import local_model, local_tokenizer, lock_model, model_size
from steps.resolve.params import BaseModelParameters
from steps.resolve.stored import require_pinned_code, require_whole, stored_quantization
from tests.tiny import write_model
from tests.tiny_run import TinyRun

FOUR_BITS = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_compute_dtype": "float16"}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Conversions go into a cache of this test alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (FOUR_BITS | {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}, ("nf4", True, "float16")),
        (FOUR_BITS, ("fp4", False, "float16")),
        ({"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, ("nf4", False, "float32")),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, ("int8", False, "")),
    ],
)
def test_what_bitsandbytes_stored_is_recognised(config: dict[str, object], expected: tuple[str, bool, str]) -> None:
    found = stored_quantization({"quantization_config": config}, "here")
    assert found is not None
    assert (found.kind, found.double_quantization, found.compute_dtype) == expected


def test_a_model_at_full_precision_is_not_quantised() -> None:
    assert stored_quantization({"model_type": "llama"}, "here") is None


@pytest.mark.parametrize("method", ["gptq", "awq", "fp8"])
def test_other_methods_are_refused(tmp_path: Path, method: str) -> None:
    folder = write_model(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": method}}))
    with pytest.raises(
        ModelError, match=rf"parameters\.base_model\.folder: .* is quantised with {method}, .*; give the model"
    ):
        lock_model(BaseModelParameters(folder=str(folder)))


def test_code_of_another_repository_is_refused() -> None:
    require_pinned_code({"auto_map": {"AutoModelForCausalLM": "modeling.Model"}}, "here")
    with pytest.raises(ModelError, match=r"here takes its code from other/code, which revision does not pin"):
        require_pinned_code({"auto_map": {"AutoModelForCausalLM": "other/code--modeling.Model"}}, "here")


@pytest.fixture
def pickles(tmp_path: Path) -> Path:
    """A model folder as it was before safetensors."""
    folder = write_model(tmp_path / "pickles")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


def accepting(folder: Path) -> BaseModelParameters:
    return BaseModelParameters(folder=str(folder), accept_pickle=True)


def test_pickles_alone_are_refused(pickles: Path) -> None:
    with pytest.raises(
        ModelError,
        match=r"parameters\.base_model\.folder: .*only pickles.* save_pretrained, or set .*accept_pickle: true",
    ):
        lock_model(BaseModelParameters(folder=str(pickles)))


def test_a_folder_without_weights_is_refused(pickles: Path) -> None:
    (pickles / "pytorch_model.bin").unlink()
    with pytest.raises(ModelError, match=r"no \.safetensors file; give a model"):
        lock_model(accepting(pickles))


def test_accepted_pickles_are_converted_once(pickles: Path) -> None:
    lock = lock_model(accepting(pickles))
    assert lock.pickled
    assert model_size(lock) == (pickles / "pytorch_model.bin").stat().st_size
    converted = local_model(lock)
    weights = load_file(converted / "model.safetensors")
    originals = torch.load(pickles / "pytorch_model.bin", weights_only=True)
    assert weights.keys() == originals.keys()
    assert all(torch.equal(weights[name], originals[name]) for name in weights)
    before = (converted / "model.safetensors").stat().st_mtime_ns
    assert local_model(lock) == converted
    assert (converted / "model.safetensors").stat().st_mtime_ns == before
    assert local_tokenizer(lock) == pickles


def test_accepted_pickles_are_quantised_and_merged(pickles: Path, tiny_run: TinyRun, tmp_path: Path) -> None:
    """The same weights as those that ``tiny_run`` was trained on, so its adapter fits."""
    lock = lock_model(accepting(pickles))
    quantized = tmp_path / "quantized"
    quantized.mkdir()
    quantize_model(lock, QuantizationParameters(), quantized)
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (quantized, tiny_run.model))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    replace(tiny_run, lock=lock, model=quantized).merge(tmp_path / "merged")


class Malicious:
    """Unpickling this makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_pickles_that_hold_code_are_not_run(pickles: Path, tmp_path: Path) -> None:
    torch.save({"model.norm.weight": Malicious(tmp_path / "ran")}, pickles / "pytorch_model.bin")
    lock = lock_model(accepting(pickles))
    with pytest.raises(ModelError, match=r"accept_pickle: the pickles of pickles hold more than tensors"):
        local_model(lock)
    assert not (tmp_path / "ran").exists()


def test_safetensors_are_read_where_both_are_there(pickles: Path, tmp_path: Path) -> None:
    shutil.copy(write_model(tmp_path / "other") / "model.safetensors", pickles)
    lock = lock_model(accepting(pickles))
    assert not lock.pickled
    assert "pytorch_model.bin" not in lock.files


def test_a_package_has_no_pickles_to_accept() -> None:
    with pytest.raises(ValueError, match="accept_pickle has no meaning with a package"):
        BaseModelParameters(package="a", gguf="b.gguf", accept_pickle=True)


@pytest.mark.parametrize("kept", [100, 40_000])
def test_weights_that_are_cut_short_are_named(tmp_path: Path, kept: int) -> None:
    """A pointer of git-lfs in place of the weights, and a copy that was broken off."""
    folder = write_model(tmp_path / "model")
    require_whole(folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(b"version https://git-lfs.github.com/spec/v1\n" if kept == 100 else weights.read_bytes()[:kept])
    with pytest.raises(ModelError, match=r"model/model\.safetensors: not a whole \.safetensors file, .*git-lfs"):
        require_whole(folder)
    with pytest.raises(ModelError, match="not a whole"):
        quantize_model(lock_model(BaseModelParameters(folder=str(folder))), QuantizationParameters(), tmp_path / "out")


def test_a_model_that_does_not_continue_texts_is_refused_before_it_is_quantised(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    (folder / "config.json").write_text(json.dumps({"model_type": "t5"}), encoding="utf-8")
    with pytest.raises(ModelError, match="model does not continue texts; name a causal"):
        quantize_model(lock_model(BaseModelParameters(folder=str(folder))), QuantizationParameters(), tmp_path / "out")
