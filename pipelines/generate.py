"""One answer from a tuned model, of the registry or of a folder, printed while it is written."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipelines.versions import STAGES, model_named_in, model_version, version_in_stage
from steps.device import Device, describe_device
from steps.errors import DataError, ModelError
from steps.merge.load import load_model, put_adapter
from steps.merge.loftq import rounding_of
from steps.provenance import PROVENANCE, read_provenance
from steps.resolve.base_model import local_model
from steps.resolve.locks import ModelLock
from steps.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def generate(instruction: str, model: str, config: Path | None, max_new_tokens: int) -> None:
    """Print the model's answer while it is written; a note on the error stream where it was cut.

    Args:
        instruction: what is asked, as a row's instruction.
        model: ``production``, ``staging`` or ``latest`` of the registry, ``MODEL:VERSION``, or the folder of a merged
            model or adapter.
        config: configuration of a run, for the name of its model; needed where several models have such a version.
        max_new_tokens: tokens after which the answer is cut.

    Raises:
        PipelineError: the model is not to be had, or the instruction cannot be asked.
    """
    tuned, tokenizer = load_tuned(folder_of(model, config))
    if not print_answer(tuned, tokenizer, instruction, max_new_tokens):
        click.echo(f"(cut after {max_new_tokens} tokens; --max-new-tokens says how many there may be)", err=True)


def folder_of(model: str, config: Path | None) -> Path:
    """Where the model's files lie; those of the registry are checked against their hashes first.

    Raises:
        ModelError: there is no such folder, version or merged model, or a file is not what was stored.
    """
    if Path(model).exists() and model not in STAGES:
        return Path(model)
    name, colon, number = model.rpartition(":")
    if model not in STAGES and not colon:
        raise ModelError(f"--model {model}: neither a folder nor one of {', '.join(STAGES)}, nor MODEL:VERSION")
    if colon:
        version = model_version(name, number)
    else:
        version = version_in_stage(model, model_named_in(config), "name the run's configuration with -c")
    artifact = version.get_artifact("merged_model")
    if artifact is None:
        raise ModelError(
            f"version {version.number} of model {version.model.name} has no merged model; run it to its end"
        )
    folder: Path = artifact.load().path
    return folder


def load_tuned(folder: Path) -> "tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase]":
    """The model of a merged model's directory, or the base at full precision with the adapter of an adapter's.

    Raises:
        ModelError: the directory holds neither, has no tokenizer, no chat template or, with an adapter, no record of
            its base; or the base is not there any more.
    """
    is_adapter = (folder / "adapter_config.json").is_file()
    if not is_adapter and not (folder / "config.json").is_file():
        raise ModelError(f"{folder}: neither config.json nor adapter_config.json is there; give a model's folder")
    tokenizer = load_tokenizer(folder)
    if not tokenizer.chat_template:
        raise ModelError(f"{folder}: the tokenizer has no chat template; give the folder that this pipeline made")
    device = describe_device()
    return (_with_adapter(folder, device) if is_adapter else _load(folder, device, trusted=False)), tokenizer


def _with_adapter(folder: Path, device: Device) -> "PeftModel":
    if not (folder / PROVENANCE).is_file():
        raise ModelError(f"{folder / PROVENANCE}: missing; it says what the adapter's base model is")
    provenance = read_provenance(folder)
    lock = ModelLock.model_validate(provenance["base_model"])
    base = _load(local_model(lock), device, trusted=lock.trust_remote_code)
    return put_adapter(base, folder, rounding_of(provenance))


def _load(folder: Path, device: Device, *, trusted: bool) -> "PreTrainedModel":
    try:
        return load_model(folder, device, trust_remote_code=trusted)
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder}: no model can be loaded there ({str(error).splitlines()[0]})") from error


def print_answer(
    model: "PreTrainedModel | PeftModel", tokenizer: "PreTrainedTokenizerBase", instruction: str, max_new_tokens: int
) -> bool:
    """Print the greedy answer word by word as it is written; whether the model ended it by itself.

    Raises:
        DataError: the chat template refuses the instruction.
    """
    import torch
    from jinja2 import TemplateError
    from transformers import TextStreamer

    chat = [{"role": "user", "content": instruction}]
    try:
        prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    except TemplateError as error:
        raise DataError(f"the instruction cannot be asked: {error}; reword it") from error
    streamer = TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    with torch.inference_mode():
        output = model.generate(  # type: ignore[operator]  # PreTrainedModel's types leave the mixin out
            **prompt.to(model.device),  # type: ignore[union-attr]  # a mapping, since return_dict asks for one
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            streamer=streamer,
        )
    sys.stdout.flush()
    return bool(output[0, -1] == tokenizer.eos_token_id)
