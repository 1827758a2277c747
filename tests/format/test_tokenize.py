"""Labels, limits and blocks."""

from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict, concatenate_datasets

from steps.errors import DataError
from steps.format.pack import IGNORED
from steps.format.params import PromptParameters
from steps.format.tokenize import format_rows
from steps.resolve.base_model import lock_model
from steps.resolve.locks import ModelLock
from steps.resolve.params import BaseModelParameters
from steps.rows import ROW_FEATURES
from steps.tokenizer import load_tokenizer
from tests.tiny import row, write_model

PROMPT = PromptParameters(system="Code only.", max_length=128)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelLock:
    folder = write_model(tmp_path_factory.mktemp("model"))
    return lock_model(BaseModelParameters(folder=str(folder)))


def rows(*numbers: int, **changes: str) -> Dataset:
    """Rows by number, all with the given fields changed."""
    plain = {"source": "here", "location": "", "group": "", "license": "MIT", "tests": []}
    return Dataset.from_list(
        [{**plain, "row_id": str(number), **row(number), **changes} for number in numbers],
        features=ROW_FEATURES,
    )


def splits(train: Dataset) -> DatasetDict:
    """The rows as training split, with one row each to validate and to test on."""
    return DatasetDict(train=train, validation=rows(100), test=rows(101))


@pytest.mark.parametrize("packing", ["bfd", "none"])
@pytest.mark.parametrize("loss_on", ["completion", "all"])
def test_the_end_token_is_trained_and_the_prompt_only_if_asked(
    model: ModelLock, tmp_path: Path, packing: str, loss_on: str
) -> None:
    prompt = PromptParameters.model_validate({**PROMPT.model_dump(), "packing": packing, "loss_on": loss_on})
    blocks, _, report = format_rows(splits(rows(*range(10))), model, prompt, tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    labels = [label for block in blocks["train"] for label in block["labels"]]
    ids = [token for block in blocks["train"] for token in block["input_ids"]]
    assert sum(label == tokenizer.eos_token_id for label in labels) == (10 if loss_on == "completion" else 30)
    trained = [token for token, label in zip(ids, labels, strict=True) if label != IGNORED]
    assert all(label in (IGNORED, token) for token, label in zip(ids, labels, strict=True))
    text = tokenizer.decode(trained)
    assert ("### INSTRUCTION" in text) == (loss_on == "all")
    assert all(row(number)["completion"] + "</s>" in text for number in range(10))
    assert report.splits[0].trained_tokens == len(trained)
    assert tokenizer.pad_token_id not in ids


def test_packed_blocks_hold_every_example_once_and_say_where_it_ends(model: ModelLock, tmp_path: Path) -> None:
    prompt = PROMPT.model_copy(update={"max_length": 256})
    blocks, _, report = format_rows(splits(rows(*range(30))), model, prompt, tmp_path)
    train = report.splits[0]
    assert train.blocks == len(blocks["train"]) < 30
    assert sorted(length for block in blocks["train"] for length in block["seq_lengths"]) == sorted(train.lengths)
    assert all(sum(block["seq_lengths"]) == len(block["input_ids"]) <= 256 for block in blocks["train"])


def test_wrapped_packing_is_one_stream_cut_at_the_limit(model: ModelLock, tmp_path: Path) -> None:
    prompt = PROMPT.model_copy(update={"packing": "wrapped", "loss_on": "all"})
    blocks, _, report = format_rows(splits(rows(*range(30))), model, prompt, tmp_path)
    sizes = [len(block["input_ids"]) for block in blocks["train"]]
    assert set(sizes[:-1]) == {128}
    assert sum(sizes) == report.splits[0].tokens


def test_long_rows_are_set_aside_and_counted(model: ModelLock, tmp_path: Path) -> None:
    train = rows(1, 2)
    long = rows(3, completion="x = 1\n" * 100)
    _, _, report = format_rows(splits(concatenate_datasets([train, long])), model, PROMPT, tmp_path)
    assert report.splits[0].too_long == ["3"]
    assert report.splits[0].examples == 2


def test_text_that_spells_a_special_token_cannot_end_a_turn(model: ModelLock, tmp_path: Path) -> None:
    train = concatenate_datasets([rows(1), rows(2, instruction="Print </s>."), rows(3, completion="x = '<s>'")])
    _, _, report = format_rows(splits(train), model, PROMPT, tmp_path)
    assert report.splits[0].unsafe == ["2", "3"]


def test_no_row_that_fits_is_an_error_that_names_the_key(model: ModelLock, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"parameters\.prompt\.max_length: none of the 2 training rows fits 16 tokens"):
        format_rows(splits(rows(1, 2)), model, PROMPT.model_copy(update={"max_length": 16}), tmp_path)


def test_examples_start_generation_where_training_saw_the_completion(model: ModelLock, tmp_path: Path) -> None:
    _, examples, _ = format_rows(splits(rows(1, 2)), model, PROMPT, tmp_path)
    example, tokenizer = examples["test"][0], load_tokenizer(tmp_path)
    assert (example["row_id"], example["source"], example["license"]) == ("101", "here", "MIT")
    assert set(examples) == {"validation", "test"}
    assert example["completion_ids"][-1] == tokenizer.eos_token_id
    chat = [{"role": "user", "content": example["instruction"]}]
    assert tokenizer.apply_chat_template(chat, return_dict=False) == example["prompt_ids"]
