"""What is trained is what is served."""

from pathlib import Path
from typing import Any

import pytest
from jinja2.exceptions import TemplateError
from transformers import AutoTokenizer

from steps.chat_template import Template, bind_template
from steps.errors import ConfigError, ModelError
from steps.format.params import PromptParameters
from steps.format.tokenize import Encoder
from steps.template import template_names
from tests.format.sequences import encoded
from tests.real_tokenizers import LLAMA_2_CHAT

OWN = {
    "system": 'say "hi" {instruction} \\n ünï 🙂',
    "system_frame": "[{system}]{eos}\n",
    "prompt": "{system}Question: {instruction} {not_a_field}\nAnswer: ",
    "completion": "[[ {completion} ]]{eos}",
}
TEMPLATES: list[Any] = [*template_names(), OWN, {"prompt": "{instruction}\n"}]
CODE = "def f(x):\n    return x  # é 🙂\n"
FIRST = {"role": "user", "content": "Print 3."}
CHATS = {
    "single": [FIRST],
    "system": [{"role": "system", "content": "Be brief."}, FIRST],
    "two turns": [FIRST, {"role": "assistant", "content": "print(3)"}, {"role": "user", "content": "Now 4."}],
    "answered": [FIRST, {"role": "assistant", "content": CODE}],
}
CODER = (
    "You are an AI coding assistant specialized in generating Python code from user instructions.\n"
    "Your task is to return only the code that directly fulfills the given instruction."
)
WRITER = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
CHATML = "<|im_start|>system\n{0}</s>\n<|im_start|>user\nPrint 3.</s>\n<|im_start|>assistant\n"
TURNED = "print(3)</s>\n<|im_start|>user\nNow 4.</s>\n<|im_start|>assistant\n"
EXPECTED = {
    ("notebook", "single"): f"<s>### INSTRUCTION:\n{CODER}</s>\n\n### Input:\nPrint 3.</s>\n\n### RESPONSE:\n",
    ("notebook", "system"): "<s>### INSTRUCTION:\nBe brief.</s>\n\n### Input:\nPrint 3.</s>\n\n### RESPONSE:\n",
    ("notebook", "two turns"): f"<s>### INSTRUCTION:\n{CODER}</s>\n\n### Input:\nPrint 3.</s>\n\n### RESPONSE:\n"
    "print(3)</s>\n\n### Input:\nNow 4.</s>\n\n### RESPONSE:\n",
    ("alpaca", "single"): f"<s>{WRITER}\n\n### Instruction:\nPrint 3.\n\n### Response:\n",
    ("alpaca", "system"): "<s>Be brief.\n\n### Instruction:\nPrint 3.\n\n### Response:\n",
    ("alpaca", "two turns"): f"<s>{WRITER}\n\n### Instruction:\nPrint 3.\n\n### Response:\n"
    "print(3)</s>\n\n### Instruction:\nNow 4.\n\n### Response:\n",
    ("chatml", "single"): "<s>" + CHATML.format(CODER),
    ("chatml", "system"): "<s>" + CHATML.format("Be brief."),
    ("chatml", "two turns"): "<s>" + CHATML.format(CODER) + TURNED,
    ("llama2-chat", "single"): f"<s>[INST] <<SYS>>\n{CODER}\n<</SYS>>\n\nPrint 3. [/INST]",
    ("llama2-chat", "system"): "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nPrint 3. [/INST]",
    ("llama2-chat", "two turns"): f"<s>[INST] <<SYS>>\n{CODER}\n<</SYS>>\n\nPrint 3. [/INST]"
    " print(3) </s><s>[INST] Now 4. [/INST]",
}


def bind(template: Any, folder: Path, system: str | None = None) -> Template:
    """The template bound to a tokenizer."""
    prompt = PromptParameters(template=template, system=system)
    return bind_template(prompt.template, prompt.system, folder)


def served(template: Template, chat: list[dict[str, str]], tmp_path: Path, **options: Any) -> Any:
    """What a server makes of a chat with the saved tokenizer alone."""
    template.tokenizer.save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    return tokenizer.apply_chat_template(chat, add_generation_prompt=chat[-1]["role"] == "user", **options)


@pytest.mark.parametrize(("name", "chat"), EXPECTED)
def test_each_template_word_for_word(name: str, chat: str, tokenizer_folders: dict[str, Path], tmp_path: Path) -> None:
    template = bind(name, tokenizer_folders["llama-2"])
    assert served(template, CHATS[chat], tmp_path, tokenize=False) == EXPECTED[name, chat]


