"""Tokens a second and peak memory of one training on one and on several GPUs, by the pipeline's own train function.

    python -m tests.benchmarks.several_gpus                    # 7B by DDP on 1 and on all GPUs
    python -m tests.benchmarks.several_gpus --shape llama-2-70b --strategy fsdp --processes 2
    python -m tests.benchmarks.several_gpus --tiny             # both, on the CPU, to try the benchmark

NF4 with double quantisation, LoRA r=64 on seven projections, packed blocks of 512 tokens. Each process takes as many
blocks of a step whatever their number, so that efficiency is speed over that of one process times their number (weak
scaling); ``--blocks-of-step`` gives the step as a whole as many instead (strong scaling). Speed is the median over the
steps after the warm-up. Prints one JSON line a run, then a table.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.child import child_result, command
from tests.benchmarks.four_bit_model import SHAPES as LARGE
from tests.benchmarks.four_bit_model import make_four_bit_model
from tests.benchmarks.gpu_model import BLOCK, WORDS, blocks, make_model, tokenizer
from tests.benchmarks.gpu_model import SHAPES as SMALL


def make(folder: Path, shape: str) -> None:
    """The model in 4 bits and its tokenizer."""
    if shape in LARGE:
        make_four_bit_model(folder / "quantized", shape, WORDS)
        tokenizer().save_pretrained(folder / "base")
    else:
        make_model(folder, shape)


def with_ends(block: dict[str, list[int]]) -> dict[str, Any]:
    """The block with an end token at the end of each document, which the pre-flight asks for."""
    end = 0
    for length in block["seq_lengths"]:
        end += length
        block["input_ids"][end - 1] = block["labels"][end - 1] = 2
    return {**block, "row_ids": [""] * len(block["seq_lengths"])}


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Train by so many processes."""
    from datasets import Dataset, DatasetDict

    from steps.train.params import LoraParameters, TrainingParameters
    from steps.train.plan.params import PlanParameters
    from steps.train.train import train_adapter

    processes = int(arguments.processes)
    of_step = arguments.blocks_of_step or arguments.blocks * processes
    training = TrainingParameters(
        lora=LoraParameters(r=8 if arguments.tiny else 64, dropout=arguments.dropout),
        max_steps=arguments.steps,
        batch_size=of_step,
        gradient_accumulation=1,
        schedule="constant",
        warmup_ratio=0.0,
    )
    train = Dataset.from_list([with_ends(block) for block in blocks(of_step * (arguments.steps + 1))])
    plan = PlanParameters.model_validate(
        {"distributed": {"processes": processes, "strategy": arguments.strategy}, "micro_batch": arguments.micro_batch}
    )
    speeds: list[float] = []
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as output:
        report = train_adapter(
            DatasetDict(train=train, validation=train.select([])),
            folder / "quantized",
            folder / "base",
            training,
            Path(output),
            on_metrics=lambda _, figures: speeds.append(figures["tokens_per_second"]),
            plan=plan,
        )
    decided = {choice.name: choice.value for choice in report.choices}
    return {
        "shape": arguments.shape,
        "processes": processes,
        "tokens_per_step": of_step * BLOCK,
        "tokens_per_second": round(statistics.median(speeds[arguments.warm_up :])),
        "peak_gib": round(report.cost.peak_memory_bytes / 2**30, 2),
        "predicted": decided.get("memory", ""),
        "losses": [round(step.loss, 4) for step in report.steps[:: max(1, len(report.steps) // 5)]],
        "plan": {name: decided[name] for name in decided if name not in ("device", "tf32", "memory")},
        "seconds_in": {phase: round(seconds, 1) for phase, seconds in report.cost.seconds_in.items()},
        "whole_seconds": round(time.monotonic() - start, 1),
        "device": report.device,
    }


def table(results: list[dict[str, Any]]) -> str:
    """The results for reading; efficiency is against the first with the same shape, process for process."""
    lines = [f"{'shape':<14}{'processes':>10}{'tokens':>9}{'tok/s':>10}{'efficiency':>12}{'GiB':>8}{'(said)':>12}"]
    for result in results:
        first = next(one for one in results if one["shape"] == result["shape"])
        each = first["tokens_per_second"] / first["processes"] * result["processes"]
        lines.append(
            f"{result['shape']:<14}{result['processes']:>10}{result['tokens_per_step']:>9}"
            f"{result['tokens_per_second']:>10,}{result['tokens_per_second'] / each:>12.1%}"
            f"{result['peak_gib']:>8.2f}{result['predicted']:>12}"
        )
    return "\n".join(lines)


def run_all(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Each number of processes in a process of its own, since it would keep memory of the GPU."""
    results = []
    given = [word for word in sys.argv[1:] if word != "--tiny"]
    for shape in arguments.shape.split(","):
        options = [*given, "--shape", shape, *(["--tiny"] if arguments.tiny else [])]
        subprocess.run(command(__file__, *options, "--make"), check=True)
        for processes in arguments.processes.split(","):
            child = command(__file__, *options, "--processes", processes, "--child")
            result, output, error = child_result(child, arguments.limit)
            if result:
                print(json.dumps(result), flush=True)
                results.append(result)
            else:
                print(f"FAILED {shape} by {processes}\n{output[-2000:]}\n{error[-4000:]}", flush=True)
    return results


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="", help=f"of {', '.join([*SMALL, *LARGE])}; several with commas between")
    parser.add_argument("--processes", default="", help="numbers of processes; default: 1 and as many as GPUs")
    parser.add_argument("--strategy", choices=["auto", "ddp", "fsdp"], default="auto")
    parser.add_argument("--blocks", type=int, default=10, help="blocks of a step for each process")
    parser.add_argument("--blocks-of-step", type=int, default=0, help="blocks of a step, however many processes")
    parser.add_argument("--micro-batch", type=int, help="blocks of a forward pass; default: the planner's choice")
    parser.add_argument("--dropout", type=float, default=0.05)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warm-up", type=int, default=6, help="of them not counted")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/benchmark-model"), help="where the models are kept")  # noqa: S108 - given by the user
    parser.add_argument("--limit", type=int, default=170, help="seconds that a run may take")
    parser.add_argument("--output", type=Path, help="JSON file for all results")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes, 1 and 2 processes, few steps")
    parser.add_argument("--make", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.tiny:
        arguments.blocks, arguments.steps, arguments.warm_up = 2, 6, 2
    arguments.shape = arguments.shape or ("tiny,tiny-70b" if arguments.tiny else "llama-2-7b")
    folder = arguments.folder / arguments.shape
    if arguments.make:
        make(folder, arguments.shape)
        return
    if arguments.child:
        print(json.dumps(measure(arguments, folder)), flush=True)
        return
    if not arguments.processes:
        import torch

        cards = 2 if arguments.tiny else torch.cuda.device_count()
        arguments.processes = "1" if cards < 2 else f"1,{cards}"
    results = run_all(arguments)
    print(table(results))
    if arguments.output:
        arguments.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
