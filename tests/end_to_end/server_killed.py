"""Run the pipeline by the command line and kill the ZenML server between two steps: ``CONFIG [NUMBER]``."""

import os
import signal
import sys

from zenml.utils import source_utils

from tests.end_to_end.conftest import ROOT

if __name__ == "__main__":
    config, *server = sys.argv[1:]

    def audited(event: str, arguments: tuple[object, ...]) -> None:
        """The step ``format`` begins."""
        if event == "import" and arguments[0] == "steps.format.format" and server:
            os.kill(int(server[0]), signal.SIGKILL)

    source_utils.set_custom_source_root(str(ROOT))
    from zenml.cli.cli import cli  # ZenML looks for the source root when it is imported

    sys.addaudithook(audited)
    cli(["pipeline", "run", "pipelines.finetune.finetune", "-c", config])
