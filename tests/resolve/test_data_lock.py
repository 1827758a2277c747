"""Sources are pinned to one exact state, or refused with a message that says what to do."""

import hashlib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from steps.errors import DataError
from steps.resolve.data import lock_data
from steps.resolve.locks import DataLock
from steps.resolve.params import DataParameters
from tests.serving import Handler, serving

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def lock(**source: object) -> DataLock:
    return lock_data(DataParameters.model_validate({"sources": [source]}))


def test_files_are_locked_by_content_in_sorted_order(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl"):
        (tmp_path / name).write_text(name)
    (source,) = lock(files=f"{tmp_path}/*.jsonl").sources
    assert list(source.files) == [f"{tmp_path}/a.jsonl", f"{tmp_path}/b.jsonl"]
    assert source.files[f"{tmp_path}/a.jsonl"] == hashlib.sha256(b"a.jsonl").hexdigest()


def test_a_file_whose_name_looks_like_a_pattern_is_found(tmp_path: Path) -> None:
    (tmp_path / "rows[1].jsonl").write_text("{}")
    assert len(lock(files=f"{tmp_path}/rows[1].jsonl").sources[0].files) == 1


def test_changed_content_is_another_lock(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("one")
    before = lock(files=str(path))
    assert lock(files=str(path)) == before
    path.write_text("two")
    assert lock(files=str(path)) != before


def test_no_matching_file_names_key_and_pattern(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"parameters\.data\.sources\[0\]\.files: '.*/\*\.jsonl' matches no file"):
        lock(files=f"{tmp_path}/*.jsonl")
    with pytest.raises(DataError, match=r"it is a folder: name its files, such as .*/\*\.jsonl"):
        lock(files=str(tmp_path))


def test_a_package_is_locked_by_version_and_source() -> None:
    (source,) = lock(package="more_itertools").sources
    assert source.version == version("more-itertools")
    assert "more_itertools/recipes.py" in source.files
    assert all(name.endswith(".py") for name in source.files)


def test_an_edited_package_is_another_lock_and_none_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "edited").mkdir()
    module = tmp_path / "edited" / "__init__.py"
    module.write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    before = lock(package="edited")
    module.write_text("raise SystemExit('imported, edited')\n")
    assert lock(package="edited") != before
    assert before.sources[0].version == ""


def test_a_package_that_is_one_module_is_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lonely_module.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert list(lock(package="lonely_module").sources[0].files) == ["lonely_module.py"]


@pytest.mark.parametrize(
    ("package", "message"),
    [
        ("no_such_package", r"sources\[0\]\.package: no package 'no_such_package' .* pip install no-such-package"),
        ("toolz.functoolz", r"sources\[0\]\.package: .*'toolz\.functoolz'.* give the top-level name"),
        ("sys", r"sources\[0\]\.package: 'sys' has no Python source files"),
    ],
)
def test_a_package_that_cannot_be_used_says_what_to_do(package: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        lock(package=package)


class _Hub(Handler):
    """Answers as the hub does: one data set at ``main``."""

    def do_GET(self) -> None:
        if self.path.startswith("/api/datasets/owner/rows/revision/main"):
            self.answer({"id": "owner/rows", "sha": COMMIT})
        elif self.path.startswith("/api/datasets/owner/rows/"):
            self.answer({"error": "Invalid rev id"}, 404, {"X-Error-Code": "RevisionNotFound"})
        else:
            self.answer({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})


@pytest.fixture
def _hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A hub on this machine; the real client talks to it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with serving(_Hub) as endpoint:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
        yield


@pytest.mark.usefixtures("_hub")
def test_a_hub_revision_is_locked_to_its_commit() -> None:
    assert lock(hub="owner/rows").sources[0].commit == COMMIT


@pytest.mark.usefixtures("_hub")
@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"hub": "owner/none"}, r"sources\[0\]\.hub: the hub has no data set 'owner/none'"),
        ({"hub": "not an id//"}, r"sources\[0\]\.hub: the hub has no data set 'not an id//'"),
        ({"hub": "owner/rows", "revision": "v9"}, r"sources\[0\]\.revision: .*'owner/rows' has no revision 'v9'"),
    ],
)
def test_a_missing_hub_data_set_or_revision_is_named(source: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        lock(**source)


def test_an_unreachable_hub_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DataError, match=r"sources\[0\]\.hub: the hub cannot be asked .* check the network") as caught:
        lock(hub="owner/rows")
    assert "\n" not in str(caught.value)