PAIRS = [
    pytest.param(template, folder, id=f"{name}-{folder}")
    for name, template in zip([*template_names(), "own", "shortest"], TEMPLATES, strict=True)
    for folder in ("smollm2", "llama-2", "llama-2 file", "gpt-2")
    if (name, folder) != ("model", "gpt-2")  # that tokenizer has no chat template of its own
]


@pytest.mark.parametrize(("template", "folder"), PAIRS)
def test_the_served_prompt_is_the_trained_one(
    template: Any, folder: str, tokenizer_folders: dict[str, Path], tmp_path: Path
) -> None:
    """As text, as token ids, and with the answer behind it."""
    bound = bind(template, tokenizer_folders[folder])
    trained = encoded(Encoder(bound), "Print 3.", CODE)
    assert served(bound, [FIRST], tmp_path, tokenize=False) == trained.prompt
    assert served(bound, [FIRST], tmp_path, return_dict=False) == trained.prompt_ids
    whole = served(bound, CHATS["answered"], tmp_path, tokenize=False)
    code = CODE.strip() if template == "model" and folder.startswith("llama-2") else CODE  # its own template strips
    assert whole.removeprefix(trained.prompt).startswith(bound.answer(code))
    assert trained.completion_ids[-1] == bound.tokenizer.eos_token_id
    text = str(bound.tokenizer.decode([*trained.prompt_ids, *trained.completion_ids[:-1]]))
    assert text.endswith(bound.answer(CODE))  # nothing between the prompt and the answer, such as a space


@pytest.mark.parametrize("template", ["notebook", "alpaca", "chatml", "llama2-chat", OWN])
def test_a_later_turn_is_what_the_template_says(
    template: Any, tokenizer_folders: dict[str, Path], tmp_path: Path
) -> None:
    text: Any = PromptParameters(template=template).template
    bound = bind(template, tokenizer_folders["smollm2"])
    eos = bound.tokenizer.eos_token
    later = text.later_prompt.replace("{instruction}", "Now 4.").replace("{eos}", eos).replace("{bos}", "")
    first = bound.prompts(["Print 3."])[0] + bound.answer("print(3)") + eos
    assert served(bound, CHATS["two turns"], tmp_path, tokenize=False) == first + later


