"""Equal files of a local artifact store are one file on the disk, by hard links.

A link gives a file a second name; its bytes go when the last name does, so every artifact can be deleted alone.
Whoever writes into one name writes into all, and nothing here does: a stored artifact is never changed.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

from steps.files import sha256_of

SMALLEST = 16 * 1024
"""Bytes; smaller files, such as the model card, stay apart, since people edit those in place."""


def share_equal_files(artifact: Path, manifest: str, place: str) -> None:
    """Replace large files of a new artifact by links to equal ones that the store holds already.

    Args:
        artifact: its folder, ``STORE/STEP/NAME/RUN/ID`` as ZenML lays them out, with all its files.
        manifest: name of the JSON file with the SHA-256 of each file; the artifacts that have one are looked at.
        place: where a file that the manifest names lies in its artifact, such as ``files/{}``.
    """
    own = [(path, digest) for path, digest in _listed(artifact / manifest, place) if path.stat().st_size >= SMALLEST]
    others = (path for path in artifact.parents[3].glob(f"*/*/*/*/{manifest}") if path.parent != artifact)
    wanted = {digest for _, digest in own}
    stored: dict[str, list[Path]] = {}
    for other in others if wanted else ():
        for path, digest in _listed(other, place):
            if digest in wanted:
                stored.setdefault(digest, []).append(path)
    for path, digest in own:
        any(_linked(candidate, path, digest) for candidate in stored.get(digest, ()))


def _listed(manifest: Path, place: str) -> Iterator[tuple[Path, str]]:
    try:
        digests: dict[str, str] = json.loads(manifest.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return  # deleted meanwhile
    for name, digest in digests.items():
        yield manifest.parent / place.format(name), digest


def _linked(stored: Path, path: Path, digest: str) -> bool:
    """Whether ``path`` is now another name of ``stored``, which is read again: a damaged file must not spread."""
    try:
        if sha256_of(stored) != digest:
            return False
        link = path.with_name(f".{path.name}.link")
        os.link(stored, link)
        link.replace(path)
    except OSError:  # deleted meanwhile, too many links, or a file system without them: the file stays as it is
        return False
    return True
