"""The columns of a row from ingestion to evaluation."""

from datasets import Features, List, Value

ROW_FEATURES = Features(
    {
        "row_id": Value("string"),  # 16 hexadecimal digits of SHA-256 over instruction and completion
        "source": Value("string"),  # hub id, file pattern or package name
        "location": Value("string"),  # "data/train.jsonl:12", "boltons.iterutils.chunked"
        "group": Value("string"),  # rows of one group never straddle a split: source function, problem id
        "license": Value("string"),  # SPDX id where the source states one, else ""
        "instruction": Value("string"),
        "completion": Value("string"),
        "tests": List(Value("string")),  # doctests or assert statements; empty where the source has none
    }
)

QUARANTINE_FEATURES = Features(
    {
        **{name: ROW_FEATURES[name] for name in ("row_id", "source", "location", "instruction", "completion")},
        "reasons": List(Value("string")),  # every rule that the row broke
    }
)
