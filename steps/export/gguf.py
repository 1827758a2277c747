"""The merged model as one GGUF file, written tensor by tensor with the gguf library.

The file's keys and layout are llama.cpp's (its ``conversion/llama.py`` and the GGUF specification, ggml/docs/gguf.md).
"""

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steps.errors import ModelError
from steps.export.vocabulary import CONVERTER, Vocabulary
from steps.files import require_space
from steps.merge.tensors import read_header, weight_files

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGUFWriter
    from transformers import PretrainedConfig

ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM")
"""Both are what llama.cpp calls llama."""

FULL_PRECISION = "F32"


@dataclass(frozen=True)
class Entry:
    """One tensor of the file."""

    name: str  # in GGUF
    source: str  # in the checkpoint
    path: Path
    shape: tuple[int, ...]
    type: str  # of GGMLQuantizationType


def write_gguf(merged: Path, config: "PretrainedConfig", vocabulary: Vocabulary, kind: str, output: Path) -> None:
    """Write the model as a GGUF file; memory holds one tensor at a time.

    Args:
        merged: the merged model.
        config: its configuration.
        vocabulary: its tokenizer in GGUF's terms.
        kind: ``f16``, ``bf16`` or ``q8_0``: type of the matrices; vectors (norms) are F32.
        output: the file.

    Raises:
        ModelError: the architecture, or something of the model, is not one that is written here.
        DeviceError: there is no space for the file.
    """
    from gguf import GGUFWriter

    require_supported(merged, config)
    entries = plan_tensors(merged, config, kind)
    require_space(output, _bytes(entries), "the GGUF file")
    writer = GGUFWriter(output, arch="llama")
    _add_parameters(writer, config, kind, output.stem)
    vocabulary.add_to(writer)
    for entry in entries:
        _add_info(writer, entry)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for entry in entries:
            writer.write_tensor_data(_values(entry, config))
    finally:
        writer.close()


def require_supported(merged: Path, config: "PretrainedConfig") -> None:
    """Raise :class:`ModelError` for a model that would not come back from the file as it is."""
    where = "parameters.exports.gguf"
    architecture = (config.architectures or ["an unnamed one"])[0]
    if architecture not in ARCHITECTURES:
        raise ModelError(
            f"{where}: {architecture} is not written here, only {' and '.join(ARCHITECTURES)}; {CONVERTER}"
        )
    scaling = config.rope_parameters["rope_type"]
    if scaling != "default":
        raise ModelError(
            f"{where}: rotary embeddings of type {scaling} are not written here, only default; {CONVERTER}"
        )
    names = [tensor.name for path in weight_files(merged) for tensor in read_header(path)[1]]
    biases = [name for name in names if name.endswith(".bias")]
    if biases:
        raise ModelError(f"{where}: {biases[0]} is a bias, which cannot be read back from GGUF here; {CONVERTER}")


def plan_tensors(merged: Path, config: "PretrainedConfig", kind: str) -> list[Entry]:
    """Every tensor of the checkpoint under its GGUF name, with the type that it is written in.

    Raises:
        ModelError: GGUF has no name for a tensor.
    """
    from gguf import MODEL_ARCH, MODEL_TENSOR_SKIP, get_tensor_name_map

    # rotary frequencies, which old checkpoints hold though they are computed
    skipped = MODEL_TENSOR_SKIP[MODEL_ARCH.LLAMA]
    names = get_tensor_name_map(MODEL_ARCH.LLAMA, config.num_hidden_layers)
    entries = []
    for path in weight_files(merged):
        for tensor in read_header(path)[1]:
            found = names.get_type_and_name(tensor.name, try_suffixes=(".weight",))
            if found is None:
                raise ModelError(f"parameters.exports.gguf: {tensor.name} has no name in GGUF; {CONVERTER}")
            role, name = found
            if role in skipped or (name == "output.weight" and config.tie_word_embeddings):
                continue  # where the two are tied a reader takes the embedding
            entries.append(Entry(name, tensor.name, path, tuple(tensor.shape), _type(tuple(tensor.shape), kind)))
    return entries


def _type(shape: tuple[int, ...], kind: str) -> str:
    """Vectors stay in full precision; rows that no whole blocks fit in are F16, as llama.cpp has it."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    if len(shape) == 1:
        return FULL_PRECISION
    block, _ = GGML_QUANT_SIZES[GGMLQuantizationType[kind.upper()]]
    return kind.upper() if shape[-1] % block == 0 else "F16"


def _add_parameters(writer: "GGUFWriter", config: "PretrainedConfig", kind: str, name: str) -> None:
    from gguf import GGML_QUANT_VERSION, LlamaFileType

    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_type("model")
    writer.add_name(name)
    writer.add_file_type(LlamaFileType[f"MOSTLY_{kind.upper()}"])
    writer.add_quantization_version(GGML_QUANT_VERSION)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(_context(config))
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)


def _context(config: "PretrainedConfig") -> int:
    """Tokens; where attention looks back over a window, GGUF's llama has none, and is right up to its length."""
    window: int | None = getattr(config, "sliding_window", None)
    longest: int = config.max_position_embeddings
    return min(longest, window) if window else longest


def _add_info(writer: "GGUFWriter", entry: Entry) -> None:
    import numpy as np
    from gguf import GGMLQuantizationType

    kind = GGMLQuantizationType[entry.type]
    # the writer takes the shape in elements unless the data are bytes; the data come later
    writer.add_tensor_info(entry.name, entry.shape, np.dtype(np.float32), _bytes([entry]), raw_dtype=kind)


def _bytes(entries: list[Entry]) -> int:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    total = 0
    for entry in entries:
        block, size = GGML_QUANT_SIZES[GGMLQuantizationType[entry.type]]
        total += prod(entry.shape) // block * size
    return total


def _values(entry: Entry, config: "PretrainedConfig") -> "np.ndarray[Any, Any]":
    """The tensor as the file has it."""
    from gguf import GGMLQuantizationType, quants
    from safetensors import safe_open

    with safe_open(entry.path, framework="pt") as tensors:
        values = tensors.get_tensor(entry.source).float().numpy()
    if entry.source.endswith("q_proj.weight"):
        values = _interleaved(values, config.num_attention_heads)
    elif entry.source.endswith("k_proj.weight"):
        values = _interleaved(values, config.num_key_value_heads)
    written: np.ndarray[Any, Any] = quants.quantize(values, GGMLQuantizationType[entry.type])
    return written


def _interleaved(values: "np.ndarray[Any, Any]", heads: int) -> "np.ndarray[Any, Any]":
    """Rows of each head in GGUF's order: rotary pairs beside each other, where transformers has them in two halves."""
    halves = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return halves.swapaxes(1, 2).reshape(values.shape)
