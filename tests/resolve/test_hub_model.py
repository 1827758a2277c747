"""A base model from the hub, through the real client and a hub on this machine."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from steps.device import describe_device
from steps.errors import ModelError
from steps.quantize.load import load_quantized
from steps.quantize.params import QuantizationParameters
from steps.quantize.quantize import quantize_model
from steps.resolve.base_model import local_model, local_tokenizer, lock_model, lock_tokenizer, model_size
from steps.resolve.configuration import model_config
from steps.resolve.params import BaseModelParameters
from tests.serving import Handler, serving
from tests.tiny import write_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "owner/tiny"


class Hub(Handler):
    """Answers as the hub does: one model repository at ``main`` and at its commit."""

    folder: Path
    asked: list[str]
    gated = False

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        self.asked.append(path)
        if path in (f"/api/models/{REPOSITORY}/revision/{name}" for name in ("main", COMMIT)):
            self.answer({"id": REPOSITORY, "sha": COMMIT, "siblings": self._files()})
        elif path.startswith(f"/api/models/{REPOSITORY}/tree/"):
            self.answer(self._files())
        elif self.gated and path.startswith(f"/{REPOSITORY}/resolve/"):
            self.answer({}, 401, {"X-Error-Code": "GatedRepo"})
        elif path.startswith(f"/{REPOSITORY}/resolve/{COMMIT}/"):
            self._send((self.folder / path.rsplit("/", 1)[1]).read_bytes())
        else:
            code = "RevisionNotFound" if REPOSITORY in path else "RepoNotFound"
            self.answer({}, 404, {"X-Error-Code": code})

    do_HEAD = do_GET

    def _files(self) -> list[dict[str, object]]:
        """Every file, in the words of both of the hub's answers."""
        files = [(path.name, path.read_bytes()) for path in sorted(self.folder.iterdir())]
        return [
            {"type": "file", "size": len(content)}
            | {"rfilename": name, "blobId": digest(content)}
            | {"path": name, "oid": digest(content)}
            for name, content in files
        ]

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{digest(body)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


def digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The repository's files, served; the client's cache is empty."""
    folder = write_model(tmp_path / "repository")
    Hub.folder, Hub.asked = folder, []
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with serving(Hub) as endpoint:
        files = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", files)
        yield folder


def test_a_revision_is_pinned_and_fetched(repository: Path) -> None:
    lock = lock_model(BaseModelParameters(hub=REPOSITORY))
    assert (lock.commit, lock.name) == (COMMIT, REPOSITORY)
    assert model_size(lock) == (repository / "model.safetensors").stat().st_size
    assert set(lock_tokenizer(lock).files) == {"tokenizer.json", "tokenizer_config.json"}

    Hub.asked.clear()
    tokenizer = local_tokenizer(lock)
    assert not any(path.endswith(".safetensors") for path in Hub.asked), "a tokenizer needs no weights"
    assert (tokenizer / "tokenizer.json").read_bytes() == (repository / "tokenizer.json").read_bytes()

    model = AutoModelForCausalLM.from_pretrained(local_model(lock), dtype=torch.bfloat16)
    original = AutoModelForCausalLM.from_pretrained(repository, dtype=torch.bfloat16)
    assert torch.equal(model.lm_head.weight, original.lm_head.weight)


def test_other_files_are_not_fetched(repository: Path) -> None:
    (repository / "modeling_evil.py").write_text("raise SystemExit\n")
    (repository / "pytorch_model.bin").write_bytes(b"pickle")
    folder = local_model(lock_model(BaseModelParameters(hub=REPOSITORY)))
    assert not {"modeling_evil.py", "pytorch_model.bin"} & {path.name for path in folder.iterdir()}


MODELING = """
from transformers import LlamaConfig, LlamaForCausalLM

class TinyConfig(LlamaConfig):
    model_type = "tiny_of_its_own"

class TinyForCausalLM(LlamaForCausalLM):
    config_class = TinyConfig
"""


def test_trusted_code_is_fetched_at_its_commit_and_stays_with_the_weights(repository: Path, tmp_path: Path) -> None:
    (repository / "modeling_tiny.py").write_text(MODELING)
    config = json.loads((repository / "config.json").read_text()) | {
        "model_type": "tiny_of_its_own",
        "architectures": ["TinyForCausalLM"],
        "auto_map": {
            "AutoConfig": "modeling_tiny.TinyConfig",
            "AutoModelForCausalLM": "modeling_tiny.TinyForCausalLM",
        },
    }
    (repository / "config.json").write_text(json.dumps(config))
    lock = lock_model(BaseModelParameters(hub=REPOSITORY, revision=COMMIT, trust_remote_code=True))
    assert "modeling_tiny.py" in lock.files
    for kind in ("nf4", "none"):
        output = tmp_path / kind
        output.mkdir()
        quantize_model(lock, QuantizationParameters.model_validate({"kind": kind}), output)
        assert (output / "modeling_tiny.py").is_file()
        Hub.asked.clear()
        assert type(load_quantized(output, describe_device())).__name__ == "TinyForCausalLM"
        assert Hub.asked == [], "what is stored needs no hub"


def test_a_repository_without_configuration_is_refused(repository: Path) -> None:
    (repository / "config.json").unlink()
    with pytest.raises(ModelError, match=r"owner/tiny at main has no config\.json"):
        lock_model(BaseModelParameters(hub=REPOSITORY))


def test_accepted_pickles_are_fetched_and_converted(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "conversions"))
    weights = load_file(repository / "model.safetensors")
    torch.save(weights, repository / "pytorch_model.bin")
    (repository / "model.safetensors").unlink()
    lock = lock_model(BaseModelParameters(hub=REPOSITORY, accept_pickle=True))
    assert model_size(lock) == (repository / "pytorch_model.bin").stat().st_size
    converted = load_file(local_model(lock) / "model.safetensors")
    assert all(torch.equal(converted[name], weights[name]) for name in weights)


@pytest.mark.parametrize(
    ("hub", "revision", "remedy"),
    [
        ("owner/none", "main", r"the hub has no such model; mend the id \(owner/name\), or log in"),
        (REPOSITORY, "no-such-branch", "check the id, the revision, the network"),
    ],
)
def test_what_the_hub_has_not_is_named(repository: Path, hub: str, revision: str, remedy: str) -> None:
    with pytest.raises(ModelError, match=rf"base_model\.hub: {hub} at revision {revision} cannot be read .*; {remedy}"):
        lock_model(BaseModelParameters(hub=hub, revision=revision))


def test_a_gated_model_says_how_to_be_let_in(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Hub, "gated", True)
    ask = r"is gated; ask for access at https://huggingface\.co/owner/tiny, then log in \(hf auth login, or HF_TOKEN\)"
    with pytest.raises(ModelError, match=ask):
        lock_model(BaseModelParameters(hub=REPOSITORY))
    with pytest.raises(ModelError, match=ask):
        model_config(BaseModelParameters(hub=REPOSITORY))
