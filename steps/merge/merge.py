"""Merging the adapter into the full-precision base."""

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from datasets import Dataset

from steps.errors import ModelError
from steps.files import require_space
from steps.merge.load import load_model, put_adapter
from steps.merge.loftq import rounding_of
from steps.merge.params import MergeParameters
from steps.merge.report import MergeReport
from steps.merge.shards import FinishedShards, shards_of
from steps.merge.stream import merge_shards, plan_merge
from steps.merge.tensors import INDEX
from steps.merge.verify import Outputs, changed_weights, check_bounds, compare, outputs
from steps.provenance import read_provenance, write_provenance
from steps.quantize.device import Device, describe_device
from steps.quantize.params import QuantizationParameters
from steps.quantize.quantize import weight_bytes
from steps.resolve.base_model import local_model, local_tokenizer
from steps.resolve.locks import ModelLock
from steps.tokenizer import generation_config, load_tokenizer, vocabulary_hash

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def merge_adapter(
    lock: ModelLock,
    adapter_folder: Path,
    tokenizer_folder: Path,
    test: Dataset,
    merging: MergeParameters,
    output: Path,
    shards: FinishedShards | None = None,
) -> MergeReport:
    """Write base + adapter as one full-precision model, then reload and compare it.

    The base is the one that the lock names, not the 4-bit copy: merging into 4-bit weights would quantise the
    adapter away. A killed merge goes on with the shards that are missing; one that fails leaves none.

    Args:
        lock: the base model.
        adapter_folder: the adapter, PEFT layout.
        tokenizer_folder: the tokenizer with the trained chat template; becomes the merged model's.
        test: rows to compare on, columns of ``steps.format.tokenize.EXAMPLE_FEATURES``.
        merging: bounds on the differences.
        output: folder of the merged model.
        shards: where finished shards wait; the caller removes them once the output is stored. Without it they wait
            beside the output and are removed at the end.

    Raises:
        ModelError: adapter and base do not belong together, a targeted weight did not change, another one did, or a
            difference is above its bound.
    """
    finished = shards or shards_of(lock, [adapter_folder], output.parent)
    try:
        report = _merge(lock, adapter_folder, tokenizer_folder, test, merging, output, finished)
    except Exception:
        finished.remove()
        raise
    if shards is None:
        finished.remove()
    return report


def _merge(
    lock: ModelLock,
    adapter_folder: Path,
    tokenizer_folder: Path,
    test: Dataset,
    merging: MergeParameters,
    output: Path,
    finished: FinishedShards,
) -> MergeReport:
    start = time.monotonic()
    device, base_folder = describe_device(), local_model(lock)
    tokenizer, adapter = load_tokenizer(tokenizer_folder), read_provenance(adapter_folder)
    _require_same_vocabulary(lock, adapter_folder, tokenizer_folder)
    plan = plan_merge(base_folder, [adapter_folder], trust_remote_code=lock.trust_remote_code)
    plan.require_vocabulary(len(tokenizer), lock.name)
    rounding = rounding_of(adapter)
    with finished.held():
        require_space(output, int(weight_bytes(base_folder) * 1.05) - finished.bytes(), "the merged model")
        resumed = merge_shards(plan, finished, device.kind, rounding)
        finished.give([path.name for path in plan.files], output)
    _write_rest(base_folder, tokenizer, output, lock)
    write_provenance(output, base_model=lock, adapter=adapter, merging=merging)

    changed, unchanged = changed_weights(base_folder, output, plan.changes)
    rows = test.select(range(min(merging.max_prompts, len(test))))
    expected = _base_with_adapter(base_folder, adapter_folder, rows, device, rounding, lock)
    merged = load_model(output, device, trust_remote_code=lock.trust_remote_code)
    differences = compare(expected, outputs(merged, rows))
    report = MergeReport(
        base_model=lock.name,
        changed_weights=changed,
        unchanged_weights=unchanged,
        rows=len(rows),
        max_logit_difference_bound=merging.max_logit_difference,
        max_loss_difference_bound=merging.max_loss_difference,
        bytes=weight_bytes(output),
        shards=len(plan.files),
        resumed_shards=resumed,
        device=device.reason,
        seconds=time.monotonic() - start,
        **differences,
    )
    check_bounds(report)
    return report


def _require_same_vocabulary(lock: ModelLock, adapter: Path, trained: Path) -> None:
    """The three tokenizers give every token the same id: the base model's, the adapter's, the one that is served."""
    expected = vocabulary_hash(local_tokenizer(lock))
    for folder in (adapter, trained):
        if (found := vocabulary_hash(folder)) != expected:
            raise ModelError(
                f"{folder}: the tokenizer gives tokens other ids than that of {lock.name} (vocabulary {found[:12]}, "
                f"not {expected[:12]}); merge the adapter into the base model that it was trained on"
            )


def _write_rest(base: Path, tokenizer: "PreTrainedTokenizerBase", output: Path, lock: ModelLock) -> None:
    """All but the weights: index, configuration, tokenizer, and the model's own code where it has some."""
    from transformers import AutoConfig

    if (base / INDEX).is_file():
        shutil.copyfile(base / INDEX, output / INDEX)
    config = AutoConfig.from_pretrained(base, trust_remote_code=lock.trust_remote_code)
    config.eos_token_id, config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    config.save_pretrained(output)
    generation_config(tokenizer).save_pretrained(output)
    tokenizer.save_pretrained(output)
    if lock.trust_remote_code:
        for path in base.glob("*.py"):
            shutil.copyfile(path, output / path.name)


def _base_with_adapter(
    base_folder: Path,
    adapter_folder: Path,
    rows: Dataset,
    device: Device,
    rounding: QuantizationParameters | None,
    lock: ModelLock,
) -> list[Outputs]:
    """What base + adapter say, not merged."""
    base = load_model(base_folder, device, trust_remote_code=lock.trust_remote_code)
    return outputs(put_adapter(base, adapter_folder, rounding), rows)
