"""What this machine knows of its schedules: one JSON file each, and how the last run went."""

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_state_path
from pydantic import TypeAdapter

from pipelines.schedule.plan import Schedule
from steps.errors import ConfigError, TrainingError
from steps.files import locked

CARRIED = (
    "PATH",
    "OMP_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
    "ZENML_CONFIG_PATH",
    "ZENML_ANALYTICS_OPT_IN",
    "XDG_CACHE_HOME",
    "HF_HOME",
    "HF_HUB_OFFLINE",
)
"""Environment variables that a run gets as they were when it was scheduled: places and devices, nothing secret."""


@dataclass(frozen=True)
class Entry:
    """A schedule with the surroundings in which it was made, and in which it runs."""

    schedule: Schedule
    where: str
    folder: Path
    """Working directory: relative paths of the configuration begin there."""
    python: str
    environment: dict[str, str]


class StillRunning(TrainingError):
    """A run of the schedule is going on."""


ENTRY = TypeAdapter(Entry)


def entry_of(schedule: Schedule, where: str) -> Entry:
    """The schedule with the surroundings of this process."""
    environment = {name: os.environ[name] for name in CARRIED if name in os.environ}
    return Entry(schedule, where, Path.cwd(), sys.executable, environment)


def state_folder() -> Path:
    """Where all of this lies; ``XDG_STATE_HOME`` moves it."""
    return user_state_path("qlora-pipeline") / "schedules"


def log_file(name: str) -> Path:
    """Output of its runs where there is no journal."""
    return state_folder() / f"{name}.log"


def keep(entry: Entry) -> None:
    """Store it, readable by its owner alone: a webhook's URL is a secret."""
    folder = state_folder()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{entry.schedule.name}.json"
    temporary = path.with_suffix(".new")
    temporary.touch(mode=0o600)
    temporary.write_bytes(ENTRY.dump_json(entry, indent=1))
    temporary.replace(path)


def entry_named(name: str) -> Entry:
    """The one of that name.

    Raises:
        ConfigError: there is none.
    """
    try:
        return ENTRY.validate_json((state_folder() / f"{name}.json").read_bytes())
    except FileNotFoundError as error:
        raise ConfigError(f"no schedule is called {name}; list them with: qlora schedule list") from error


def entries() -> list[Entry]:
    """All of this user on this machine, by name."""
    return [ENTRY.validate_json(path.read_bytes()) for path in sorted(state_folder().glob("*.json"))]


def forget(name: str) -> None:
    """Drop what is known of it; its log stays."""
    for suffix in (".json", ".result", ".lock"):
        (state_folder() / f"{name}{suffix}").unlink(missing_ok=True)


def note(name: str, result: str) -> None:
    """Remember how its last run goes or went."""
    (state_folder() / f"{name}.result").write_text(f"{result}\n", encoding="utf-8")


def noted(name: str) -> str:
    """What :func:`note` remembered, empty before its first run."""
    path = state_folder() / f"{name}.result"
    return path.read_text(encoding="utf-8").strip() if path.exists() else ""


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Hold the right to run, which a killed process lets go of.

    A second run of the same schedule has nothing to do; one of another schedule waits, since both want the GPU.

    Raises:
        StillRunning: a run of this schedule is going on.
    """
    folder = state_folder()

    def busy(holder: str) -> StillRunning:
        return StillRunning(f"{name}: its former run, process {holder}, is still going on; nothing was started")

    with locked(folder / f"{name}.lock", busy), (folder / "machine.lock").open("a") as machine:
        try:
            fcntl.flock(machine, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{name}: waits for the end of another schedule's run", flush=True)
            fcntl.flock(machine, fcntl.LOCK_EX)
        yield
