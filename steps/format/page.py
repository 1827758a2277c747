"""The page of prompts and tokens."""

from steps.format.report import FormatReport, ShownSequence, SplitFormat
from steps.lengths import Lengths
from steps.page import Page, Piece, Section, Table, Tile, figure, svg

COLUMNS = ("split", "rows", "refused", "too long", "cut", "sequences", "tokens", "trained", "blocks", "fill", "longest")


LEGEND = [
    Piece("given, not trained", "masked"),
    Piece(" "),
    Piece("trained", "trained"),
    Piece(" "),
    Piece("control token, given", "masked special"),
    Piece(" "),
    Piece("control token, trained", "trained special"),
]

SHOWN_TEXTS = 20
"""Refused texts that the page names; some tokenizers have hundreds of control tokens."""


def draw(report: FormatReport) -> Page:
    """Counts, a histogram of lengths against the block, and the first rows token by token."""
    train = next(split for split in report.splits if split.name == "train")
    trained = "completions alone" if report.loss_on == "completion" else "prompts and completions"
    left_out = sum(split.refused + split.too_long for split in report.splits)
    more = f" and {len(report.refused_texts) - SHOWN_TEXTS} more" if len(report.refused_texts) > SHOWN_TEXTS else ""
    return Page(
        title="Prompts and tokens",
        lead=f"Template {report.template}, blocks of {report.max_length} tokens, packing {report.packing}, loss on "
        f"{trained}. An answer ends with {report.eos} (token {report.eos_id}), which is trained; padding is "
        f"{report.pad} (token {report.pad_id}), which never is.",
        tiles=[
            Tile("Training tokens", f"{train.tokens:,}", "an epoch"),
            Tile("Trained tokens", f"{train.trained_tokens:,}", f"{train.trained_tokens / max(train.tokens, 1):.0%}"),
            Tile("Blocks", f"{train.blocks:,}", f"{train.fill:.1%} full"),
            Tile("Left out", f"{left_out:,}", "rows", "warn" if left_out else "plain"),
        ],
        sections=[
            Section(
                "Splits",
                "Refused rows spell a text that could end a turn: "
                f"{', '.join(text.strip() for text in report.refused_texts[:SHOWN_TEXTS])}{more}. Left-out rows are an "
                "artifact of their own, each with its reason.",
                table=Table(COLUMNS, [_row(split) for split in report.splits]),
            ),
            Section("Lengths of training sequences", figures=[_histogram(train.lengths, report.max_length)]),
            Section(
                f"The first {len(report.samples)} training rows as the model sees them",
                "Each box is a token; its number shows under the pointer.",
                marked=[("legend", LEGEND), *map(_marked, report.samples)],
            ),
        ],
    )


def _row(split: SplitFormat) -> list[str]:
    counts = (split.rows, split.refused, split.too_long, split.cut, split.sequences, split.tokens, split.trained_tokens)
    fill = f"{split.fill:.1%}" if split.blocks else ""
    return [split.name, *(f"{count:,}" for count in counts), f"{split.blocks:,}", fill, f"{split.lengths.longest:,}"]


def _marked(sample: ShownSequence) -> tuple[str, list[Piece]]:
    trained = sum(token.trained for token in sample.tokens)
    pieces = [
        Piece(
            token.text.replace("\n", "↵\n"),
            ("trained" if token.trained else "masked") + (" special" if token.special else ""),
            f"token {token.id}",
        )
        for token in sample.tokens
    ]
    return f"row {sample.row_id}: {len(sample.tokens)} tokens, {trained} trained", pieces


def _histogram(lengths: Lengths, limit: int) -> str:
    drawing, axes = figure()
    width = limit / len(lengths.counts)
    axes.bar(
        [width * (number + 0.5) for number in range(len(lengths.counts))], lengths.counts, width * 0.9, color="#3b82f6"
    )
    axes.axvline(limit, color="#c0362c", linewidth=1)
    axes.set_xlabel(f"tokens (a block has {limit}; median {lengths.median:,.0f}, 95 % up to {lengths.p95:,.0f})")
    axes.set_ylabel("sequences")
    return svg(drawing)
