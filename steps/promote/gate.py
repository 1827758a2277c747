"""Whether the tuned model is better than its base."""

from steps.evaluate.report import EvaluationReport
from steps.merge.report import MergeReport
from steps.promote.params import PromotionParameters
from steps.promote.report import Condition, PromotionDecision


def decide(evaluation: EvaluationReport, merge: MergeReport, promotion: PromotionParameters) -> PromotionDecision:
    """Promote only if the completion loss fell by more than chance, answers did not get worse, and the merge holds.

    A tie does not promote: the whole interval of the loss difference must lie below ``-min_loss_gain``.
    """
    loss, only_code = evaluation.figure("loss"), evaluation.figure("only code")
    merge_gap, written = abs(merge.merged_loss - merge.adapter_loss), merge.written
    conditions = [
        Condition(
            name="completion loss fell",
            passed=loss.high < -promotion.min_loss_gain,
            detail=f"{loss.base:.3f} to {loss.tuned:.3f} nats/token; {evaluation.confidence:.0%} interval of the "
            f"difference {loss.low:+.3f} to {loss.high:+.3f}, needed below {0 - promotion.min_loss_gain:g}",
        ),
        Condition(
            name="answers that are only code did not get fewer",
            passed=only_code.difference >= -promotion.max_rate_drop,
            detail=f"{only_code.base:.1%} to {only_code.tuned:.1%} of {evaluation.answers} answers, allowed fall "
            f"{promotion.max_rate_drop:.1%}",
        ),
        Condition(
            name="merged model is base + adapter",
            passed=merge.holds,
            detail=f"largest logit difference {merge.max_logit_difference:.4f} (bound "
            f"{merge.max_logit_difference_bound:g}), loss difference {merge_gap:.5f} (bound "
            f"{merge.max_loss_difference_bound:g})",
        ),
        Condition(
            name="merged model is near what was evaluated",
            passed=merge.near_trained,
            detail=f"KL divergence {written.kl_divergence:.4f} nats/token (bound {merge.kl_divergence_bound:g}), loss "
            f"{written.expected_loss:.3f} to {written.loss:.3f} (allowed rise {merge.loss_rise_bound:g})",
        ),
    ]
    promoted = all(condition.passed for condition in conditions)
    return PromotionDecision(promoted=promoted, stage=promotion.stage, conditions=conditions)
