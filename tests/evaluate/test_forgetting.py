"""The loss on a reference text: its windows, its figure, and what the gate makes of it."""

import shutil
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from steps.device import describe_device
from steps.errors import DataError
from steps.evaluate.evaluate import evaluate_adapter
from steps.evaluate.forgetting import context_of, read_reference, windows_of
from steps.evaluate.losses import completion_losses
from steps.evaluate.params import EvaluationParameters, SandboxParameters
from steps.evaluate.report import EvaluationReport
from steps.promote.gate import decide
from steps.promote.params import PromotionParameters
from steps.quantize.load import load_quantized
from steps.resolve.benchmarks import lock_benchmarks
from steps.tokenizer import load_tokenizer
from tests.promote.test_gate import merge
from tests.tiny_run import TinyRun, with_biases

PROSE = Path(__file__).parents[2] / "LICENSE"
CONTEXT = 512  # of the tiny model


def test_the_loss_is_the_models_own_over_the_same_windows(tiny_run: TinyRun) -> None:
    model, tokenizer = load_quantized(tiny_run.model, describe_device("float32")), load_tokenizer(tiny_run.tokenizer)
    text = PROSE.read_text()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    pieces = [ids[start : start + CONTEXT - 1] for start in range(0, len(ids) - CONTEXT + 2, CONTEXT - 1)]
    assert len(ids) - (CONTEXT - 1) < len(pieces) * (CONTEXT - 1) <= len(ids), "all but an incomplete one"
    losses = completion_losses(model, windows_of(text, tokenizer, context_of(tiny_run.model), 1000), 4, "base")
    assert len(losses) == len(pieces) > 4
    for piece, loss in list(zip(pieces, losses, strict=True))[:3]:
        window = torch.tensor([[tokenizer.bos_token_id, *piece]])
        with torch.inference_mode():
            expected = float(model(input_ids=window, labels=window).loss)
        assert loss.tokens == CONTEXT - 1
        assert loss.nats / loss.tokens == pytest.approx(expected, abs=1e-4)


def test_fewer_windows_are_spread_over_the_text(tiny_run: TinyRun) -> None:
    tokenizer = load_tokenizer(tiny_run.tokenizer)
    every = windows_of(PROSE.read_text(), tokenizer, CONTEXT, 1000)["completion_ids"][:]
    three = windows_of(PROSE.read_text(), tokenizer, CONTEXT, 3)["completion_ids"][:]
    assert three == [every[0], every[round((len(every) - 1) / 2)], every[-1]]


def test_a_text_of_one_window_is_too_short(tiny_run: TinyRun) -> None:
    with pytest.raises(DataError, match=r"reference_text: 3 tokens make 0 windows of 511, .* give a longer text"):
        windows_of("abc"[:3], load_tokenizer(tiny_run.tokenizer), CONTEXT, 16)


def evaluated(run: TinyRun, adapter: Path, text: Path) -> EvaluationReport:
    asked = EvaluationParameters(
        max_prompts=2, max_new_tokens=2, reference_text=str(text), sandbox=SandboxParameters(accept_risk=True)
    )
    lock = lock_benchmarks((), asked.reference_text, {})
    return evaluate_adapter(run.examples["test"], run.model, adapter, run.tokenizer, asked, benchmarks=lock)


def test_a_model_of_noise_forgets_and_is_not_promoted(tiny_run: TinyRun, tmp_path: Path) -> None:
    """The base knows one thing: tied embeddings make the same token again likely."""
    from safetensors.torch import load_file, save_file

    run = with_biases(tiny_run, tmp_path / "model", tied=True)
    shutil.copytree(tiny_run.adapter, tmp_path / "noise")
    weights = tmp_path / "noise" / "adapter_model.safetensors"
    torch.manual_seed(0)
    save_file({name: torch.randn_like(tensor) for name, tensor in load_file(weights).items()}, weights)
    text = tmp_path / "known.txt"
    text.write_text("z" * 3 * CONTEXT)
    report = evaluated(run, tmp_path / "noise", text)
    assert report.forgetting is not None
    loss, perplexity = report.forgetting.figures
    assert (loss.name, perplexity.name) == ("reference loss", "reference perplexity")
    assert loss.low > 0.1
    assert loss.verdict == perplexity.verdict == "worse"
    assert report.metadata()["tuned_reference_loss"] == pytest.approx(loss.tuned, abs=1e-4)
    assert "windows of known.txt" in report.html()
    failed = [one.name for one in decide(report, merge(), PromotionParameters()).conditions if not one.passed]
    assert "little is forgotten" in failed
    unbound = decide(report, merge(), PromotionParameters(max_forgetting=None))
    assert "little is forgotten" not in [one.name for one in unbound.conditions]
    wide = decide(report, merge(), PromotionParameters(max_forgetting=loss.high))
    assert [one.passed for one in wide.conditions if one.name == "little is forgotten"] == [True]


def test_a_changed_text_changes_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "prose.txt"
    path.write_text("Once upon a time.")
    first = lock_benchmarks((), str(path), {})
    assert first.reference_text is not None
    assert read_reference(first.reference_text) == "Once upon a time."
    path.write_text("Once upon a tide.")
    assert lock_benchmarks((), str(path), {}).decisive_json() != first.decisive_json()
    with pytest.raises(DataError, match=r"prose\.txt: changed since the resolve step locked it"):
        read_reference(first.reference_text)


def test_a_text_that_cannot_be_read_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"parameters\.evaluation\.reference_text: no file 'none\.txt' below"):
        lock_benchmarks((), "none.txt", {})
    path = tmp_path / "latin.txt"
    path.write_bytes(b"caf\xe9")
    lock = lock_benchmarks((), str(path), {}).reference_text
    assert lock is not None
    with pytest.raises(DataError, match=r"latin\.txt: not UTF-8"):
        read_reference(lock)


def test_one_window_is_no_choice() -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 2"):
        EvaluationParameters(reference_windows=1)
