"""Lets a trainer run its micro-batches through a captured step."""

from typing import TYPE_CHECKING, Any

import torch

from steps.train.graph.capture import CapturedStep

if TYPE_CHECKING:
    from trl.trainer.sft_trainer import SFTTrainer
else:
    SFTTrainer = object


class CapturedTraining(SFTTrainer):
    """To be named before TRL's trainer among the bases; without ``captured`` it changes nothing.

    A captured step does not measure what TRL logs beside the loss, entropy and token accuracy.
    """

    captured: CapturedStep | None = None

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], *arguments: Any) -> torch.Tensor:
        """One micro-batch; the ordinary way where it cannot be replayed."""
        if self.captured is not None:
            if not model.training or not self.captured.replayed:
                model.train()
            items = arguments[0] if arguments else None
            loss = self.captured.run(inputs, items)
            if loss is not None:
                self._total_train_tokens += inputs["input_ids"].numel()
                self._metrics["train"]["num_tokens"] = [self._total_train_tokens]
                return loss
        result: torch.Tensor = super().training_step(model, inputs, *arguments)  # type: ignore[no-untyped-call]  # TRL's
        return result
