"""The step that decides, and moves the ZenML model version."""

from typing import Annotated

from zenml import get_step_context, log_metadata, step
from zenml.client import Client
from zenml.config import CachePolicy

from materializers import registry
from materializers.directory import FILES
from materializers.report import ReportMaterializer
from steps.evaluate.report import EvaluationReport
from steps.fingerprint import fingerprint
from steps.lineage.report import Lineage
from steps.merge.report import MergeReport
from steps.promote.params import PromotionParameters
from steps.promote.report import PromotionDecision
from steps.provenance import PROVENANCE


def decided_by() -> str:
    """Hash of the code and the libraries that decide this step's result."""
    return fingerprint(__file__, "scipy")


@step(
    output_materializers={
        "promotion_decision": ReportMaterializer,
        "lineage": ReportMaterializer,
    },
    cache_policy=CachePolicy(include_step_code=False, cache_func=decided_by),
)
def promote(
    evaluation_report: EvaluationReport, merge_report: MergeReport, promotion: PromotionParameters
) -> tuple[Annotated[PromotionDecision, "promotion_decision"], Annotated[Lineage, "lineage"]]:
    """Promote the run's model version to its stage if, and only if, the tuned model is better than its base and than
    what is in production now.
    """
    from steps.promote.gate import decide

    context = get_step_context()
    present = registry.holder(context.model.name, registry.PRODUCTION)
    decision = decide(evaluation_report, merge_report, promotion, present.number if present else 0)
    log_metadata(metadata={**evaluation_report.metadata(), **decision.metadata()}, infer_model=True)
    if decision.promoted:
        version = Client().get_model_version(context.model.name, context.model.number)
        registry.promote(version, promotion.stage, f"run {context.pipeline_run.name}")
    return decision, _lineage(evaluation_report, merge_report, decision)


def _lineage(evaluation: EvaluationReport, merge: MergeReport, decision: PromotionDecision) -> Lineage:
    """Of the run's merged model: for its page; nothing decides on it."""
    from steps.lineage.tell import tell

    context = get_step_context()
    merged = Client().get_pipeline_run(context.pipeline_run.id).steps["merge"].outputs["merged_model"][0]
    with Client().active_stack.artifact_store.open(f"{merged.uri}/{FILES}/{PROVENANCE}", "r") as stream:
        provenance = stream.read()
    reports = {"evaluation_report": evaluation, "merge_report": merge, "promotion_decision": decision}
    figures = {name: report.metadata() for name, report in reports.items()}
    return tell(f"{context.model.name}:{context.model.number}", provenance, figures)
