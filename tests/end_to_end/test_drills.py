"""Failure drills: a clear last line, nothing lost or left behind, the next run succeeds, production is untouched."""

import signal
from collections.abc import Iterator
from datetime import datetime, timedelta, tzinfo
from typing import Any, Self

import pytest
from zenml.models import PipelineRunResponse
from zenml.utils import time_utils

from pipelines.data import data
from pipelines.promotion import roll_back
from pipelines.prune import remove, unneeded
from steps.device import Hardware
from steps.train import planning
from tests.end_to_end.conftest import Workplace, loaded, ran
from tests.end_to_end.drilled import NO_STAGE, Drilled, in_production, left_behind
from tests.serving import Handler, serving
from tests.train.short_memory import no_memory_at


@pytest.fixture(scope="module")
def drilled(first_run: PipelineRunResponse, workplace: Workplace) -> Iterator[Drilled]:
    """A workplace whose model is in production."""
    place = Drilled(workplace.folder)
    assert ran(place.run()) == {"resolve", "promote"}
    yield place
    place.retire()


@pytest.fixture(autouse=True)
def untouched(drilled: Drilled) -> Iterator[None]:
    """After every drill production is what it was, and no folder is left."""
    before, others = in_production(), left_behind()
    yield
    assert in_production() == before
    assert sorted(left_behind()) == sorted(others)


def test_the_file_of_rows_is_gone(drilled: Drilled) -> None:
    rows = drilled.folder / "rows.jsonl"
    rows.rename(rows.with_suffix(".away"))
    try:
        assert f"'{rows}' matches no file" in drilled.failed()
    finally:
        rows.with_suffix(".away").rename(rows)
    assert ran(drilled.run()) == {"resolve"}


class Gone(Handler):
    """A hub that has no such repository."""

    def do_GET(self) -> None:
        self.answer({}, 404, {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET


@pytest.mark.parametrize("answers", [True, False], ids=["no such repository", "no hub"])
def test_the_hub_s_data_set_is_gone(drilled: Drilled, monkeypatch: pytest.MonkeyPatch, answers: bool) -> None:
    with serving(Gone) as address:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address if answers else "http://127.0.0.1:1")
        monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", address if answers else "http://127.0.0.1:1")
        said = drilled.failed(data={"sources": [{"hub": "owner/rows"}]})
    assert "owner/rows" in said
    assert ran(drilled.run()) == {"resolve"}


@pytest.mark.slow
def test_the_gpu_has_too_little_memory(
    drilled: Drilled, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """No plan fits; then memory ends in the middle of the only one; then there is enough.

    The card is one of the plan's table, since no test has one.
    """
    changes: dict[str, dict[str, Any]] = {
        "training": {"seed": 21},
        "checkpoints": {"folder": "{folder}/memory", "every_steps": 2},
        **NO_STAGE,
    }
    card = Hardware("cuda", "NVIDIA H100 80GB HBM3", 80 << 30)
    with monkeypatch.context() as patch:
        patch.setattr(planning, "describe_hardware", lambda: card)
        said = drilled.failed(plan={"memory_gib": 0.001}, **changes)
    assert "parameters.plan" in said
    with no_memory_at(6):  # the first one is the pre-flight's
        said = drilled.failed(**changes)
    assert said.startswith("error: memory is short (CUDA out of memory.); end what else uses it or take less")
    assert "Traceback" not in "".join(capfd.readouterr())
    run = drilled.run(**changes)
    assert ran(run) == {"resolve", "train", "evaluate", "merge", "promote"}
    assert loaded(run, "training_report").resumed_from == [4]


class Shifted(datetime):
    """The machine's clock after somebody has set it."""

    by = timedelta()

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        """The time as ZenML's records get it."""
        return super().now(tz) + cls.by


@pytest.mark.slow
@pytest.mark.parametrize("days", [-400, 400], ids=["back", "forward"])
def test_the_clock_is_set(drilled: Drilled, monkeypatch: pytest.MonkeyPatch, days: int) -> None:
    """The clock of ZenML's records is another one: the machine's is everybody's."""
    monkeypatch.setattr(time_utils, "datetime", Shifted)
    split: dict[str, dict[str, Any]] = {"splits": {"seed": 77 + days}}
    assert ran(drilled.run_pipeline(data, **split)) == {"resolve", "split"}
    remove(unneeded(1, "drilled"))
    drilled.run()
    monkeypatch.setattr(Shifted, "by", timedelta(days=days))
    assert ran(drilled.run()) == {"resolve"}
    remove(unneeded(1, "drilled"))
    monkeypatch.setattr(Shifted, "by", timedelta())
    assert ran(drilled.run_pipeline(data, **split)) == {"resolve", "split"}, "what was removed is not in the cache"
    assert ran(drilled.run()) == {"resolve"}


@pytest.mark.slow
def test_the_machine_restarts_again_and_again(drilled: Drilled) -> None:
    """Between two steps, in training, while its result is stored, in the merge, in the promotion.

    ZenML's store is opened anew each time.
    """
    changes: dict[str, dict[str, Any]] = {
        "splits": {"seed": 31},
        "checkpoints": {"folder": "{folder}/restarted", "every_steps": 2},
        **NO_STAGE,
    }
    before = in_production()
    for event, path in (
        ("import", "steps.format.format"),
        ("open", ".writing-10/course.json"),
        ("shutil.move", ".step-"),
        ("open", ".writing-model.safetensors"),
        ("import", "steps.promote.gate"),
    ):
        assert drilled.killed(event, path, **changes) == -signal.SIGKILL, path
        assert in_production() == before
    run = drilled.run(**changes)
    assert ran(run) == {"resolve", "promote"}
    assert loaded(run, "training_report").resumed_from == [8, 12]


@pytest.mark.slow
def test_the_machine_restarts_while_a_version_is_promoted(drilled: Drilled) -> None:
    """It has the stage already and its decision is not stored: one version serves, and the way back is known."""
    changes: dict[str, dict[str, Any]] = {"training": {"max_steps": 40}}
    before = in_production()
    assert drilled.killed("import", "steps.lineage.tell", **changes) == -signal.SIGKILL
    promoted = in_production()
    assert promoted.number > before.number
    assert ran(drilled.run(**changes)) == {"resolve", "promote"}
    assert in_production() == promoted, "the same adapter is a tie"
    _, restored = roll_back("drilled")
    assert restored.number == before.number
