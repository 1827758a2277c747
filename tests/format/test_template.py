"""What is trained is what is served."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from steps.format.params import PromptParameters
from steps.format.template import bind_template
from steps.tokenizer import choose_padding, load_tokenizer
from tests.tiny import write_tokenizer

TEMPLATES = [
    PromptParameters(),
    PromptParameters(system="", template="Question: {instruction}\nAnswer: "),
    PromptParameters(
        system='say "hi" {instruction} \\n ünï 🙂', template="[{system}]{eos}\n{instruction} {not_a_field}"
    ),
]


@pytest.fixture(scope="module", params=[True, False], ids=["bos", "no bos"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder, bos=request.param)
    return load_tokenizer(folder)


@pytest.mark.parametrize("prompt", TEMPLATES, ids=["notebook", "plain", "awkward"])
@given(instruction=st.text(), completion=st.text())
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_chat_template_renders_what_was_trained(
    tokenizer: PreTrainedTokenizerBase, prompt: PromptParameters, instruction: str, completion: str
) -> None:
    template = bind_template(prompt, tokenizer)
    tokenizer.chat_template = template.chat_template()
    user = {"role": "user", "content": instruction}
    served = tokenizer.apply_chat_template([user], tokenize=False, add_generation_prompt=True)
    assert served == template.prompt(instruction)
    both = tokenizer.apply_chat_template([user, {"role": "assistant", "content": completion}], tokenize=False)
    assert both == template.prompt(instruction) + template.completion(completion)


def test_served_token_ids_are_the_trained_ones(tokenizer: PreTrainedTokenizerBase) -> None:
    template = bind_template(PromptParameters(), tokenizer)
    tokenizer.chat_template = template.chat_template()
    served = tokenizer.apply_chat_template([{"role": "user", "content": "Print 3."}], return_dict=False)
    assert served == tokenizer(template.prompt("Print 3."), add_special_tokens=False)["input_ids"]
    assert served.count(tokenizer.bos_token_id) == (1 if template.bos else 0)


def test_a_system_message_replaces_the_systems_text(tokenizer: PreTrainedTokenizerBase) -> None:
    prompt = PromptParameters()
    tokenizer.chat_template = bind_template(prompt, tokenizer).chat_template()
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Print 3."}]
    other = bind_template(prompt.model_copy(update={"system": "Be brief."}), tokenizer)
    assert tokenizer.apply_chat_template(messages, tokenize=False) == other.prompt("Print 3.")


def test_notebook_prompt_word_for_word(tokenizer: PreTrainedTokenizerBase) -> None:
    template = bind_template(PromptParameters(), tokenizer)
    assert template.prompt("Print the length.") == template.bos + (
        "### INSTRUCTION:\n"
        "You are an AI coding assistant specialized in generating Python code from user instructions.\n"
        "Your task is to return only the code that directly fulfills the given instruction.</s>\n\n"
        "### Input:\nPrint the length.</s>\n\n"
        "### RESPONSE:\n"
    )


@pytest.mark.parametrize(("pad", "chosen"), [("<pad>", "<pad>"), (None, "<unk>"), ("</s>", "<unk>")])
def test_padding_is_not_the_token_to_stop_at(tmp_path: Path, pad: str | None, chosen: str) -> None:
    write_tokenizer(tmp_path, pad=None if pad == "</s>" else pad)
    tokenizer = load_tokenizer(tmp_path)
    if pad == "</s>":
        tokenizer.pad_token = pad
    choose_padding(tokenizer)
    assert tokenizer.pad_token == chosen
