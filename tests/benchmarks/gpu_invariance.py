"""On a GPU: how far attention kernels, packing, micro-batches and checkpointing move what is learned.

Run as ``python -m tests.benchmarks.gpu_invariance``; needs no ZenML. A small random Llama in NF4 trains in bfloat16,
which keeps 8 bits: the limits allow for that, and a control must exceed them. Ends with status 1 if a row is not as it
must be.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

from datasets import DatasetDict

from steps.train.plan.params import PlanParameters
from tests.tiny_run import TinyRun, make_tiny_run
from tests.train.invariance import Learned, distance, learn, unpacked

LOSS = 5e-3
"""Nats per token."""
ADAPTER = 0.02
"""Relative, of what the adapter has learned. On a CPU bfloat16 moved it by 0.5 % at most, the control by 7 %."""


def main() -> int:
    """Print a table of pairs; gives the number of rows that are not as they must be."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "run").mkdir()
        run = make_tiny_run(Path(folder) / "run", width=256)  # heads of 64, as real models have them
        return sum(not _as_expected(*row) for row in _rows(run, Path(folder)))


def _rows(run: TinyRun, folder: Path) -> list[tuple[str, Learned, Learned, bool]]:
    """What is compared, two trainings, and whether they must be equal within rounding."""
    few = DatasetDict(train=run.blocks["train"].select(range(11)), validation=run.blocks["validation"])

    def trained(name: str, blocks: DatasetDict = few, **changes: Any) -> Learned:
        values = {"precision": "bfloat16", "batch_size": 11, "epochs": 6, **changes}
        return learn(run, folder / name, blocks, **values)

    reference = trained("reference", attention="sdpa")
    return [
        ("the same again", reference, trained("again", attention="sdpa"), True),
        ("sdpa, flash_attention_2", reference, trained("flash", attention="flash_attention_2"), True),
        ("sdpa, eager", reference, trained("eager", attention="eager"), True),
        ("packed, unpacked", reference, trained("unpacked", unpacked(few), batch_size=10**3), True),
        ("packed, joined (control)", reference, trained("joined", few.remove_columns("seq_lengths")), False),
        ("checkpointing on, off", reference, trained("whole", plan=PlanParameters(recompute="layers")), True),
        ("8 x 1, 1 x 8", trained("8x1", batch_size=8), trained("1x8", batch_size=1, gradient_accumulation=8), True),
    ]


def _as_expected(name: str, one: Learned, other: Learned, equal: bool) -> bool:
    apart = distance(one, other)
    right = apart.within(LOSS, ADAPTER) == equal
    print(f"{name:28} loss {apart.loss:.2e}  adapter {apart.adapter:.2e}  {'as it must be' if right else 'WRONG'}")
    return right


if __name__ == "__main__":
    sys.exit(min(1, main()))
