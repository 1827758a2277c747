"""The revision of a data source: the one name under which exactly its content can be found again."""

from steps.files import digest_of
from steps.resolve.locks import LockedSource


def revision(source: LockedSource) -> str:
    """A commit, a package's version, or ``sha256:`` with a file's hash; of several files over names and hashes."""
    if source.commit or source.version:
        return source.commit or source.version
    if len(source.files) == 1:
        return f"sha256:{next(iter(source.files.values()))}"
    return f"sha256:{digest_of(source.files)}"
