"""Weights that are not full-precision safetensors, turned into such once, in the user's cache folder."""

import io
import pickle
from collections.abc import Callable
from contextlib import redirect_stderr
from functools import partial
from pathlib import Path

from steps.errors import ModelError
from steps.files import digest_of, require_space, weight_bytes, whole_directory
from steps.resolve.locks import ModelLock, StoredQuantization
from steps.tokenizer import SAVED_BYTES

EXPANSION = {"nf4": 4, "fp4": 4, "int8": 2}
"""Bytes of 16-bit weights over those of quantised ones, at most: embeddings have 16 bits in both."""


def from_gguf(lock: ModelLock, folder: Path) -> Path:
    """The model of a GGUF file, dequantised into bfloat16, with its tokenizer."""
    (gguf, digest) = next(iter(lock.files.items()))

    def convert(target: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM, GgufConfig

        with redirect_stderr(io.StringIO()):  # its progress bar, which no setting turns off
            model = AutoModelForCausalLM.from_pretrained(
                folder, gguf_file=gguf, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
            )
        model.save_pretrained(target)
        _save_tokenizer(folder, gguf, target)

    needed = EXPANSION["nf4"] * (folder / gguf).stat().st_size
    return _once(f"{lock.name}-{digest[:16]}", "turning the GGUF file into safetensors", needed, convert)


def gguf_tokenizer(lock: ModelLock, folder: Path) -> Path:
    """The tokenizer of a GGUF file; its weights stay as they are."""
    (gguf, digest) = next(iter(lock.files.items()))
    name, convert = f"{lock.name}-{digest[:16]}-tokenizer", partial(_save_tokenizer, folder, gguf)
    return _once(name, "reading the GGUF file's tokenizer", SAVED_BYTES, convert)


def _save_tokenizer(folder: Path, gguf: str, target: Path) -> None:
    from transformers import AutoTokenizer

    with redirect_stderr(io.StringIO()):  # as above
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=gguf)
    tokenizer.save_pretrained(target)


def from_pickles(lock: ModelLock, source: Path) -> Path:
    """The same weights as safetensors; only tensors are read from the pickles.

    Raises:
        ModelError: they hold something else than tensors.
    """

    def convert(target: Path) -> None:
        from transformers import AutoModelForCausalLM

        try:
            model = AutoModelForCausalLM.from_pretrained(
                source,
                dtype="auto",
                use_safetensors=False,
                weights_only=True,
                trust_remote_code=lock.trust_remote_code,
            )
        except pickle.UnpicklingError as error:
            raise ModelError(
                f"parameters.base_model.accept_pickle: the pickles of {lock.name} hold more than tensors and were not "
                "read; give a model whose weights are safetensors"
            ) from error
        model.save_pretrained(target)

    needed = sum(path.stat().st_size for path in source.glob("pytorch_model*.bin"))
    return _once(_name(lock), "turning pickles into safetensors", needed, convert)


def from_quantized(lock: ModelLock, quantization: StoredQuantization, source: Path) -> Path:
    """The weights of a model that comes quantised, dequantised: what its quantised layers multiply by.

    Merging an adapter into them loses nothing, since the adapter was trained on just these values.
    """

    def convert(target: Path) -> None:
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(
            source, dtype="auto", device_map={"": "cpu"}, trust_remote_code=lock.trust_remote_code
        )
        whole = model.dequantize(dtype=model.dtype)  # type: ignore[no-untyped-call]  # transformers has no types there
        # quantised layers have no way back to the layout of the hub (transformers 5.23: NotImplementedError)
        whole.save_pretrained(target, save_original_format=False)

    needed = EXPANSION[quantization.kind] * weight_bytes(source)
    return _once(f"{_name(lock)}-dequantised", f"dequantising {quantization.kind}", needed, convert)


def _name(lock: ModelLock) -> str:
    """Name and content."""
    content = digest_of(lock.files)
    return f"{lock.name.replace('/', '--')}-{content[:16]}"


def _once(name: str, work: str, needed: int, convert: Callable[[Path], None]) -> Path:
    """The folder of that name in the cache, made by ``convert`` if it is not there; ``needed`` is in bytes."""
    from platformdirs import user_cache_path

    target = user_cache_path("qlora-pipeline") / "base-models" / name
    if not target.is_dir():
        require_space(target, needed, "the converted base model")
        print(f"  {name}: {work}, once", flush=True)
        with whole_directory(target) as temporary:
            convert(temporary)
    return target