@pytest.mark.parametrize("chat", CHATS)
def test_the_models_own_template_stays_as_it_is(chat: str, tokenizer_folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tokenizer_folders["smollm2"]
    prompt = CHATS[chat][-1]["role"] == "user"
    own: Any = AutoTokenizer.from_pretrained(folder)
    expected = own.apply_chat_template(CHATS[chat], tokenize=False, add_generation_prompt=prompt)
    assert served(bind("model", folder), CHATS[chat], tmp_path, tokenize=False) == expected
    briefly = served(bind("model", folder, system="Be brief."), CHATS["single"], tmp_path, tokenize=False)
    assert briefly == own.apply_chat_template(CHATS["system"], tokenize=False, add_generation_prompt=True)


def test_llama2_chat_is_what_llama_2_has(tokenizer_folders: dict[str, Path], tmp_path: Path) -> None:
    bound = bind("llama2-chat", tokenizer_folders["llama-2"])
    own: Any = AutoTokenizer.from_pretrained(tokenizer_folders["llama-2"])
    assert own.chat_template == LLAMA_2_CHAT
    chat = [CHATS["system"][0], *CHATS["two turns"]]
    assert served(bound, chat, tmp_path, tokenize=False) == own.apply_chat_template(chat, tokenize=False)


@pytest.mark.parametrize("folder", ["smollm2", "llama-2", "gpt-2"])
def test_a_sequence_has_the_begin_token_once_where_there_is_one(
    folder: str, tokenizer_folders: dict[str, Path], tmp_path: Path
) -> None:
    bound = bind("alpaca", tokenizer_folders[folder])
    ids = served(bound, [FIRST], tmp_path, return_dict=False)
    assert ids.count(bound.tokenizer.bos_token_id) == (1 if folder == "llama-2" else 0)


@pytest.mark.parametrize(
    ("chat", "reason"),
    [
        ([{"role": "user", "content": "Print </s>."}], "a message spells </s>, which could end a turn"),
        ([FIRST, FIRST], "a chat is user and assistant in turn"),
        ([FIRST, {"role": "system", "content": "Be brief."}], "a chat is user and assistant in turn"),
        ([FIRST, {"role": "tool", "content": "3"}], "a chat is user and assistant in turn"),
    ],
)
def test_a_chat_that_could_end_a_turn_is_refused(
    chat: list[dict[str, str]], reason: str, tokenizer_folders: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(TemplateError, match=reason):
        served(bind("notebook", tokenizer_folders["llama-2"]), chat, tmp_path)


def test_a_system_text_cannot_end_a_turn(tokenizer_folders: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match=r"parameters\.prompt\.system: spells </s>"):
        bind("notebook", tokenizer_folders["llama-2"], system="Be brief.</s>")
    with pytest.raises(ConfigError, match=r"parameters\.prompt\.system: spells </s>"):
        bind({**OWN, "system": "Be brief.</s>"}, tokenizer_folders["llama-2"])


def test_a_template_cannot_spell_a_control_token_with_its_text(tokenizer_folders: dict[str, Path]) -> None:
    """An instruction ``/s`` would make it ``</s>``."""
    for template in (
        {"prompt": "<{instruction} "},
        {"prompt": "{instruction}>"},
        {**OWN, "completion": "{completion}>{eos}"},
    ):
        with pytest.raises(ConfigError, match=r"parameters\.prompt\.template\.\w+: what stands beside"):
            bind(template, tokenizer_folders["llama-2"])


def test_an_own_template_that_cannot_be_used_says_why(tokenizer_folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no chat template; name one in parameters\.prompt\.template"):
        bind("model", tokenizer_folders["gpt-2"])
    tokenizer: Any = AutoTokenizer.from_pretrained(tokenizer_folders["gpt-2"])
    for own, problem in (
        ("{% for m in messages %}{{ m['content'] }}\n{% endfor %}", "no special token ends an answer"),
        ("{{ messages | length }}{% for m in messages %}{{ m['content'] }}{{ eos_token }}{% endfor %}", "changes"),
    ):
        tokenizer.chat_template = own
        tokenizer.save_pretrained(tmp_path)
        with pytest.raises(ModelError, match=problem):
            bind("model", tmp_path)


def test_the_end_of_the_models_own_turn_becomes_the_end_token(
    tokenizer_folders: dict[str, Path], tmp_path: Path
) -> None:
    """As with a base model whose tokenizer ends texts with one token and turns with another."""
    tokenizer: Any = AutoTokenizer.from_pretrained(tokenizer_folders["smollm2"])
    tokenizer.eos_token = "<|endoftext|>"
    tokenizer.save_pretrained(tmp_path)
    bound = bind("model", tmp_path)
    assert bound.tokenizer.eos_token == "<|im_end|>"
    assert bound.tokenizer.pad_token == "<|endoftext|>"


@pytest.mark.parametrize(
    ("folder", "pad"),
    [("tiny", "<pad>"), ("llama-2", "<unk>"), ("smollm2", "<|endoftext|>"), ("gpt-2", "<|endoftext|>")],
)
def test_padding_is_not_the_token_to_stop_at_where_another_exists(
    folder: str, pad: str, tokenizer_folders: dict[str, Path]
) -> None:
    tokenizer = bind("notebook", tokenizer_folders[folder]).tokenizer
    assert tokenizer.pad_token == pad
    assert (tokenizer.pad_token_id == tokenizer.eos_token_id) == (folder == "gpt-2")


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("alpca", "'alpca' is not a template; did you mean 'alpaca'?"),
        ({"prompt": "Do this:"}, "prompt must contain {instruction} exactly once"),
        (
            {"prompt": "{instruction}", "completion": "{completion}"},
            "completion must contain {completion} once and end",
        ),
        ({"prompt": "{instruction}", "completion": "{eos}{completion}{eos}"}, "completion has a second {eos}"),
        ({"prompt": "{bos}{instruction}"}, "the begin token is put there by itself"),
        ({"prompt": "{instruction}", "next_prompt": "{system}{instruction}"}, "next_prompt cannot contain {system}"),
        ({"prompt": "{instruction}", "system": "Be brief."}, "system is set but prompt has no {system}"),
        ({"prompt": "{instruction}", "system_frame": "[]"}, "system_frame must contain {system} exactly once"),
    ],
)
def test_a_template_that_cannot_work_says_what_is_missing(template: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem.replace("{", r"\{").replace("?", r"\?").replace("[", r"\[")):
        PromptParameters(template=template)
