"""What became of the rows as tokens."""

from pydantic import BaseModel

from steps.lengths import Lengths
from steps.report import Report


class SplitFormat(BaseModel):
    """One split: rows = those with a sequence + refused + too long.

    ``lengths`` are in tokens, their bins equal ones from 0 to the length of a block.
    """

    name: str
    rows: int
    refused: int
    too_long: int
    cut: int
    sequences: int
    tokens: int
    trained_tokens: int
    blocks: int
    fill: float
    lengths: Lengths


class ShownToken(BaseModel):
    """A token as the page shows it."""

    id: int
    text: str
    trained: bool
    special: bool


class ShownSequence(BaseModel):
    """A sequence token by token."""

    row_id: str
    tokens: list[ShownToken]


class FormatReport(Report):
    """Tokens, blocks and the rows as the model sees them."""

    template: str
    max_length: int
    too_long: str
    packing: str
    loss_on: str
    eos: str
    eos_id: int
    pad: str
    pad_id: int
    refused_texts: list[str]
    splits: list[SplitFormat]
    samples: list[ShownSequence]

    def metadata(self) -> dict[str, str | int | float | bool]:
        """Tokens and blocks of the training split."""
        train = next(split for split in self.splits if split.name == "train")
        return {
            "template": self.template,
            "train_tokens": train.tokens,
            "train_trained_tokens": train.trained_tokens,
            "train_blocks": train.blocks,
            "train_fill": round(train.fill, 4),
            "rows_too_long": sum(split.too_long for split in self.splits),
            "rows_cut": sum(split.cut for split in self.splits),
            "rows_refused": sum(split.refused for split in self.splits),
        }
