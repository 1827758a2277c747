"""Looks up the exact state of every data source: file hashes, a hub commit, a package's version and files."""

import glob
import importlib.util
from importlib.metadata import packages_distributions, version
from pathlib import Path

from steps.errors import DataError
from steps.files import sha256_of
from steps.resolve.locks import DataLock, LockedSource
from steps.resolve.params import DataParameters, Source
from steps.token import without_token


def lock_data(data: DataParameters) -> DataLock:
    """Pin every source to one exact state.

    Raises:
        DataError: a pattern matches no file, a package is not installed, or the hub has no such data set, no
            such revision or cannot be reached. The message names the configuration key.
    """
    return DataLock(sources=[_lock(source, source_key(i)) for i, source in enumerate(data.sources)])


def source_key(index: int) -> str:
    """The configuration key of a source, as errors name it."""
    return f"parameters.data.sources[{index}]"


def package_files(name: str, key: str) -> dict[str, Path]:
    """Python files of an installed package by their path below its import root, such as ``toolz/utils.py``.

    The package is found, not imported. ``key`` is the configuration key that an error names.
    """
    spec = importlib.util.find_spec(name) if "." not in name else None
    if spec is None:
        advice = "give the top-level name" if "." in name else f"pip install {name.replace('_', '-')}"
        raise DataError(f"{key}.package: no package {name!r} is installed; {advice}, or mend the name")
    if spec.submodule_search_locations is None:
        modules = [Path(spec.origin)] if spec.origin and spec.origin.endswith(".py") else []
        found = {path.name: path for path in modules}
    else:
        found = {
            (Path(name) / path.relative_to(folder)).as_posix(): path
            for folder in spec.submodule_search_locations
            for path in Path(folder).rglob("*.py")
        }
    if not found:
        raise DataError(f"{key}.package: {name!r} has no Python source files to harvest; name another package")
    return dict(sorted(found.items()))


def distribution_of(package: str) -> str:
    """The distribution that installed a package, such as ``more-itertools``; "" where none claims it."""
    names = packages_distributions().get(package, [])
    return sorted(names)[0] if names else ""


def _lock(source: Source, key: str) -> LockedSource:
    if source.files is not None:
        return LockedSource(name=source.name, files=_hashed({str(p): p for p in _matches(source.files, key)}))
    if source.hub is not None:
        return LockedSource(name=source.name, commit=_commit(source.hub, source.revision, key))
    package = source.name
    files = _hashed(package_files(package, key))
    distribution = distribution_of(package)
    return LockedSource(name=package, files=files, version=version(distribution) if distribution else "")


def _hashed(files: dict[str, Path]) -> dict[str, str]:
    return {name: sha256_of(path) for name, path in files.items()}


def _matches(pattern: str, key: str) -> list[Path]:
    paths = [Path(pattern)] if Path(pattern).is_file() else map(Path, glob.glob(pattern, recursive=True))
    files = sorted(path for path in paths if path.is_file())
    if not files:
        remedy = "mend the path (a relative one starts where the run is started)"
        if Path(pattern).is_dir():
            remedy = f"it is a folder: name its files, such as {Path(pattern) / '*.jsonl'}"
        raise DataError(f"{key}.files: {pattern!r} matches no file below {Path.cwd()}; {remedy}")
    return files


def _commit(hub: str, revision: str, key: str) -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError, of a client that changes
        HFValidationError,
        HTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        commit = HfApi().dataset_info(hub, revision=revision).sha
    except RevisionNotFoundError as error:
        raise DataError(
            f"{key}.revision: data set {hub!r} has no revision {revision!r}; give one of its branches, tags or commits"
        ) from without_token(error)
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise DataError(
            f"{key}.hub: the hub has no data set {hub!r}; mend the id (owner/name), "
            "or log in (hf auth login, HF_TOKEN) if it is private"
        ) from without_token(error)
    except (HTTPError, OSError) as error:
        text = str(without_token(error))
        reason = text.splitlines()[0] if text else type(error).__name__
        raise DataError(
            f"{key}.hub: the hub cannot be asked for {hub!r} ({reason}); "
            "check the network and HF_ENDPOINT, or use local files"
        ) from error
    if commit is None:
        raise DataError(f"{key}.hub: the hub states no commit for {hub!r}; give a commit as {key}.revision")
    return commit
