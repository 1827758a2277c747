"""The parts of a training with several processes, one by one and without them."""

import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import torch
import yaml
from datasets import Dataset, DatasetDict
from safetensors.torch import save_file

from steps.device import Hardware
from steps.distributed.machine import NEEDED, Machine
from steps.errors import ConfigError, DeviceError
from steps.train.distributed.join import ENDED
from steps.train.distributed.launch import processes_of
from steps.train.distributed.order import RankOrder, share, with_filler
from steps.train.distributed.parts import Parts, read_whole
from steps.train.distributed.ranks import Ranks
from steps.train.distributed.shard import require_parts
from steps.train.distributed.task import read_blocks, write_blocks
from steps.train.params import LoraParameters, TrainingParameters
from steps.train.plan.cards import GIB, named_card
from steps.train.plan.choose import plans
from steps.train.plan.memory import predict_memory
from steps.train.plan.params import PlanParameters
from steps.train.plan.plan import Plan
from tests.train.llama2_plans import ROWS


def plan_of(processes: int | str = "auto", strategy: str = "auto", **fields: object) -> PlanParameters:
    return PlanParameters.model_validate({"distributed": {"processes": processes, "strategy": strategy}, **fields})


@pytest.mark.parametrize("blocks", [12, 13, 15, 16, 17])
@pytest.mark.parametrize(("size", "micro_batch", "accumulation"), [(2, 2, 1), (2, 1, 2), (4, 1, 1)])
def test_every_step_learns_from_the_blocks_of_one_process(
    blocks: int, size: int, micro_batch: int, accumulation: int
) -> None:
    """In every epoch, also where its last step has too few for all."""
    whole = RankOrder(blocks, 4, Ranks(), seed=7)
    orders = [RankOrder(blocks, micro_batch, Ranks(number, size), seed=7) for number in range(size)]
    for epoch in range(2):
        for order in (whole, *orders):
            order.set_epoch(epoch)
        alone = list(whole)
        assert sorted(alone) == list(range(blocks))
        shares = [list(order) for order in orders]
        assert [len(one) for one in shares] == [len(order) for order in orders]
        of_step = micro_batch * accumulation
        assert len({-(-len(one) // micro_batch) for one in shares}) == 1  # as many micro-batches each
        for start in range(0, blocks, 4):
            step = start // 4 * of_step
            together = [number for one in shares for number in one[step : step + of_step] if number < blocks]
            assert sorted(together) == sorted(alone[start : start + 4])


def test_the_filler_trains_nothing() -> None:
    blocks = Dataset.from_list([{"input_ids": list(range(20)), "labels": list(range(20)), "seq_lengths": [12, 8]}])
    filler = with_filler(blocks)[1]
    assert set(filler["labels"]) == {-100}
    assert filler["seq_lengths"] == [len(filler["input_ids"])] == [len(filler["labels"])]


@pytest.mark.parametrize("count", [1, 4, 5])
def test_the_validation_split_is_shared_out(count: int) -> None:
    blocks = Dataset.from_list([{"input_ids": [number, 1], "labels": [number, 1]} for number in range(count)])
    shares = [share(blocks, Ranks(number, 3)) for number in range(3)]
    assert len({len(one) for one in shares}) == 1
    taken = [row["input_ids"][0] for one in shares for row in one if row["labels"] == row["input_ids"]]
    assert sorted(taken) == list(range(count))


@pytest.mark.parametrize(
    ("processes", "cards", "machines", "expected"),
    [("auto", 0, 1, 1), ("auto", 1, 1, 1), ("auto", 4, 1, 2), ("auto", 8, 1, 5), ("auto", 5, 2, 10), (2, 0, 1, 2)],
)
def test_as_many_processes_as_divide_the_blocks(
    monkeypatch: pytest.MonkeyPatch, processes: int | str, cards: int, machines: int, expected: int
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)  # no GPU here
    assert processes_of(plan_of(processes), 10, Machine(count=machines)) == expected


def test_a_named_micro_batch_bounds_the_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)  # no GPU here
    assert processes_of(plan_of(micro_batch=4), 24, Machine()) == 6
    assert processes_of(plan_of(micro_batch=7), 24, Machine()) == 1  # which the planner refuses


@pytest.mark.parametrize(
    ("processes", "machine", "message"),
    [
        (4, Machine(), r"distributed\.processes: 4 does not divide the 10 blocks .*use one of 1, 2, 5, 10"),
        (5, Machine(count=2), r"5 processes are not to be shared out over 2 machines"),
        (10, Machine(), r"10 processes need as many GPUs, and there are 2"),
        ("auto", Machine(count=3), r"no number of processes on 3 machines \(NNODES\) divides 10 blocks"),
        ("auto", Machine(number=1, count=2), r"NODE_RANK is 1.*run python -m steps\.train\.distributed\.join"),
    ],
)
def test_impossible_numbers_are_refused(
    monkeypatch: pytest.MonkeyPatch, processes: int | str, machine: Machine, message: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)  # no GPU here
    with pytest.raises(Exception, match=message) as caught:
        processes_of(plan_of(processes), 10, machine)
    assert type(caught.value).__name__ in ("ConfigError", "DeviceError")


def test_weights_are_shared_out_only_where_they_must_be() -> None:
    """A plan with the whole model where it fits; else one that needs less."""
    job = ROWS[0].job()
    job = type(job)(**{**vars(job), "processes": 2})
    card = named_card("h100").hardware(flash_attention=True)
    assert not plans(job, plan_of(2), card)[0].plan.sharded
    small = Hardware(**{**vars(card), "memory_bytes": 6 * GIB})
    found = plans(job, plan_of(2), small)
    assert all(one.plan.sharded and not one.plan.fused for one in found)
    tiny = Hardware(**{**vars(card), "memory_bytes": 2 * GIB})
    for strategy, last in (("ddp", "optimizer adamw_8bit"), ("auto", "or more GPUs")):
        with pytest.raises(DeviceError, match=f"the smallest plan needs .*{last}"):
            plans(job, plan_of(2, strategy), tiny)
    plain = Plan(1, job.blocks, job.shape.layers, fused=False)
    whole, parts = (predict_memory(job, Plan(**{**vars(plain), "sharded": sharded})) for sharded in (False, True))
    assert parts.weights < 0.75 * whole.weights
    assert parts.optimizer == whole.optimizer // 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "paged_adamw_8bit"}, "fsdp does not go with parameters.training.optimizer paged_adamw_8bit"),
        ({"lora": LoraParameters(dora=True)}, r"lora\.dora"),
        ({"lora": LoraParameters(initialization="eva")}, "initialization eva"),
        ({"lora": LoraParameters(modules_to_save=("norm",))}, "modules_to_save"),
    ],
)
def test_what_needs_whole_weights_is_refused(changes: dict[str, object], message: str) -> None:
    require_parts(TrainingParameters())
    with pytest.raises(ConfigError, match=message):
        require_parts(TrainingParameters().model_copy(update=changes))


