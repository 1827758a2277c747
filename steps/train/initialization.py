"""How the adapter starts where that needs more than its shape: LoftQ and EVA."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from steps.errors import DataError, ModelError
from steps.resolve.base_model import local_model
from steps.resolve.locks import ModelLock
from steps.tokenizer import IGNORED
from steps.train.adapter import KEY, trainable
from steps.train.params import TrainingParameters

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from peft.tuners.lora import Linear4bit
    from trl.trainer.sft_trainer import SFTTrainer


def initialize(trainer: "SFTTrainer", training: TrainingParameters, base: dict[str, object]) -> None:
    """Set the adapter's first weights where PEFT has not when it made the adapter.

    Args:
        trainer: holds the model with its adapter, the training blocks and their collator.
        training: which initialisation.
        base: the base model's lock, as the quantised model's provenance has it; LoftQ reads its weights.

    Raises:
        ModelError: the model or its base lacks what the initialisation needs.
        DataError: no batch has tokens enough for EVA.
    """
    model = cast("PeftModel", trainer.model)
    if training.lora.initialization == "loftq":
        loftq(model, local_model(ModelLock.model_validate(base)))
    elif training.lora.initialization == "eva":
        eva(model, trainer, training)


def loftq(model: "PeftModel", base_folder: Path) -> None:
    """Start at the best approximation, of the adapter's rank, of what the quantisation lost in each layer.

    PEFT's ``replace_lora_weights_loftq`` runs on a GPU alone and leaves out the scale alpha / r, with which
    the product would be off by that factor; this is its one step with both put right.

    Raises:
        ModelError: no layer is in 4 bits, or the base has no weight of a layer's name.
    """
    import torch
    from peft.tuners.lora import Linear4bit
    from safetensors import safe_open

    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, Linear4bit)}
    if not layers:
        raise ModelError(
            f"{KEY}.initialization: loftq makes up for the error of 4-bit weights, and no targeted layer has any; "
            "use default, gaussian or eva"
        )
    wanted = {f"{name.removeprefix('base_model.model.')}.weight": layer for name, layer in layers.items()}
    for path in sorted(base_folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as tensors, torch.no_grad():
            for name in wanted.keys() & set(tensors.keys()):
                _make_up(wanted.pop(name), tensors.get_tensor(name), f"{path}: {name}")
    if wanted:
        raise ModelError(f"{KEY}.initialization: loftq needs {min(wanted)}, which {base_folder} lacks; use default")


def _make_up(layer: "Linear4bit", weight: "torch.Tensor", where: str) -> None:
    """Set B and A so that scale x B A is the truncated singular value decomposition of the layer's error."""
    import torch
    from peft.utils.integrations import dequantize_module_weight

    stored = dequantize_module_weight(layer.get_base_layer()).float()
    if weight.shape != stored.shape:
        raise ModelError(f"{where} is not at full precision, which {KEY}.initialization loftq needs; use default")
    left, values, right = torch.linalg.svd(weight.to(stored.device).float() - stored, full_matrices=False)
    rank = min(layer.r["default"], len(values))  # a narrow layer's further directions stay as they began
    roots = (values[:rank] / layer.scaling["default"]).sqrt()
    layer.lora_A["default"].weight[:rank].copy_(roots[:, None] * right[:rank])
    layer.lora_B["default"].weight[:, :rank].copy_(left[:, :rank] * roots)


def eva(model: "PeftModel", trainer: "SFTTrainer", training: TrainingParameters) -> None:
    """Start along the principal components of each layer's inputs, ranks redistributed (PEFT's own).

    Raises:
        ModelError: the narrowest layer has fewer inputs than directions are looked for.
    """
    from peft import EvaConfig, initialize_lora_eva_weights
    from peft.tuners.lora import LoraLayer

    rho = EvaConfig().rho
    components = round(training.lora.r * rho)
    layers: list[Any] = [module for module in model.modules() if isinstance(module, LoraLayer)]
    narrowest = min(layer.in_features for layer in layers)
    if components > narrowest:
        raise ModelError(
            f"{KEY}.r: eva looks for {components} directions in the inputs of a layer, and the narrowest has "
            f"{narrowest}; use {int(narrowest / rho)} or less"
        )
    kind = next(weight.dtype for name, weight in trainable(model).items() if "lora_A" in name)
    initialize_lora_eva_weights(
        model,
        _LargeBatches(trainer, training, components),
        forward_fn=lambda model, batch: model(**batch, use_cache=False),  # a cache would join packed neighbours
        show_progress_bar=False,
    )
    for name, weight in trainable(model).items():
        if "lora_A" in name or "lora_B" in name:
            weight.data = weight.data.to(kind)  # layers of a new rank are made in float32


class _LargeBatches:
    """Batches with tokens enough for EVA's decomposition, as often as it asks; PEFT would wait for one for ever."""

    def __init__(self, trainer: "SFTTrainer", training: TrainingParameters, tokens: int) -> None:
        import torch

        self.tokens = tokens
        self.loader: torch.utils.data.DataLoader[Any] = torch.utils.data.DataLoader(
            cast("torch.utils.data.Dataset[Any]", trainer.train_dataset),
            batch_size=training.batch_size,
            shuffle=True,
            collate_fn=trainer.data_collator,
            generator=torch.Generator().manual_seed(training.seed),  # its own: the training's order stays
        )

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[dict[str, "torch.Tensor"]]:
        found = False
        for batch in self.loader:
            if int((batch["labels"] != IGNORED).sum()) >= self.tokens:
                found = True
                yield batch
        if not found:
            raise DataError(
                f"{KEY}.initialization: eva needs a batch with {self.tokens} trained tokens and there is none; raise "
                "parameters.training.batch_size or lower lora.r"
            )
