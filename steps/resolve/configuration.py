"""The base model's configuration alone: of a hub model one small file, and never the weights."""

import io
from contextlib import redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING

from steps.errors import ModelError
from steps.resolve.base_model import NOT_CAUSAL, hub_errors, model_folder, package_folder
from steps.resolve.params import BaseModelParameters

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def model_config(base_model: BaseModelParameters) -> "PretrainedConfig":
    """What transformers knows of the model before it has weights.

    Raises:
        ModelError: the model cannot be reached, transformers does not know its architecture, or it is one that does
            not continue texts.
    """
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    folder, gguf = _folder(base_model), {"gguf_file": base_model.gguf} if base_model.gguf else {}
    try:
        with redirect_stderr(io.StringIO()):  # a GGUF file's progress bar, which no setting turns off
            config: PretrainedConfig = AutoConfig.from_pretrained(
                folder, trust_remote_code=base_model.trust_remote_code, **gguf
            )
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"parameters.base_model: transformers cannot read the configuration ({reason})") from error
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING and not base_model.trust_remote_code:
        raise ModelError(f"parameters.base_model: a model of type {config.model_type} {NOT_CAUSAL}")
    return config


def _folder(base_model: BaseModelParameters) -> Path:
    if base_model.folder is not None:
        return model_folder(base_model.folder)
    if base_model.package is not None:
        return package_folder(base_model.package)
    from huggingface_hub import hf_hub_download, snapshot_download

    hub, revision = base_model.hub or "", base_model.revision
    with hub_errors(hub, revision):
        if base_model.trust_remote_code:
            return Path(snapshot_download(hub, revision=revision, allow_patterns=["config.json", "*.py"]))
        return Path(hf_hub_download(hub, "config.json", revision=revision)).parent
