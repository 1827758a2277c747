"""Every export that was asked for: written, read back, compared with the merged model."""

import io
import time
from collections.abc import Iterator
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from datasets import Dataset

from steps.device import Device, describe_device
from steps.errors import ModelError
from steps.export.gguf import write_gguf
from steps.export.hub import push
from steps.export.params import ExportParameters
from steps.export.report import Copy, ExportReport
from steps.export.vocabulary import Vocabulary, read_vocabulary
from steps.files import weight_bytes
from steps.merge.compare import Outputs, compare, outputs
from steps.merge.load import load_model
from steps.promote.report import PromotionDecision
from steps.provenance import read_provenance, write_provenance
from steps.quantize.load import load_quantized
from steps.quantize.params import QuantizationParameters
from steps.quantize.quantize import quantize_model
from steps.resolve.locks import ModelLock
from steps.scratch import scratch
from steps.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Original:
    """The merged model, and what it says of the rows."""

    folder: Path
    lock: ModelLock  # of its base
    rows: Dataset
    outputs: Outputs
    scratch: Path  # for what the copies say
    device: Device

    def copy(self, name: str, model: "PreTrainedModel", files: list[str], size: int, bound: float) -> Copy:
        """What a copy, read back, says of the same rows."""
        figures = compare(self.outputs, outputs(model, self.rows, self.scratch / name))
        return Copy(
            name=name,
            files=files,
            bytes=size,
            rows=len(self.rows),
            positions=figures.positions,
            max_logit_difference=figures.max_logit_difference,
            mean_logit_difference=figures.mean_logit_difference,
            top1_agreement=figures.top1_agreement,
            merged_loss=figures.expected_loss,
            exported_loss=figures.loss,
            max_loss_difference_bound=bound,
        )


def export_model(
    merged: Path,
    adapter: Path,
    test: Dataset,
    decision: PromotionDecision,
    exports: ExportParameters,
    output: Path,
) -> ExportReport:
    """Write what was asked for into ``output``; push last, once every copy was found to be within its bound.

    Args:
        merged: the merged model.
        adapter: the adapter that it was made with.
        test: rows to compare on, columns of ``steps.rows.EXAMPLE_FEATURES``.
        decision: only what was promoted is pushed.
        exports: what is asked for.
        output: an empty folder; each copy gets a folder in it.

    Raises:
        ModelError: the model cannot be written in a format, a copy is further from it than its bound allows, or the
            hub refuses the push.
    """
    start = time.monotonic()
    origins = read_provenance(merged)
    lock = ModelLock.model_validate(origins["base_model"])
    copies = []
    if exports.quantized or exports.gguf:
        with scratch("export") as folder:
            rows = test.select(range(min(exports.max_prompts, len(test))))
            for copy in _copies(_original(merged, lock, rows, folder), exports, output):
                require_bound(copy)
                copies.append(copy)
    write_provenance(output, base_model=lock, merged=origins, exports=exports)
    pushed = None
    if exports.hub is not None:
        folder = adapter if exports.hub.what == "adapter" else merged
        pushed = push(folder, exports.hub, promoted=decision.promoted)
    return ExportReport(
        base_model=lock.name,
        merged_bytes=weight_bytes(merged),
        copies=copies,
        push=pushed,
        seconds=time.monotonic() - start,
    )


def _original(merged: Path, lock: ModelLock, rows: Dataset, folder: Path) -> Original:
    device = describe_device()
    model = load_model(merged, device, trust_remote_code=lock.trust_remote_code)
    return Original(merged, lock, rows, outputs(model, rows, folder / "merged"), folder, device)


def _copies(original: Original, exports: ExportParameters, output: Path) -> Iterator[Copy]:
    """Write and compare one after the other, so that one model is in memory at a time."""
    if exports.quantized:
        quantization = QuantizationParameters(kind=exports.quantized)
        yield _quantized(original, quantization, exports.max_quantized_loss_difference, output / "quantized")
    if exports.gguf:
        yield _gguf(original, exports.gguf, exports.max_gguf_loss_difference, output / "gguf")


def _quantized(original: Original, quantization: QuantizationParameters, bound: float, folder: Path) -> Copy:
    """Through the code that quantised the base model; ``from_pretrained(folder)`` loads it."""
    folder.mkdir()
    merged, lock = original.folder, original.lock
    weights = {path.name: "" for path in merged.glob("*.safetensors")}
    source = ModelLock(
        name=f"{lock.name}, tuned", folder=str(merged), files=weights, trust_remote_code=lock.trust_remote_code
    )
    quantize_model(source, quantization, folder)
    load_tokenizer(merged).save_pretrained(folder)
    # the quantisation's own record names the folder that the merged model lay in
    write_provenance(folder, base_model=lock, merged=read_provenance(merged), quantization=quantization)
    model = load_quantized(folder, original.device)
    return original.copy(f"bitsandbytes {quantization.kind}", model, [f"{folder.name}/"], weight_bytes(folder), bound)


def _gguf(original: Original, kind: str, bound: float, folder: Path) -> Copy:
    from transformers import AutoConfig, AutoModelForCausalLM, GgufConfig

    folder.mkdir()
    config = AutoConfig.from_pretrained(original.folder)
    vocabulary = read_vocabulary(original.folder, config.vocab_size)
    path = folder / f"{original.lock.name.rpartition('/')[2]}-tuned.{kind.upper()}.gguf"
    write_gguf(original.folder, config, vocabulary, kind, path)
    with redirect_stderr(io.StringIO()):  # its progress bar, which no setting turns off
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            gguf_file=path.name,
            dtype=config.dtype,
            device_map=original.device.map,
            attn_implementation=original.device.attention,
            quantization_config=GgufConfig(dequantize=True),
        )
    copy = original.copy(f"GGUF {kind}", model, [f"{folder.name}/{path.name}"], path.stat().st_size, bound)
    return copy.model_copy(update={"tokenizer": _same_tokens(original, path, vocabulary)})


def _same_tokens(original: Original, path: Path, vocabulary: Vocabulary) -> str:
    """Tokenise the rows' texts with the file's tokenizer too.

    Raises:
        ModelError: the ids of a row differ.
    """
    from transformers import AutoTokenizer

    if not vocabulary.read_alike:
        return "not compared: llama.cpp reads the file as it is meant, transformers does not"
    with redirect_stderr(io.StringIO()):  # as above
        written = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    tokenizer = load_tokenizer(original.folder)
    for row in original.rows:
        text = tokenizer.decode([*row["prompt_ids"], *row["completion_ids"]])
        if tokenizer(text)["input_ids"] != written(text)["input_ids"]:
            raise ModelError(
                f"parameters.exports.gguf: row {row['row_id']} has other tokens with the tokenizer that the GGUF file "
                "describes; use llama.cpp's own converter, convert_hf_to_gguf.py, on the merged model"
            )
    return "the same ids for every row"


def require_bound(copy: Copy) -> None:
    """Raise :class:`ModelError` where a copy's loss is further from the merged model's than its bound allows."""
    name = "max_gguf_loss_difference" if copy.name.startswith("GGUF") else "max_quantized_loss_difference"
    if not abs(copy.exported_loss - copy.merged_loss) <= copy.max_loss_difference_bound:
        raise ModelError(
            f"parameters.exports.{name}: completion loss {copy.exported_loss:.4f} of {copy.name} against "
            f"{copy.merged_loss:.4f} of the merged model, further apart than {copy.max_loss_difference_bound:g}; "
            "choose a format with more bits, or raise the bound"
        )
