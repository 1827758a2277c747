"""The page of the merge."""

from steps.merge.report import MergeReport
from steps.page import Page, Section, Table, Tile


def draw(report: MergeReport) -> Page:
    """The proof first, then what changed."""
    return Page(
        title="Merged model",
        lead=f"The adapter merged into {report.base_model} at full precision, written, reloaded, and compared with "
        f"base + adapter on {report.rows} test rows ({report.positions:,} tokens).",
        tiles=[
            Tile(
                "Largest logit difference",
                f"{report.max_logit_difference:.4f}",
                f"bound {report.max_logit_difference_bound:g}",
                "good",
            ),
            Tile("Same first choice", f"{report.top1_agreement:.2%}", "of the tokens"),
            Tile("Weights changed", f"{report.changed_weights}", f"{report.unchanged_weights} others untouched"),
            Tile("Size", f"{report.bytes / 1e6:,.0f} MB", _shards(report)),
        ],
        sections=[
            Section(
                "Differences",
                table=Table(
                    ["figure", "base + adapter", "merged", "difference", "bound"],
                    [
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
                    ],
                ),
            )
        ],
    )


def _shards(report: MergeReport) -> str:
    kept = f", {report.resumed_shards} kept from a killed merge" if report.resumed_shards else ""
    return f"{report.shards} {'file' if report.shards == 1 else 'files'}{kept}"
