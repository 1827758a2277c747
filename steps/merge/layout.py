"""Which tensor of a checkpoint holds which parameter of the model in memory."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Layout:
    """A checkpoint seen from the model's modules; parameters have the names that PEFT gives them."""

    architecture: str
    tensors: dict[str, str]  # parameter -> tensor, where the tensor is the parameter as it is
    converted: frozenset[str]  # parameters that transformers computes from one or several tensors
    tied: dict[str, str]  # parameter -> another one that is the same weight
    transposed: frozenset[str]  # modules whose weight is inputs x outputs: transformers' Conv1D, embeddings
    embedding: str  # the input embedding's weight


def layout_of(folder: Path, tensor_names: Iterable[str], *, trust_remote_code: bool) -> Layout:
    """The layout of the checkpoint in ``folder``, by transformers' own rules for loading it.

    The model is built without weights (on torch's meta device), which takes milliseconds.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.pytorch_utils import Conv1D

    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]  # no types
            config, trust_remote_code=trust_remote_code
        )
    tensors, converted = _parameters(model, tensor_names)
    ties = {**model.all_tied_weights_keys, **{one: other for other, one in model.all_tied_weights_keys.items()}}
    modules = dict(model.named_modules())
    embedding = model.get_input_embeddings()
    return Layout(
        architecture=type(model).__name__,
        tensors=tensors,
        converted=frozenset(converted),
        tied=ties,
        transposed=frozenset(
            name for name, module in modules.items() if isinstance(module, Conv1D | torch.nn.Embedding)
        ),
        embedding=next(f"{name}.weight" for name, module in modules.items() if module is embedding),
    )


def _parameters(model: "PreTrainedModel", tensor_names: Iterable[str]) -> tuple[dict[str, str], set[str]]:
    """Parameters that are one tensor each, and those that are computed; as transformers' loader finds them."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    transforms = get_model_conversion_mapping(model)
    renamings: list[Any] = [one for one in transforms if isinstance(one, WeightRenaming)]
    converters: list[Any] = [one for one in transforms if isinstance(one, WeightConverter)]
    state, prefix = model.state_dict(), model.base_model_prefix
    tensors: dict[str, str] = {}
    converted: set[str] = set()
    for name in tensor_names:
        parameter, converter = rename_source_key(name, renamings, converters, prefix, state)
        if parameter not in state and name in state:
            parameter, converter = name, None
        if converter is None:
            tensors[parameter] = name
        else:
            converted.add(parameter)
    return tensors, converted
