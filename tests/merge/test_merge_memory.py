"""The merge's memory is bounded by its blocks, not by the model or its largest tensor."""

from pathlib import Path

import transformers

from tests.benchmarks.measure import measured
from tests.benchmarks.merge_room import proved, write_adapter, write_checkpoint


def test_memory_stays_below_twice_the_largest_tensor(tmp_path: Path) -> None:
    """0.4 GB, largest tensor 66 MB; 120 MB instead of 500 for what does not depend on the model."""
    config = transformers.LlamaConfig(
        vocab_size=32_000, hidden_size=1024, intermediate_size=4096, num_hidden_layers=8, num_attention_heads=8
    )
    write_checkpoint(tmp_path / "base", config, 2 * 10**8)
    write_adapter(tmp_path / "adapter", config, 16)
    size = sum(path.stat().st_size for path in (tmp_path / "base").glob("*.safetensors"))
    largest = 2 * 32_000 * 1024
    counts, _, gib = measured(proved, tmp_path)
    assert counts == {"changed": 8 * 7, "unchanged": 2 + 1 + 8 * 2}
    bound = 2 * largest + 120e6
    assert gib * 2**30 < bound < size
