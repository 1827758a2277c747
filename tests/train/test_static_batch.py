"""The memory that a captured step reads its batches from."""

import pytest
import torch

from steps.tokenizer import IGNORED
from steps.train.graph.batch import StaticBatch
from tests.train.packed import BLOCK, LENGTHS, TRAINED, packed


def static() -> StaticBatch:
    return StaticBatch(96, BLOCK, 16, torch.device("cpu"))


def test_the_bounds_are_those_of_the_collator_and_then_fill_up() -> None:
    batch, inputs = static(), packed()
    batch.load(inputs, TRAINED)
    known = inputs["cu_seq_lens_q"]
    assert torch.equal(batch.bounds[: known.numel()], known)
    rest = batch.bounds[known.numel() - 1 :].tolist()
    assert rest == [59, 91, *[96] * 9]
    assert int(batch.bounds.diff().max()) <= BLOCK
    assert batch.bounds.dtype == torch.int32


def test_positions_start_anew_with_each_sequence() -> None:
    batch = static()
    batch.load(packed(), TRAINED)
    starts = (batch.position_ids[0] == 0).nonzero().flatten().tolist()
    assert starts == sorted(set(batch.bounds[:-1].tolist()) - {96})


def test_nothing_is_left_of_the_batch_before() -> None:
    used, fresh = static(), static()
    used.load(packed([[32], [32], [32]], seed=1), 93)
    for batch in (used, fresh):
        batch.load(packed(), TRAINED)
    for name in ("input_ids", "position_ids", "targets", "bounds", "items"):
        assert torch.equal(getattr(used, name), getattr(fresh, name)), name


def test_targets_are_the_labels_one_place_to_the_left() -> None:
    batch, inputs = static(), packed()
    batch.load(inputs, torch.tensor(TRAINED))
    assert torch.equal(batch.targets[:58], inputs["labels"][0, 1:])
    assert set(batch.targets[58:].tolist()) == {IGNORED}
    assert int((batch.targets != IGNORED).sum()) == TRAINED == int(batch.items)


@pytest.mark.parametrize(
    ("lengths", "why"),
    [
        ([[32], [32], [32], [1]], "97"),
        ([[33]], "a sequence of 33 tokens"),
        ([[2] * 16, [2]], "17 sequences and 2"),
        ([[2] * 15], "15 sequences and 3"),
        (LENGTHS, None),
        ([[32], [32], [32]], None),
    ],
)
def test_what_does_not_fit_is_refused(lengths: list[list[int]], why: str | None) -> None:
    found = static().misfit(packed(lengths))
    assert found is None if why is None else why in str(found)


def test_a_batch_with_a_mask_is_refused() -> None:
    inputs = packed()
    assert static().misfit({"input_ids": inputs["input_ids"], "attention_mask": inputs["labels"]})
