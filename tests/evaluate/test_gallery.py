"""Which prompts the evaluation's page shows, and how values are binned."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.evaluate.distributions import BINS, distribution
from steps.evaluate.gallery import gallery, spread
from steps.evaluate.report import Sample


def sample(name: str, base: int, tuned: int, loss: float | None = None) -> Sample:
    """A prompt whose answers have that many of three grades; ``loss`` is how far the row's loss fell."""
    grades = ["stops", "parses", "only code"]
    return Sample(
        row_id=name,
        instruction=f"Task {name}",
        reference="pass",
        base_answer=f"base {name}",
        tuned_answer=f"tuned {name}",
        base_grades={grade: number < base for number, grade in enumerate(grades)},
        tuned_grades={grade: number < tuned for number, grade in enumerate(grades)},
        base_loss=None if loss is None else 2.0,
        tuned_loss=None if loss is None else 2.0 - loss,
    )


def titles(samples: list[Sample]) -> dict[str, str]:
    return {section.title: section.text for section in gallery(samples)}


def test_gains_losses_and_some_of_the_rest_are_shown_once() -> None:
    samples = [sample(f"same {number}", 1, 1, 0.0) for number in range(20)]
    samples[3:3] = [sample("worse", 2, 1, 0.1), sample("a little better", 0, 1, 0.1), sample("worst", 3, 0, 0.1)]
    samples += [sample("best", 0, 3, 0.1), sample("better, and less loss", 0, 1, 0.4)]
    shown = titles(samples)
    assert [shown[f"Best gain {number}"] for number in (1, 2, 3)] == [
        "Task best",
        "Task better, and less loss",
        "Task a little better",
    ]
    assert [shown["Worst loss 1"], shown["Worst loss 2"]] == ["Task worst", "Task worse"]
    at_random = [text for title, text in shown.items() if title.startswith("At random")]
    assert len(set(at_random)) == 4
    assert all(text.startswith("Task same") for text in at_random)
    assert len(shown) == 9
    assert titles(samples) == shown, "the draw is the same at every rendering"


def test_equal_grades_are_told_apart_by_the_loss() -> None:
    shown = titles([sample("rose", 1, 1, -0.2), sample("fell", 1, 1, 0.2), sample("unknown", 1, 1)])
    assert shown == {"Best gain 1": "Task fell", "Worst loss 1": "Task rose", "At random 1": "Task unknown"}


def test_that_nothing_is_worse_is_said() -> None:
    assert titles([sample("better", 0, 1)])["Worst losses"] == "None: no answer is worse than the base's."


def test_both_answers_stand_side_by_side() -> None:
    section = gallery([sample("one", 3, 0, -0.25)])[0]
    assert section.codes == [
        ("base: stops, parses, only code; loss of the row's own completion 2.000", "base one"),
        ("tuned: none of the grades; loss of the row's own completion 2.250", "tuned one"),
    ]


@given(
    values=st.lists(st.tuples(*[st.floats(0, 1e4, allow_subnormal=False)] * 2), min_size=1, max_size=50),
)
def test_every_row_is_in_one_bin(values: list[tuple[float, float]]) -> None:
    base, tuned = zip(*values, strict=True)
    found = distribution("length, tokens", base, tuned)
    assert sum(found.base) == sum(found.tuned) == len(values)
    assert len(found.edges) == BINS + 1
    assert found.edges == sorted(found.edges)
    assert all(map(math.isfinite, found.edges))


def test_bins_are_the_same_for_both() -> None:
    found = distribution("length, tokens", [0, 1, 1], [9, 10, 10])
    assert (found.base[:2], found.tuned[-1]) == ([1, 2], 3)
    (section,) = spread([found])
    assert section.figures[0].startswith("<svg")
    assert spread([]) == []


@pytest.mark.parametrize("answers", [0, 1])
def test_few_prompts_are_enough(answers: int) -> None:
    assert len(gallery([sample("only", 1, 1)] * answers)) == answers + 1
