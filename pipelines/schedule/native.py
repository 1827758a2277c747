"""Schedules of orchestrators that have their own."""

from pipelines.schedule.plan import Listed, Schedule
from steps.errors import ConfigError


def install(schedule: Schedule) -> str:
    """Hand it to the orchestrator; one of the same name is replaced."""
    raise ConfigError(f"{schedule.name}: schedules of an orchestrator's own are not there yet")


def listed() -> list[Listed]:
    """Every schedule that an orchestrator holds."""
    return []


def pause(name: str) -> str:
    """Let it rest until it is resumed."""
    raise ConfigError(f"{name}: no such schedule")


def resume(name: str) -> str:
    """Let it run again."""
    raise ConfigError(f"{name}: no such schedule")


def remove(name: str) -> str:
    """Forget it."""
    raise ConfigError(f"{name}: no such schedule")


def run_now(name: str) -> str:
    """Run it once, now."""
    raise ConfigError(f"{name}: no such schedule")
