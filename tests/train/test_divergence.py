"""A loss or gradient that is not finite is skipped, named, and at last an error; one that stands out is marked."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict
from safetensors.torch import load_file, save_file

from steps.errors import TrainingError
from steps.train.divergence import spikes
from steps.train.page import draw
from steps.train.params import DivergenceParameters, LoraParameters
from steps.train.report import TrainedStep
from tests.tiny_run import TinyRun

POISON = 0
"""A token that no row has; the poisoned model's embedding of it is not a number."""


def poisoned(run: TinyRun, folder: Path, blocks: dict[str, list[int]]) -> TinyRun:
    """The tiny model with a poisonous token, and the named blocks of each split with that token in them."""
    model = folder / "model"
    shutil.copytree(run.model, model)
    weights = load_file(model / "model.safetensors")
    weights["model.embed_tokens.weight"][POISON] = float("nan")
    save_file(weights, model / "model.safetensors", {"format": "pt"})

    def poison(split: str, row: dict[str, list[int]], number: int) -> dict[str, list[int]]:
        bad = number in blocks.get(split, [])
        return {**row, "input_ids": [POISON, *row["input_ids"][1:]] if bad else row["input_ids"]}

    def rows(split: str, data: Dataset) -> Dataset:
        named = data.remove_columns("row_ids").add_column(
            "row_ids", [[f"{split}-{number}"] for number in range(len(data))]
        )
        return named.map(lambda row, number: poison(split, row, number), with_indices=True)

    return replace(run, model=model, blocks=DatasetDict({name: rows(name, data) for name, data in run.blocks.items()}))


def test_a_step_with_a_bad_block_is_skipped_and_its_rows_named(
    tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The other micro-batch of the step is not blamed, and no weight is touched by the step."""
    run = poisoned(tiny_run, tmp_path, {"train": [3]})
    report = run.train(tmp_path / "adapter", batch_size=1, gradient_accumulation=2, max_steps=14)
    (skipped,) = report.skipped
    assert (skipped.blocks, skipped.row_ids, skipped.reason) == ([3], ["train-3"], "the loss is not finite")
    assert [step.step for step in report.steps] == [step for step in range(1, 15) if step != skipped.step]
    assert 0 < max(point.loss for point in report.validation) < 7
    assert f"step {skipped.step} skipped, the loss is not finite (block 3 of the training split, rows train-3)" in (
        capsys.readouterr().out
    )
    assert "train-3" in draw(report).sections[1].table.rows[0][3]  # type: ignore[union-attr]  # it has one


def test_too_many_bad_steps_in_a_row_stop_the_run(tiny_run: TinyRun, tmp_path: Path) -> None:
    run = poisoned(tiny_run, tmp_path, {"train": list(range(28))})
    message = (
        r"the training diverged: the loss is not finite at step 3 \(block \d+, \d+ of the training split, rows "
        r"train-\d+, train-\d+\), 3 in a row where .*max_skips is 2; look at these rows, or lower .*learning_rate"
    )
    with pytest.raises(TrainingError, match=message):
        run.train(tmp_path / "adapter", divergence=DivergenceParameters(max_skips=2))
    assert list((tmp_path / "adapter").iterdir()) == []


def test_a_gradient_that_overflows_blames_the_whole_step(tiny_run: TinyRun, tmp_path: Path) -> None:
    """An adapter's first update is zero however it is scaled, so the loss is finite and only its gradient is not."""
    lora = LoraParameters(alpha=1e38)
    none = DivergenceParameters(max_skips=0)
    with pytest.raises(TrainingError, match=r"gradient norm is not finite at step 1 \(block \d+, \d+ of"):
        tiny_run.train(tmp_path / "adapter", lora=lora, max_steps=3, divergence=none)


def test_a_bad_validation_loss_is_an_error(tiny_run: TinyRun, tmp_path: Path) -> None:
    run = poisoned(tiny_run, tmp_path, {"validation": [0]})
    with pytest.raises(TrainingError, match="the validation loss after step 4 is not finite"):
        run.train(tmp_path / "adapter")


def losses(*values: float) -> list[TrainedStep]:
    return [TrainedStep(step=step, loss=loss, learning_rate=1, grad_norm=1) for step, loss in enumerate(values, 1)]


def test_a_spike_stands_out_of_what_went_before() -> None:
    calm = [2.0, 2.1, 1.9, 2.05, 1.95, 2.0, 2.1, 1.9]
    assert spikes(losses(*calm), DivergenceParameters()) == []
    assert spikes(losses(*calm, 5.0, 2.0, 5.0), DivergenceParameters()) == [9, 11], "one does not hide the next"
    assert spikes(losses(*calm, 0.1), DivergenceParameters()) == [], "a low loss is no spike"
    assert spikes(losses(9.0, 2.0, 8.0), DivergenceParameters()) == [], "too few losses to compare with"
    assert spikes(losses(*calm, 2.5), DivergenceParameters(spike_deviations=3)) == [9]
    assert spikes(losses(*calm, 2.5), DivergenceParameters(spike_deviations=9)) == []
    falling = [5 - number / 10 + number % 2 / 20 for number in range(40)]
    assert spikes(losses(*falling, 5.5), DivergenceParameters()) == [41], "nor does a falling loss hide it"
    higher = [step + 3 for step in calm]
    assert spikes(losses(*calm, *higher, 5.0), DivergenceParameters(spike_window=5))[-1] < 17, "a new level is no spike"
