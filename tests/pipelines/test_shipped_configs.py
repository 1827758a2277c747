"""Every configuration that the project ships passes the check and compiles."""

from pathlib import Path

import pytest
from zenml.client import Client
from zenml.config.compiler import Compiler
from zenml.config.pipeline_run_configuration import PipelineRunConfiguration

from pipelines.finetune import finetune

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs").glob("*.yaml"))


def test_there_are_configurations() -> None:
    assert {"quickstart.yaml", "llama2-7b.yaml", "own-data.yaml"} <= {path.name for path in CONFIGS}


@pytest.mark.parametrize("path", CONFIGS, ids=[path.name for path in CONFIGS])
def test_a_shipped_configuration_compiles(path: Path) -> None:
    pipeline = finetune.with_options(config_path=str(path))
    pipeline.prepare()
    snapshot = Compiler().compile(
        pipeline=pipeline,
        stack=Client().active_stack,
        run_configuration=PipelineRunConfiguration.from_yaml(str(path)),
    )
    assert set(snapshot.step_configurations) == set(finetune.step_names) - {"export"}, "none asks for an export"


def test_llama2_7b_is_the_notebook() -> None:
    """Every number of the notebook, under the name that it has here."""
    values = finetune.check(CONFIGS[0].with_name("llama2-7b.yaml")).parameters
    given = {name: value.model_dump(mode="json") for name, value in values.items()}
    assert given["base_model"]["hub"] == "TinyPixel/Llama-2-7B-bf16-sharded"
    assert given["quantization"] == {"kind": "nf4", "double_quantization": True, "compute_dtype": "bfloat16"}
    assert given["splits"]["max_rows"] == 1000
    template = given["prompt"].pop("template")
    assert template["system"] == (
        "You are an AI coding assistant specialized in generating Python code from user instructions.\n"
        "Your task is to return only the code that directly fulfills the given instruction."
    )
    first_turn = template["prompt"].replace("{system}", template["system_frame"])
    assert first_turn == "### INSTRUCTION:\n{system}{eos}\n\n### Input:\n{instruction}{eos}\n\n### RESPONSE:\n"
    assert template["completion"] == "{completion}{eos}"
    assert given["prompt"] == {
        "system": None,
        "max_length": 512,
        "too_long": "drop",
        "packing": "wrapped",
        "loss_on": "all",
    }
    lora = given["training"].pop("lora")
    projections = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert set(lora.pop("target_modules")) == projections
    assert lora == {
        "r": 64,
        "alpha": 16,
        "dropout": 0.05,
        "bias": "none",
        "modules_to_save": [],
        "rslora": False,
        "dora": False,
        "initialization": "default",
        "loraplus_lr_ratio": None,
    }
    assert set(given["training"].pop("schedule_arguments").values()) == {None}
    del given["training"]["divergence"]  # what the notebook does not look at
    assert given["training"] == {
        "epochs": 3,
        "max_steps": None,
        "batch_size": 5,
        "gradient_accumulation": 2,
        "learning_rate": 2e-4,
        "schedule": "constant_with_warmup",
        "warmup_ratio": 0.03,
        "weight_decay": 0.001,
        "max_grad_norm": 0.3,
        "optimizer": "adamw_torch_fused",
        "betas": [0.9, 0.999],
        "epsilon": 1e-8,
        "precision": "bfloat16",
        "attention": "auto",
        "evaluate_every": 1,
        "evaluations_per_epoch": None,
        "early_stopping": {"patience": 3, "min_improvement": 0.0},
        "seed": 42,
    }