@pytest.mark.parametrize("rows", [1, 2, 7, 8])
def test_parts_are_read_by_any_number_of_processes(tmp_path: Path, rows: int) -> None:
    """Three processes write, two and one read."""
    tensor = torch.arange(rows * 3, dtype=torch.float32).view(rows, 3)
    for number in range(3):
        writer = Parts(Ranks(number, 3), sharded=True)
        own = {"weight": writer.own(tensor).contiguous(), "step": torch.tensor(5.0)}
        save_file(own, tmp_path / f"weights-{number:05d}-of-00003.safetensors")
    assert torch.equal(read_whole(tmp_path, "weights.safetensors")["weight"], tensor)
    for size in (1, 2):
        readers = [Parts(Ranks(number, size), sharded=True) for number in range(size)]
        parts = [reader.load(tmp_path, "weights.safetensors") for reader in readers]
        assert torch.equal(torch.cat([one["weight"] for one in parts]), tensor)
        assert {float(one["step"]) for one in parts} == {5.0}


def test_blocks_go_through_a_folder(tmp_path: Path) -> None:
    """Also a split without rows."""
    train = Dataset.from_list([{"input_ids": [1, 2], "labels": [1, 2]}])
    write_blocks(DatasetDict(train=train, validation=train.select([]), test=train), tmp_path)
    found = read_blocks(tmp_path)
    assert found["train"].to_list() == train.to_list()
    assert len(found["validation"]) == 0
    assert found["validation"].features == train.features


def test_the_job_for_several_machines_is_valid_and_sets_what_is_read() -> None:
    """Against Kubernetes' schemas; machine 0 has the address that a headless service gives an indexed Job's pod."""
    path = Path("docker/kubernetes/training-job.yaml")
    service, job = yaml.safe_load_all(path.read_text(encoding="utf-8"))
    for one in (service, job):
        kubernetes_validate.validate(one, "1.31", strict=True)
    spec = job["spec"]
    pod = spec["template"]
    (container,) = pod["spec"]["containers"]
    environment = {one["name"]: one.get("value") for one in container["env"]}
    assert {"NNODES", *NEEDED} <= environment.keys()
    assert environment["NNODES"] == str(spec["completions"]) == str(spec["parallelism"])
    name = f"{job['metadata']['name']}-0.{service['metadata']['name']}"
    assert environment["MASTER_ADDR"] == name
    assert pod["spec"]["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    (script,) = container["args"]
    assert "steps.train.distributed.join" in script
    assert f"/{ENDED}" in script
    assert subprocess.run(["/bin/sh", "-n", "-c", script], check=False).returncode == 0
