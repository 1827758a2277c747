"""How many processes share an evaluation, and their start."""

from steps.distributed.failure import error_of
from steps.distributed.launch import Launch, run
from steps.distributed.params import DistributedParameters
from steps.errors import EvaluationError
from steps.evaluate.distributed.deal import deal, gathered
from steps.evaluate.distributed.task import read_outcome, write_task
from steps.evaluate.examine import Examination, Models, Outcome
from steps.evaluate.kept import KeptAnswers
from steps.evaluate.params import EvaluationParameters
from steps.scratch import scratch


def processes_of(distributed: DistributedParameters, machines: int) -> int:
    """How many processes share an evaluation: a training's, as far as this machine has GPUs for them.

    Args:
        distributed: the number over all machines, or auto: one for each GPU, one without a GPU.
        machines: that share the training; this one alone evaluates.
    """
    import torch

    cards = torch.cuda.device_count()
    if distributed.processes == "auto":
        return max(cards, 1)
    named = max(distributed.processes // machines, 1)
    return min(named, cards) if cards else named


def examine_by_processes(
    models: Models,
    asked: Examination,
    evaluation: EvaluationParameters,
    kept: KeptAnswers | None,
    processes: int,
) -> Outcome:
    """As ``examine``, by so many processes.

    Raises:
        PipelineError: as a process raised it.
        EvaluationError: a process failed otherwise, or was killed.
    """
    print(f"  evaluate: shared by {processes} processes; what follows is the first one's share", flush=True)
    with scratch("evaluation") as folder:
        shares = deal(asked, evaluation, processes)
        write_task(folder, models, asked, evaluation, kept, shares)
        failure = run(Launch(f"{__package__}.worker", folder, processes))
        if failure is not None:
            advice = "where memory is short, take a smaller evaluation.batch_size; what was answered is kept"
            raise error_of(failure, processes, EvaluationError, advice)
        return gathered([read_outcome(folder, number) for number in range(processes)], shares)
