"""Speed, peak memory and loss of trainings side by side on one GPU, each in its own process.

The work is the same for all: a random Llama-2-7B (32 layers, 4096 wide, 32,000 words) in NF4 with double quantisation,
LoRA r=64 alpha=16 on seven projections, packed blocks of 512 tokens, the loss on every token. Ours is the pipeline's
own trainer, by a plan that the planner chooses for a budget (``memory``, in GiB) or that the line spells out.

    python -m tests.benchmarks.gpu_training --sides "
        trl     ours=0 liger=1 micro=10
        in-24   memory=24 micro=10
        norms   micro=10 recompute=norms profile=1"

A line is a side: a label, then what differs from the defaults of ``Side``. Prints one JSON line a side, then a table.
"""

import argparse
import dataclasses
import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from tests.benchmarks.child import child_result, command
from tests.benchmarks.gpu_model import BLOCK, SHAPES, blocks, make_model, tokenizer


@dataclass(frozen=True)
class Side:
    """Who does the work and how; a line of the command names what differs."""

    label: str = ""
    ours: int = 1  # the pipeline's trainer; 0 is plain TRL and PEFT
    micro: int = 10  # blocks of a micro-batch; with ``memory`` their product alone counts
    accumulate: int = 1
    dropout: float = 0.0
    optimizer: str = "adamw_torch_fused"
    attention: str = "auto"
    memory: float = 0.0  # ours: GiB that the planner may use; 0: the plan is spelled out
    kernels: int = 1  # ours: the fused ones
    recompute: str = "norms"  # ours: nothing, norms, mlp; of the layers that are kept
    recomputed_layers: int = 0  # ours: the first decoder layers, recomputed as a whole
    held_layers: int = 0  # ours: the first decoder layers, whose weights are dequantised once
    graph: int = 1  # ours: micro-batches replayed as a CUDA graph
    checkpointing: int = 0  # TRL's: transformers' own
    liger: int = 0  # TRL's: liger's norm, rotary and SwiGLU
    log_every: int = 5  # TRL's: 1 shows every loss, and waits for the GPU in every step
    profile: int = 0  # one step more, under torch.profiler


def parse_side(line: str) -> Side:
    """``label key=value ...`` as a side; an unknown key is an error."""
    label, *settings = line.split()
    types: dict[str, Any] = {name: type(value) for name, value in dataclasses.asdict(Side()).items()}
    values = dict(setting.split("=", 1) for setting in settings)
    unknown = values.keys() - types.keys()
    if unknown:
        raise SystemExit(f"{label}: unknown {', '.join(sorted(unknown))}; known: {', '.join(types)}")
    return Side(label=label, **{name: types[name](value) for name, value in values.items()})


def our_trainer(side: Side, folder: Path, steps: int) -> tuple[Any, dict[str, Any]]:
    """The pipeline's trainer, and what was planned."""
    from datasets import Dataset, DatasetDict

    from steps.device import describe_device
    from steps.train.build import Task, build_trainer
    from steps.train.callbacks import Recorder
    from steps.train.params import LoraParameters, TrainingParameters
    from steps.train.plan.memory import GIB, predict_memory
    from steps.train.plan.params import PlanParameters
    from steps.train.plan.plan import Plan
    from steps.train.planning import job_of, planned
    from steps.train.tracking import nowhere

    training = TrainingParameters(
        lora=LoraParameters(dropout=side.dropout),
        max_steps=steps + side.profile,
        batch_size=side.micro,
        gradient_accumulation=side.accumulate,
        schedule="constant",
        warmup_ratio=0.0,
        optimizer=cast(Any, side.optimizer),
        attention=cast(Any, side.attention),
    )
    train = Dataset.from_list(list(blocks(side.micro * side.accumulate * (steps + 1))))
    device = describe_device("auto", side.attention)
    data = DatasetDict(train=train, validation=train.select([]))
    task = Task(data, folder / "quantized", folder / "base", training, device)
    if side.memory:
        plan = planned(task, PlanParameters(memory_gib=side.memory)).plans[0]
    else:
        kept = {"recompute": side.recompute, "held_layers": side.held_layers, "captured": bool(side.graph)}
        fused = bool(side.kernels)
        plan = Plan(side.micro, side.accumulate, side.recomputed_layers, fused, **cast(Any, kept if fused else {}))
    trainer = build_trainer(task, plan, Recorder(nowhere, on_gpu=device.kind == "cuda"), "/tmp/gpu")  # noqa: S108 - nothing is saved
    memory = predict_memory(job_of(task), plan)
    return trainer, {
        "plan": str(plan),
        "predicted_gib": round(memory.allocated / GIB, 2),
        "predicted_total_gib": round(memory.total / GIB, 2),
    }


