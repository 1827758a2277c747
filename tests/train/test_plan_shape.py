"""Shapes are those of the models that transformers builds."""

import pytest
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PretrainedConfig, Qwen2Config

from steps.device import choose as choose_device
from steps.quantize.params import QuantizationParameters
from steps.train.params import LoraParameters, TrainingParameters
from steps.train.plan.cards import named_card
from steps.train.plan.choose import plans
from steps.train.plan.job import Job
from steps.train.plan.params import PlanParameters
from steps.train.plan.shape import shape_of, shape_of_folder
from tests.tiny_run import TinyRun

SMALL = {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4}
CONFIGS = {
    "llama": LlamaConfig(**SMALL, num_key_value_heads=2),  # type: ignore[arg-type]  # a mapping has one type of value
    "tied": LlamaConfig(**SMALL, tie_word_embeddings=True),  # type: ignore[arg-type]  # as above
    "qwen2": Qwen2Config(**SMALL, num_key_value_heads=2),  # type: ignore[arg-type]  # as above
    "gpt2": GPT2Config(n_layer=2, n_embd=64, n_head=4),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_every_parameter_is_counted(config: PretrainedConfig) -> None:
    shape = shape_of(config)
    model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]  # transformers' own
    assert shape.linear_weights + shape.other == model.num_parameters()
    plain = QuantizationParameters(kind="none")
    assert shape.weight_bytes(plain, 4) == sum(one.numel() * 4 for one in model.parameters())


def test_lora_parameters_are_those_of_peft() -> None:
    from peft import LoraConfig, get_peft_model

    for targets in ("all-linear", r".*\.(q|v)_proj", ("q_proj", "mlp.down_proj")):
        lora = LoraParameters(r=8, target_modules=targets)
        model = AutoModelForCausalLM.from_config(CONFIGS["llama"])  # type: ignore[no-untyped-call]  # transformers' own
        names = targets if isinstance(targets, str) else list(targets)
        trained, _ = get_peft_model(model, LoraConfig(r=8, target_modules=names)).get_nb_trainable_parameters()
        assert shape_of(CONFIGS["llama"]).lora_parameters(lora) == trained


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_every_architecture_has_a_plan(config: PretrainedConfig) -> None:
    hardware = named_card("t4").hardware(flash_attention=False)
    training = TrainingParameters(lora=LoraParameters(target_modules="all-linear"))
    best = plans(Job(shape_of(config), training, choose_device(hardware), 128), PlanParameters(), hardware)[0]
    assert best.plan.fused == (config.model_type != "gpt2")
    assert best.memory.activations > 0


def test_a_quantised_folder_has_the_shape_of_its_model(tiny_run: TinyRun) -> None:
    shape = shape_of_folder(tiny_run.model)
    assert (shape.layers, shape.swiglu) == (2, True)
    assert all(one.inputs > 1 for one in shape.linear)  # a packed weight has one column
