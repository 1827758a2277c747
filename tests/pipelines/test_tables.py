"""Tables fit the terminal, and their numbers are those that people read."""

from pipelines.console import duration
from pipelines.prune import size
from pipelines.runs import COLUMNS, shown


def test_the_history_fits_the_terminal() -> None:
    row = ["2026-01-02 03:04", "01234567", "quickstart:12", "12,345 @ 27bafe4 c0ffee0", "SmolLM2-135M-Instruct.Q4_1"]
    rows = [[*row, "1.786>1.343", "20%>90%", "0%>85%", "production", "10/10", "12.5 h", "completed"]]
    text = shown(rows)
    assert len(rows[0]) == len(COLUMNS)
    assert max(map(len, text.splitlines())) <= 120
    assert "01234567" in text
    assert shown([]) == "no runs yet\n"


def test_sizes_are_readable() -> None:
    assert [size(n) for n in (1500, 2_500_000, 13_500_000_000)] == ["1.5 kB", "2.50 MB", "13.50 GB"]


def test_durations_are_readable() -> None:
    assert [duration(n) for n in (0.04, 99.94, 100, 5999, 9000)] == ["0.0 s", "99.9 s", "2 min", "100 min", "2.5 h"]
