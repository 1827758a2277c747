"""The page of the decision."""

from steps.evaluate.report import Figure
from steps.page import Page, Section, Table, Tile
from steps.promote.report import Condition, PromotionDecision

COLUMNS = ["condition", "result", "before", "candidate", "interval of the difference", "needed", "noise"]


def draw(decision: PromotionDecision) -> Page:
    """The decision, then each condition with its figures, then what each of them says in a sentence."""
    failed = sum(not condition.passed for condition in decision.conditions)
    why = "every condition holds" if decision.promoted else f"{failed} of {len(decision.conditions)} conditions fail"
    measured = [_row(one, one.figure) for one in decision.conditions if one.figure is not None]
    rows = [[one.name, _result(one), one.detail] for one in decision.conditions]
    return Page(
        title=f"Promoted to {decision.stage}" if decision.promoted else f"Not promoted to {decision.stage}",
        lead=f"{why[0].upper()}{why[1:]}.",
        tiles=[
            Tile(
                "Decision",
                "promoted" if decision.promoted else "kept back",
                why,
                "good" if decision.promoted else "bad",
            ),
            Tile(
                "In production then",
                f"version {decision.production}" if decision.production else "none",
                "what the candidate has to beat",
            ),
        ],
        sections=[
            Section("Conditions", table=Table(["condition", "result", "figures"], rows)),
            Section(
                "Figures",
                text="Before: the base's or production's figure. Needed: by how much the candidate's had to be better, "
                "for a gain with the whole interval and beyond the noise; a negative number is how much worse it may "
                "be.",
                table=Table(COLUMNS, measured),
            ),
        ],
    )


def _result(condition: Condition) -> str:
    return "holds" if condition.passed else "fails"


def _row(condition: Condition, figure: Figure) -> list[str]:
    name = f"{condition.name} ({figure.unit})" if figure.unit else condition.name
    shown = [figure.show(value) for value in (figure.base, figure.tuned)]
    interval = f"{figure.show(figure.low)} to {figure.show(figure.high)}"
    needed = "" if condition.needed is None else figure.show(condition.needed)
    return [name, _result(condition), *shown, interval, needed, figure.shown_noise()]
