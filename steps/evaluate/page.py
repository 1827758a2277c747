"""The page of the evaluation."""

from steps.evaluate.report import EvaluationReport, Figure, Sample
from steps.page import Page, Section, Table, Tile, Tone

TONES: dict[str, Tone] = {"better": "good", "worse": "bad", "undecided": "plain"}
SHOWN_SAMPLES = 12


def draw(report: EvaluationReport) -> Page:
    """The comparison first, then answers side by side: gains, losses, the rest."""
    shown = sorted(report.samples, key=_gain, reverse=True)
    half = SHOWN_SAMPLES // 2
    shown = shown if len(shown) <= SHOWN_SAMPLES else shown[:half] + shown[-half:]
    return Page(
        title="Base against tuned",
        lead=f"{report.loss_rows:,} test rows with {report.loss_tokens:,} completion tokens, {report.answers:,} greedy "
        f"answers of at most {report.max_new_tokens} tokens. Same prompts, same process, adapter off and on.",
        tiles=[
            Tile(
                figure.name,
                figure.show(figure.tuned),
                f"base {figure.show(figure.base)}, {figure.verdict}",
                TONES[figure.verdict],
            )
            for figure in report.figures
        ],
        sections=[
            Section("Figures", table=_table(report.figures, report.confidence)),
            *(
                Section(f"Set {one.name}: {len(one.samples)} problems", table=_table(one.figures, report.confidence))
                for one in report.sets
            ),
            *(_sample(number, sample) for number, sample in enumerate(shown, 1)),
        ],
    )


def _table(figures: list[Figure], confidence: float) -> Table:
    columns = ["figure", "base", "tuned", "difference", f"{confidence:.0%} interval", "verdict"]
    return Table(columns, [_row(figure) for figure in figures])


def _row(figure: Figure) -> list[str]:
    interval = f"{figure.show(figure.low)} to {figure.show(figure.high)}"
    name = f"{figure.name} ({figure.unit})" if figure.unit else figure.name
    values = (figure.show(figure.base), figure.show(figure.tuned), figure.show(figure.difference))
    return [name, *values, interval, figure.verdict]


def _gain(sample: Sample) -> int:
    return sum(sample.tuned_grades.values()) - sum(sample.base_grades.values())


def _sample(number: int, sample: Sample) -> Section:
    return Section(
        f"Answer {number}",
        text=sample.instruction,
        codes=[
            (f"base: {_grades(sample.base_grades)}", sample.base_answer),
            (f"tuned: {_grades(sample.tuned_grades)}", sample.tuned_answer),
        ],
    )


def _grades(grades: dict[str, bool]) -> str:
    passed = [name for name, value in grades.items() if value]
    return ", ".join(passed) if passed else "none of the grades"
