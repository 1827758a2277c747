"""One run of a schedule, in a process of its own: ``python -m pipelines.schedule.night NAME``."""

import sys
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.schedule import store
from pipelines.schedule.systemd import BUSY
from steps.errors import PipelineError

if TYPE_CHECKING:
    from zenml.models import PipelineRunResponse

ROOT = Path(__file__).parents[2]


def main(name: str) -> int:
    """Run it unless a run of it is going on; the exit code, as :mod:`pipelines.schedule.run` has them.

    The lock is taken here and not by the process that waits for this one, so that it is held until the run has ended
    even where that other one was killed.
    """
    try:
        with store.alone(name):
            store.note(name, f"{datetime.now():%Y-%m-%d %H:%M} began, has not ended")
            _run(name)
    except store.StillRunning as error:
        print(error, flush=True)
        return BUSY
    except PipelineError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", flush=True)
        return 1
    return 0


def _run(name: str) -> None:
    """Run the pipeline as ``zenml pipeline run`` does, and say in the last line what came of it."""
    schedule = store.entry_named(name).schedule
    from zenml.utils.source_utils import set_custom_source_root

    set_custom_source_root(str(ROOT))  # ZenML would take this module's folder, and find no step in the cache
    from zenml.client import Client

    from pipelines.finetune import finetune
    from pipelines.schedule.account import account
    from pipelines.stack import on_stack

    began = time.monotonic()
    with on_stack(schedule.stack):
        run: PipelineRunResponse | None = finetune.with_options(config_path=str(schedule.configuration))()
        if run is None:
            raise PipelineError(f"{schedule.stack or 'the active stack'}: ran nothing")
        for line in account(Client().get_pipeline_run(run.id), time.monotonic() - began):
            print(line, flush=True)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
