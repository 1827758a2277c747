"""What became of the rows as tokens."""

from pydantic import BaseModel

from steps.report import Report


class SplitFormat(BaseModel):
    """One split: rows in = examples + too long + unsafe."""

    name: str
    rows: int
    examples: int
    too_long: list[str]
    unsafe: list[str]
    tokens: int
    trained_tokens: int
    blocks: int
    fill: float
    lengths: list[int]


class FormatReport(Report):
    """Tokens, blocks and the prompt as the model sees it."""

    max_length: int
    packing: str
    loss_on: str
    bos: str
    eos: str
    pad: str
    splits: list[SplitFormat]
    samples: list[tuple[str, str]]

    def metadata(self) -> dict[str, str | int | float | bool]:
        """Tokens and blocks of the training split."""
        train = next(split for split in self.splits if split.name == "train")
        return {
            "train_tokens": train.tokens,
            "train_blocks": train.blocks,
            "train_fill": round(train.fill, 4),
            "rows_too_long": sum(len(split.too_long) for split in self.splits),
        }
