"""The real hub client pushes to a hub on this machine, which keeps what arrives."""

import base64
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from steps.errors import ModelError
from steps.export.hub import MESSAGE, push
from steps.export.params import HubParameters
from steps.record import without_folders
from tests.export.conftest import Export
from tests.serving import Handler, serving
from tests.tiny_run import TinyRun

REPOSITORY = "owner/tuned"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_PLANTEDplantedPLANTEDplantedPLANTED"


@dataclass
class Hub:
    """One repository: what is in it, and what was asked."""

    exists: bool = False
    private: bool = False
    refuses: int = 0  # status of every answer, where it refuses
    files: dict[str, bytes] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)  # by SHA-256
    message: str = ""
    asked: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    endpoint: str = ""


class HubHandler(Handler):
    """Answers as the hub does: create, model information, preupload, LFS batch and upload, commit."""

    hub: Hub

    def _serve(self) -> None:
        body = self.body()
        path = self.path.split("?")[0]
        self.hub.asked.append(f"{self.command} {path}")
        self.hub.tokens.add(self.headers.get("Authorization", ""))
        if self.hub.refuses:
            self._answer({"error": "You don't have the rights to create a model"}, self.hub.refuses)
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif path == f"/api/models/{REPOSITORY}":
            self._answer({"id": REPOSITORY, "private": self.hub.private, "sha": COMMIT, "siblings": []})
        elif path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif path == f"/api/models/{REPOSITORY}/preupload/main":
            self._answer({"files": [self._mode(file) for file in json.loads(body)["files"]]})
        elif path == f"/{REPOSITORY}.git/info/lfs/objects/batch":
            self._answer({"objects": [self._place(one) for one in json.loads(body)["objects"]]})
        elif path.startswith("/large/"):
            self.hub.large[path.rpartition("/")[2]] = body
            self._answer({})
        elif path == f"/api/models/{REPOSITORY}/commit/main":
            self._commit([json.loads(line) for line in body.splitlines()])
        else:
            self._answer({"error": f"no such path {path}"}, 404)

    do_GET = do_POST = do_PUT = _serve

    def _create(self, asked: dict[str, Any]) -> None:
        if self.hub.exists:
            self._answer({"error": "You already created this model repo", "url": self._url()}, 409)
            return
        private = asked.get("visibility") == "private" or bool(asked.get("private"))  # as older clients say it
        self.hub.exists, self.hub.private = True, private
        self._answer({"url": self._url(), "name": REPOSITORY, "id": "1"})

    def _mode(self, file: dict[str, Any]) -> dict[str, object]:
        large = file["path"].endswith(".safetensors")
        return {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}

    def _place(self, one: dict[str, Any]) -> dict[str, object]:
        upload = {"href": f"{self.hub.endpoint}/large/{one['oid']}", "header": {}}
        return {"oid": one["oid"], "size": one["size"], "actions": {"upload": upload}}

    def _commit(self, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.hub.message = value["summary"]
            elif line["key"] == "file":
                self.hub.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.hub.files[value["path"]] = self.hub.large[value["oid"]]
        self._answer({"commitUrl": f"{self._url()}/commit/{COMMIT}", "commitOid": COMMIT, "success": True})

    def _url(self) -> str:
        return f"{self.hub.endpoint}/{REPOSITORY}"

    def _answer(self, values: dict[str, object], status: int = 200) -> None:
        self.answer(values, status, {"X-Error-Message": str(values["error"])} if "error" in values else None)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty hub, and the planted token in the environment; large files go by the LFS protocol."""
    HubHandler.hub = Hub()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with serving(HubHandler) as address:
        HubHandler.hub.endpoint = address
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        yield HubHandler.hub


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def shared(folder: Path) -> dict[str, bytes]:
    """Every file of a folder as it is pushed."""
    name = "provenance.json"
    return {**contents(folder), name: without_folders((folder / name).read_text(encoding="utf-8")).encode()}


@pytest.mark.parametrize("what", ["merged", "adapter"])
def test_what_arrives_is_the_directory_without_folders_of_this_machine(
    hub: Hub, export: Export, merged: Path, tiny_run: TinyRun, what: str, capfd: pytest.CaptureFixture[str]
) -> None:
    asked = {"repository": REPOSITORY, "dry_run": False, "what": what}
    output, report = export(hub=asked)
    assert hub.files == shared(merged if what == "merged" else tiny_run.adapter)
    base = Path(tiny_run.lock.folder)
    assert base.is_absolute()
    assert not [name for name, body in hub.files.items() if str(base.parent).encode() in body]
    assert json.loads(hub.files["provenance.json"])["base_model"]["folder"] == base.name
    assert hub.private
    assert hub.message == MESSAGE
    assert set(hub.large) == {hashlib.sha256(body).hexdigest() for body in hub.large.values()} != set()
    push = report.push
    assert push is not None
    assert push.pushed
    assert push.reason == f"commit {hub.endpoint}/{REPOSITORY}/commit/{COMMIT}"
    assert push.files == {name: len(body) for name, body in hub.files.items()}
    assert f"Bearer {TOKEN}" in hub.tokens, "the client sent the token, so it was there to leak"
    said = capfd.readouterr()
    shown = [report.model_dump_json(), report.html(), said.out, said.err]
    assert not [text for text in shown if TOKEN in text]
    assert not [name for name, body in (contents(output) | hub.files).items() if TOKEN.encode() in body]


def test_a_dry_run_asks_nothing_and_shows_everything(hub: Hub, export: Export, merged: Path) -> None:
    output, report = export(hub={"repository": REPOSITORY})
    push = report.push
    assert push is not None
    assert (push.pushed, push.private, hub.asked) == (False, True, [])
    assert push.files == {name: len(body) for name, body in shared(merged).items()}
    assert "dry_run: false" in push.reason
    assert [path.name for path in output.iterdir()] == ["provenance.json"]


def test_what_was_not_promoted_is_not_pushed(hub: Hub, export: Export) -> None:
    _, report = export(promoted=False, hub={"repository": REPOSITORY, "dry_run": False})
    assert report.push is not None
    assert (report.push.pushed, report.push.reason, hub.asked) == (False, "the model was not promoted", [])


def test_a_second_push_goes_to_the_same_repository(hub: Hub, tmp_path: Path) -> None:
    parameters = HubParameters(repository=REPOSITORY, dry_run=False)
    for text in ("one", "two"):
        (tmp_path / "config.json").write_text(text)
        push(tmp_path, parameters, promoted=True)
        assert hub.files == {"config.json": text.encode()}


def test_nothing_private_goes_to_a_public_repository(hub: Hub, merged: Path) -> None:
    hub.exists, hub.private = True, False
    with pytest.raises(ModelError, match=r"exports\.hub\.private: owner/tuned is there and is public, not private"):
        push(merged, HubParameters(repository=REPOSITORY, dry_run=False), promoted=True)
    assert hub.files == {}
    push(merged, HubParameters(repository=REPOSITORY, dry_run=False, private=False), promoted=True)
    assert hub.files == shared(merged)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_is_one_line_without_the_token(hub: Hub, merged: Path, status: int) -> None:
    hub.refuses = status
    with pytest.raises(
        ModelError, match=r"exports\.hub\.repository: owner/tuned cannot be written .*HF_TOKEN"
    ) as caught:
        push(merged, HubParameters(repository=REPOSITORY, dry_run=False), promoted=True)
    assert TOKEN not in str(caught.value)
    assert "\n" not in str(caught.value)
