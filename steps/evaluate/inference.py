"""How a model is asked: without gradients, the adapter on or off, with progress."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from steps.progress import Progress

if TYPE_CHECKING:
    from peft import PeftModel


@contextmanager
def inference(model: "PeftModel", work: str, total: int, *, adapter: bool) -> Iterator[Progress]:
    """Put the model into evaluation mode, and give the progress of ``total`` units of work.

    Args:
        model: base model with the adapter.
        work: what is done, as the progress line says it.
        total: units of the work.
        adapter: False asks the base model, the adapter switched off.
    """
    import torch

    model.eval()
    side = nullcontext() if adapter else model.disable_adapter()
    with torch.inference_mode(), side, Progress(f"{work}, {'tuned' if adapter else 'base'}", total) as progress:
        yield progress
