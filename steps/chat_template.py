"""A prompt template bound to a tokenizer, as the ``chat_template`` that training and serving share."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from steps.errors import ConfigError, ModelError
from steps.template import MODEL, PromptTemplate, TemplateText
from steps.tokenizer import begin_token, choose_padding, load_tokenizer, special_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROBE = "probe-of-the-template"
"""Stands for an instruction or an answer where a template is taken apart."""

REMEDY = "name another in parameters.prompt.template"


@dataclass(frozen=True)
class Template:
    """The tokenizer with its chat template, which renders prompts, and what follows from both."""

    name: str
    tokenizer: "PreTrainedTokenizerBase"
    frame: tuple[str, str] | None  # text around an instruction, None where the template may change the instruction
    before_answer: str  # text between the prompt and the answer
    after_answer: str  # text between the answer and the end token
    closing: str  # text after an instruction that ends it, "" where a special token does
    markers: tuple[str, ...]

    @property
    def refused(self) -> tuple[str, ...]:
        """Texts that could end a turn: a row that spells one is not trained, a message that does is not rendered."""
        return _refused(self.tokenizer, self.closing)

    def prompts(self, instructions: list[str]) -> list[str]:
        """Everything that comes before each answer, as a server renders it.

        Jinja takes 40 microseconds a prompt; a template that puts an instruction in as it is, is rendered once.
        """
        if self.frame:
            before, after = self.frame
            return [f"{before}{instruction}{after}" for instruction in instructions]
        chats = [[{"role": "user", "content": instruction}] for instruction in instructions]
        return _render(self.tokenizer, chats, prompt=True)

    def answer(self, completion: str) -> str:
        """The completion as text, without the end token."""
        return f"{self.before_answer}{completion}{self.after_answer}"


def bind_template(template: PromptTemplate, system: str | None, folder: Path) -> Template:
    """Load a tokenizer and give it the template; its padding and, with the model's own template, end token are set.

    Args:
        template: what to render, or ``model``.
        system: system text in place of the template's own.
        folder: model folder that holds the tokenizer.

    Raises:
        ModelError: the tokenizer cannot be used, or its own chat template cannot.
        ConfigError: the system text spells a special token.
    """
    tokenizer = load_tokenizer(folder)
    if isinstance(template, TemplateText) and system is None:
        system = template.system
    spelt = [token for token in special_tokens(tokenizer) if token in (system or "")]
    if spelt:
        raise ConfigError(f"parameters.prompt.system: spells {spelt[0]}, which could end a turn; reword it")
    if isinstance(template, TemplateText):
        bound = _bind_text(template, system or "", tokenizer)
    else:
        bound = _bind_own(system, tokenizer, folder)
    choose_padding(tokenizer)
    return bound


def _bind_text(text: TemplateText, system: str, tokenizer: "PreTrainedTokenizerBase") -> Template:
    eos, tokens = str(tokenizer.eos_token), special_tokens(tokenizer)
    for key, written, field in (
        ("prompt", text.prompt, "{instruction}"),
        ("next_prompt", text.later_prompt, "{instruction}"),
        ("system_frame", text.system_frame, "{system}"),
        ("completion", text.completion, "{completion}"),
    ):
        before, after = written.replace("{eos}", eos).split(field)
        _require_apart(f"parameters.prompt.template.{key}", field, before, after, tokens)
    before, after = text.completion.replace("{eos}", "").split("{completion}")
    closing = _closing(text.prompt.split("{instruction}")[1].replace("{eos}", eos), tokenizer)
    conversation = _conversation(text, system, begin_token(tokenizer), eos)
    tokenizer.chat_template = _guard(_refused(tokenizer, closing)) + conversation
    (probe,) = _render(tokenizer, [[{"role": "user", "content": PROBE}]], prompt=True)
    start, _, end = probe.partition(PROBE)
    return Template(text.name, tokenizer, (start, end), before, after, closing, text.markers)


def _bind_own(system: str | None, tokenizer: "PreTrainedTokenizerBase", folder: Path) -> Template:
    """The model's own chat template, taken apart by rendering probes."""
    if not isinstance(tokenizer.chat_template, str):
        raise ModelError(f"{folder}: the tokenizer has no chat template; name one in parameters.prompt.template")
    own = tokenizer.chat_template = _with_system(system) + tokenizer.chat_template
    prompt, before, rest = rendered_parts(tokenizer)
    end = re.search("|".join(map(re.escape, special_tokens(tokenizer))), rest)
    if not end:
        raise ModelError(f"{folder}: no special token ends an answer in its chat template; {REMEDY}")
    tokenizer.eos_token = end[0]
    closing = _closing(prompt.partition(PROBE)[2], tokenizer)
    tokenizer.chat_template = _guard(_refused(tokenizer, closing)) + own
    return Template(MODEL, tokenizer, None, before, rest[: end.start()], closing, (closing.strip(),) if closing else ())


