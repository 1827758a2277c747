"""The tensors of a training's model before its first step and after its last."""

from typing import Any, cast

import pytest
import torch
from peft import PeftModel
from trl.trainer.sft_trainer import SFTTrainer


class Watched:
    """The model of a training, and each of its tensors as the training found it: quantised ones as they are stored."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        original = SFTTrainer.train

        def watched(trainer: SFTTrainer, *args: Any, **arguments: Any) -> object:
            self.model = cast(PeftModel, trainer.model)
            self.before = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
            return original(trainer, *args, **arguments)

        monkeypatch.setattr(SFTTrainer, "train", watched)  # nothing else shows the weights as training finds them

    def moved(self) -> set[str]:
        """Names of the tensors that are not the same bytes any more."""
        after = self.model.state_dict()
        assert after.keys() == self.before.keys()
        return {name for name, tensor in self.before.items() if not torch.equal(tensor, after[name])}

    def trained(self) -> set[str]:
        """Names of those that are trained."""
        return {name for name, weight in self.model.named_parameters() if weight.requires_grad}
