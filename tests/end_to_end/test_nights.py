"""Nights of a schedule, for real: what its timer starts, on a tiny model."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from zenml.models import PipelineRunResponse

from materializers.registry import PRODUCTION, holder
from pipelines.schedule import night, run, store
from pipelines.schedule.plan import Schedule
from tests.end_to_end.conftest import ROOT, Workplace
from tests.tiny import row, write_rows

BROKEN_FEED = "broken feed"
"""Rows of one group are on one side of the split: these on the training side, so the test rows stay as they are."""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder of its own, and the folder in which schedules are made."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(ROOT)
    return tmp_path


@pytest.fixture
def nightly(machine: Path, workplace: Workplace) -> Iterator[Path]:
    """The configuration of a model that goes into production, on few rows at first; its schedule is "nightly"."""
    write_rows(machine / "rows.jsonl", 60)
    place = Workplace(workplace.folder, "nightly", {"stage": "production"})
    path = place.config(
        data={"sources": [{"files": str(machine / "rows.jsonl")}]},
        training={"max_steps": None, "epochs": 3},
        evaluation={"sandbox": {"execute": "never"}},
    )
    config = Path(shutil.copy(path, machine / "nightly.yaml"))
    store.keep(store.entry_of(Schedule("nightly", config, "0 3 * * *"), "crontab"))
    yield config
    place.retire()


def test_a_night_without_news_says_so(
    first_run: PipelineRunResponse, workplace: Workplace, machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store.keep(store.entry_of(Schedule("tiny", workplace.config(), "0 3 * * *"), "crontab"))
    assert night.main("tiny") == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert re.fullmatch(
        r"nothing changed: all but resolve came from the cache as tiny:\d+ made it; nothing in production; \d+\.\d s",
        last,
    )


@pytest.mark.slow
def test_three_nights(nightly: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Nothing new; more rows, which train it better; rows of another kind, which make it worse."""
    rows = nightly.with_name("rows.jsonl")

    def sleep(what: str) -> list[str]:
        assert run.main("nightly") == 0
        lines = capfd.readouterr().out.rstrip().splitlines()
        with capfd.disabled():  # the table of docs/schedule.md is made of these
            print(f"\n{what}", *lines[-lines[::-1].index("") :], sep="\n  ")
        assert store.noted("nightly").endswith(lines[-1])
        return lines

    assert "retrained, nightly:1 promoted to production; in production: nightly:1" in sleep("the evening before")[-1]
    assert sleep("unchanged")[-1].startswith("nothing changed: all but resolve came from the cache as nightly:1")

    write_rows(rows, 120)
    more = sleep("rows added")
    assert "rows since the former run: 60 before, 60 new, 0 changed, 0 gone" in more
    assert "retrained, nightly:3 promoted to production; in production: nightly:3" in more[-1]

    with rows.open("a") as stream:
        for number in range(240):
            other = f"print({row(number * 7)['instruction'][::-1]!r})\n"
            stream.write(json.dumps({**row(number), "completion": other, "group": BROKEN_FEED}) + "\n")
    worse = sleep("rows that make it worse")
    assert "rows since the former run: 120 before, 240 new, 0 changed, 0 gone" in worse
    assert worse[-1].startswith("retrained, nightly:4 not promoted to production (loss better than production: ")
    assert "in production: nightly:3" in worse[-1]
    present = holder("nightly", PRODUCTION)
    assert present is not None
    assert present.number == 3
