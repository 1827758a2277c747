"""Stages are given and taken back; of two that are promoted at once one has it."""

from multiprocessing.synchronize import Barrier
from typing import Any

import pytest
from zenml.client import Client
from zenml.models import ModelVersionResponse

from materializers.registry import PRODUCTION, holder, promote
from pipelines.promotion import promote_by_hand, roll_back
from steps.errors import ModelError
from tests.children import children

PAIRS = 3


def versions(model: str, count: int) -> list[ModelVersionResponse]:
    client = Client()
    client.create_model(model)
    return [client.create_model_version(model) for _ in range(count)]


def stages(model: str) -> dict[int, str | None]:
    found = Client().list_model_versions(model=model, size=50, hydrate=True).items
    return {one.number: one.stage for one in found}


def anew(version: ModelVersionResponse) -> ModelVersionResponse:
    return Client().get_model_version(version.model.id, version.id)


def test_the_former_one_is_archived_and_the_way_back_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.promotion._servable", lambda version: version.number != 2)  # no model was merged
    one, two, three, four = versions("promoted", 4)
    for version in (one, two, three, one, four):
        assert promote(anew(version), PRODUCTION, "a run")
    assert stages("promoted") == {1: "archived", 2: "archived", 3: "archived", 4: "production"}
    told: Any = anew(four).run_metadata[PRODUCTION]
    assert (told["before"], told["by"], told["reason"]) == ([1, 3, 2, 1], "a run", "")
    ways = []
    for _ in range(3):
        present, restored = roll_back("promoted")
        ways.append((present.number, restored.number))
    assert ways == [(4, 1), (1, 3), (3, 1)], "what was never merged is passed over"
    assert stages("promoted") == {1: "production", 2: "archived", 3: "archived", 4: "archived"}
    with pytest.raises(ModelError, match=r"promoted:1: nothing is known to have been in production before it$"):
        roll_back("promoted")


def test_what_cannot_be_promoted_is_one_line() -> None:
    versions("bare", 1)
    for arguments, message in (
        (("bare", "2", PRODUCTION, None), "model bare has no version '2'"),
        (("bare", "1", PRODUCTION, "because"), "bare:1: its merged model is not in the store"),
    ):
        with pytest.raises(ModelError, match=message):
            promote_by_hand(*arguments)
    with pytest.raises(ModelError, match="model bare has no version in production"):
        roll_back("bare")


def promote_in_turn(numbers: range, together: Barrier) -> None:
    """One after the other, each when all are ready; all wait until all have done so."""
    for number in numbers:
        version = Client().get_model_version("raced", number)
        together.wait(timeout=60)
        promote(version, PRODUCTION, f"version {number}")
        together.wait(timeout=60)


def test_two_processes_at_once_leave_one_in_production() -> None:
    """Real processes on one store, again and again, since each meeting is a matter of luck."""
    versions("raced", 2 * PAIRS)
    context = children()
    together = context.Barrier(3)
    rivals = [
        context.Process(target=promote_in_turn, args=(range(first, 2 * PAIRS + 1, 2), together)) for first in (1, 2)
    ]
    for rival in rivals:
        rival.start()
    for pair in range(PAIRS):
        together.wait(timeout=60)
        together.wait(timeout=60)
        numbers = (2 * pair + 1, 2 * pair + 2)
        held = [number for number, stage in stages("raced").items() if stage == PRODUCTION]
        assert len(held) == 1
        assert held[0] in numbers
        present = holder("raced", PRODUCTION)
        assert present is not None
        assert present.number == held[0]
    for rival in rivals:
        rival.join()
    assert [rival.exitcode for rival in rivals] == [0, 0]
