"""Labels, limits and what is left out."""

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict, concatenate_datasets

from steps.chat_template import bind_template
from steps.errors import DataError, ModelError
from steps.format.format import format_rows, require_round_trip
from steps.format.params import PromptParameters
from steps.format.tokenize import Encoder, LeftOut, sequences_of
from steps.resolve.base_model import lock_model
from steps.resolve.locks import ModelLock
from steps.resolve.params import BaseModelParameters
from steps.tokenizer import IGNORED, load_tokenizer
from steps.train.params import TrainingParameters
from tests.rows import rows_of
from tests.tiny import row, write_model

PROMPT = PromptParameters(system="Code only.", max_length=128)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelLock:
    folder = write_model(tmp_path_factory.mktemp("model"))
    return lock_model(BaseModelParameters(folder=str(folder)))


def rows(*numbers: int, **changes: str) -> Dataset:
    """Rows by number, all with the given fields changed."""
    texts = [(row(number)["instruction"], row(number)["completion"]) for number in numbers]
    return rows_of(*texts, row_id=list(map(str, numbers)), **changes)


def splits(train: Dataset) -> DatasetDict:
    """The rows as training split, with one row each to validate and to test on."""
    return DatasetDict(train=train, validation=rows(100), test=rows(101))


def changed(**changes: Any) -> PromptParameters:
    """The parameters with some of them changed."""
    return PromptParameters.model_validate({**PROMPT.model_dump(), **changes})


@pytest.mark.parametrize("packing", ["bfd", "none"])
@pytest.mark.parametrize("loss_on", ["completion", "all"])
def test_the_end_token_is_trained_and_the_prompt_only_if_asked(
    model: ModelLock, tmp_path: Path, packing: str, loss_on: str
) -> None:
    blocks, _, _, report = format_rows(
        splits(rows(*range(10))), model, changed(packing=packing, loss_on=loss_on), tmp_path
    )
    tokenizer = load_tokenizer(tmp_path)
    labels = [label for block in blocks["train"] for label in block["labels"]]
    ids = [token for block in blocks["train"] for token in block["input_ids"]]
    assert sum(label == tokenizer.eos_token_id for label in labels) == (10 if loss_on == "completion" else 30)
    trained = [token for token, label in zip(ids, labels, strict=True) if label != IGNORED]
    assert all(label in (IGNORED, token) for token, label in zip(ids, labels, strict=True))
    text = str(tokenizer.decode(trained))
    assert ("### INSTRUCTION" in text) == (loss_on == "all")
    assert all(row(number)["completion"] + "</s>" in text for number in range(10))
    assert report.splits[0].trained_tokens == len(trained)
    assert tokenizer.pad_token_id not in ids


@pytest.mark.parametrize("folder", ["smollm2", "llama-2", "gpt-2"])
@pytest.mark.parametrize("template", ["notebook", "alpaca", "chatml", "llama2-chat"])
def test_labels_of_real_tokenizers_end_with_the_end_token_after_padding(
    folder: str, template: str, tokenizer_folders: dict[str, Path], tmp_path: Path
) -> None:
    """Through the collator that the trainer uses; GPT-2's tokenizer pads with its end token."""
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    from steps.device import describe_device
    from steps.train.build import Task, sft_config
    from steps.train.plan.plan import Plan

    prompt = PromptParameters(template=template, packing="none", max_length=512)
    encoder = Encoder(bind_template(prompt.template, prompt.system, tokenizer_folders[folder]))
    tokenizer = encoder.template.tokenizer
    texts = [row(1)["completion"], row(2)["completion"] * 3]
    train = concatenate_datasets([rows(number, completion=text) for number, text in zip((1, 2), texts, strict=True)])
    sequences = sequences_of(train, encoder, prompt, LeftOut("train"))
    blocks = DatasetDict(train=train, validation=train)
    task = Task(blocks, tmp_path, tmp_path, TrainingParameters(), describe_device())
    config = sft_config(task, Plan(1, 1), str(tmp_path))
    collator = DataCollatorForLanguageModeling(pad_token_id=tokenizer.pad_token_id, padding_free=config.padding_free)
    batch = collator([{name: one[name] for name in ("input_ids", "labels")} for one in sequences])
    for ids, labels, text in zip(batch["input_ids"], batch["labels"], texts, strict=True):
        trained = [label for label in labels.tolist() if label != IGNORED]
        assert trained[-1] == tokenizer.eos_token_id == tokenizer.convert_tokens_to_ids(tokenizer.eos_token)
        assert trained.count(tokenizer.eos_token_id) == 1
        assert str(tokenizer.decode(trained[:-1])).strip() == text.strip()
        assert labels[len(ids) - 1] == (IGNORED if text == texts[0] else tokenizer.eos_token_id)


