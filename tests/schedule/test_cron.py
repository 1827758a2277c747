"""Cron expressions in systemd's words mean the same times; what not every cron understands is refused."""

import os
import random
import shutil
import subprocess
from datetime import datetime

import pytest

from pipelines.schedule.cron import check_cron, next_due, on_calendar, portable
from steps.errors import ConfigError

BASE = datetime(2026, 11, 24, 10, 7)
TIMES = 12
RANDOM = random.Random(11)  # noqa: S311 - picks expressions, no secrets

EXPRESSIONS = [
    "0 3 * * *",
    "*/15 0-23 */2 jan-mar mon-fri",
    "0 3 1 * mon",  # either day is enough
    "0 3 1,15 feb-apr 5",
    "0 3 31 2 mon",
    "0 3 */2 * mon-fri",  # both must fit
    "0 3 1-7 * */2",
    "0 3 * * fri-sun",
    "30 22-2 * nov-feb *",
    "0 3 * * 7",
    "0 3 1 * 0-7",
    "0 3 1-31 * mon",
    "*,5 3 * * *",
    "0 3 29 2 *",
    "5-50/15,59 4 1-5/2,20 * mon-wed,fri",
    "00 03 * * SUN",
]


def any_expression() -> str:
    """Stars, steps, ranges, lists and numbers, at random."""

    def field(low: int, high: int) -> str:
        first, last = sorted(RANDOM.sample(range(low, high + 1), 2))
        step = RANDOM.randint(1, 4)
        return RANDOM.choice(
            ["*", "*", f"*/{step}", f"{first}", f"{first}-{last}", f"{first}-{last}/{step}", f"{first},{last}"]
        )

    return " ".join(field(low, high) for low, high in ((0, 59), (0, 23), (1, 28), (1, 12), (0, 6)))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd's own reading is the judge")
@pytest.mark.parametrize("cron", [*EXPRESSIONS, *(any_expression() for _ in range(60))])
def test_systemd_and_cron_are_due_at_the_same_times(cron: str) -> None:
    check_cron(cron)
    expected, due = [], BASE
    for _ in range(TIMES):
        due = next_due(cron, due)
        expected.append(due)
    assert sorted({time for text in on_calendar(cron) for time in elapses(text)})[:TIMES] == expected


@pytest.mark.parametrize("cron", [*EXPRESSIONS, *(any_expression() for _ in range(60))])
def test_the_crontab_line_means_the_same(cron: str) -> None:
    due = again = BASE
    for _ in range(TIMES):
        due, again = next_due(cron, due), next_due(portable(cron), again)
        assert again == due


def elapses(calendar: str) -> list[datetime]:
    """The next times by systemd's own reading."""
    command = [
        "systemd-analyze",
        "calendar",
        f"--iterations={TIMES}",
        f"--base-time={BASE:%Y-%m-%d %H:%M:%S}",
        calendar,
    ]
    environment = {**os.environ, "TZ": "UTC", "LC_ALL": "C"}
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    lines = [line.split(": ", 1)[1] for line in said.splitlines() if "Next elapse" in line or "Iter. #" in line]
    times = [line.strip() for line in lines if line.strip() != "never"]  # the 31st of February beside Mondays
    return [datetime.strptime(time, "%a %Y-%m-%d %H:%M:%S UTC") for time in times]


@pytest.mark.parametrize(
    ("cron", "message"),
    [
        ("@daily", "has 1 fields, not 5"),
        ("0 3 * * * root", "has 6 fields, not 5"),
        ("5/15 * * * *", "'5/15' is no minute: "),
        ("0 3 L * *", "'l' is no day of the month"),
        ("0 3 15W * *", "'15w' is no day of the month"),
        ("0 3 * * 1#2", "'1#2' is no day of the week"),
        ("0 3 * foo *", "'foo' is no month"),
        ("0 3 ? * 1", "is no day of the month"),
        ("99 3 * * *", "out of range"),
        ("0 3 0 * *", "out of range"),
        ("0 3 * * 8", "out of range"),
        ("0 3 31 2 *", "failed to find next date"),
        ("H 3 * * *", "'h' is no minute"),
    ],
)
def test_what_not_every_cron_understands_is_refused(cron: str, message: str) -> None:
    with pytest.raises(ConfigError, match="--cron") as caught:
        check_cron(cron)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
