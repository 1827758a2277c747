"""Every kind of adapter trains all its weights and nothing else, loads back with PEFT, and merges."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from datasets import DatasetDict
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.utils.integrations import dequantize_module_weight
from safetensors.torch import load_file, save_file

from steps.device import describe_device
from steps.errors import DataError, ModelError
from steps.files import hashes
from steps.provenance import write_provenance
from steps.quantize.load import load_quantized
from steps.train.params import LoraParameters
from tests.tiny_run import FEW_ANSWERS, TinyRun, with_biases
from tests.train.watched import Watched

SEVEN = 2 * 7
KINDS: dict[str, tuple[LoraParameters, int]] = {
    "alpha and r": (LoraParameters(r=4, alpha=8, dropout=0), 2 * SEVEN),
    "names": (LoraParameters(r=4, target_modules=("q_proj", "v_proj")), 2 * 4),
    "all-linear": (LoraParameters(r=4, target_modules="all-linear"), 2 * SEVEN),
    "expression": (LoraParameters(r=4, target_modules=r".*\.1\.self_attn\.(q|v)_proj"), 2 * 2),
    "modules to save": (LoraParameters(r=4, modules_to_save=("lm_head", "norm")), 2 * SEVEN + 2),
    "embedding": (LoraParameters(r=4, modules_to_save=("embed_tokens",)), 2 * SEVEN + 1),
    "all biases": (LoraParameters(r=4, target_modules=("q_proj",), bias="all"), 2 * 2 + 2 * 7),
    "biases of the targets": (LoraParameters(r=4, target_modules=("q_proj",), bias="lora_only"), 2 * 2 + 2),
    "rslora": (LoraParameters(r=4, rslora=True), 2 * SEVEN),
    "dora": (LoraParameters(r=4, dora=True), 3 * SEVEN),
    "gaussian": (LoraParameters(r=4, initialization="gaussian"), 2 * SEVEN),
    "loftq": (LoraParameters(r=4, initialization="loftq"), 2 * SEVEN),
    "loftq, rslora": (LoraParameters(r=4, initialization="loftq", rslora=True), 2 * SEVEN),
    "eva": (LoraParameters(r=4, initialization="eva"), 2 * SEVEN),
    "eva, dora": (LoraParameters(r=4, initialization="eva", dora=True), 3 * SEVEN),
    "loraplus": (LoraParameters(r=4, loraplus_lr_ratio=8), 2 * SEVEN),
}


@pytest.fixture(scope="module")
def biased(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """The tiny run on a base model whose linear layers have biases."""
    return with_biases(tiny_run, tmp_path_factory.mktemp("biased"))


def train(run: TinyRun, output: Path, lora: LoraParameters, **changes: Any) -> None:
    """Train a few steps into ``output``; bfloat16 would round the logits that are compared."""
    common: dict[str, Any] = {"max_steps": 4, "warmup_ratio": 0.0, "learning_rate": 2e-2, "early_stopping": None}
    run.train(output, lora=lora, **{"precision": "float32", **common, **changes})


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_adapter(biased: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    lora, tensors = KINDS[name]
    watched = Watched(monkeypatch)
    adapter, merged = tmp_path / "adapter", tmp_path / "merged"
    train(biased, adapter, lora)
    assert watched.moved() == watched.trained()
    saved = load_file(adapter / "adapter_model.safetensors")
    assert len(saved) == tensors

    loaded = PeftModel.from_pretrained(load_quantized(biased.model, describe_device("float32")), str(adapter))
    kinds = {name: weight.dtype for name, weight in loaded.named_parameters()}
    for parameter_name, weight in watched.model.named_parameters():
        weight.data = weight.data.to(kinds[parameter_name])  # whole modules come back in the base model's type
    base = cast("Any", watched.model.get_base_model())
    base.set_attn_implementation("sdpa")  # the training's computes the same up to rounding
    ids = torch.tensor([biased.examples["test"][0]["prompt_ids"]], device=loaded.device)
    with torch.inference_mode():
        watched.model.eval()
        torch.testing.assert_close(loaded(ids).logits, watched.model(ids).logits, rtol=0, atol=0)

    merging = FEW_ANSWERS.model_copy(update={"max_logit_difference": 0.5})
    report = replace(biased, adapter=adapter).merge(merged, merging)
    assert report.changed_weights == len({_base_weight(key) for key in saved})


def _base_weight(key: str) -> str:
    base, marker, _ = key.partition(".lora_")
    return f"{base}.weight" if marker else base


def test_a_wrong_target_lists_what_the_model_has(biased: TinyRun, tmp_path: Path) -> None:
    has = "it has down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"
    wrong = {
        "has no linear layer c_attn; " + has: LoraParameters(target_modules=("q_proj", "c_attn")),
        r"has no linear layer .*\.attn\.(q|v); " + has: LoraParameters(target_modules=r".*\.attn\.(q|v)"),
        "cannot have an adapter on lm_head; " + has: LoraParameters(target_modules=("q_proj", "lm_head")),
        "cannot have an adapter on act_fn, mlp; " + has: LoraParameters(target_modules=r".*mlp(\.\w+)?"),
    }
    for number, (message, lora) in enumerate(wrong.items()):
        with pytest.raises(ModelError) as error:
            train(biased, tmp_path / str(number), lora)
        assert str(error.value) == f"parameters.training.lora.target_modules: LlamaForCausalLM {message}"


def test_a_wrong_module_to_save_lists_what_the_model_has(biased: TinyRun, tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=r"modules_to_save: .* no module head, q_proj that can .*; it has embed_tokens, "
    ):
        train(biased, tmp_path / "adapter", LoraParameters(modules_to_save=("head", "q_proj")))


def test_a_tied_embedding_is_not_split(tiny_run: TinyRun, tmp_path: Path) -> None:
    tied = with_biases(tiny_run, tmp_path / "tied", tied=True)
    for module in ("lm_head", "embed_tokens"):
        with pytest.raises(ModelError, match=f"modules_to_save: {module} of LlamaForCausalLM is one weight with"):
            train(tied, tmp_path / module, LoraParameters(modules_to_save=(module,)))


def test_biases_must_be_there(tiny_run: TinyRun, biased: TinyRun, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"lora\.bias: LlamaForCausalLM has no bias to train there; it has none"):
        train(tiny_run, tmp_path / "none", LoraParameters(bias="all"))


def test_a_scale_is_that_of_its_paper(biased: TinyRun, tmp_path: Path) -> None:
    """rsLoRA divides by the root of the rank: with r 4 and alpha 8 the scale is 4 and not 2."""
    for rslora, scale in ((False, 2.0), (True, 4.0)):
        train(biased, tmp_path / str(scale), LoraParameters(r=4, alpha=8, rslora=rslora, target_modules=("q_proj",)))
        loaded = PeftModel.from_pretrained(load_quantized(biased.model, describe_device()), tmp_path / str(scale))
        assert {layer.scaling["default"] for layer in loaded.modules() if isinstance(layer, LoraLayer)} == {scale}


def test_loraplus_moves_b_faster(biased: TinyRun, tmp_path: Path) -> None:
    """Adam's first step is the learning rate in every coordinate, so B starts eight times as far out."""
    for ratio in (None, 8.0):
        lora = LoraParameters(r=4, loraplus_lr_ratio=ratio)
        train(biased, tmp_path / str(ratio), lora, max_steps=1, learning_rate=1e-3, weight_decay=0.0)
    plain, plus = (load_file(tmp_path / str(ratio) / "adapter_model.safetensors") for ratio in (None, 8.0))
    name = next(name for name in plain if "lora_B" in name)
    assert float(plus[name].abs().median() / plain[name].abs().median()) == pytest.approx(8, rel=0.01)


