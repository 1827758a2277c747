"""Single rows through the encoder."""

import pyarrow as pa

from steps.format.tokenize import Encoded, Encoder, LeftOut


def encode(encoder: Encoder, instruction: str, completion: str) -> list[Encoded]:
    """The row as token ids, nothing where it is refused."""
    row = {"row_id": ["a"], "location": [""], "instruction": [instruction], "completion": [completion]}
    return list(encoder.encode(pa.table(row), LeftOut("train")))


def encoded(encoder: Encoder, instruction: str, completion: str) -> Encoded:
    """The row as token ids."""
    (one,) = encode(encoder, instruction, completion)
    return one