def rendered_parts(tokenizer: "PreTrainedTokenizerBase") -> tuple[str, str, str]:
    """What the tokenizer's chat template makes of ``PROBE`` as instruction and answer.

    Returns:
        The prompt, the text between it and the answer, and all that comes after the answer, its end token too.

    Raises:
        ModelError: an answer changes the prompt before it.
    """
    chat = [{"role": "user", "content": PROBE}, {"role": "assistant", "content": PROBE}]
    (prompt,), (whole,) = _render(tokenizer, [chat[:1]], prompt=True), _render(tokenizer, [chat], prompt=False)
    if not whole.startswith(prompt):
        where = tokenizer.name_or_path
        raise ModelError(f"{where}: an answer changes the prompt before it in its chat template; {REMEDY}")
    before, _, rest = whole.removeprefix(prompt).partition(PROBE)
    return prompt, before, rest


def _render(tokenizer: "PreTrainedTokenizerBase", chats: list[list[dict[str, str]]], *, prompt: bool) -> list[str]:
    return cast("list[str]", tokenizer.apply_chat_template(chats, tokenize=False, add_generation_prompt=prompt))


def _closing(after: str, tokenizer: "PreTrainedTokenizerBase") -> str:
    """What ends an instruction; words count at the start of a line alone, since they are ordinary text elsewhere."""
    text = after.strip()
    if not text or text.startswith(special_tokens(tokenizer)):
        return ""
    first_line = text.splitlines()[0].rstrip()
    return f"\n{first_line}" if first_line[0].isalnum() else first_line


def _require_apart(key: str, field: str, before: str, after: str, tokens: tuple[str, ...]) -> None:
    """Refuse a template that could spell a control token together with what it is filled with: ``<{instruction}>``."""
    for token in tokens:
        parts = range(1, len(token))
        if any(before.endswith(token[:end]) or after.startswith(token[end:]) for end in parts):
            raise ConfigError(
                f"{key}: what stands beside {field} could spell {token} together with a text; put a space between"
            )


def _refused(tokenizer: "PreTrainedTokenizerBase", closing: str) -> tuple[str, ...]:
    return (*special_tokens(tokenizer), *([closing] if closing else []))


def _guard(refused: tuple[str, ...]) -> str:
    """Jinja that refuses messages which could end a turn."""
    return (
        f"{{%- for text in {_literal(list(refused))} -%}}{{%- for message in messages -%}}"
        "{%- if text in '\\n' ~ message['content'] -%}"
        "{{- raise_exception('a message spells ' ~ text.strip() ~ ', which could end a turn') -}}"
        "{%- endif -%}{%- endfor -%}{%- endfor -%}"
    )


def _with_system(system: str | None) -> str:
    """Jinja that puts a system message before messages that have none."""
    if system is None:
        return ""
    first = "[{'role': 'system', 'content': " + _literal(system) + "}]"
    return f"{{%- if messages[0]['role'] != 'system' -%}}{{%- set messages = {first} + messages -%}}{{%- endif -%}}"


def _conversation(text: TemplateText, system: str, bos: str, eos: str) -> str:
    """Jinja of a conversation; a system message in front replaces the template's own system text."""

    def jinja(pieces: str) -> str:
        values = {
            "{system}": "system",
            "{instruction}": "message['content']",
            "{completion}": "message['content']",
            "{bos}": _literal(bos),
            "{eos}": _literal(eos),
        }
        split = re.split(r"(\{\w+\})", pieces)
        return "".join(f"{{{{- {values.get(piece, _literal(piece))} -}}}}" for piece in split if piece)

    start, _, rest = text.prompt.partition("{system}")
    framed = f"{{%- if system -%}}{jinja(text.system_frame)}{{%- endif -%}}"
    prompt = jinja(start) + framed + jinja(rest) if rest else jinja(start)
    return (
        "{%- if messages[0]['role'] == 'system' -%}"
        "{%- set system = messages[0]['content'] -%}{%- set turns = messages[1:] -%}"
        f"{{%- else -%}}{{%- set system = {_literal(system)} -%}}{{%- set turns = messages -%}}{{%- endif -%}}"
        f"{{{{- {_literal(bos)} -}}}}"
        "{%- for message in turns -%}"
        "{%- if message['role'] == 'user' and loop.index0 % 2 == 0 -%}"
        f"{{%- if loop.first -%}}{prompt}{{%- else -%}}{jinja(text.later_prompt)}{{%- endif -%}}"
        f"{{%- elif message['role'] == 'assistant' and loop.index0 % 2 == 1 -%}}{jinja(text.completion)}"
        "{%- else -%}{{- raise_exception('a chat is user and assistant in turn, after one system message at most') -}}"
        "{%- endif -%}{%- endfor -%}"
    )


def _literal(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
