"""What every failure drill looks at: the command's last line, what is left behind, and what is in production."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from zenml.cli.cli import cli
from zenml.client import Client

from materializers.directory import FILES, MANIFEST
from materializers.registry import PRODUCTION, holder
from steps.files import hashes
from tests.end_to_end.conftest import KEPT_BACK, Workplace

NO_STAGE: dict[str, dict[str, Any]] = {"promotion": KEPT_BACK}


@dataclass(frozen=True)
class InProduction:
    """The version in production, and the hash of each of its files."""

    number: int
    files: dict[str, str]


class Drilled(Workplace):
    """Runs of a model of its own that is promoted to production."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "drilled", {"stage": "production"})

    def failed(self, **changes: dict[str, Any]) -> str:
        """Run by the command line, which fails without a traceback: its last line."""
        command = ["pipeline", "run", "pipelines.finetune.finetune", "-c", str(self.config(**changes))]
        result = CliRunner().invoke(cli, command)
        assert result.exit_code == 1, result.output
        assert isinstance(result.exception, SystemExit), result.exception
        assert "Traceback" not in result.output
        last = result.output.splitlines()[-1]
        assert last.startswith("error: ")
        return last


def in_production() -> InProduction:
    """What is served now; its files are those of their manifest."""
    version = holder("drilled", PRODUCTION)
    assert version is not None
    merged = version.get_artifact("merged_model")
    assert merged is not None
    files = hashes(Path(merged.uri))
    assert MANIFEST in files
    assert f"{FILES}/model.safetensors" in files
    return InProduction(version.number, files)


def left_behind() -> list[str]:
    """Folders in the artifact store of steps and merges that have not ended, and artifacts without their page."""
    store = Path(Client().active_stack.artifact_store.path)
    return [path.name for path in store.iterdir() if path.name.startswith((".step-", ".merge-"))]
