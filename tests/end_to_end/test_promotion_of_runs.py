"""Runs that promote: only what beats production replaces it, and the way back is one command."""

from collections.abc import Iterator
from typing import Any

import pytest
from zenml.client import Client
from zenml.models import PipelineRunResponse

from materializers.registry import PRODUCTION
from steps.promote.report import PromotionDecision
from tests.end_to_end.conftest import Workplace, loaded, qlora, ran

OWN = {"stage": "production", "allowed_regressions": {"only code": 0.005}}
"""As no other test asks for it: else the decision may come from the cache, which promotes nothing."""


@pytest.fixture
def gated(first_run: PipelineRunResponse, workplace: Workplace) -> Iterator[Workplace]:
    """Runs of a model of its own, in the store that all tests share."""
    place = Workplace(workplace.folder, "gated", OWN)
    yield place
    place.retire()


def decision(run: PipelineRunResponse) -> PromotionDecision:
    found: PromotionDecision = loaded(run, "promotion_decision")
    return found


def stages() -> dict[int, str | None]:
    return {one.number: one.stage for one in Client().list_model_versions(model="gated", hydrate=True).items}


def test_only_what_is_better_replaces_what_is_in_production(gated: Workplace) -> None:
    first = gated.run()
    assert decision(first).promoted
    assert stages() == {1: "production"}

    assert ran(gated.run()) == {"resolve"}, "another version in production is no reason to measure again"
    assert stages() == {1: "production", 2: None}

    worse = gated.run(training={"max_steps": 4})
    assert ran(worse) == {"resolve", "train", "evaluate", "merge", "promote"}
    failed = [one.name for one in decision(worse).conditions if not one.passed]
    assert "loss better than production" in failed
    assert "loss better than the base" not in failed
    assert decision(worse).production == 1
    assert stages() == {1: "production", 2: None, 3: None}

    better = gated.run(training={"max_steps": 40})
    assert [one.detail for one in decision(better).conditions if not one.passed] == []
    assert stages() == {1: "archived", 2: None, 3: None, 4: "production"}

    late = gated.run(promotion={"allowed_regressions": {"only code": 0.01}}, training={"max_steps": 4})
    assert ran(late) == {"resolve", "promote"}
    assert "measured against production" in [one.name for one in decision(late).conditions if not one.passed]

    assert "gated:1 is in production again; 4 is archived" in qlora("rollback", "gated").output
    assert stages() == {1: "production", 2: None, 3: None, 4: "archived", 5: None}
    assert "nothing is known to have been in production before it" in qlora("rollback", "gated").output
    assert "gated:3: the gate kept it back (loss better than production" in qlora("promote", "gated:3").output
    assert "gated:4 is in production" in qlora("promote", "gated:4").output
    assert "gated:1: its decision is of a time when none was in production" in qlora("promote", "gated:1").output
    assert "gated:3 is in production" in qlora("promote", "gated:3", "--force", "to see it live").output
    told: Any = Client().get_model_version("gated", 3).run_metadata[PRODUCTION]
    assert (told["reason"], told["before"], told["by"]) == ("to see it live", [4, 1], "qlora promote")
    assert list(stages().values()).count("production") == 1
