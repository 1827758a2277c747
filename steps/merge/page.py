"""The page of the merge."""

from steps.merge.params import Target
from steps.merge.report import AnswersSideBySide, FromTrained, MergeReport
from steps.page import Page, Section, Table, Tile

NAMES: dict[Target, str] = {"full_precision": "full precision", "dequantized": "dequantised"}


def draw(report: MergeReport) -> Page:
    """How far the artifact is from what was trained, then the arithmetic of the merge, then differing answers."""
    written = report.written
    return Page(
        title="Merged model",
        lead=f"The adapter merged into {report.base_model}, {_into(report)}, written and reloaded. Compared on "
        f"{report.rows} test rows ({report.positions:,} completion tokens) and on their greedy answers of at most "
        f"{report.max_new_tokens} tokens.",
        tiles=[
            Tile(
                "KL(trained || merged)",
                f"{written.kl_divergence:.4f}",
                f"nats/token, bound {report.kl_divergence_bound:g}",
                "good" if written.kl_divergence <= report.kl_divergence_bound else "bad",
            ),
            Tile("Same first choice as trained", f"{written.top1_agreement:.2%}", "of the tokens"),
            Tile("Answers that differ", f"{written.answers_that_differ} of {report.rows}", "from the trained model's"),
            Tile("Weights changed", f"{report.changed_weights}", _weights(report)),
            Tile("Size", f"{report.bytes / 1e6:,.0f} MB", _shards(report)),
        ],
        sections=[
            Section("What was trained, and what the merge makes of it", _about(report), _three_ways(report)),
            Section(
                "The arithmetic of the merge",
                "The artifact, reloaded, against the very weights that the adapter was merged into with the adapter "
                "beside them: what is left is the rounding to the stored type.",
                _arithmetic(report),
            ),
            *(_sample(number, one, report) for number, one in enumerate(report.samples, 1)),
        ],
    )


def _into(report: MergeReport) -> str:
    if len(report.from_trained) == 1:
        return "which was trained on as it is, so that both targets are one"
    if report.target == "full_precision":
        return "at its full precision"
    return f"into the {report.quantization} weights of its training, dequantised"


def _weights(report: MergeReport) -> str:
    if report.dequantized_weights:
        return f"by the adapter, {report.dequantized_weights} dequantised, {report.unchanged_weights} not targeted"
    return f"{report.unchanged_weights} others untouched"


def _about(report: MergeReport) -> str:
    if len(report.from_trained) == 1:
        return "Trained and evaluated was the base as it is, with the adapter; nothing was quantised."
    integers = " (LLM.int8() rounds activations too, as no merged model does)" if report.quantization == "int8" else ""
    return (
        f"Trained and evaluated was the base in {report.quantization} with the adapter. Merged at full precision the "
        "adapter stands on weights that it did not see, nearer to the original model's. Merged into the dequantised "
        f"weights the model is what was trained, up to rounding{integers}. The target that was not asked for was made "
        "in memory only; the bounds are the artifact's. A greedy answer goes another way from the first near tie that "
        "falls otherwise, so that rounding alone changes some."
    )


def _three_ways(report: MergeReport) -> Table:
    """One column for each model, as trained first."""
    found = sorted(report.from_trained, key=lambda one: not one.written)
    first = found[0]
    columns = ["figure", "as trained", *map(_name, found), "bound"]
    rise = f"rise of {report.loss_rise_bound:g}"
    rows = [
        ["KL(trained || merged), nats/token", "0", *(f"{one.kl_divergence:.5f}" for one in found)],
        ["completion loss, nats/token", f"{first.expected_loss:.4f}", *map(_loss, found)],
        ["same first choice", "", *(f"{one.top1_agreement:.2%}" for one in found)],
        ["logits, largest difference", "", *(f"{one.max_logit_difference:.4f}" for one in found)],
        ["logits, mean difference", "", *(f"{one.mean_logit_difference:.4f}" for one in found)],
        ["answers that differ", "", *(f"{one.answers_that_differ} of {report.rows}" for one in found)],
    ]
    bounds = [f"{report.kl_divergence_bound:g}", rise]
    return Table(columns, [[*row, bounds[at] if at < len(bounds) else ""] for at, row in enumerate(rows)])


def _name(one: FromTrained) -> str:
    return f"merged, {NAMES[one.target]}{' (the artifact)' if one.written else ''}"


def _loss(one: FromTrained) -> str:
    return f"{one.loss:.4f} ({one.loss - one.expected_loss:+.4f})"


def _arithmetic(report: MergeReport) -> Table:
    rows = [
        [
            "completion loss, nats/token",
            f"{report.adapter_loss:.5f}",
            f"{report.merged_loss:.5f}",
            f"{report.merged_loss - report.adapter_loss:+.5f}",
            f"{report.max_loss_difference_bound:g}",
        ],
        [
            "logits, largest difference",
            "",
            "",
            f"{report.max_logit_difference:.5f}",
            f"{report.max_logit_difference_bound:g}",
        ],
        ["logits, mean difference", "", "", f"{report.mean_logit_difference:.5f}", ""],
        ["same first choice", "", "", f"{report.top1_agreement:.2%}", ""],
    ]
    return Table(["figure", "base + adapter", "merged", "difference", "bound"], rows)


def _sample(number: int, one: AnswersSideBySide, report: MergeReport) -> Section:
    order = sorted(one.merged, key=lambda target: target != report.target)
    shown = [(f"merged, {NAMES[target]}{_same(one, target)}", one.merged[target] or "(nothing)") for target in order]
    return Section(
        f"Answers that differ, {number} of {len(report.samples)} shown",
        codes=[("prompt", one.instruction), ("as trained", one.trained or "(nothing)"), *shown],
    )


def _same(one: AnswersSideBySide, target: Target) -> str:
    return " (as trained)" if one.merged[target] == one.trained else ""


def _shards(report: MergeReport) -> str:
    kept = f", {report.resumed_shards} kept from a killed merge" if report.resumed_shards else ""
    return f"{report.shards} {'file' if report.shards == 1 else 'files'}{kept}"
