"""A tokenizer for all tests of the rules."""

from pathlib import Path

import pytest

from tests.tiny import write_tokenizer


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Special tokens ``<unk> <s> </s> <pad>``; begins with ``<s>``."""
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return folder