@pytest.mark.parametrize("rslora", [False, True])
def test_loftq_starts_nearer_to_the_full_precision_weights(
    biased: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rslora: bool
) -> None:
    watched = Watched(monkeypatch)
    train(biased, tmp_path / "adapter", LoraParameters(r=16, rslora=rslora, initialization="loftq"), max_steps=1)
    full = load_file(Path(biased.lock.folder) / "model.safetensors")
    for name in ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"):
        layer: Any = watched.model.get_submodule(f"base_model.model.{name}")
        stored = dequantize_module_weight(layer.base_layer).float()
        a, b = (watched.before[f"base_model.model.{name}.lora_{side}.default.weight"].float() for side in "AB")
        error = (full[f"{name}.weight"].float() - stored).norm()
        left = (full[f"{name}.weight"].float() - stored - layer.scaling["default"] * b @ a).norm()
        assert left < 0.75 * error


def test_loftq_is_merged_into_the_rounded_weights(biased: TinyRun, tmp_path: Path) -> None:
    """Into the full-precision ones the rounding error that the adapter makes up for would come twice."""
    adapter, merged = tmp_path / "adapter", tmp_path / "merged"
    train(biased, adapter, LoraParameters(r=16, initialization="loftq"))
    replace(biased, adapter=adapter).merge(merged)
    loaded = PeftModel.from_pretrained(load_quantized(biased.model, describe_device("float32")), str(adapter))
    result = load_file(merged / "model.safetensors")
    for name in ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"):
        layer: Any = loaded.get_submodule(f"base_model.model.{name}")
        trained = dequantize_module_weight(layer.base_layer).float() + layer.get_delta_weight("default").float()
        torch.testing.assert_close(result[f"{name}.weight"].float(), trained, rtol=2**-7, atol=2e-4)


