"""The columns of what the rules judge, one line a row."""

POSITION = "position"
"""Column with a row's place in the data set: how Great Expectations names the rows that break a rule."""

TEXTS = ("row_id", "source", "location", "group", "license", "instruction", "completion")
COUNTS = (
    "instruction_chars",
    "completion_chars",
    "instruction_tokens",
    "completion_tokens",
    "example_tokens",
    "test_count",
)
"""With ``TEXTS``, the columns that a user's rules may name."""
