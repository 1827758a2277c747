"""The merge's memory is bounded by its blocks, not by the model or its largest tensor."""

from pathlib import Path
from typing import Literal

import pytest
import transformers

from steps.merge.stream import plan_merge
from steps.quantize.params import QuantizationParameters
from steps.quantize.quantize import quantize_model
from steps.resolve.base_model import lock_model
from steps.resolve.params import BaseModelParameters
from tests.benchmarks.measure import measured
from tests.benchmarks.merge_room import proof, proved, write_adapter, write_checkpoint


def dequantized(folder: Path) -> dict[str, int]:
    """The merge into the weights of the quantised model, with its proof."""
    plan = plan_merge(folder / "base", [folder / "adapter"])
    return proof(folder, plan.into_dequantized(folder / "quantized"))


@pytest.mark.parametrize("kind", ["", "nf4"])
def test_memory_stays_below_twice_the_largest_tensor(tmp_path: Path, kind: Literal["", "nf4"]) -> None:
    """0.4 GB, largest tensor 66 MB; 120 MB instead of 500 for what does not depend on the model."""
    config = transformers.LlamaConfig(
        vocab_size=32_000, hidden_size=1024, intermediate_size=4096, num_hidden_layers=8, num_attention_heads=8
    )
    write_checkpoint(tmp_path / "base", config, 2 * 10**8)
    write_adapter(tmp_path / "adapter", config, 16)
    if kind:
        (tmp_path / "quantized").mkdir()
        lock = lock_model(BaseModelParameters(folder=str(tmp_path / "base")))
        quantize_model(lock, QuantizationParameters(kind=kind), tmp_path / "quantized")
    size = sum(path.stat().st_size for path in (tmp_path / "base").glob("*.safetensors"))
    largest = 2 * 32_000 * 1024
    counts, _, gib = measured(dequantized if kind else proved, tmp_path)
    assert counts == {"changed": 8 * 7, "unchanged": 2 + 1 + 8 * 2}
    bound = 2 * largest + 120e6
    assert gib * 2**30 < bound < size
