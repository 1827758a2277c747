"""The base model's configuration alone: of a hub model one small file, and never the weights."""

import io
from contextlib import redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING

from steps.errors import ModelError
from steps.resolve.base_model import hub_errors, package_folder
from steps.resolve.params import BaseModelParameters

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def model_config(base_model: BaseModelParameters) -> "PretrainedConfig":
    """What transformers knows of the model before it has weights.

    Raises:
        ModelError: the model cannot be reached, or transformers does not know its architecture.
    """
    from transformers import AutoConfig

    folder, gguf = _folder(base_model), {"gguf_file": base_model.gguf} if base_model.gguf else {}
    try:
        with redirect_stderr(io.StringIO()):  # a GGUF file's progress bar, which no setting turns off
            config: PretrainedConfig = AutoConfig.from_pretrained(
                folder, trust_remote_code=base_model.trust_remote_code, **gguf
            )
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"parameters.base_model: transformers cannot read the configuration ({reason})") from error
    return config


def _folder(base_model: BaseModelParameters) -> Path:
    if base_model.folder is not None:
        return Path(base_model.folder)
    if base_model.package is not None:
        return package_folder(base_model.package)
    from huggingface_hub import hf_hub_download, snapshot_download

    hub, revision = base_model.hub or "", base_model.revision
    with hub_errors(hub, revision):
        if base_model.trust_remote_code:
            return Path(snapshot_download(hub, revision=revision, allow_patterns=["config.json", "*.py"]))
        return Path(hf_hub_download(hub, "config.json", revision=revision)).parent
