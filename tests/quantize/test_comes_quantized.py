"""Models that were quantised before they came here: used as they are, and merged at full precision."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from steps.device import describe_device
from steps.errors import ModelError
from steps.evaluate.evaluate import evaluate_adapter
from steps.evaluate.params import EvaluationParameters, SandboxParameters
from steps.quantize.load import load_quantized
from steps.quantize.params import QuantizationParameters
from steps.quantize.quantize import quantize_model
from steps.resolve.base_model import local_model, local_tokenizer, lock_model, stored_model
from steps.resolve.locks import ModelLock, StoredQuantization
from steps.resolve.params import BaseModelParameters
from steps.train.params import TrainingParameters
from steps.train.train import train_adapter
from tests.quantize.conftest import Stored
from tests.tiny import write_tokenizer
from tests.tiny_run import TinyRun


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Conversions go into a cache of this test alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def published(stored: Stored, tmp_path: Path) -> ModelLock:
    """A folder as its publisher would have it: quantised weights, their configuration, a tokenizer."""
    if stored.parameters.kind == "none":
        pytest.skip("not quantised")
    folder = tmp_path / "published"
    shutil.copytree(stored.folder, folder, ignore=shutil.ignore_patterns("provenance.json"))
    write_tokenizer(folder)
    return lock_model(BaseModelParameters(folder=str(folder)))


def kind_of(lock: ModelLock) -> StoredQuantization:
    """How a model that comes quantised is stored."""
    assert lock.quantization is not None
    return lock.quantization


def test_it_is_recognised_and_copied(stored: Stored, published: ModelLock, tmp_path: Path) -> None:
    found = kind_of(published)
    assert (found.kind, found.double_quantization) == (stored.parameters.kind, stored.parameters.nested)
    output = tmp_path / "quantized"
    output.mkdir()
    report = quantize_model(published, QuantizationParameters(kind=found.kind), output)
    assert (output / "model.safetensors").read_bytes() == (stored.folder / "model.safetensors").read_bytes()
    assert report.came_quantized
    assert (report.layers, report.relative_error) == (14, None)
    assert (report.double_quantization, report.compute_dtype) == (
        stored.report.double_quantization,
        stored.report.compute_dtype,
    )
    assert "came quantised" in report.html()
    assert "not known" in report.html()


def test_training_and_merge(published: ModelLock, tiny_run: TinyRun, tmp_path: Path) -> None:
    """The merged model is what was trained: the adapter on the very values that the quantised layers stand for."""
    quantized, adapter, merged = (tmp_path / name for name in ("quantized", "adapter", "merged"))
    quantized.mkdir()
    adapter.mkdir()
    quantize_model(published, QuantizationParameters(kind=kind_of(published).kind), quantized)
    training = TrainingParameters(max_steps=4, batch_size=2, gradient_accumulation=1, learning_rate=5e-3)
    train_adapter(tiny_run.blocks, quantized, tiny_run.tokenizer, training, adapter)
    test = tiny_run.examples["test"]
    report = replace(tiny_run, lock=published, model=quantized, adapter=adapter).merge(merged)
    few = EvaluationParameters(max_prompts=1, max_new_tokens=2, sandbox=SandboxParameters(execute="never"))
    figures = evaluate_adapter(test, quantized, adapter, tiny_run.tokenizer, few).figures
    tuned = next(figure.tuned for figure in figures if figure.name == "loss")
    assert report.merged_loss == pytest.approx(tuned, abs=0.05)
    full, dequantized = report.from_trained  # both targets are the same weights
    assert full.kl_divergence == pytest.approx(dequantized.kl_divergence, abs=1e-3)
    assert full.loss == pytest.approx(dequantized.loss, abs=1e-3)
    assert "quantization_config" not in json.loads((merged / "config.json").read_text())


def test_full_precision_is_what_the_layers_multiply_by(published: ModelLock) -> None:
    whole = local_model(published)
    assert whole != stored_model(published)
    weights = load_file(whole / "model.safetensors")
    assert all(weight.dtype == torch.bfloat16 for weight in weights.values())
    ids = torch.arange(4, 68).view(1, -1)
    provenance = Path(published.folder) / "provenance.json"
    provenance.write_text(json.dumps({"base_model": {"trust_remote_code": False}}))
    quantized = load_quantized(Path(published.folder), describe_device("float32"))
    with torch.inference_mode():
        expected = quantized(input_ids=ids).logits
        got = AutoModelForCausalLM.from_pretrained(whole, dtype=torch.float32)(input_ids=ids).logits
    torch.testing.assert_close(got, expected, rtol=0, atol=0.02)


def test_a_tokenizer_needs_no_conversion(published: ModelLock, tmp_path: Path) -> None:
    assert local_tokenizer(published) == Path(published.folder)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("there", "asked", "message"),
    [
        (("nf4", True, "bfloat16"), {"kind": "fp4"}, r"kind: fp4 is asked for, and m comes quantised with kind nf4; "),
        (("int8", False, ""), {}, r"kind: nf4 is asked for, and m comes quantised with kind int8; set kind: int8, or"),
        (("nf4", True, "bfloat16"), {"kind": "none"}, r"kind: none is asked for, .* give the full-precision model"),
        (
            ("nf4", True, "bfloat16"),
            {"double_quantization": False},
            r"double_quantization: false is asked for, .* with double_quantization true; set double_quantization: true",
        ),
        (
            ("nf4", True, "float16"),
            {"compute_dtype": "float32"},
            r"compute_dtype: float32 is asked for, .*; set compute_dtype: float16, or give",
        ),
    ],
)
def test_parameters_must_agree(
    there: tuple[str, bool, str], asked: dict[str, object], message: str, tmp_path: Path
) -> None:
    fields = zip(("kind", "double_quantization", "compute_dtype"), there, strict=True)
    lock = ModelLock(name="m", folder="/m", files={}, quantization=StoredQuantization.model_validate(dict(fields)))
    with pytest.raises(ModelError, match=r"^parameters\.quantization\." + message):
        quantize_model(lock, QuantizationParameters.model_validate(asked), tmp_path)
