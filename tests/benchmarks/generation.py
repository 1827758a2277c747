"""Tokens a second of greedy answers: one prompt after the other by transformers' ``generate``, and in batches as we do.

Run by ``make bench`` on the quickstart's model and prompts; on a GPU with random weights of a larger model's shape:

    python -W ignore -m tests.benchmarks.generation --shape llama-2-7b --batch-size 64

``generate`` one by one, ``generate`` in batches of the same size, transformers' continuous batching (on a GPU alone: on
a processor it takes longer than one by one) and ours take turns in one process on the same prompts. A random model
rarely ends by itself, so an end token is chosen that ends answers at many places; the sides may differ in few tokens,
where two are tied within rounding.
"""

import argparse
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tests.benchmarks.cpu_training import make
from tests.benchmarks.gpu_model import blocks, make_model

Answers = list[list[int]]


def quickstart(folder: Path, count: int) -> tuple[Path, list[list[int]]]:
    """The quickstart's 4-bit model, and prompts of the length of its rows' first halves."""
    from datasets import load_from_disk

    make(folder)
    blocks = load_from_disk(str(folder / "blocks"))["train"]
    return folder / "quantized", [ids[: 60 + 31 * row % 140] for row, ids in enumerate(blocks["input_ids"][:count])]


def random_weights(folder: Path, count: int, shape: str) -> tuple[Path, list[list[int]]]:
    """A random 4-bit model of that shape, made once in ``folder``, and random prompts."""
    make_model(folder, shape)
    return folder / "quantized", [row["input_ids"][: 60 + 31 * index % 140] for index, row in enumerate(blocks(count))]


def one_by_one(model: Any, prompts: Sequence[list[int]], decoding: Any) -> Answers:
    """As a notebook does it."""
    return [by_generate(model, [prompt], decoding)[0] for prompt in prompts]


def in_batches(model: Any, prompts: Sequence[list[int]], decoding: Any) -> Answers:
    """transformers' ``generate`` on batches of neighbours in length."""
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    found: dict[int, list[int]] = {}
    for start in range(0, len(order), decoding.batch_size):
        indices = order[start : start + decoding.batch_size]
        found.update(zip(indices, by_generate(model, [prompts[i] for i in indices], decoding), strict=True))
    return [found[index] for index in range(len(prompts))]


def by_generate(model: Any, prompts: list[list[int]], decoding: Any) -> Answers:
    """One call of ``generate``; answers end with the end token."""
    from steps.evaluate.decode import left_padded

    ids, mask = (tensor.to(model.device) for tensor in left_padded(prompts, decoding.pad))
    output = model.generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=decoding.max_new_tokens,
        do_sample=False,
        eos_token_id=decoding.end,
        pad_token_id=decoding.pad,
    )
    rows: Answers = output[:, ids.shape[1] :].tolist()
    return [row[: row.index(decoding.end) + 1] if decoding.end in row else row for row in rows]


def continuous(model: Any, prompts: Sequence[list[int]], decoding: Any) -> Answers:
    """transformers' continuous batching."""
    from transformers import GenerationConfig

    config = GenerationConfig(  # type: ignore[no-untyped-call]  # transformers has no types there
        max_new_tokens=decoding.max_new_tokens,
        do_sample=False,
        eos_token_id=decoding.end,
        pad_token_id=decoding.pad,
    )
    outputs = model.generate_batch(inputs=list(prompts), generation_config=config, progress_bar=False)
    return [output.generated_tokens for output in outputs.values()]


def ours(model: Any, prompts: Sequence[list[int]], decoding: Any) -> Answers:
    """The evaluation's own."""
    from steps.evaluate.decode import decode

    found = dict(decode(model, prompts, decoding, lambda _: None))
    return [found[index] for index in range(len(prompts))]


def ending(answers: Answers) -> int:
    """The token that ends most of these answers, but not all."""
    counts = Counter(token for answer in answers for token in set(answer[4:]))
    return next(token for token, count in counts.most_common() if count < 0.8 * len(answers))


def timed(side: Callable[[], Answers]) -> tuple[Answers, float]:
    """Answers and seconds."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.monotonic()
    with torch.no_grad():  # continuous batching writes into tensors of threads that know no inference mode
        answers = side()
    return answers, time.monotonic() - start


def main() -> None:
    """Print a line a side and round, then medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", help="random weights of gpu_model.SHAPES in place of the quickstart's model")
    parser.add_argument("--folder", type=Path, help="where the model is made, and found the next time")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=16, help="rows, as parameters.evaluation.batch_size")
    parser.add_argument("--tokens", type=int, default=24, help="new tokens of an answer at most")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sides", nargs="*", help="names of sides; by default all that the device has")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        if arguments.shape:
            path, prompts = random_weights(folder, arguments.prompts, arguments.shape)
        else:
            path, prompts = quickstart(folder, arguments.prompts)
        measure(path, prompts, arguments)


def measure(path: Path, prompts: list[list[int]], arguments: argparse.Namespace) -> None:
    """Warm up, choose the end token, then let the sides take turns."""
    from steps.device import describe_device
    from steps.evaluate.decode import Decoding
    from steps.quantize.load import load_quantized

    device = describe_device()
    model = load_quantized(path, device)
    free = Decoding(-1, 0, arguments.tokens, arguments.batch_size)
    end = ending(timed(partial(ours, model, prompts, free))[0])
    decoding = Decoding(end, 0, arguments.tokens, arguments.batch_size)
    sides = {"one by one": one_by_one, "generate in batches": in_batches, "ours": ours}
    if device.kind == "cuda":
        sides["continuous batching"] = continuous
    sides = {name: side for name, side in sides.items() if name in (arguments.sides or sides)}
    print(
        f"{len(prompts)} prompts, at most {arguments.tokens} tokens, {arguments.batch_size} together; {device.reason}"
    )
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    last: dict[str, Answers] = {}
    for number in range(arguments.rounds):
        for name, side in sides.items():
            last[name], seconds = timed(partial(side, model, prompts, decoding))
            tokens = sum(map(len, last[name]))
            speeds[name].append(tokens / seconds)
            print(f"round {number + 1}  {name:<22}{tokens:>7,} tokens {seconds:7.1f} s", flush=True)
    first = next(iter(sides))
    for name in sides:
        ratio = statistics.median(a / b for a, b in zip(speeds[name], speeds[first], strict=True))
        same = sum(a == b for a, b in zip(last[name], last[first], strict=True))
        median = statistics.median(speeds[name])
        print(f"{name:<22}{median:9.1f} tokens/s  {ratio:5.2f} x {first}  {same} of {len(prompts)} answers equal")


if __name__ == "__main__":
    main()
