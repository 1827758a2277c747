"""Token losses: batches by tokens, memory that does not grow with the rows."""

import gc

import pytest
import torch
from datasets import concatenate_datasets
from peft import PeftModel

from steps.device import describe_device
from steps.evaluate.losses import BATCH_TOKENS, completion_losses
from steps.quantize.load import load_quantized
from tests.tiny_run import TinyRun


@pytest.fixture(scope="module")
def tuned(tiny_run: TinyRun) -> PeftModel:
    return PeftModel.from_pretrained(
        load_quantized(tiny_run.model, describe_device("float32")), str(tiny_run.adapter)
    ).eval()


def test_batches_have_a_bound_of_tokens_and_of_rows(tiny_run: TinyRun, tuned: PeftModel) -> None:
    rows = concatenate_datasets([tiny_run.examples["test"]] * 12)
    shapes: list[torch.Size] = []
    alive: list[int] = []

    def look(_module: object, _arguments: object, given: dict[str, torch.Tensor]) -> None:
        shapes.append(given["input_ids"].shape)
        logits = (one for one in gc.get_objects() if type(one) is torch.Tensor and one.shape[-1:] == (400,))
        alive.append(sum(one.numel() for one in logits))

    hook = tuned.register_forward_pre_hook(look, with_kwargs=True)
    many = completion_losses(tuned, rows, 128, "tuned")
    hook.remove()
    few = completion_losses(tuned, rows, 5, "tuned")
    assert [one.nats for one in many] == pytest.approx([one.nats for one in few], abs=1e-3)
    assert [length for _, length in shapes] == sorted((length for _, length in shapes), reverse=True)
    assert all(count * length <= BATCH_TOKENS and count <= 128 for count, length in shapes)
    assert sum(count for count, _ in shapes) == len(rows)
    assert len(shapes) > 2
    assert max(alive) <= alive[0] + BATCH_TOKENS * 400, "no logits but the last batch's"
