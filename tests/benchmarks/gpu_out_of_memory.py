"""On a GPU: another process takes all memory that is free while a training runs.

    python -m tests.benchmarks.gpu_out_of_memory

Trains a random Llama-2-7B in NF4 by the pipeline's own train function, each in its own process: left alone, and with
a rival that takes the card's memory after step ``RIVAL_AT``. A captured plan holds what its steps need: it must go on
undisturbed where a validation still finds memory, and go on in any case where nothing is left. The plain path asks for
memory in every step and must go on by a smaller plan that fits what is left. Ends with status 1 if one did not, or if
it learned something else.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tests.benchmarks.child import child_result, command
from tests.benchmarks.gpu_model import SHAPES, blocks, make_model
from tests.benchmarks.several_gpus import with_ends

STEPS, EVERY, RIVAL_AT = 12, 3, 4
BLOCKS = 10
LOSS = 0.03
"""Nats that a step's loss may differ: a bfloat16 training by TRL's kernels differs by 0.02 from one by ours."""
RIVAL = """
import sys, torch
left = size = torch.cuda.mem_get_info()[0] - int(float(sys.argv[1]) * 2**30)
taken = []
while min(left, size) > 2**26:
    try:
        taken.append(torch.empty(min(left, size), dtype=torch.uint8, device="cuda"))
        left -= len(taken[-1])
    except torch.OutOfMemoryError:
        size //= 2
print(sum(map(len, taken)) / 2**30, flush=True)
sys.stdin.read()
"""
Kernels = Literal["auto", "plain"]


class Case(NamedTuple):
    """GiB that the rival leaves a training, and whether it must leave its plan then; None: either will do."""

    spared: float
    leaves: bool | None


CASES: dict[Kernels, tuple[Case, ...]] = {
    "auto": (Case(2, leaves=False), Case(0, leaves=None)),
    "plain": (Case(8, leaves=True),),
}


class Rival:
    """Takes the card's memory once, after a step, but for the GiB that it spares."""

    def __init__(self, processes: ExitStack, spared: float) -> None:
        self.processes, self.spared, self.taken = processes, spared, ""

    def __call__(self, step: int, _: Mapping[str, float]) -> None:
        """Come after ``RIVAL_AT``, when torch has given back what it does not use."""
        import torch

        if self.taken or step < RIVAL_AT:
            return
        torch.cuda.empty_cache()
        rival = [sys.executable, "-c", RIVAL, str(self.spared)]
        process = subprocess.Popen(rival, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.processes.callback(process.kill)
        assert process.stdout
        self.taken = f"{float(process.stdout.readline()):.1f} GiB after step {step}"


def splits() -> Any:
    """Blocks for the training, and twenty to validate with."""
    from datasets import Dataset, DatasetDict

    count = BLOCKS * STEPS
    rows = Dataset.from_list([with_ends(block) for block in blocks(count + 2 * BLOCKS)])
    return DatasetDict(train=rows.select(range(count)), validation=rows.select(range(count, len(rows))))


def train(folder: Path, kernels: Kernels, spared: float | None) -> dict[str, Any]:
    """Steps, losses and plans of one training; ``spared`` by a rival, if there is one."""
    from steps.train.checkpoint import Checkpoints
    from steps.train.params import CheckpointParameters, LoraParameters, TrainingParameters
    from steps.train.plan.params import PlanParameters
    from steps.train.tracking import nowhere
    from steps.train.train import train_adapter

    training = TrainingParameters(
        lora=LoraParameters(dropout=0.0),  # a smaller micro-batch draws other masks
        max_steps=STEPS,
        batch_size=BLOCKS,
        gradient_accumulation=1,
        evaluate_every=EVERY,
        early_stopping=None,
    )
    plan = PlanParameters(kernels=kernels)
    with tempfile.TemporaryDirectory() as output, ExitStack() as processes:
        rival = Rival(processes, spared or 0.0)
        checkpoints = Checkpoints(Path(output), "checkpoints", CheckpointParameters(every_steps=EVERY))
        told = nowhere if spared is None else rival
        model, tokenizer = folder / "quantized", folder / "base"
        report = train_adapter(splits(), model, tokenizer, training, Path(output), checkpoints, told, plan)
    decided = {choice.name: choice.value for choice in report.choices}
    return {
        "taken": rival.taken,
        "losses": [round(step.loss, 4) for step in report.steps],
        "resumed_from": report.resumed_from,
        "plan": {part: decided.get(part, "") for part in ("micro-batch", "recomputed", "memory")},
        "left": [f"{choice.value}: {choice.reason}" for choice in report.choices if choice.name == "plan left"],
        "peak_gib": round(report.cost.peak_memory_bytes / 2**30, 2),
    }


def main() -> int:
    """Print the trainings; gives the number of those that are not as they must be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=list(SHAPES), default="llama-2-7b")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/benchmark-model"), help="where the model is kept")  # noqa: S108 - given by the user
    parser.add_argument("--limit", type=int, default=200, help="seconds that a training may take")
    parser.add_argument("--child", choices=list(CASES), help=argparse.SUPPRESS)
    parser.add_argument("--spared", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    folder = arguments.folder / arguments.shape
    if arguments.child:
        print(json.dumps(train(folder, arguments.child, arguments.spared)), flush=True)
        return 0
    make_model(folder, arguments.shape)
    wrong = 0
    for kernels, cases in CASES.items():
        child = command(__file__, *sys.argv[1:], "--child", kernels)
        alone = _shown(child, arguments.limit)
        for case in cases:
            found = _shown([*child, "--spared", str(case.spared)], arguments.limit)
            apart = max(abs(one - other) for one, other in zip(alone["losses"], found["losses"], strict=True))
            as_said = case.leaves is None or bool(found["left"]) == case.leaves
            right = bool(found["taken"]) and not alone["left"] and as_said and apart <= LOSS
            wrong += not right
            print(f"  {case.spared} GiB spared, {apart:.4f} apart: {'as it must be' if right else 'WRONG'}", flush=True)
    return wrong


def _shown(child: list[str], limit: int) -> dict[str, Any]:
    """The result of a training, printed; one that fails ends the benchmark."""
    result, output, error = child_result(child, limit)
    if result is None:
        raise SystemExit(f"FAILED {' '.join(child)}\n{output[-3000:]}\n{error[-3000:]}")
    print(json.dumps(result), flush=True)
    return result


if __name__ == "__main__":
    sys.exit(main())
