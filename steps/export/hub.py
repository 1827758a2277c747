"""The push of a model's directory to the Hugging Face hub, and its dry run."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from steps.errors import ModelError
from steps.export.params import HubParameters
from steps.export.report import Push
from steps.provenance import PROVENANCE
from steps.record import without_folders
from steps.token import without_token

CREDENTIALS = "check the repository's name, the network, and that HF_TOKEN (or hf auth login) may write there"

MESSAGE = "Upload the tuned model"
"""Of every commit; what the model was made from is in its card and its ``provenance.json``."""


def push(folder: Path, hub: HubParameters, *, promoted: bool) -> Push:
    """Push every file of ``folder`` in one commit, if the model was promoted and it is no dry run.

    Each is pushed as it is, but for ``provenance.json``, which names no folder of this machine there.

    Raises:
        ModelError: the hub refuses, or the repository is there and public where it is to be private, or the reverse.
    """
    files = _files(folder)
    plan = Push(
        repository=hub.repository,
        what=hub.what,
        private=hub.private,
        files={
            name: len(content) if isinstance(content, bytes) else content.stat().st_size
            for name, content in files.items()
        },
        pushed=False,
        reason="",
    )
    if not promoted:
        return plan.model_copy(update={"reason": "the model was not promoted"})
    if hub.dry_run:
        return plan.model_copy(update={"reason": "dry run; set parameters.exports.hub.dry_run: false to push"})
    return plan.model_copy(update={"pushed": True, "reason": _commit(files, hub)})


def _files(folder: Path) -> dict[str, Path | bytes]:
    """What is pushed, by its path in the repository; ``provenance.json`` without the folders of this machine."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    files: dict[str, Path | bytes] = {path.relative_to(folder).as_posix(): path for path in found}
    if PROVENANCE in files:
        files[PROVENANCE] = without_folders((folder / PROVENANCE).read_text(encoding="utf-8")).encode()
    return files


def _commit(files: Mapping[str, Path | bytes], hub: HubParameters) -> str:
    """Push and give the commit's address."""
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()
    operations = [CommitOperationAdd(name, content) for name, content in files.items()]
    with _write_errors(hub.repository):
        api.create_repo(hub.repository, private=hub.private, exist_ok=True)
        found = api.model_info(hub.repository).private
        if found != hub.private:
            raise ModelError(
                f"parameters.exports.hub.private: {hub.repository} is there and is {_visibility(found)}, not "
                f"{_visibility(hub.private)}; nothing was pushed: change its visibility on the hub, or the parameter"
            )
        # not upload_folder, which leaves out what .gitignore files and its own patterns name
        commit = api.create_commit(hub.repository, operations, commit_message=MESSAGE)
    return f"commit {commit.commit_url}"


def _visibility(private: bool | None) -> str:
    return "private" if private else "public"


@contextmanager
def _write_errors(repository: str) -> Iterator[None]:
    """Turn what the hub's client raises into :class:`ModelError`."""
    from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError, of a client that changes
        HFValidationError,
        HTTPError,
    )

    try:
        yield
    except (HTTPError, HFValidationError, OSError, RuntimeError) as error:  # RuntimeError: a large file's upload
        reason = str(without_token(error)).strip().splitlines()[0]
        raise ModelError(
            f"parameters.exports.hub.repository: {repository} cannot be written ({reason}); {CREDENTIALS}"
        ) from error