def their_trainer(side: Side, folder: Path, steps: int) -> tuple[Any, dict[str, Any]]:
    """Plain TRL on the same model and blocks."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import set_seed
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    from steps.device import describe_device
    from steps.quantize.load import load_quantized
    from steps.train.params import SEVEN_PROJECTIONS

    set_seed(42)  # before the adapter is made: its A matrices are random
    device = describe_device("auto", side.attention)
    on_cpu = device.kind == "cpu"
    config = SFTConfig(
        output_dir="/tmp/gpu",  # noqa: S108 - nothing is saved
        max_steps=steps + side.profile,
        per_device_train_batch_size=side.micro,
        gradient_accumulation_steps=side.accumulate,
        gradient_checkpointing=bool(side.checkpointing),
        gradient_checkpointing_kwargs={"use_reentrant": False} if side.checkpointing else None,
        use_liger_kernel=bool(side.liger),
        optim=side.optimizer,
        learning_rate=2e-4,
        weight_decay=0.001,
        max_grad_norm=0.3,
        lr_scheduler_type="constant",
        bf16=device.precision == "bfloat16",
        use_cpu=on_cpu,
        dataloader_pin_memory=not on_cpu,
        dataloader_num_workers=0 if on_cpu else 2,
        save_strategy="no",
        logging_steps=side.log_every,
        disable_tqdm=True,
        report_to="none",
        seed=42,
        max_length=None,
        padding_free=True,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    trainer = SFTTrainer(
        model=load_quantized(folder / "quantized", device),
        args=config,
        train_dataset=Dataset.from_list(list(blocks(side.micro * side.accumulate * (steps + 1)))),
        processing_class=tokenizer(),
        peft_config=LoraConfig(
            r=64,
            lora_alpha=16,
            lora_dropout=side.dropout,
            target_modules=list(SEVEN_PROJECTIONS),
            task_type="CAUSAL_LM",
        ),
    )
    return trainer, {"plan": "TRL" + ", liger" * side.liger + ", checkpointing" * side.checkpointing}


def losses_of(trainer: Any, side: Side) -> list[float]:
    """The mean loss of each ``log_every`` steps."""
    if not side.ours:
        return [round(entry["loss"], 4) for entry in trainer.state.log_history if "loss" in entry]
    trainer.guard.look(wait=True)
    steps = [step.loss for step in trainer.course.steps]
    whole = len(steps) // side.log_every * side.log_every
    return [
        round(sum(steps[start : start + side.log_every]) / side.log_every, 4)
        for start in range(0, whole, side.log_every)
    ]


def measure(side: Side, folder: Path, steps: int, warm_up: int) -> dict[str, Any]:
    """Train and report: tokens/s after the warm-up, peak GiB, losses."""
    import torch

    from steps.train.plan.memory import GIB
    from tests.benchmarks.gpu_clock import Clock

    start = time.monotonic()
    trainer, described = (our_trainer if side.ours else their_trainer)(side, folder, steps)
    loaded = time.monotonic() - start
    clock = Clock(warm_up, steps, profiled=bool(side.profile))
    trainer.add_callback(clock)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    trainer.train()
    captured = getattr(trainer, "captured", None)
    tokens = side.micro * side.accumulate * BLOCK
    result: dict[str, Any] = {
        **dataclasses.asdict(side),
        "tokens_per_step": tokens,
        "tokens_per_second": round(tokens * (steps - warm_up) / clock.seconds),
        "step_ms": round(1000 * clock.seconds / (steps - warm_up), 1),
        "losses": losses_of(trainer, side),
        **described,
        "captured": str(captured),
        "capture_error": captured.error[-3000:] if captured else "",
        "load_seconds": round(loaded, 1),
        "device": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "CPU",
    }
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        result |= {
            "peak_gib": round(torch.cuda.max_memory_allocated() / GIB, 2),
            "reserved_gib": round(torch.cuda.max_memory_reserved() / GIB, 2),
            "device_gib": round((total - free) / GIB, 2),
        }
    if clock.kernels:
        result |= {"costliest": clock.kernels}
    return result


def table(results: list[dict[str, Any]]) -> str:
    """The results for reading; losses are held against those of the first side."""
    widths = {"side": -20, "tokens": 7, "tok/s": 8, "ms": 8, "GiB": 7, "(said)": 7, "device": 8, "said": 7}
    lines = ["".join(f"{name:<20}" if width < 0 else f"{name:>{width}}" for name, width in widths.items())]
    lines[0] += "  last loss  off  plan"
    first = results[0]["losses"] if results else []
    for result in results:
        losses = result["losses"]
        compared = ("tokens_per_step", "log_every")
        same = all(result[name] == results[0][name] for name in compared)
        off = f"{max(abs(a - b) for a, b in zip(losses, first, strict=False)):.4f}" if same and losses else "-"
        lines.append(
            f"{result['label']:<20}{result['tokens_per_step']:>7}{result['tokens_per_second']:>8,}"
            f"{result['step_ms']:>8.1f}{result.get('peak_gib', 0):>7.2f}{result.get('predicted_gib', 0):>7.2f}"
            f"{result.get('device_gib', 0):>8.2f}{result.get('predicted_total_gib', 0):>7.2f}"
            f"{losses[-1] if losses else 0:>11.4f}  {off}  {result['plan']}"
        )
    return "\n".join(lines)


def run_all(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Each side in its own process; one that fails shows the end of its output and does not stop the others."""
    results = []
    common = ["--steps", str(arguments.steps), "--warm-up", str(arguments.warm_up)]
    common += ["--folder", str(arguments.folder), "--shape", arguments.shape]
    for side in [parse_side(line) for line in arguments.sides.replace(";", "\n").splitlines() if line.strip()]:
        child = command(__file__, "--child", json.dumps(dataclasses.asdict(side)), *common)
        result, output, error = child_result(child, arguments.limit)
        if not result:
            shown = arguments.error_characters
            print(f"FAILED {side.label}\n{output[-2 * shown :]}\n{error[-shown:]}", flush=True)
            continue
        results.append(result)
        print(
            json.dumps({name: value for name, value in result.items() if name not in ("costliest", "capture_error")}),
            flush=True,
        )
        print(result["capture_error"], end="", flush=True)
        for name, count, milliseconds in result.get("costliest", []):
            print(f"    {milliseconds:9.2f} ms  x{count:<6} {name[:120]}", flush=True)
    return results


