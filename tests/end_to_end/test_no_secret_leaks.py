"""What a run leaves behind holds no credential: store, database, logs, reports, provenance, messages."""

import base64
import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from zenml.client import Client
from zenml.models import PipelineRunResponse

from pipelines.finetune import finetune
from steps.errors import DataError, ModelError, PipelineError
from tests.end_to_end.conftest import Workplace
from tests.planted import TOKEN, places_of
from tests.serving import Handler, serving

STORED = "hf_PLANTEDinAZenMLSecretPLANTEDplanted"
"""A token that only a ZenML secret has."""


def everything(workplace: Workplace) -> tuple[Path, Path]:
    """ZenML's folder with database, artifacts and logs, and the cache of checkpoints, answers and base models."""
    return Path(os.environ["ZENML_CONFIG_PATH"]), workplace.folder


def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(f"Authorization: Bearer {TOKEN}")
    encoded = base64.b64encode(json.dumps({"token": TOKEN}).encode())
    with sqlite3.connect(tmp_path / "zenml.db") as connection:
        connection.execute("CREATE TABLE component (id, configuration)")
        connection.execute("INSERT INTO component VALUES (1, ?)", (encoded,))
        connection.execute("CREATE TABLE secret (name, value)")
        connection.execute("INSERT INTO secret VALUES ('hub', ?)", (encoded,))
    assert places_of(TOKEN, tmp_path) == [
        str(tmp_path / "log"),
        f"{tmp_path / 'zenml.db'}: component.configuration",
    ]


def test_a_run_leaves_no_token_of_the_environment(first_run: PipelineRunResponse, workplace: Workplace) -> None:
    assert os.environ["HF_TOKEN"] == TOKEN
    folders = everything(workplace)
    assert places_of(str(first_run.id), *folders), "the search looks where the run wrote"
    assert places_of(TOKEN, *folders) == []


class Refusing(Handler):
    """A hub behind a proxy that refuses every request and, as some do, repeats its headers in the answer."""

    tokens: set[str]

    def do_GET(self) -> None:
        """401, with the request's own token in the message."""
        sent = self.headers.get("Authorization", "")
        self.tokens.add(sent)
        self.answer({"error": f"not allowed: {sent}"}, 401, {"X-Error-Message": f"Invalid credentials: {sent}"})

    do_HEAD = do_GET


@pytest.fixture
def refusing_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """The tokens that it was asked with."""
    Refusing.tokens = set()
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    with serving(Refusing) as address:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        yield Refusing.tokens


@pytest.fixture
def secret() -> Iterator[str]:
    """Name of a ZenML secret whose key is the environment variable that a step is to have."""
    Client().create_secret("hub", {"HF_TOKEN": STORED})
    yield "hub"
    Client().delete_secret("hub")


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"data": {"sources": [{"hub": "owner/private"}]}}, DataError),
        ({"base_model": {"hub": "owner/private", "folder": None}}, ModelError),
    ],
    ids=["data", "base model"],
)
def test_a_refused_token_is_not_in_what_the_failed_run_leaves(
    workplace: Workplace,
    refusing_hub: set[str],
    secret: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    changes: dict[str, Any],
    error: type[PipelineError],
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    path = workplace.config(**changes)
    path.write_text(path.read_text() + f"secrets: [{secret}]\n")
    with pytest.raises(error, match="owner/private") as caught:
        finetune.with_options(config_path=str(path))()
    assert refusing_hub == {f"Bearer {STORED}"}, "the step had the token of the ZenML secret"
    said = capfd.readouterr()
    for text in (str(caught.value), said.out, said.err, caplog.text):
        assert STORED not in text
    assert places_of(STORED, *everything(workplace)) == []
