"""The one place that gives a model version a stage, and takes it back.

ZenML keeps no history of stages, so each version carries, as metadata under the stage's name, when, by what and why it
came there, and which versions were there before it, the latest first: the way back.
"""

from datetime import UTC, datetime
from typing import Any

from zenml import log_metadata
from zenml.client import Client
from zenml.enums import ModelStages
from zenml.models import ModelVersionResponse

PRODUCTION = ModelStages.PRODUCTION.value
ARCHIVED = ModelStages.ARCHIVED.value


def holder(model: str, stage: str) -> ModelVersionResponse | None:
    """The version of the model in that stage: the newest, should there be two for a moment."""
    return max(_holders(model, stage), key=lambda version: version.number, default=None)


def promote(version: ModelVersionResponse, stage: str, by: str, reason: str = "") -> bool:
    """Give the version the stage; the one that had it is archived and is the first on the way back.

    Args:
        version: it has to have a merged model.
        stage: ``staging`` or ``production``.
        by: what promotes it, such as the run's name.
        reason: why against the gate's decision, "" where that holds.

    Returns:
        Whether it has the stage now: of two that are promoted at once, the newer one has it.
    """
    former = holder(version.model.name, stage)
    before = [former.number, *versions_before(former, stage)] if former and former.id != version.id else []
    return place(version, stage, before, by, reason)


def place(version: ModelVersionResponse, stage: str, before: list[int], by: str, reason: str) -> bool:
    """Set the stage, then look again: ZenML reads and writes it in two steps, so two processes can leave two.

    Whoever writes last sees both, and both would keep the same one: the newest.
    """
    others = [one for one in _holders(version.model.name, stage) if one.id != version.id]
    when = datetime.now(UTC).isoformat(timespec="seconds")
    told: dict[str, Any] = {"since": when, "by": by, "before": before, "reason": reason}
    log_metadata(metadata={stage: told}, model_version_id=version.id)
    version.set_stage(stage, force=True)
    for other in others:
        _archive(other, stage)
    present = _holders(version.model.name, stage)
    kept = max(present, key=lambda one: one.number)
    for one in present:
        if one.id != kept.id:
            _archive(one, stage)
    return kept.id == version.id


def versions_before(version: ModelVersionResponse, stage: str) -> list[int]:
    """Numbers of the versions that had the stage before this one, the latest first."""
    told: Any = version.run_metadata.get(stage, {})
    return [int(number) for number in told.get("before", [])]


def _archive(version: ModelVersionResponse, stage: str) -> None:
    """ZenML would archive any other archived version once more to make room: force allows that."""
    if Client().get_model_version(version.model.id, version.id).stage == stage:
        version.set_stage(ARCHIVED, force=True)


def _holders(model: str, stage: str) -> list[ModelVersionResponse]:
    return list(Client().list_model_versions(model=model, stage=stage, hydrate=True).items)
