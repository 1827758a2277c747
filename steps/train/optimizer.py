"""Optimiser and schedule: the parameters in transformers' terms."""

from typing import TYPE_CHECKING, Any, cast

from steps.train.params import ScheduleArguments, TrainingParameters

if TYPE_CHECKING:
    from peft import PeftModel
    from torch.optim import Optimizer
    from transformers import PreTrainedModel
    from trl.trainer.sft_trainer import SFTTrainer


def optimizer_arguments(training: TrainingParameters) -> dict[str, Any]:
    """The arguments of transformers' ``TrainingArguments`` that say how weights are moved."""
    first, second = training.betas
    return {
        "optim": training.optimizer,
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": training.schedule,
        "lr_scheduler_kwargs": _given(training.schedule_arguments),
        "warmup_steps": training.warmup_ratio,
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "adam_beta1": first,
        "adam_beta2": second,
        "adam_epsilon": training.epsilon,
    }


def _given(arguments: ScheduleArguments) -> dict[str, object]:
    values = {name: getattr(arguments, name) for name in ScheduleArguments.model_fields}
    return {name: value for name, value in values.items() if value is not None}


def loraplus_optimizer(trainer: "SFTTrainer", training: TrainingParameters, ratio: float) -> "Optimizer":
    """The optimiser that ``training`` names, with the learning rate of every B ``ratio`` times that of A (LoRA+)."""
    from peft.optimizers import create_loraplus_optimizer

    kind, arguments = trainer.get_optimizer_cls_and_kwargs(trainer.args, cast("PreTrainedModel", trainer.model))
    return create_loraplus_optimizer(
        cast("PeftModel", trainer.model),
        kind,
        lr=arguments.pop("lr"),
        loraplus_lr_ratio=ratio,
        loraplus_weight_decay=training.weight_decay,
        **arguments,
    )
