"""Killed at any moment a merge leaves no half shard, and the next one makes only what is missing."""

import shutil
import signal
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from steps.errors import ModelError
from steps.files import hashes, sha256_of
from steps.merge.merge import merge_adapter
from steps.merge.params import MergeParameters
from steps.merge.report import MergeReport
from steps.merge.shards import FinishedShards, waiting_shards
from steps.merge.stream import merge_shards, plan_merge
from tests.children import exit_code_of
from tests.merge.bases import write_adapter, write_base
from tests.tiny_run import TinyRun
from tests.train.killed import KillPoint, arm


@dataclass(frozen=True)
class Work:
    """A merge in several shards, all of it on disk."""

    base: Path
    adapter: Path
    finished: FinishedShards

    def merge(self, output: Path) -> int:
        """Merge into ``output``; gives the number of shards that were there."""
        plan = plan_merge(self.base, [self.adapter])
        output.mkdir()
        with self.finished.held():
            kept = merge_shards(plan, self.finished, "cpu")
            self.finished.give([path.name for path in plan.files], output)
        return kept


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    folder = tmp_path_factory.mktemp("killed")
    base = write_base(folder, "llama", "bfloat16")
    adapter = write_adapter(folder / "adapter", base, target_modules=["q_proj", "down_proj"])
    return Work(base, adapter, FinishedShards(folder / "shards"))


@pytest.fixture(scope="module")
def expected(work: Work, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Hashes of the shards of a merge that nothing disturbed."""
    output = tmp_path_factory.mktemp("whole") / "merged"
    Work(work.base, work.adapter, FinishedShards(output.parent / "shards")).merge(output)
    return hashes(output)


def _in_child(work: Work, point: KillPoint, output: Path) -> None:
    arm(point)
    work.merge(output)


POINTS = {
    "before the first shard": (KillPoint("open", 1, ".writing-"), 0),
    "its content is written, its hash is not": (KillPoint("open", 1, ".sha256"), 0),
    "its hash is written, its name is not": (KillPoint("os.rename", 1), 0),
    "in the third shard": (KillPoint("open", 3, ".writing-"), 2),
    "at the end of the third shard": (KillPoint("os.rename", 3), 2),
    "half of the output is there": (KillPoint("os.link", 3), 4),
}


@pytest.mark.parametrize("name", POINTS)
def test_killed_and_run_again(work: Work, expected: dict[str, str], tmp_path: Path, name: str) -> None:
    point, kept = POINTS[name]
    assert len(expected) == 4
    assert exit_code_of(_in_child, work, point, tmp_path / "killed") == -signal.SIGKILL
    for path in work.finished.folder.glob("model-*.safetensors"):
        assert sha256_of(path) == expected[path.name]
    assert work.merge(tmp_path / "again") == kept
    assert hashes(tmp_path / "again") == expected
    assert sorted(path.suffix for path in work.finished.folder.iterdir()) == [".safetensors"] * 4 + [".sha256"] * 4
    work.finished.remove()
    assert not work.finished.folder.exists()
    assert hashes(tmp_path / "again") == expected, "the output keeps its files"


def test_a_damaged_shard_is_made_again(work: Work, expected: dict[str, str], tmp_path: Path) -> None:
    work.merge(tmp_path / "first")
    path = sorted(work.finished.folder.glob("*.safetensors"))[1]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.unlink()
    path.write_bytes(content)
    assert work.merge(tmp_path / "second") == 3
    assert hashes(tmp_path / "second") == expected
    work.finished.remove()


def test_one_process_at_a_time(work: Work, tmp_path: Path) -> None:
    errors: list[str] = []

    def other() -> None:
        try:
            work.merge(tmp_path / "other")
        except ModelError as error:
            errors.append(str(error))

    with work.finished.held():
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        work.finished.remove()
        assert work.finished.folder.is_dir(), "another one's shards stay"
    assert " is doing this very merge; wait" in errors[0]
    work.finished.remove()


def test_the_step_goes_on_and_a_failed_one_leaves_nothing(tiny_run: TinyRun, tmp_path: Path) -> None:
    """The report says what was kept; equal work gives an equal report."""
    shards = waiting_shards(tiny_run.lock, tiny_run.model, tiny_run.adapter, "full_precision", tmp_path)

    def merge(name: str, merging: MergeParameters) -> MergeReport:
        output, run = tmp_path / name, tiny_run
        output.mkdir()
        models = run.lock, run.model, run.adapter
        return merge_adapter(*models, run.tokenizer, run.examples["test"], merging, output, shards)

    reports = [merge(name, MergeParameters(max_prompts=1)) for name in ("first", "second")]
    assert [report.resumed_shards for report in reports] == [0, 1]
    assert reports[0].decisive_json() == reports[1].decisive_json()
    assert "1 kept from a killed merge" in reports[1].html()
    assert hashes(tmp_path / "first") == hashes(tmp_path / "second")
    with pytest.raises(ModelError, match="max_logit_difference"):
        merge("third", MergeParameters(max_logit_difference=1e-9))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "second", "third"]


def test_other_work_has_other_shards(tiny_run: TinyRun, tmp_path: Path) -> None:
    lock, model, trained = tiny_run.lock, tiny_run.model, tiny_run.adapter
    adapter = tmp_path / "adapter"
    shutil.copytree(trained, adapter)
    same = waiting_shards(lock, model, adapter, "full_precision", tmp_path).folder
    assert same == waiting_shards(lock, tiny_run.tokenizer, trained, "full_precision", tmp_path).folder
    weights = load_file(adapter / "adapter_model.safetensors")
    save_file({name: weight * 2 for name, weight in weights.items()}, adapter / "adapter_model.safetensors")
    base = lock.model_copy(update={"files": {**lock.files, "model.safetensors": "another"}})
    others = [
        waiting_shards(lock, model, adapter, "full_precision", tmp_path).folder,
        waiting_shards(base, model, trained, "full_precision", tmp_path).folder,
        waiting_shards(lock, model, trained, "dequantized", tmp_path).folder,
        waiting_shards(lock, tiny_run.tokenizer, trained, "dequantized", tmp_path).folder,
    ]
    assert len({same, *others}) == 5
