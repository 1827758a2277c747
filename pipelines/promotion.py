"""Promotion and its way back by hand: ``qlora promote`` and ``qlora rollback``."""

from zenml.client import Client
from zenml.models import ModelVersionResponse
from zenml.utils.pagination_utils import depaginate

from materializers.directory import MANIFEST
from materializers.registry import PRODUCTION, holder, place, promote, versions_before
from pipelines.versions import model_version, require_model, version_in_stage
from steps.errors import ModelError


def promote_by_hand(model: str, number: str, stage: str, reason: str | None) -> ModelVersionResponse:
    """Promote a version that the gate let pass, or any that has a merged model where a reason is given.

    Raises:
        ModelError: there is no such version, it has that stage, it has no merged model in the store, or, without a
            reason, its decision does not let it pass.
    """
    version = model_version(model, number)
    name = f"{model}:{version.number}"
    if version.stage == stage:
        raise ModelError(f"{name}: is in {stage} already")
    if not _servable(version):
        raise ModelError(f"{name}: its merged model is not in the store; run its configuration again")
    if reason is None:
        _require_decision(version, name, stage)
    if not promote(version, stage, "qlora promote", reason or ""):
        raise ModelError(f"{name}: a newer version was promoted to {stage} at the same time; see: qlora runs")
    return version


def roll_back(model: str | None) -> tuple[ModelVersionResponse, ModelVersionResponse]:
    """Put the version into production that was there before, and archive the one that is there now.

    Args:
        model: by default the only one that has a version in production.

    Returns:
        The version that was in production until now, and the restored one.

    Raises:
        ModelError: nothing is in production, or nothing was before, or nothing of that is left.
    """
    if model is None:
        model = version_in_stage(PRODUCTION, None, "name yours: qlora rollback MODEL").model.name
    require_model(model)
    present = holder(model, PRODUCTION)
    if present is None:
        raise ModelError(f"model {model} has no version in production, so there is nothing to roll back")
    before = versions_before(present, PRODUCTION)
    known = {one.number: one for one in depaginate(Client().list_model_versions, model=model, hydrate=True)}
    for at, number in enumerate(before):
        if number in known and _servable(known[number]):
            by = f"qlora rollback of version {present.number}"
            place(known[number], PRODUCTION, before[at + 1 :], by, "")
            return present, known[number]
    left = f"; version {before[0]} was, and has no merged model any more" if before else ""
    raise ModelError(f"{model}:{present.number}: nothing is known to have been in production before it{left}")


def _servable(version: ModelVersionResponse) -> bool:
    merged = version.get_artifact("merged_model")
    return merged is not None and bool(Client().active_stack.artifact_store.exists(f"{merged.uri}/{MANIFEST}"))


def _require_decision(version: ModelVersionResponse, name: str, stage: str) -> None:
    by_hand = "promote it all the same with --force REASON"
    artifact = version.get_artifact("promotion_decision")
    if artifact is None:
        raise ModelError(f"{name}: it has no promotion decision; {by_hand}")
    decision = artifact.load()
    if not decision.promoted:
        failed = ", ".join(one.name for one in decision.conditions if not one.passed)
        raise ModelError(f"{name}: the gate kept it back ({failed}); {by_hand}")
    present = holder(version.model.name, PRODUCTION)
    if stage == PRODUCTION and present is not None and present.number != decision.production:
        then = f"version {decision.production}" if decision.production else "none"
        raise ModelError(
            f"{name}: its decision is of a time when {then} was in production, and now version {present.number} is; "
            f"run its configuration again with steps.evaluate.enable_cache: false, or {by_hand}"
        )
