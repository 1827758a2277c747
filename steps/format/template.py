"""The prompt template: rendered for training, and as the ``chat_template`` that serving uses."""

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from steps.format.params import PromptParameters
from steps.tokenizer import PLACEHOLDER, begin_token

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Template:
    """A prompt template bound to one tokenizer's begin and end tokens."""

    system: str
    text: str
    bos: str  # "" where the tokenizer starts a sequence with no such token
    eos: str

    def prompt(self, instruction: str) -> str:
        """Everything that comes before the completion."""
        values = {"system": self.system, "instruction": instruction, "eos": self.eos}
        return self.bos + PLACEHOLDER.sub(lambda match: values[match[1]], self.text)

    def completion(self, completion: str) -> str:
        """The completion with the token that ends it."""
        return completion + self.eos

    def chat_template(self) -> str:
        """The same template in Jinja, for ``tokenizer.apply_chat_template``.

        A user message becomes a whole prompt, whose end is where the model answers; an assistant message becomes a
        completion; a system message replaces the template's own system text.
        """
        instruction = "".join(self._jinja(piece) for piece in re.split(r"(\{\w+\})", self.text) if piece)
        return (
            f"{{%- set ns = namespace(system={_literal(self.system)}) -%}}"
            f"{{{{- {_literal(self.bos)} -}}}}"
            "{%- for message in messages -%}"
            "{%- if message['role'] == 'system' -%}{%- set ns.system = message['content'] -%}"
            f"{{%- elif message['role'] == 'user' -%}}{instruction}"
            "{%- elif message['role'] == 'assistant' -%}"
            f"{{%- generation -%}}{{{{- message['content'] + {_literal(self.eos)} -}}}}{{%- endgeneration -%}}"
            "{%- if not loop.last -%}{{- '\\n\\n' -}}{%- endif -%}"
            "{%- else -%}{{- raise_exception('roles are system, user and assistant') -}}"
            "{%- endif -%}{%- endfor -%}"
        )

    def _jinja(self, piece: str) -> str:
        values = {"{system}": "ns.system", "{instruction}": "message['content']", "{eos}": _literal(self.eos)}
        return f"{{{{- {values.get(piece, _literal(piece))} -}}}}"


def bind_template(prompt: PromptParameters, tokenizer: "PreTrainedTokenizerBase") -> Template:
    """The template with the tokenizer's own begin and end tokens."""
    return Template(
        system=prompt.system,
        text=prompt.template,
        bos=begin_token(tokenizer),
        eos=str(tokenizer.eos_token),
    )


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
