"""The step that decides, and moves the ZenML model version."""

from typing import Annotated

from zenml import get_step_context, log_metadata, step
from zenml.config import CachePolicy

from materializers.report import ReportMaterializer
from steps.evaluate.report import EvaluationReport
from steps.fingerprint import fingerprint
from steps.merge.report import MergeReport
from steps.promote.params import PromotionParameters
from steps.promote.report import PromotionDecision


def decided_by() -> str:
    """Hash of the code and the libraries that decide this step's result."""
    return fingerprint(__file__, "scipy")


@step(
    output_materializers={
        "promotion_decision": ReportMaterializer,
    },
    cache_policy=CachePolicy(include_step_code=False, cache_func=decided_by),
)
def promote(
    evaluation_report: EvaluationReport, merge_report: MergeReport, promotion: PromotionParameters
) -> Annotated[PromotionDecision, "promotion_decision"]:
    """Promote the run's model version to its stage if, and only if, the tuned model is better than its base."""
    from steps.promote.gate import decide

    decision = decide(evaluation_report, merge_report, promotion)
    log_metadata(metadata={**evaluation_report.metadata(), **decision.metadata()}, infer_model=True)
    if decision.promoted:
        get_step_context().model.set_stage(promotion.stage, force=True)
    return decision
