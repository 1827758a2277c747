"""Merging the adapter into the base at full precision, or into the quantised weights that it was trained on."""

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from datasets import Dataset

from steps.device import describe_device
from steps.errors import ModelError
from steps.files import digest_of, require_space, sha256_of, weight_bytes
from steps.merge.loftq import rounding_of
from steps.merge.params import MAX_KL_DIVERGENCE, MAX_LOSS_RISE, MergeParameters, Target
from steps.merge.report import MergeReport
from steps.merge.shards import FinishedShards
from steps.merge.stream import Merging, merge_shards, plan_merge
from steps.merge.targets import Models, compare_models
from steps.merge.tensors import INDEX
from steps.merge.verify import changed_weights, check_bounds
from steps.provenance import read_provenance, write_provenance
from steps.resolve.base_model import local_model, local_tokenizer
from steps.resolve.locks import ModelLock
from steps.tokenizer import generation_config, load_tokenizer, vocabulary_hash

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def merge_adapter(
    lock: ModelLock,
    quantized_folder: Path,
    adapter_folder: Path,
    tokenizer_folder: Path,
    test: Dataset,
    merging: MergeParameters,
    output: Path,
    shards: FinishedShards,
) -> MergeReport:
    """Write base + adapter as one model in the base's stored type, then reload and compare it.

    The weights are those of the base that the lock names, or the quantised copy's, dequantised: merged into 4-bit
    weights as such the adapter would be quantised away. A killed merge goes on with the shards that are missing; one
    that fails leaves none.

    Args:
        lock: the base model.
        quantized_folder: the base as it was trained on.
        adapter_folder: the adapter, PEFT layout.
        tokenizer_folder: the tokenizer with the trained chat template; becomes the merged model's.
        test: rows to compare on, columns of ``steps.rows.EXAMPLE_FEATURES``.
        merging: what it is merged into, and bounds on the differences.
        output: folder of the merged model.
        shards: where finished shards wait; the caller removes them once the output is stored.

    Raises:
        ModelError: adapter and base do not belong together, a targeted weight did not change, another one did, or a
            difference is above its bound.
    """
    start = time.monotonic()
    with shards.removed_on_failure():
        device, base_folder = describe_device(), local_model(lock)
        tokenizer, adapter = load_tokenizer(tokenizer_folder), read_provenance(adapter_folder)
        _require_same_vocabulary(lock, adapter_folder, tokenizer_folder)
        plans = _plans(lock, base_folder, quantized_folder, adapter_folder, merging.target)
        plan = plans[merging.target]
        plan.require_vocabulary(len(tokenizer), lock.name)
        with shards.held():
            require_space(output, int(weight_bytes(base_folder) * 1.05) - shards.bytes(), "the merged model")
            resumed = merge_shards(plan, shards, device.kind)
            shards.give([path.name for path in plan.files], output)
        _write_rest(base_folder, tokenizer, output, lock)
        content = _content(output, shards)
        write_provenance(output, base_model=lock, adapter=adapter, merging=merging)

        models = Models(base_folder, quantized_folder, adapter_folder, output, plans, device, lock.trust_remote_code)
        rows = test.select(range(min(merging.max_prompts, len(test))))
        report = _report(lock, models, rows, tokenizer, merging, content, resumed, start)
        check_bounds(report)
    return report


def _report(
    lock: ModelLock,
    models: Models,
    rows: Dataset,
    tokenizer: "PreTrainedTokenizerBase",
    merging: MergeParameters,
    content: str,
    resumed: int,
    start: float,
) -> MergeReport:
    """What the merged model, loaded again, says of the rows; ``start`` is when the merge began."""
    plan = models.plans[merging.target]
    changed, unchanged = changed_weights(models.base, models.output, plan, models.device.kind)
    arithmetic, from_trained, samples = compare_models(models, rows, tokenizer, merging)
    return MergeReport(
        base_model=lock.name,
        target=merging.target,
        quantization=str(read_provenance(models.adapter)["quantization"]["kind"]),
        changed_weights=changed,
        unchanged_weights=unchanged,
        dequantized_weights=len(plan.dequantized),
        rows=len(rows),
        positions=arithmetic.positions,
        max_logit_difference=arithmetic.max_logit_difference,
        mean_logit_difference=arithmetic.mean_logit_difference,
        top1_agreement=arithmetic.top1_agreement,
        adapter_loss=arithmetic.expected_loss,
        merged_loss=arithmetic.loss,
        max_logit_difference_bound=merging.max_logit_difference,
        max_loss_difference_bound=merging.max_loss_difference,
        from_trained=from_trained,
        kl_divergence_bound=merging.max_kl_divergence or MAX_KL_DIVERGENCE[merging.target],
        loss_rise_bound=merging.max_loss_rise or MAX_LOSS_RISE[merging.target],
        max_new_tokens=merging.max_new_tokens,
        samples=samples,
        bytes=weight_bytes(models.output),
        content=content,
        shards=len(plan.files),
        resumed_shards=resumed,
        device=models.device.reason,
        seconds=time.monotonic() - start,
    )


def _plans(lock: ModelLock, base: Path, quantized: Path, adapter: Path, wanted: Target) -> dict[Target, Merging]:
    """The merge into each target; only the wanted one where nothing is quantised, since both are the same then."""
    trusted = lock.trust_remote_code
    rounding = rounding_of(read_provenance(adapter))
    plan = plan_merge(base, [adapter], trust_remote_code=trusted, rounding=rounding)
    dequantized = plan.into_dequantized(quantized, trust_remote_code=trusted)
    plans: dict[Target, Merging] = {"full_precision": plan, "dequantized": dequantized}
    return plans if dequantized.dequantized else {wanted: plan}


def _require_same_vocabulary(lock: ModelLock, adapter: Path, trained: Path) -> None:
    """The three tokenizers give every token the same id: the base model's, the adapter's, the one that is served."""
    expected = vocabulary_hash(local_tokenizer(lock))
    for folder in (adapter, trained):
        if (found := vocabulary_hash(folder)) != expected:
            raise ModelError(
                f"{folder}: the tokenizer gives tokens other ids than that of {lock.name} (vocabulary {found[:12]}, "
                f"not {expected[:12]}); merge the adapter into the base model that it was trained on"
            )


def _content(output: Path, finished: FinishedShards) -> str:
    """SHA-256 over names and hashes of the files; the shards' are known already."""
    weights = {path.name for path in output.glob("*.safetensors")}
    found = {
        path.name: finished.digest(path.name) if path.name in weights else sha256_of(path)
        for path in output.iterdir()
        if path.is_file()
    }
    return digest_of(found)


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
