"""What is to run, and when."""

import re
from dataclasses import dataclass
from pathlib import Path

from pipelines.schedule.cron import check_cron
from steps.errors import ConfigError

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
"""A DNS label, as a systemd unit, a crontab line, a file and a Kubernetes object may be called."""


@dataclass(frozen=True)
class Schedule:
    """One configuration that is run again and again.

    Raises:
        ConfigError: the name or the cron expression cannot be used.
    """

    name: str
    configuration: Path
    """Absolute."""
    cron: str
    """Five fields, in the local time of whatever runs it."""
    stack: str | None = None
    """ZenML stack; None: the one that is active when the run starts."""
    on_failure: str | None = None
    """Shell command, or http(s) URL that gets a POST; it may hold a secret and is shown nowhere."""

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ConfigError(
                f"--name {self.name}: a name has up to 40 lower-case letters, digits and hyphens, such as "
                f"{name_of(Path(self.name))}"
            )
        check_cron(self.cron)


@dataclass(frozen=True)
class Listed:
    """A schedule as ``qlora schedule list`` shows it."""

    name: str
    where: str
    """``systemd``, ``systemd --user``, ``crontab``, or the flavour of the orchestrator."""
    cron: str
    configuration: str
    stack: str
    active: bool
    """False while it is paused."""
    next_run: str
    last_result: str


def name_of(configuration: Path) -> str:
    """The file's name as a schedule's name: ``llama2_7B.yaml`` gives ``llama2-7b``."""
    return re.sub(r"[^a-z0-9]+", "-", configuration.stem.lower())[:40].strip("-") or "schedule"
