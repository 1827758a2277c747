"""The comparison of evaluations: a row for each figure of each, and what keeps them from being compared."""

import pytest

from pipelines.compare import Evaluated, cautions, compared, draw, shown
from steps.page import render
from tests.evaluations import evaluation_report, figure, sample


def evaluation(number: int, *rows: str, limit: int = 64, shift: float = 0.0, extra: bool = False) -> Evaluated:
    figures = [
        figure("loss", 2.0, 1.5 - shift, -0.6 - shift, -0.4 - shift),
        figure("stops", 0.2, 0.25 + shift, -0.05 + shift, 0.15 + shift),
        *([figure("pass@1", 0.1, 0.3, 0.1, 0.3)] if extra else []),
    ]
    return Evaluated(
        number, f"run-{number}", evaluation_report(figures, [sample(row) for row in rows], max_new_tokens=limit)
    )


def test_equal_figures_stand_below_each_other() -> None:
    rows = compared([evaluation(1, "a"), evaluation(2, "a", shift=0.2, extra=True)])
    assert [(row[0], row[1]) for row in rows] == [
        ("loss (nats/token)", "1"),
        ("loss (nats/token)", "2"),
        ("stops (share)", "1"),
        ("stops (share)", "2"),
        ("pass@1 (share)", "2"),
    ]
    assert rows[0][2:] == ["2.000", "1.500", "-0.500", "-0.600 to -0.400", "better"]
    assert rows[2][2:] == ["20.0%", "25.0%", "+5.0%", "-5.0% to +15.0%", "undecided"]


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (evaluation(2, "a", "b"), []),
        (evaluation(2, "a", "c"), ["1 and 2 measured other rows: compare their differences, not their values."]),
        (evaluation(2, "a", "b", limit=32), ["1 and 2 cut answers at 64 and 32 tokens."]),
    ],
)
def test_what_keeps_them_from_being_compared_is_said(other: Evaluated, expected: list[str]) -> None:
    one = evaluation(1, "a", "b")
    assert list(cautions([one, other])) == expected
    text = shown([one, other])
    assert all(line in text for line in expected)
    assert text.splitlines()[:2] == ["1  run-1", "2  run-2"]
    assert max(map(len, text.splitlines())) <= 100


def test_the_page_is_self_contained() -> None:
    html = render(draw([evaluation(1, "<a>"), evaluation(2, "b", shift=0.3, extra=True)]))
    assert html.count("<svg") == 3
    assert "src=" not in html
    assert "http" not in html.replace("http://www.w3.org", "")
