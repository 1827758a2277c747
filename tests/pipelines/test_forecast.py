"""``qlora check`` plans for cards that are not there, from a model that is nothing but its configuration."""

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from pipelines.cli import main
from pipelines.forecast import bytes_of
from steps.errors import DeviceError

LLAMA2 = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "vocab_size": 32000,
    "hidden_act": "silu",
}
RECIPE = Path(__file__).resolve().parents[2] / "configs" / "llama2-7b.yaml"


@pytest.fixture
def llama2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shipped recipe on a folder that holds Llama-2-7B's config.json and local rows."""
    monkeypatch.chdir(tmp_path)
    Path("base").mkdir()
    Path("base/config.json").write_text(json.dumps(LLAMA2), encoding="utf-8")
    Path("rows.jsonl").write_text('{"instruction": "a", "completion": "b"}\n', encoding="utf-8")
    values = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    values["parameters"]["base_model"] = {"folder": "base"}
    values["parameters"]["data"] = {"sources": [{"files": "rows.jsonl"}]}
    Path("run.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    return Path("run.yaml")


def check(*options: str) -> Result:
    return CliRunner().invoke(main, ["check", "-c", "run.yaml", *options])


def _change(**parameters: object) -> None:
    values = yaml.safe_load(Path("run.yaml").read_text(encoding="utf-8"))
    for name, value in parameters.items():
        values["parameters"].setdefault(name, {}).update(value)
    Path("run.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")


def test_the_notebooks_recipe_on_a_4090(llama2: Path) -> None:
    output = check("--gpu", "rtx4090", "--memory", "24GiB").output
    lines = [line.split() for line in output.splitlines()]
    total = next(float(words[1]) for words in lines if words[:1] == ["total"])
    assert 4 < total < 23.6
    for part in ("weights", "adapter", "gradients", "optimiser", "activations", "logits", "fragmentation"):
        assert any(words[:1] == [part] for words in lines), part
    (ratio,) = (line for line in output.splitlines() if "the notebook's way" in line)
    assert float(ratio.split("this plan is ")[1].split()[0]) > 1.5
    assert "3 epochs of splits.max_rows, if a row has 200 tokens" in output
    assert "hours a million tokens" in output


def test_less_memory_another_plan(llama2: Path) -> None:
    small, large = (check("--gpu", "h100", "--memory", size).output for size in ("7GiB", "40GB"))
    assert "layers recomputed" in small
    assert "layers recomputed" not in large


def test_named_parameters_are_kept(llama2: Path) -> None:
    _change(plan={"kernels": "plain", "micro_batch": 2, "recompute": "layers"})
    output = check("--gpu", "a100").output
    assert "micro-batch 2 x 5, TRL's own kernels, 32 layers recomputed" in output
    assert "named by parameters.plan.kernels" in output


def test_what_does_not_fit_is_an_error(llama2: Path) -> None:
    result = check("--gpu", "rtx3080", "--memory", "4")
    assert result.exit_code == 1
    (line,) = (line for line in result.output.splitlines() if line.startswith("no plan: "))
    assert "4.0 GiB may be used" in line
    assert "training.lora.r" in line


def test_a_card_without_the_precision(llama2: Path) -> None:
    assert "no plan: parameters.training.precision: Tesla T4" in check("--gpu", "t4").output
    _change(training={"precision": "auto"})
    output = check("--gpu", "t4").output
    assert "plan for Tesla T4" in output
    assert "it needs an Ampere GPU" in output


def test_steps_are_the_run(llama2: Path) -> None:
    _change(training={"max_steps": 7})
    assert "7 optimiser steps (training.max_steps)" in check("--gpu", "l4").output


def test_without_a_card_the_processor(llama2: Path) -> None:
    output = check().output
    if "PyTorch finds no GPU" in output:
        assert "plan for the CPU, since PyTorch finds no GPU: micro-batch 5 x 2, fused kernels" in output
        assert "memory and speed are predicted for GPUs alone" in output
        assert "GiB" not in output[output.index("plan for") : output.index("GPUs alone")]


def test_a_model_that_nobody_knows(llama2: Path) -> None:
    Path("base/config.json").write_text("{}", encoding="utf-8")
    (line,) = (line for line in check("--gpu", "a10").output.splitlines() if line.startswith("no plan: "))
    assert line.startswith("no plan: parameters.base_model: transformers cannot read the configuration")


def test_a_model_that_does_not_continue_texts(llama2: Path) -> None:
    Path("base/config.json").write_text(json.dumps({"model_type": "t5"}), encoding="utf-8")
    result = check("--gpu", "a10")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith(
        "error: plan: parameters.base_model: a model of type t5 does not continue texts; "
    )


@pytest.mark.parametrize("targets", [["q_proj", "query_key_value"], ".*query_key_value"])
def test_layers_that_the_model_has_not(llama2: Path, targets: list[str] | str) -> None:
    _change(training={"lora": {"target_modules": targets}})
    result = check("--gpu", "a10")
    assert result.exit_code == 1
    last = result.stderr.splitlines()[-1]
    assert "target_modules: the base model has no linear layer " in last
    assert last.endswith("query_key_value; it has down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj")


def test_misspelt_options(llama2: Path) -> None:
    assert "--gpu voodoo2 is not in the table of cards" in check("--gpu", "voodoo2").output
    assert "--memory much is no size" in check("--gpu", "h100", "--memory", "much").output


def test_micro_batch_is_checked_on_its_line(llama2: Path) -> None:
    _change(plan={"micro_batch": 4})
    output = check("--gpu", "h100").output
    assert "parameters.plan.micro_batch: 4 does not divide the 10 blocks" in " ".join(output.split())


def test_processes_are_checked_on_their_line(llama2: Path) -> None:
    _change(plan={"distributed": {"processes": 3}})
    said = " ".join(check("--gpu", "h100").output.split())
    assert "parameters.plan.distributed.processes: 3 does not divide the 10 blocks" in said
    _change(plan={"distributed": {"processes": 2}, "micro_batch": 2})
    said = " ".join(check("--gpu", "h100").output.split())
    assert "parameters.plan.micro_batch: 2 does not divide the 5 blocks" in said
    assert "for each of 2 processes; use one of 1, 5" in said


def test_processes_share_a_step(llama2: Path) -> None:
    _change(plan={"distributed": {"processes": 2}})
    said = check("--gpu", "h100").output
    assert "2 x ddp" in said
    assert "optimiser step of 5,120 tokens" in " ".join(said.split())
    assert "by 2 processes, their exchange left out" in " ".join(said.split())


def test_levels_need_kernels(llama2: Path) -> None:
    _change(plan={"kernels": "plain", "recompute": "mlp"})
    assert "recompute mlp needs fused kernels" in check("--gpu", "h100").output


@pytest.mark.parametrize(
    ("text", "size"),
    [("24GiB", 24 * 2**30), ("24 gb", 24 * 10**9), ("24000MiB", 24000 * 2**20), ("24", 24 * 2**30), ("0.5", 2**29)],
)
def test_sizes(text: str, size: int) -> None:
    assert bytes_of(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "24TB", "-1", "0", "1e3"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(DeviceError, match="write it as 24GiB"):
        bytes_of(text)
