"""Tensors of which each process has a part, on disk: a file for each process, readable by any number of them."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.distributed.tensor import DTensor
from transformers.trainer import OPTIMIZER_NAME

from steps.train.distributed.ranks import ALONE, Ranks
from steps.train.distributed.shard import part

OPTIMIZER, GROUPS = "optimizer.safetensors", "optimizer.json"


@dataclass(frozen=True)
class Parts:
    """How the adapter and what the optimiser knows of it lie with the processes."""

    ranks: Ranks = ALONE
    sharded: bool = False  # each process has its rows of every tensor; else all have all

    def save(self, tensors: Mapping[str, torch.Tensor], folder: Path, name: str) -> None:
        """Write what this process has; where all have the same, the first one does."""
        if self.sharded:
            own = {key: part(value).contiguous() for key, value in tensors.items()}
            save_file(own, folder / _named(name, self.ranks))
        elif self.ranks.first:
            save_file(dict(tensors), folder / name)

    def load(self, folder: Path, name: str) -> dict[str, torch.Tensor]:
        """What this process is to have, whatever number of processes wrote it."""
        return {key: self.own(value) for key, value in read_whole(folder, name).items()}

    def own(self, value: torch.Tensor) -> torch.Tensor:
        """The rows of a whole tensor that are this process's; FSDP2 cuts as ``torch.chunk`` does."""
        if not self.sharded or not value.ndim:
            return value
        rows = value.chunk(self.ranks.size)
        return rows[self.ranks.number] if self.ranks.number < len(rows) else value[:0]

    def save_optimizer(self, optimizer: torch.optim.Optimizer, folder: Path) -> None:
        """Write the states of an optimiser whose weights are shared out."""
        state: dict[str, Any] = optimizer.state_dict()
        tensors = {f"{number}.{key}": value for number, each in state["state"].items() for key, value in each.items()}
        self.save(tensors, folder, OPTIMIZER)
        if self.ranks.first:
            (folder / GROUPS).write_text(json.dumps(state["param_groups"]), encoding="utf-8")

    def load_optimizer(self, optimizer: torch.optim.Optimizer, folder: Path) -> None:
        """Give the optimiser the states that a checkpoint has, in their own type; torch would round them."""
        saved = read_optimizer(folder)
        for group, old in zip(optimizer.param_groups, saved["param_groups"], strict=True):
            group.update({name: value for name, value in old.items() if name != "params"})
        weights = [(weight, group) for group in optimizer.param_groups for weight in group["params"]]
        for number, states in saved["state"].items():
            weight, group = weights[number]
            optimizer.state[weight] = {
                name: value if name == "step" and not group.get("fused") else self._like(weight, value)
                for name, value in states.items()
            }

    def _like(self, weight: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """This process's rows of a whole tensor, where the weight's are."""
        own = self.own(value).to(weight.device, copy=True)
        if not isinstance(weight, DTensor) or not value.ndim:
            return own
        return DTensor.from_local(
            own, weight.device_mesh, weight.placements, shape=value.shape, stride=value.stride(), run_check=False
        )


def _named(name: str, ranks: Ranks) -> str:
    stem, kind = name.split(".")
    return f"{stem}-{ranks.number:05d}-of-{ranks.size:05d}.{kind}"


def read_whole(folder: Path, name: str) -> dict[str, torch.Tensor]:
    """The tensors of a file, or of the files that hold their rows."""
    if (folder / name).is_file():
        return load_file(folder / name)
    stem, kind = name.split(".")
    pieces = [load_file(path) for path in sorted(folder.glob(f"{stem}-*-of-*.{kind}"))]
    return {
        key: value if not value.ndim else torch.cat([piece[key] for piece in pieces])
        for key, value in pieces[0].items()
    }


def read_optimizer(folder: Path) -> dict[str, Any]:
    """An optimiser's ``state_dict`` with whole tensors, as one process or several wrote it."""
    if (folder / OPTIMIZER_NAME).is_file():
        saved: dict[str, Any] = torch.load(folder / OPTIMIZER_NAME, map_location="cpu", weights_only=True, mmap=True)
        return saved
    states: dict[int, dict[str, torch.Tensor]] = {}
    for number, key, value in _states(read_whole(folder, OPTIMIZER)):
        states.setdefault(number, {})[key] = value
    return {"state": states, "param_groups": json.loads((folder / GROUPS).read_text(encoding="utf-8"))}


def _states(tensors: Mapping[str, torch.Tensor]) -> Iterator[tuple[int, str, torch.Tensor]]:
    for name, value in tensors.items():
        number, key = name.split(".", maxsplit=1)
        yield int(number), key, value
