"""One answer from a tuned model: of the registry, or of a folder."""

from pathlib import Path

import click

from pipelines.versions import STAGES, model_named_in, model_version, version_in_stage
from steps.errors import ModelError


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
    from steps.merge.serve import load_tuned, print_answer

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
    version = model_version(name, number) if colon else version_in_stage(model, model_named_in(config))
    artifact = version.get_artifact("merged_model")
    if artifact is None:
        raise ModelError(
            f"version {version.number} of model {version.model.name} has no merged model; run it to its end"
        )
    folder: Path = artifact.load().path
    return folder
