"""The answer of a tuned model as it is printed."""

import pytest
import torch

from pipelines.generate import load_tuned, print_answer
from steps.errors import DataError
from tests.tiny_run import TinyRun


def test_an_answer_is_printed_and_a_cut_one_is_told(tiny_run: TinyRun, capsys: pytest.CaptureFixture[str]) -> None:
    model, tokenizer = load_tuned(tiny_run.adapter)
    tokenizer.eos_token = "<unk>"  # the tiny model ends at once
    chat = [{"role": "user", "content": "Add 1."}]
    ids = torch.tensor([tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)])
    output = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=8,
        do_sample=False,
        eos_token_id=0,
        pad_token_id=3,
    )  # type: ignore[operator]  # PreTrainedModel's types leave the mixin out
    expected = tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)
    capsys.readouterr()
    assert not print_answer(model, tokenizer, "Add 1.", 8)
    said = capsys.readouterr().out
    assert said == f"{expected}\n"
    tokenizer.eos_token = "</s>"
    assert print_answer(model, tokenizer, "Add 1.", 8)


def test_an_instruction_that_spells_a_token_is_refused(tiny_run: TinyRun) -> None:
    model, tokenizer = load_tuned(tiny_run.adapter)
    with pytest.raises(DataError, match=r"the instruction cannot be asked: .*; reword it"):
        print_answer(model, tokenizer, "</s> and on", 8)
