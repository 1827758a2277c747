"""Evaluations as a test needs them: what it does not look at is filled in."""

from collections.abc import Sequence
from typing import Any

from steps.evaluate.report import EvaluationReport, Figure, Sample


def figure(name: str, base: float, tuned: float, low: float, high: float, **changes: Any) -> Figure:
    """A loss, which is to fall, or a share, which is to rise; ``low`` and ``high`` bound the difference."""
    of_loss = {"unit": "nats/token", "better": "lower"} if "loss" in name else {"unit": "share", "better": "higher"}
    about = {"name": name, "base": base, "tuned": tuned, "difference": round(tuned - base, 6), "low": low, "high": high}
    return Figure.model_validate({**about, **of_loss, **changes})


def sample(row_id: str, instruction: str = "", base_answer: str = "", tuned_answer: str = "") -> Sample:
    """A prompt with both answers."""
    return Sample(
        row_id=row_id,
        instruction=instruction,
        reference="",
        base_answer=base_answer,
        tuned_answer=tuned_answer,
        base_grades={},
        tuned_grades={},
    )


def evaluation_report(figures: Sequence[Figure], samples: Sequence[Sample] = (), **changes: Any) -> EvaluationReport:
    """A report of 20 rows with 95 % intervals."""
    measured = {"loss_rows": 20, "loss_tokens": 1000, "answers": 20, "confidence": 0.95, "max_new_tokens": 64}
    about = {"figures": list(figures), "samples": list(samples), "device": "CPU", "seconds": 1.0}
    return EvaluationReport.model_validate({**measured, **about, **changes})
