"""A stack that has an experiment tracker gets the training's curves; having one or not trains nothing again."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from zenml.client import Client
from zenml.enums import StackComponentType
from zenml.models import PipelineRunResponse

from tests.end_to_end.conftest import KEPT_BACK, Workplace, loaded, ran
from tests.end_to_end.notebook_tracker import NotebookTracker, NotebookTrackerFlavor


@pytest.fixture(scope="module")
def tracked_stack(first_run: PipelineRunResponse) -> str:
    """The default stack with a tracker."""
    client = Client()
    source = f"{NotebookTrackerFlavor.__module__}.{NotebookTrackerFlavor.__name__}"
    kind = StackComponentType.EXPERIMENT_TRACKER
    client.create_flavor(source, kind)
    client.create_stack_component("curves", "notebook", kind, {})
    default = client.active_stack_model.components
    parts = {one: default[one][0].id for one in (StackComponentType.ORCHESTRATOR, StackComponentType.ARTIFACT_STORE)}
    client.create_stack("tracked", {**parts, kind: "curves"})
    return "tracked"


@contextmanager
def active(stack: str) -> Iterator[None]:
    """Let a stack be the active one."""
    client = Client()
    former = client.active_stack_model.id
    client.activate_stack(stack)
    try:
        yield
    finally:
        client.activate_stack(former)


def test_the_curves_come_live_and_are_no_reason_to_train_again(workplace: Workplace, tracked_stack: str) -> None:
    changes: dict[str, dict[str, Any]] = {
        "training": {"max_steps": 4, "batch_size": 2, "gradient_accumulation": 1, "evaluate_every": 2, "seed": 11},
        "promotion": KEPT_BACK,
    }
    with active(tracked_stack):
        assert ran(workplace.run()) == {"resolve"}
        assert NotebookTracker.opened == [], "a cached step opens no run"
        run = workplace.run(**changes)
    assert "train" in ran(run)
    assert NotebookTracker.opened == ["train"]
    report = loaded(run, "training_report")
    losses = [(step, figures["loss"]) for step, figures in NotebookTracker.figures if "loss" in figures]
    assert losses == [(one.step, one.loss) for one in report.steps]
    assert [step for step, figures in NotebookTracker.figures if "validation_loss" in figures] == [2, 4]
    assert ran(workplace.run(**changes)) == {"resolve"}, "nor is its absence"
