"""A run of the pipeline in a child that kills itself."""

from pathlib import Path

from tests.train.killed import KillPoint, arm


def run_until(point: KillPoint, config: Path) -> None:
    """Run the pipeline with the configuration until the point is reached."""
    from zenml.utils import source_utils

    source_utils.set_custom_source_root(str(Path(__file__).resolve().parents[2]))
    from pipelines.finetune import finetune  # ZenML looks for the source root when it is imported

    arm(point)
    finetune.with_options(config_path=str(config))()
