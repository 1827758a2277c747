"""Merging the adapter into the full-precision base."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, cast

from datasets import Dataset

from steps.errors import ModelError
from steps.files import require_space
from steps.merge.loftq import start_like_training
from steps.merge.params import MergeParameters
from steps.merge.report import MergeReport
from steps.merge.verify import Outputs, changed_weights, check_bounds, compare, outputs
from steps.provenance import read_provenance, write_provenance
from steps.quantize.device import Device, describe_device
from steps.quantize.quantize import weight_bytes
from steps.resolve.base_model import local_model
from steps.resolve.locks import ModelLock
from steps.tokenizer import generation_config, load_tokenizer

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def merge_adapter(
    lock: ModelLock,
    adapter_folder: Path,
    tokenizer_folder: Path,
    test: Dataset,
    merging: MergeParameters,
    output: Path,
) -> MergeReport:
    """Write base + adapter as one full-precision model, then reload and compare it.

    The base is the one that the lock names, not the 4-bit copy: merging into 4-bit weights would quantise the
    adapter away.

    Args:
        lock: the base model.
        adapter_folder: the adapter, PEFT layout.
        tokenizer_folder: the tokenizer with the trained chat template; becomes the merged model's.
        test: rows to compare on, columns of ``steps.format.tokenize.EXAMPLE_FEATURES``.
        merging: bounds on the differences.
        output: folder of the merged model.

    Raises:
        ModelError: a targeted weight did not change, another one did, or a difference is above its bound.
    """
    start = time.monotonic()
    device = describe_device()
    base_folder = local_model(lock)
    require_space(output, int(weight_bytes(base_folder) * 1.05), "the merged model")
    tokenizer = load_tokenizer(tokenizer_folder)
    rows = test.select(range(min(merging.max_prompts, len(test))))
    expected = _merge(base_folder, adapter_folder, tokenizer, rows, device, output, lock)
    tokenizer.save_pretrained(output)
    write_provenance(output, base_model=lock, adapter=read_provenance(adapter_folder), merging=merging)

    changed, unchanged = changed_weights(base_folder, output, adapter_folder)
    merged = _load(output, device, trust_remote_code=lock.trust_remote_code)
    differences = compare(expected, outputs(merged, rows))
    report = MergeReport(
        base_model=lock.name,
        changed_weights=changed,
        unchanged_weights=unchanged,
        rows=len(rows),
        max_logit_difference_bound=merging.max_logit_difference,
        max_loss_difference_bound=merging.max_loss_difference,
        bytes=weight_bytes(output),
        device=device.reason,
        seconds=time.monotonic() - start,
        **differences,
    )
    check_bounds(report)
    return report


def _load(folder: Path, device: Device, *, trust_remote_code: bool) -> "PreTrainedModel":
    from transformers import AutoModelForCausalLM

    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype="auto",
        device_map=device.map,
        attn_implementation=device.attention,
        use_safetensors=True,
        trust_remote_code=trust_remote_code,
    )
    return model


def _merge(
    base_folder: Path,
    adapter_folder: Path,
    tokenizer: "PreTrainedTokenizerBase",
    rows: Dataset,
    device: Device,
    output: Path,
    lock: ModelLock,
) -> list[Outputs]:
    """Write the merged weights; returns what base + adapter said before they were merged."""
    from peft import PeftModel

    base = _load(base_folder, device, trust_remote_code=lock.trust_remote_code)
    vocabulary = cast("Tensor", base.get_input_embeddings().weight).shape[0]
    if vocabulary < len(tokenizer):
        raise ModelError(
            f"{lock.name}: the tokenizer has {len(tokenizer)} tokens and the model's vocabulary {vocabulary}; adapter "
            "and base do not belong together"
        )
    tuned = PeftModel.from_pretrained(base, str(adapter_folder))
    start_like_training(tuned, read_provenance(adapter_folder))
    expected = outputs(tuned, rows)
    merged = tuned.merge_and_unload(safe_merge=True)
    merged.generation_config = generation_config(tokenizer)
    merged.config.eos_token_id = tokenizer.eos_token_id
    merged.config.pad_token_id = tokenizer.pad_token_id
    merged.save_pretrained(output)
    return expected
