"""The page of prompts and tokens."""

from steps.format.report import FormatReport
from steps.page import Page, Section, Table, Tile, figure, svg


def draw(report: FormatReport) -> Page:
    """Counts, a histogram of lengths against the block, and prompts as rendered."""
    train = next(split for split in report.splits if split.name == "train")
    trained = "completions only" if report.loss_on == "completion" else "prompts and completions"
    columns = [
        "split",
        "rows",
        "examples",
        "too long",
        "special tokens inside",
        "tokens",
        "trained",
        "blocks",
        "fill",
    ]
    rows = [
        [
            split.name,
            f"{split.rows:,}",
            f"{split.examples:,}",
            f"{len(split.too_long):,}",
            f"{len(split.unsafe):,}",
            f"{split.tokens:,}",
            f"{split.trained_tokens:,}",
            f"{split.blocks:,}",
            f"{split.fill:.1%}",
        ]
        for split in report.splits
    ]
    return Page(
        title="Prompts and tokens",
        lead=f"Blocks of {report.max_length} tokens, packing {report.packing}, loss on {trained}. An answer ends with "
        f"{report.eos}; padding is {report.pad}.",
        tiles=[
            Tile("Training tokens", f"{train.tokens:,}", "an epoch"),
            Tile(
                "Trained tokens",
                f"{train.trained_tokens:,}",
                f"{train.trained_tokens / max(train.tokens, 1):.0%}",
            ),
            Tile("Blocks", f"{train.blocks:,}", f"{train.fill:.1%} full"),
            Tile("Set aside", f"{sum(split.rows - split.examples for split in report.splits):,}", "rows"),
        ],
        sections=[
            Section("Splits", table=Table(columns, rows)),
            Section("Lengths of training examples", figures=[_histogram(train.lengths, report.max_length)]),
            *(
                Section(f"Example {number}", codes=[("prompt", prompt), ("completion, trained", completion)])
                for number, (prompt, completion) in enumerate(report.samples, 1)
            ),
        ],
    )


def _histogram(lengths: list[int], limit: int) -> str:
    drawing, axes = figure()
    axes.hist(lengths, bins=40, range=(0, limit), color="#3b82f6")
    axes.axvline(limit, color="#c0362c", linewidth=1)
    axes.set_xlabel(f"tokens (a block has {limit})")
    axes.set_ylabel("examples")
    return svg(drawing)
