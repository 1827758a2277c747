"""Tokenizers of every family, each as a folder."""

from pathlib import Path

import pytest

from tests.real_tokenizers import gpt2_style, llama2_style, smollm2
from tests.tiny import write_tokenizer


@pytest.fixture(scope="session")
def tokenizer_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """SmolLM2's own tokenizer and small ones in the style of Llama-2 and GPT-2."""
    tiny = tmp_path_factory.mktemp("tiny")
    write_tokenizer(tiny)
    return {
        "smollm2": smollm2(),
        "llama-2": llama2_style(tmp_path_factory.mktemp("llama-2")),
        "llama-2 file": llama2_style(tmp_path_factory.mktemp("llama-2-file"), normalizer=True),
        "gpt-2": gpt2_style(tmp_path_factory.mktemp("gpt-2")),
        "tiny": tiny,
    }
