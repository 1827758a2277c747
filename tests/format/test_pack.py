"""Blocks: every token once, full, and no sequence that sees another."""

from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from datasets import Dataset, disable_progress_bars
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaForCausalLM
from trl.data_utils import pack_dataset
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from steps.format import pack as packing_module
from steps.format.pack import best_fit_decreasing, pack
from steps.format.tokenize import SEQUENCE_FEATURES
from steps.tokenizer import IGNORED
from tests.tiny import write_model

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=60)


def sequences(lengths: list[int]) -> Dataset:
    """Sequences whose tokens are all different, the first third of each masked."""
    ends = np.cumsum([0, *lengths])
    ids = [list(range(start, end)) for start, end in pairwise(ends)]
    labels = [[IGNORED] * (len(tokens) // 3) + tokens[len(tokens) // 3 :] for tokens in ids]
    rows = {"row_id": [f"row {number}" for number in range(len(ids))], "input_ids": ids, "labels": labels}
    return Dataset.from_dict(rows, features=SEQUENCE_FEATURES)


def taken_apart(block: dict[str, Any]) -> list[tuple[str, list[int], list[int]]]:
    """The sequences of a block that says where each ends."""
    ends = np.cumsum([0, *block["seq_lengths"]])
    return [
        (name, block["input_ids"][a:b], block["labels"][a:b])
        for name, (a, b) in zip(block["row_ids"], pairwise(ends), strict=True)
    ]


@given(LENGTHS)
def test_best_fit_keeps_every_sequence_whole_and_once(lengths: list[int]) -> None:
    given_ = sequences(lengths)
    blocks = pack(given_, 40, "bfd")
    found = [part for block in blocks for part in taken_apart(block)]
    assert sorted(found) == sorted((one["row_id"], one["input_ids"], one["labels"]) for one in given_)
    assert all(sum(block["seq_lengths"]) == len(block["input_ids"]) <= 40 for block in blocks)


@given(LENGTHS)
@settings(max_examples=30)
def test_best_fit_packs_as_trl_does(lengths: list[int]) -> None:
    plain = sequences(lengths).select_columns(["input_ids", "labels"])
    disable_progress_bars()
    theirs = pack_dataset(plain, seq_length=40, strategy="bfd")
    assert len(best_fit_decreasing(np.array(lengths, np.int32), 40)) == len(theirs)
    ours = pack(sequences(lengths), 40, "bfd")
    assert sorted(map(len, ours["input_ids"])) == sorted(map(len, theirs["input_ids"]))


@given(LENGTHS, st.integers(1, 60))
def test_wrapped_is_one_stream_whatever_the_window(lengths: list[int], window: int) -> None:
    given_ = sequences(lengths)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing_module, "WINDOW", window)
        blocks = pack(given_, 16, "wrapped")
    tokens = [token for block in blocks for token in block["input_ids"]]
    assert tokens == list(range(sum(lengths)))
    assert [label for block in blocks for label in block["labels"]] == [x for one in given_ for x in one["labels"]]
    assert {len(block["input_ids"]) for block in list(blocks)[:-1]} <= {16}
    owner = np.repeat(np.arange(len(lengths)), lengths)
    for block in blocks:
        assert block["row_ids"] == [f"row {number}" for number in np.unique(owner[block["input_ids"]])]


def test_without_packing_each_sequence_is_a_block() -> None:
    blocks = pack(sequences([3, 1, 2]), 16, "none")
    assert blocks["input_ids"][:] == [[0, 1, 2], [3], [4, 5]]
    assert blocks["row_ids"][:] == [["row 0"], ["row 1"], ["row 2"]]
    assert "seq_lengths" not in blocks.column_names


def test_nothing_packs_to_nothing() -> None:
    assert len(pack(sequences([]), 16, "bfd")) == 0
    assert len(pack(sequences([]), 16, "wrapped")) == 0
    assert len(pack(sequences([]), 16, "none")) == 0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LlamaForCausalLM:
    folder = write_model(tmp_path_factory.mktemp("model"))
    loaded = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
    return cast("LlamaForCausalLM", loaded.train())


def loss_of(model: LlamaForCausalLM, blocks: Dataset, *, padding_free: bool) -> torch.Tensor:
    """Mean loss of all trained tokens, the blocks as one batch of the trainer's collator."""
    collator = DataCollatorForLanguageModeling(pad_token_id=3, padding_free=padding_free)
    columns = [name for name in ("input_ids", "labels", "seq_lengths") if name in blocks.column_names]
    batch = collator(list(blocks.select_columns(columns)))
    loss: torch.Tensor = model(**batch, use_cache=False).loss
    return loss


def gradient(model: LlamaForCausalLM, loss: torch.Tensor) -> torch.Tensor:
    """The gradient of every weight, as one vector."""
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(model.parameters()))])


def test_packed_and_unpacked_learn_the_same(model: LlamaForCausalLM) -> None:
    """Each packed token is trained; the first of a sequence has no prediction, so every sequence starts masked."""
    rows = sequences([30, 12, 25, 9, 40, 3])
    alone = loss_of(model, pack(rows, 64, "none"), padding_free=False)
    packed = loss_of(model, pack(rows, 64, "bfd"), padding_free=True)
    assert len(pack(rows, 64, "bfd")) == 2
    torch.testing.assert_close(packed, alone, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient(model, packed), gradient(model, alone), rtol=1e-3, atol=1e-6)
    wrapped = loss_of(model, pack(rows, 64, "wrapped"), padding_free=False)
    assert abs(float(wrapped) - float(alone)) > 1e-4  # the notebook's packing lets neighbours see each other


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_packed_neighbour_moves_no_logit(model: LlamaForCausalLM, attention: str, tmp_path: Path) -> None:
    model.set_attn_implementation(attention)
    (block,) = pack(sequences([30, 12, 20]), 64, "bfd")
    collator = DataCollatorForLanguageModeling(pad_token_id=3, padding_free=True)
    inputs = {name: block[name] for name in ("input_ids", "labels", "seq_lengths")}
    first = block["seq_lengths"][0]
    other = {
        **inputs,
        "input_ids": [*((token + 7) % 300 for token in block["input_ids"][:first]), *block["input_ids"][first:]],
    }
    with torch.no_grad():
        before, after = (model(**collator([one]), use_cache=False).logits[0] for one in (inputs, other))
    assert torch.equal(before[first:], after[first:])
    assert not torch.equal(before[:first], after[:first])
