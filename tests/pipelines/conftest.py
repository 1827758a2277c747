"""One ZenML store for the session, and a small strict pipeline."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def zenml_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store of its own, made on first use; whatever store the developer has is left alone."""
    store = tmp_path_factory.mktemp("zenml")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("ZENML_CONFIG_PATH", str(store))
        environment.setenv("ZENML_ANALYTICS_OPT_IN", "false")
        yield store


@pytest.fixture
def config_file(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a text as a configuration file and gives its path."""

    def write(text: str) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write
