"""The push of a model's directory to the Hugging Face hub, and its dry run."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from steps.errors import ModelError
from steps.export.params import HubParameters
from steps.export.report import Push
from steps.token import without_token

CREDENTIALS = "check the repository's name, the network, and that HF_TOKEN (or hf auth login) may write there"

MESSAGE = "Upload the tuned model"
"""Of every commit; what the model was made from is in its card and its ``provenance.json``."""


def push(folder: Path, hub: HubParameters, *, promoted: bool) -> Push:
    """Push every file of ``folder`` in one commit, if the model was promoted and it is no dry run.

    Raises:
        ModelError: the hub refuses, or the repository is there and public where it is to be private, or the reverse.
    """
    plan = Push(
        repository=hub.repository,
        what=hub.what,
        private=hub.private,
        files={path.relative_to(folder).as_posix(): path.stat().st_size for path in _files(folder)},
        pushed=False,
        reason="",
    )
    if not promoted:
        return plan.model_copy(update={"reason": "the model was not promoted"})
    if hub.dry_run:
        return plan.model_copy(update={"reason": "dry run; set parameters.exports.hub.dry_run: false to push"})
    return plan.model_copy(update={"pushed": True, "reason": _commit(folder, hub)})


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _commit(folder: Path, hub: HubParameters) -> str:
    """Push and give the commit's address."""
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()
    files = [CommitOperationAdd(path.relative_to(folder).as_posix(), path) for path in _files(folder)]
    with _write_errors(hub.repository):
        api.create_repo(hub.repository, private=hub.private, exist_ok=True)
        found = api.model_info(hub.repository).private
        if found != hub.private:
            raise ModelError(
                f"parameters.exports.hub.private: {hub.repository} is there and is {_visibility(found)}, not "
                f"{_visibility(hub.private)}; nothing was pushed: change its visibility on the hub, or the parameter"
            )
        # not upload_folder, which leaves out what .gitignore files and its own patterns name
        commit = api.create_commit(hub.repository, files, commit_message=MESSAGE)
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