def main() -> None:
    """Read the command line; print the table, and write all results where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", default="trl ours=0 liger=1\nours memory=24", help="one side a line (or between ;)")
    parser.add_argument("--steps", type=int, default=13, help="optimiser steps a side")
    parser.add_argument("--warm-up", type=int, default=4, help="of them not counted")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/benchmark-model"), help="where the model is kept")  # noqa: S108 - given by the user
    parser.add_argument("--shape", choices=list(SHAPES), default="llama-2-7b")
    parser.add_argument("--limit", type=int, default=150, help="seconds a side may take")
    parser.add_argument("--error-characters", type=int, default=1500, help="shown of a side that fails")
    parser.add_argument("--output", type=Path, help="JSON file for all results")
    parser.add_argument("--make", action="store_true", help="make the model, and no more")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    folder = arguments.folder / arguments.shape
    if arguments.child:
        side = Side(**json.loads(arguments.child))
        print(json.dumps(measure(side, folder, arguments.steps, arguments.warm_up)), flush=True)
        return
    if arguments.make:
        make_model(folder, arguments.shape)
        return
    # Also in a process of its own: what it leaves reserved on the GPU would be missing to the sides
    model = ("--folder", str(arguments.folder), "--shape", arguments.shape)
    subprocess.run(command(__file__, "--make", *model), check=True)
    results = run_all(arguments)
    print(table(results))
    if arguments.output:
        arguments.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
