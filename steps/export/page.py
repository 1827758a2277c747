"""The page of the exports."""

from steps.export.report import Copy, ExportReport, Push
from steps.page import Page, Section, Table, Tile


def draw(report: ExportReport) -> Page:
    """Each copy's size and loss first, then the comparisons, then the push."""
    tiles = [_tile(copy, report.merged_bytes) for copy in report.copies]
    sections = [_comparisons(report.copies)] if report.copies else []
    if report.push is not None:
        tiles.append(
            Tile(
                "Hub",
                "pushed" if report.push.pushed else "not pushed",
                report.push.repository,
                "good" if report.push.pushed else "plain",
            )
        )
        sections += _push(report.push)
    return Page(
        title="Exports",
        lead=f"The merged model of {report.base_model}, {report.merged_bytes / 1e6:,.0f} MB, in other formats: each "
        "copy was written, read back, and compared with it on completions of the test split."
        if report.copies
        else f"The merged model of {report.base_model}, {report.merged_bytes / 1e6:,.0f} MB.",
        tiles=tiles,
        sections=sections,
    )


def _tile(copy: Copy, merged_bytes: int) -> Tile:
    difference = copy.exported_loss - copy.merged_loss
    note = f"{copy.bytes / merged_bytes:.0%} of the merged model; loss {difference:+.4f} nats/token"
    return Tile(copy.name, f"{copy.bytes / 1e6:,.0f} MB", note)


def _comparisons(copies: list[Copy]) -> Section:
    names = [copy.name for copy in copies]
    rows = [
        ["completion loss of the merged model, nats/token", *(f"{copy.merged_loss:.5f}" for copy in copies)],
        ["completion loss of the copy", *(f"{copy.exported_loss:.5f}" for copy in copies)],
        ["difference", *(f"{copy.exported_loss - copy.merged_loss:+.5f}" for copy in copies)],
        ["bound", *(f"{copy.max_loss_difference_bound:g}" for copy in copies)],
        ["same first choice", *(f"{copy.top1_agreement:.2%}" for copy in copies)],
        ["logits, largest difference", *(f"{copy.max_logit_difference:.5f}" for copy in copies)],
        ["logits, mean difference", *(f"{copy.mean_logit_difference:.5f}" for copy in copies)],
        ["rows, completion tokens", *(f"{copy.rows}, {copy.positions:,}" for copy in copies)],
        ["bytes of weights", *(f"{copy.bytes:,}" for copy in copies)],
        ["where", *(", ".join(copy.files) for copy in copies)],
    ]
    if any(copy.tokenizer for copy in copies):
        rows.append(["tokenizer read back", *(copy.tokenizer or "the merged model's files" for copy in copies)])
    return Section("Against the merged model", table=Table(["figure", *names], rows))


def _push(push: Push) -> list[Section]:
    done = "Pushed to the hub" if push.pushed else "Not pushed to the hub"
    facts = [
        ["repository", push.repository],
        ["visibility", "private" if push.private else "public"],
        ["what", {"merged": "the merged model", "adapter": "the adapter"}[push.what]],
        ["result", push.reason],
        ["bytes", f"{sum(push.files.values()):,}"],
    ]
    files = Table(["file", "bytes"], [[name, f"{size:,}"] for name, size in push.files.items()], code=["file"])
    title = "Files that were pushed" if push.pushed else "Files that would be pushed"
    return [Section(done, table=Table(["", ""], facts)), Section(title, table=files)]