@pytest.mark.parametrize("loss_on", ["completion", "all"])
def test_long_rows_are_left_out_with_their_length(model: ModelLock, tmp_path: Path, loss_on: str) -> None:
    train = concatenate_datasets([rows(1, 2), rows(3, completion="x = 1\n" * 100, location="a.jsonl:7")])
    blocks, _, left_out, report = format_rows(splits(train), model, changed(loss_on=loss_on), tmp_path)
    assert (report.splits[0].too_long, report.splits[0].cut, report.splits[0].sequences) == (1, 0, 2)
    (one,) = left_out
    assert (one["row_id"], one["split"], one["location"]) == ("3", "train", "a.jsonl:7")
    assert one["reason"].endswith("tokens, more than 128")
    assert {name for block in blocks["train"] for name in block["row_ids"]} == {"1", "2"}


def test_a_cut_completion_keeps_the_end_token(model: ModelLock, tmp_path: Path) -> None:
    train = concatenate_datasets([rows(1), rows(2, completion="x = 1\n" * 100)])
    prompt = changed(too_long="truncate_completion_keep_eos", packing="none")
    blocks, _, left_out, report = format_rows(splits(train), model, prompt, tmp_path)
    (long,) = [block for block in blocks["train"] if block["row_ids"] == ["2"]]
    eos = load_tokenizer(tmp_path).eos_token_id
    assert len(long["input_ids"]) == 128
    assert long["input_ids"][-1] == long["labels"][-1] == eos
    assert long["labels"].count(eos) == 1
    assert (report.splits[0].cut, report.splits[0].too_long, len(left_out)) == (1, 0, 0)


def test_a_split_row_gives_every_token_once(model: ModelLock, tmp_path: Path) -> None:
    train = rows(2, completion="x = 1\n" * 100)
    blocks, _, _, report = format_rows(splits(train), model, changed(too_long="split", packing="none"), tmp_path)
    whole, _, _, _ = format_rows(splits(train), model, changed(max_length=2048, packing="none"), tmp_path)
    assert [token for block in blocks["train"] for token in block["input_ids"]] == whole["train"][0]["input_ids"]
    assert [label for block in blocks["train"] for label in block["labels"]] == whole["train"][0]["labels"]
    assert all(len(block["input_ids"]) == 128 for block in list(blocks["train"])[:-1])
    assert (report.splits[0].cut, report.splits[0].sequences) == (1, len(blocks["train"]))


@pytest.mark.parametrize("loss_on", ["completion", "all"])
@pytest.mark.parametrize("too_long", ["truncate_completion_keep_eos", "split"])
def test_a_prompt_without_room_for_its_completion_trains_nothing(
    model: ModelLock, tmp_path: Path, too_long: str, loss_on: str
) -> None:
    """Every sequence has a completion token among those that are trained."""
    train = concatenate_datasets([rows(1), rows(2, instruction="Write a function. " * 60)])
    prompt = changed(too_long=too_long, packing="none", loss_on=loss_on)
    blocks, _, left_out, report = format_rows(splits(train), model, prompt, tmp_path)
    end = load_tokenizer(tmp_path)("return value + 2\n", add_special_tokens=False)["input_ids"][-3:]
    long = [block for block in blocks["train"] if block["row_ids"] == ["2"]]
    if too_long == "split":
        (piece,) = long  # those before it hold the prompt alone
        assert piece["labels"][-4:-1] == end
    else:
        assert not long
        assert "tokens, more than 128" in left_out[0]["reason"]
    assert report.splits[0].cut == len(long)


