"""Run the pipeline until this process kills itself: ``python -m tests.end_to_end.killed_run CONFIG EVENT PATH``."""

import sys
from pathlib import Path

from zenml.utils import source_utils

from tests.train.killed import KillPoint, arm

if __name__ == "__main__":
    config, event, path = sys.argv[1:]
    source_utils.set_custom_source_root(str(Path(__file__).resolve().parents[2]))
    from pipelines.finetune import finetune  # ZenML looks for the source root when it is imported

    arm(KillPoint(event, 1, path))
    finetune.with_options(config_path=config)()
