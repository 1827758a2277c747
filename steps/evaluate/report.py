"""Base against tuned, on the same rows."""

import math
from typing import Literal

from pydantic import BaseModel

from steps.evaluate.distributions import Distribution
from steps.evaluate.params import SamplingParameters
from steps.evaluate.sandbox.verdict import Verdict
from steps.report import Report


class Figure(BaseModel):
    """One figure of both models; ``low`` and ``high`` bound the difference tuned - base.

    ``noise`` is what the base's own value changed when it was asked again, None where that was not measured.
    """

    name: str
    base: float
    tuned: float
    difference: float
    low: float
    high: float
    unit: str
    better: Literal["lower", "higher", "neither"]
    rows: int | None = None  # of a share of rows: how many
    base_interval: tuple[float, float] | None = None  # of a share: each model's own
    tuned_interval: tuple[float, float] | None = None
    noise: float | None = None

    @property
    def verdict(self) -> Literal["better", "worse", "lower", "higher", "undecided"]:
        """On which side of zero the whole interval of the difference lies; better or worse where one of them is."""
        if self.low <= 0 <= self.high:
            return "undecided"
        if self.better == "neither":
            return "lower" if self.high < 0 else "higher"
        return "better" if (self.high < 0) == (self.better == "lower") else "worse"

    def signed(self, value: float) -> str:
        """A difference, with its sign."""
        return f"{'+' if value >= 0 else ''}{self.show(value)}"

    @property
    def interval(self) -> str:
        """Of the difference, with signs."""
        return f"{self.signed(self.low)} to {self.signed(self.high)}"

    def values(self) -> list[str]:
        """Base, tuned, difference, its interval and the verdict."""
        return [
            self.show(self.base),
            self.show(self.tuned),
            self.signed(self.difference),
            self.interval,
            self.verdict,
        ]

    def shown_noise(self) -> str:
        """Of a share as such; of others to two digits, since it is often below what is shown of the figure."""
        if self.noise is None:
            return ""
        return self.show(self.noise) if self.unit == "share" else f"{self.noise:.2g}"

    def show(self, value: float) -> str:
        """A value of this figure as people read it."""
        return f"{value:.1%}" if self.unit == "share" else f"{value:.1f}" if self.unit == "tokens" else f"{value:.3f}"


class Sample(BaseModel):
    """One prompt with both answers and what they are worth."""

    row_id: str
    instruction: str
    reference: str
    base_answer: str
    tuned_answer: str
    base_grades: dict[str, bool]
    tuned_grades: dict[str, bool]
    base_verdict: Verdict | None = None
    tuned_verdict: Verdict | None = None
    base_loss: float | None = None  # of the row's own completion, nats per token
    tuned_loss: float | None = None


class Verdicts(BaseModel):
    """What became of the programs that ran in the sandbox.

    ``untested`` has the rows whose own solution fails their tests here, or whose tests anything passes: they say
    nothing about a model.
    """

    isolated: bool
    programs: int
    with_tests: int
    tested: int
    untested: list[tuple[str, str]]  # row id, why
    base: dict[str, int]  # how many of each kind of verdict
    tuned: dict[str, int]


class SetReport(BaseModel):
    """The figures of one evaluation set."""

    name: str
    figures: list[Figure]
    samples: list[Sample]
    verdicts: Verdicts | None = None
    loss_tokens: int
    distributions: tuple[Distribution, ...] = ()


class ForgettingReport(BaseModel):
    """Loss and perplexity on a reference text; ``tokens`` are those whose loss counts."""

    text: str
    windows: int
    tokens: int
    figures: list[Figure]


class TaskReport(BaseModel):
    """The figures of a task of lm-eval: a metric's mean over the documents."""

    name: str
    documents: int
    figures: list[Figure]


class ValidationLosses(BaseModel):
    """Loss and perplexity on the rows that training chose its checkpoint by, so that they prove nothing."""

    figures: list[Figure]
    rows: int
    tokens: int


class ProductionReport(BaseModel):
    """The candidate against the version that was in production; in the figures that one stands as the base.

    There are none where its model was not asked: ``same``, because its adapter is the candidate's, or ``why_not``.
    """

    version: int
    figures: list[Figure] = []
    same: bool = False
    why_not: str = ""


class NoiseFloor(BaseModel):
    """What the base was asked again for the figures' noise, in the opposite order."""

    loss_rows: int
    answers: int
    batch_size: int


class EvaluationReport(Report):
    """Loss on completions, and grades of answers, for base and tuned; the figures are the test rows'."""

    figures: list[Figure]
    samples: list[Sample]
    loss_rows: int
    loss_tokens: int
    answers: int
    verdicts: Verdicts | None = None
    confidence: float
    max_new_tokens: int
    device: str
    seconds: float
    sets: tuple[SetReport, ...] = ()
    forgetting: ForgettingReport | None = None
    tasks: tuple[TaskReport, ...] = ()
    distributions: tuple[Distribution, ...] = ()
    validation: ValidationLosses | None = None
    noise: NoiseFloor | None = None
    sampling: SamplingParameters | None = None
    production: ProductionReport | None = None

    def figure(self, name: str) -> Figure:
        """The figure of that name."""
        return next(figure for figure in self.figures if figure.name == name)

    def named_figures(self, separator: str) -> dict[str, Figure]:
        """Those of the test rows; then those of the validation rows, each set and each task, with that in front."""
        others = [(one.name, one.figures) for one in self.sets]
        others += [(one.name, one.figures) for one in self.tasks]
        if self.validation is not None:
            others.insert(0, ("validation", self.validation.figures))
        forgetting = self.forgetting.figures if self.forgetting else []
        own = {figure.name: figure for figure in (*self.figures, *forgetting)}
        return own | {f"{of}{separator}{figure.name}": figure for of, figures in others for figure in figures}

    def metadata(self) -> dict[str, str | int | float | bool]:
        """Every figure of base, tuned and production, those of other rows by their names; whether code was isolated."""
        values: dict[str, str | int | float | bool] = {}
        if self.verdicts is not None:
            values["isolated"] = self.verdicts.isolated
        for name, figure in self.named_figures(" ").items():
            for model, value in (("base", figure.base), ("tuned", figure.tuned)):
                if math.isfinite(value):
                    values[f"{model}_{name.replace(' ', '_')}"] = round(value, 4)
        if self.production is not None:
            values["production_version"] = self.production.version
            for figure in self.production.figures:
                if math.isfinite(figure.base):
                    values[f"production_{figure.name.replace(' ', '_')}"] = round(figure.base, 4)
        return values

    def decisive_json(self) -> str:
        """Everything but the time that it took and the device's description."""
        return self.model_dump_json(exclude={"seconds", "device"})