def test_text_that_spells_a_special_token_is_left_out(model: ModelLock, tmp_path: Path) -> None:
    train = concatenate_datasets([rows(1), rows(2, instruction="Print </s>."), rows(3, completion="x = '<s>'")])
    blocks, _, left_out, report = format_rows(splits(train), model, PROMPT, tmp_path)
    assert [(one["row_id"], one["reason"]) for one in left_out] == [
        ("2", "spells </s>, which could end a turn"),
        ("3", "spells <s>, which could end a turn"),
    ]
    assert report.splits[0].refused == 2
    assert blocks["train"][0]["row_ids"] == ["1"]


def test_no_row_that_fits_is_an_error_that_names_the_key(model: ModelLock, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"parameters\.prompt\.max_length: none of the 2 training rows fits 16 tokens"):
        format_rows(splits(rows(1, 2)), model, changed(max_length=16), tmp_path)


def test_examples_start_generation_where_training_saw_the_completion(model: ModelLock, tmp_path: Path) -> None:
    _, examples, _, report = format_rows(splits(rows(1, 2)), model, PROMPT, tmp_path)
    example, tokenizer = examples["test"][0], load_tokenizer(tmp_path)
    assert (example["row_id"], example["source"], example["license"]) == ("101", "file", "MIT")
    assert set(examples) == {"validation", "test"}
    assert example["completion_ids"][-1] == tokenizer.eos_token_id
    chat = [{"role": "user", "content": example["instruction"]}]
    assert tokenizer.apply_chat_template(chat, return_dict=False) == example["prompt_ids"]
    assert report.splits[2].tokens == len(example["prompt_ids"]) + len(example["completion_ids"])


def test_a_row_too_long_to_evaluate_on_is_left_out_whatever_training_does(model: ModelLock, tmp_path: Path) -> None:
    long = rows(100, completion="x = 1\n" * 100)
    data = DatasetDict(train=rows(1), validation=long, test=rows(101))
    blocks, examples, left_out, _ = format_rows(data, model, changed(too_long="split"), tmp_path)
    assert len(blocks["validation"]) > 1
    assert len(examples["validation"]) == 0
    assert [(one["split"], one["row_id"]) for one in left_out] == [("validation", "100")]


def test_the_report_shows_tokens_as_they_are_trained(model: ModelLock, tmp_path: Path) -> None:
    _, _, _, report = format_rows(splits(rows(*range(12))), model, PROMPT, tmp_path)
    assert [sample.row_id for sample in report.samples] == [str(number) for number in range(10)]
    tokens = report.samples[3].tokens
    assert "".join(token.text for token in tokens).endswith(row(3)["completion"] + "</s>")
    assert "".join(token.text for token in tokens if token.trained) == row(3)["completion"] + "</s>"
    assert [token.text for token in tokens if token.special] == ["<s>", "</s>", "</s>", "</s>"]


def test_a_tokenizer_that_loses_spaces_is_refused(tmp_path: Path, tokenizer_folders: dict[str, Path]) -> None:
    from tokenizers import normalizers

    tokenizer = load_tokenizer(tokenizer_folders["gpt-2"])
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("  ", " ")
    tokenizer.save_pretrained(tmp_path)
    prompt = PromptParameters()
    encoder = Encoder(bind_template(prompt.template, prompt.system, tmp_path))
    with pytest.raises(ModelError, match="its tokenizer does not give code back as it was"):
        require_round_trip(encoder, "model")
