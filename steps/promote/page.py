"""The page of the decision."""

from steps.page import Page, Section, Table, Tile
from steps.promote.report import PromotionDecision


def draw(decision: PromotionDecision) -> Page:
    """The decision, then each condition with its figures."""
    failed = sum(not condition.passed for condition in decision.conditions)
    why = "every condition holds" if decision.promoted else f"{failed} of {len(decision.conditions)} conditions fail"
    rows = [[one.name, "holds" if one.passed else "fails", one.detail] for one in decision.conditions]
    return Page(
        title=f"Promoted to {decision.stage}" if decision.promoted else f"Not promoted to {decision.stage}",
        lead=f"{why[0].upper()}{why[1:]}.",
        tiles=[
            Tile(
                "Decision",
                "promoted" if decision.promoted else "kept back",
                why,
                "good" if decision.promoted else "bad",
            )
        ],
        sections=[Section("Conditions", table=Table(["condition", "result", "figures"], rows))],
    )
