"""The artifacts that are directories: Hugging Face layout, safetensors, usable with ``from_pretrained`` alone."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Directory:
    """A directory that one step writes and later steps read; it is never changed once written."""

    path: Path
    when_stored: Callable[[], object] = lambda: None
    """Called when the artifact store has the directory: only then may what it could be made again from go."""


class TokenizerFiles(Directory):
    """Tokenizer with the trained prompt template as its ``chat_template``."""


class QuantizedModel(Directory):
    """The base model as it is trained on: bitsandbytes weights with their quantisation config."""


class Adapter(Directory):
    """LoRA weights and ``adapter_config.json`` (PEFT layout)."""


class MergedModel(Directory):
    """Full-precision model with the adapter merged in, tokenizer, generation config and model card."""


class ExportedModel(Directory):
    """Copies of the merged model, each in a folder of its own, and the record of what they were made from."""
