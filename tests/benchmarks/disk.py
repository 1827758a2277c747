"""Bytes that each of five runs of the pipeline on a tiny model adds to a local artifact store.

Run by ``make bench``. A file with several names counts once; the last column is what it would be if each name had a
file of its own.
"""

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RATE = {"learning_rate": 0.004}
GROWN = {"sources": [{"files": "{folder}/changed.jsonl"}]}
RUNS: tuple[tuple[str, dict[str, dict[str, Any]]], ...] = (
    ("first", {}),
    ("the same again", {}),
    ("one row changed", {"data": GROWN}),
    ("another learning rate", {"data": GROWN, "training": RATE}),
    ("another evaluation", {"data": GROWN, "training": RATE, "evaluation": {"max_new_tokens": 12}}),
)


def files(store: Path) -> Iterator[os.stat_result]:
    """Every name of every file in the artifact store."""
    yield from (path.stat() for path in store.rglob("*") if path.is_file())


def main() -> None:
    """Print a line a run."""
    from zenml.client import Client
    from zenml.utils import source_utils

    from tests.end_to_end.conftest import ROOT, Workplace
    from tests.tiny import write_model, write_rows

    source_utils.set_custom_source_root(str(ROOT))
    folder = Path(os.environ["XDG_CACHE_HOME"]).parent
    write_model(folder / "base")
    rows = write_rows(folder / "rows.jsonl", 120).read_text(encoding="utf-8").splitlines()
    changed = json.loads(rows[0])
    changed["completion"] += "\n# changed"
    (folder / "changed.jsonl").write_text("\n".join([json.dumps(changed), *rows[1:]]) + "\n", encoding="utf-8")
    store, before, lines = Path(Client().active_stack.artifact_store.path), 0, []
    for name, changes in RUNS:
        Workplace(folder).run(**changes)
        found = list(files(store))
        once, apart = sum({one.st_ino: one.st_size for one in found}.values()), sum(one.st_size for one in found)
        lines.append(f"{name:<24}{once - before:>12,}{once:>12,}{apart:>12,}")
        before = once
    print(f"\n{'run':<24}{'adds':>12}{'store':>12}{'unshared':>12}   bytes")
    print("\n".join(lines))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        os.environ |= {"ZENML_CONFIG_PATH": f"{scratch}/zenml", "XDG_CACHE_HOME": f"{scratch}/cache"}
        main()