def test_loftq_needs_four_bits_and_the_full_precision_weights(biased: TinyRun, tmp_path: Path) -> None:
    lora = LoraParameters(r=4, initialization="loftq")
    with pytest.raises(
        ModelError, match="loftq makes up for the error of 4-bit weights, and no targeted layer has any"
    ):
        train(replace(biased, model=_with_provenance(biased, biased.lock.folder, tmp_path)), tmp_path / "a", lora)
    base = Path(biased.lock.folder) / "model.safetensors"
    weights = load_file(base)
    save_file({name: weight for name, weight in weights.items() if "layers.1.mlp.up" not in name}, base)
    try:
        with pytest.raises(ModelError, match=r"loftq needs model\.layers\.1\.mlp\.up_proj\.weight, which"):
            train(biased, tmp_path / "b", lora)
    finally:
        save_file(weights, base, metadata={"format": "pt"})


def _with_provenance(run: TinyRun, model: str, folder: Path) -> Path:
    """A copy of a full-precision model that says what the quantised one says of its origin."""
    copy = folder / "full"
    shutil.copytree(model, copy)
    write_provenance(copy, **json.loads((run.model / "provenance.json").read_text()))
    return copy


def test_eva_starts_at_the_inputs_and_shares_ranks_out(
    biased: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(monkeypatch)
    train(biased, tmp_path / "adapter", LoraParameters(r=4, initialization="eva"), max_steps=2)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    ranks = [weight.shape[0] for name, weight in watched.before.items() if "lora_A" in name]
    assert sum(ranks) == 4 * 7 * 2
    assert len(set(ranks)) > 1
    assert set(config["rank_pattern"].values()) <= set(ranks)
    for name, weight in watched.before.items():
        if "lora_A" in name:
            torch.testing.assert_close(weight @ weight.T, torch.eye(len(weight)), rtol=0, atol=0.02)
        assert "lora_B" not in name or not weight.any()
    train(biased, tmp_path / "again", LoraParameters(r=4, initialization="eva"), max_steps=2)
    assert hashes(tmp_path / "again") == hashes(tmp_path / "adapter")


def test_eva_says_what_it_lacks(biased: TinyRun, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"lora\.r: eva looks for 128 directions .* narrowest has 64; use 32 or less"):
        train(biased, tmp_path / "wide", LoraParameters(r=64, initialization="eva"))
    short = biased.blocks["train"].select(range(1)).map(lambda block: {"labels": [-100] * len(block["labels"])})
    few = replace(biased, blocks=DatasetDict(train=short, validation=biased.blocks["validation"]))
    with pytest.raises(DataError, match="eva needs a batch with 8 trained tokens and there is none"):
        train(few, tmp_path / "few", LoraParameters(r=4, initialization="eva"))


def test_small_steps_move_whole_modules_and_biases(biased: TinyRun, tmp_path: Path) -> None:
    """A step of 1e-4 is lost in bfloat16 beside a weight of 1.0: neighbours there are 0.004 or more apart."""
    lora = LoraParameters(r=4, modules_to_save=("norm", "lm_head", "embed_tokens"), bias="all")
    train(biased, tmp_path / "adapter", lora, precision="bfloat16", learning_rate=1e-4)
    weight = load_file(tmp_path / "adapter" / "adapter_model.safetensors")["base_model.model.model.norm.weight"]
    assert weight.dtype == torch.float32
    assert 0 < (weight - 1).abs().max() < 1e-3
