"""How a model is asked: without gradients, with progress."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from steps.progress import Progress

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

Side = Literal["base", "tuned", "base again", "production"]


@contextmanager
def inference(model: "PreTrainedModel | PeftModel", work: str, total: int, side: Side) -> Iterator[Progress]:
    """Put the model into evaluation mode, and give the progress of ``total`` units of work.

    Args:
        model: the model of that side.
        work: what is done, as the progress line says it.
        total: units of the work.
        side: which model it is, as the progress line says it.
    """
    import torch

    model.eval()
    with torch.inference_mode(), Progress(f"{work}, {side}", total) as progress:
        yield progress
