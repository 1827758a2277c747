"""Time and memory of ingest -> validate -> split against plain datasets and pandas calls that do the same work.

Run by ``make bench``. Each side is a process of its own; the table goes to the standard output.
"""

import argparse
import ast
import json
import random
import tempfile
import warnings
from pathlib import Path

from tests.benchmarks.measure import measured
from tests.tiny import write_tokenizer

SEED = 42
TEST_SHARE = 0.05


def write_rows(path: Path, count: int) -> None:
    """About 500 bytes a row: an instruction and a small function, one in fifty a syntax error, one in fifty a copy."""
    draw = random.Random(SEED)  # noqa: S311 - sample data
    words = [f"word{i}" for i in range(5000)]
    line = ""
    with path.open("w", encoding="utf-8") as stream:
        for number in range(count):
            if number % 50 != 1 or not line:
                instruction = f"Write a function f{number} that " + " ".join(draw.choices(words, k=20))
                body = "".join(f"    {draw.choice(words)} = value * {draw.randrange(10**6)}\n" for _ in range(8))
                broken = "(" if number % 50 == 2 else ""
                completion = f"def f{number}(value):\n{body}    return value{broken}\n"
                line = json.dumps({"instruction": instruction, "completion": completion}) + "\n"
            stream.write(line)


def ours(path: Path) -> dict[str, int]:
    """The plain functions of the three rooms."""
    from steps.chat_template import bind_template
    from steps.format.params import PromptParameters
    from steps.ingest.ingest import ingest_sources
    from steps.resolve.data import lock_data
    from steps.resolve.locks import DataLock
    from steps.resolve.params import DataParameters, Source
    from steps.split.params import SplitParameters
    from steps.split.split import split_rows
    from steps.validate.params import ValidationParameters
    from steps.validate.prompt import prompt_of
    from steps.validate.validate import validate_rows

    data = DataParameters(sources=(Source(files=str(path)),))
    rows, _, _ = ingest_sources(data, lock_data(data))
    prompt = PromptParameters()
    template = bind_template(prompt.template, prompt.system, path.parent)
    kept, _, _ = validate_rows(rows, ValidationParameters(), prompt_of(template, prompt.max_length))
    splits, _, _ = split_rows(kept, SplitParameters(validation=TEST_SHARE, test=TEST_SHARE), DataLock(sources=[]))
    return {name: len(split) for name, split in splits.items()}


def plain(path: Path) -> dict[str, int]:
    """What a script would do: load, filter row by row, count tokens, drop exact duplicates, split by hash.

    Near-duplicates and contamination, which ours looks for too, are left out.
    """
    import pandas as pd
    from datasets import Dataset, load_dataset
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path.parent)

    def count_tokens(batch: dict[str, list[str]]) -> dict[str, list[int]]:
        return {f"{name}_tokens": [len(ids) for ids in tokenizer(texts)["input_ids"]] for name, texts in batch.items()}

    def good(row: dict[str, str]) -> bool:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ast.parse(row["completion"])
        except (SyntaxError, ValueError):
            return False
        lengths = len(row["instruction"].strip()), len(row["completion"].strip())
        return 0 < lengths[0] <= 4000 and 0 < lengths[1] <= 8000 and "```" not in row["completion"]

    with tempfile.TemporaryDirectory() as cache:
        rows = load_dataset("json", data_files=str(path), split="train", cache_dir=cache).filter(good)
        rows = rows.map(count_tokens, batched=True)
        frame = rows.to_pandas()
        texts = frame["instruction"].str.lower().str.split().str.join(" ") + frame["completion"]
        frame = frame[~texts.duplicated()]
        side = pd.util.hash_pandas_object(frame["instruction"], index=False) % 100
        share = TEST_SHARE * 100
        splits = {
            "train": Dataset.from_pandas(frame[side >= 2 * share]),
            "validation": Dataset.from_pandas(frame[(side >= share) & (side < 2 * share)]),
            "test": Dataset.from_pandas(frame[side < share]),
        }
        return {name: len(split) for name, split in splits.items()}


def main() -> None:
    """Measure both sides and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    count = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        write_rows(path, count)
        write_tokenizer(path.parent)
        print(f"{count:,} rows, {path.stat().st_size / 1e6:,.0f} MB of JSONL\n")
        print(f"{'':<8} {'seconds':>9} {'GiB':>6}  rows")
        times = {}
        for name, work in (("plain", plain), ("ours", ours)):
            counts, times[name], memory = measured(work, path)
            print(f"{name:<8} {times[name]:>9.1f} {memory:>6.2f}  {counts}", flush=True)
        print(f"\nours / plain: {times['ours'] / times['plain']:.2f}")


if __name__ == "__main__":
    main()
