"""One of the processes that share an evaluation: ``python -m steps.evaluate.distributed.worker FOLDER``."""

from pathlib import Path

from steps.distributed.process import hide_place, take_part


def answer(folder: Path, number: int) -> None:
    """Ask the models this process's share."""
    hide_place()
    from steps.device import describe_device
    from steps.evaluate.distributed.task import SharedEvaluation, write_outcome
    from steps.evaluate.examine import examine

    task = SharedEvaluation.read(folder)
    outcome = examine(task.models, task.asked(folder, number), task.evaluation, task.kept, describe_device())
    write_outcome(folder, number, outcome)


if __name__ == "__main__":
    take_part(answer)
