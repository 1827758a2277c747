"""The streamed merge gives what PEFT's own gives, for every kind of adapter and every type."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from steps.errors import ModelError
from steps.files import hashes
from steps.merge.stream import plan_merge
from steps.merge.tensors import read_header, weight_files
from steps.merge.verify import changed_weights
from tests.merge.bases import DTYPES, merged_by_peft, stored_weights, write_adapter, write_base, write_merged

LLAMA: dict[str, Any] = {"target_modules": ["q_proj", "down_proj"]}
GPT2: dict[str, Any] = {"target_modules": ["c_attn", "c_proj"]}
PATTERNS: dict[str, Any] = {
    "rank_pattern": {"down_proj": 2, r"0\.self_attn\.q_proj": 8},
    "alpha_pattern": {r"layers\.1\..*": 3},
}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("llama", LLAMA),
    "rslora": ("llama", {**LLAMA, "use_rslora": True}),
    "dora": ("llama", {**LLAMA, "use_dora": True}),
    "modules to save": ("llama", {**LLAMA, "modules_to_save": ["lm_head", "norm", "embed_tokens"]}),
    "biases of the targets": ("llama", {**LLAMA, "bias": "lora_only"}),
    "all biases": ("llama", {**LLAMA, "bias": "all"}),
    "patterns": ("llama", {**LLAMA, **PATTERNS}),
    "patterns, rslora, dora": ("llama", {**LLAMA, **PATTERNS, "use_rslora": True, "use_dora": True}),
    "output layer": ("llama", {"target_modules": ["lm_head"]}),
    "embedding": ("llama", {"target_modules": ["embed_tokens"]}),
    "tied": ("tied", LLAMA),
    "conv1d": ("gpt2", GPT2),
    "conv1d, dora": ("gpt2", {**GPT2, "use_dora": True}),
    "conv1d, biases": ("gpt2", {**GPT2, "bias": "all", "modules_to_save": ["ln_f"]}),
}
UNITS = 8
"""Of float32's rounding, at a tensor's largest value: a sum of at most eight products, its scaling and its addition.

In which order a product is summed, and which factor it scales beforehand, is up to the processor's own kernel: with a
scale that is no power of two some give other last bits than PEFT's three operations, with DoRA others do with any. The
largest differences met, over several kernels, are two units; a scale 1 % off makes tens of thousands.
"""
TIES = 0.01
"""Share of a narrower type's values that such a difference may carry to a neighbour.

Met: below one in a thousand; a scale 1 % off moves more than half.
"""


def merge(base: Path, adapters: list[Path], folder: Path) -> Path:
    """A model folder with the merged weights, and with the proof that they are."""
    plan = plan_merge(base, adapters)
    output = write_merged(plan, base, folder / "merged")
    changed_weights(base, output, plan, "cpu")
    return output


def state(folder: Path) -> dict[str, torch.Tensor]:
    """The model's weights as transformers loads them."""
    weights: dict[str, torch.Tensor] = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    return weights


def with_products(adapters: list[Path]) -> set[str]:
    """Names of the weights to which a product is added; all others are copied, from base or adapter."""
    keys = [key for adapter in adapters for key in load_file(adapter / "adapter_model.safetensors")]
    found = [re.fullmatch(r"base_model\.model\.(.+)\.lora_(?:embedding_)?A(?:\.weight)?", key) for key in keys]
    return {f"{match[1]}.weight" for match in found if match}


def require_equal_to_peft(base: Path, adapters: list[Path], merged: Path) -> None:
    """What is copied bit for bit, the sums as PEFT's in float32, rounded once to the model's type."""
    before, expected, found = state(base), merged_by_peft(base, adapters), state(merged)
    products = with_products(adapters)
    assert found.keys() == expected.keys() >= products
    for name, weight in found.items():
        assert weight.dtype == before[name].dtype
        if name in products:
            assert not torch.equal(before[name], weight), name
            require_rounded_once(weight, expected[name], name)
        else:
            assert torch.equal(weight, expected[name].to(weight.dtype)), name


def require_rounded_once(weight: torch.Tensor, exact: torch.Tensor, name: str) -> None:
    """Within ``UNITS`` of the float32 sum, or on its rounding to the type but for ``TIES``, which are neighbours."""
    slack = UNITS * torch.finfo(torch.float32).eps * exact.abs().max()
    if weight.dtype != torch.float32:
        kind = torch.finfo(weight.dtype)
        assert (weight != exact.to(weight.dtype)).float().mean() <= TIES, name
        slack = slack + kind.eps / 2 * exact.abs().clamp(min=kind.tiny)
    assert ((weight.float() - exact).abs() <= slack).all(), name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", KINDS)
def test_as_peft_merges(tmp_path: Path, name: str, dtype: str) -> None:
    kind, lora = KINDS[name]
    base = write_base(tmp_path, kind, dtype)
    assert len(weight_files(base)) > 1
    adapter = write_adapter(tmp_path / "adapter", base, **lora)
    require_equal_to_peft(base, [adapter], merge(base, [adapter], tmp_path))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["lora", "patterns, rslora, dora", "embedding", "conv1d, dora"])
def test_a_scale_one_percent_off_is_seen(tmp_path: Path, name: str, dtype: str) -> None:
    """By the comparison above: its bounds leave room for rounding alone."""
    kind, lora = KINDS[name]
    base = write_base(tmp_path, kind, dtype)
    adapter, off = (write_adapter(tmp_path / folder, base, **lora) for folder in ("adapter", "off"))
    weights = load_file(off / "adapter_model.safetensors")
    scaled = {
        key: weight * 1.01 if ".lora_B" in key or "embedding_B" in key else weight for key, weight in weights.items()
    }
    save_file(scaled, off / "adapter_model.safetensors")
    with pytest.raises(AssertionError, match=r"\.weight"):
        require_equal_to_peft(base, [adapter], merge(base, [off], tmp_path))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_an_update_that_is_rounded_too_is_seen(tmp_path: Path, dtype: str) -> None:
    """PEFT's own, in a model's narrower type: it rounds the update and then the sum."""
    base = write_base(tmp_path, "llama", dtype)
    adapter = write_adapter(tmp_path / "adapter", base, **LLAMA)
    exact, twice = merged_by_peft(base, [adapter]), merged_by_peft(base, [adapter], dtype)
    for name in with_products([adapter]):
        assert torch.allclose(twice[name].float(), exact[name], rtol=0, atol=2 * torch.finfo(DTYPES[dtype]).eps)
        with pytest.raises(AssertionError, match=re.escape(name)):
            require_rounded_once(twice[name], exact[name], name)


@pytest.mark.parametrize("dtype", DTYPES)
def test_several_adapters_in_order(tmp_path: Path, dtype: str) -> None:
    base = write_base(tmp_path, "llama", dtype)
    settings: list[dict[str, Any]] = [{**LLAMA, "use_dora": True}, {"target_modules": ["q_proj"], "r": 8}]
    adapters = [write_adapter(tmp_path / str(seed), base, seed, **lora) for seed, lora in enumerate(settings)]
    require_equal_to_peft(base, adapters, merge(base, adapters, tmp_path))
    again = tmp_path / "again"
    again.mkdir()
    swapped = merge(base, adapters[::-1], again)
    assert hashes(swapped) != hashes(tmp_path / "merged"), "magnitudes are set before or after the other's update"


def test_a_block_of_rows_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that come in many small blocks, the last one shorter, give what one block gives."""
    for kind in ("llama", "gpt2"):
        folder = tmp_path / kind
        base = write_base(folder, kind, "bfloat16")
        targets = (LLAMA if kind == "llama" else GPT2)["target_modules"]
        adapter = write_adapter(folder / "adapter", base, target_modules=targets, use_dora=True, bias="all")
        whole = merge(base, [adapter], folder)
        monkeypatch.setattr("steps.merge.stream.BLOCK", 5 * 4 * 64)  # five rows of 64 values
        (folder / "blocks").mkdir()
        assert _near(stored_weights(merge(base, [adapter], folder / "blocks")), stored_weights(whole))
        monkeypatch.undo()


def _near(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Equal but for a last bit here and there, since products of other shapes are summed in another order."""
    return all(torch.allclose(one[name].float(), other[name].float(), rtol=2**-7, atol=1e-7) for name in other)


def test_headers_and_names_are_the_base_models(tmp_path: Path) -> None:
    """A checkpoint of GPT-2 as the hub has it: names without ``transformer.``, which transformers adds."""
    base = write_base(tmp_path, "gpt2", "float32")
    for path in weight_files(base):
        weights = {name.removeprefix("transformer."): weight for name, weight in load_file(path).items()}
        save_file(weights, path, metadata={"format": "pt"})
    index = json.loads((base / "model.safetensors.index.json").read_text())
    index["weight_map"] = {name.removeprefix("transformer."): path for name, path in index["weight_map"].items()}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    adapter = write_adapter(tmp_path / "adapter", base, **GPT2)
    require_equal_to_peft(base, [adapter], merge(base, [adapter], tmp_path))
    for path in weight_files(base):
        assert read_header(path) == read_header(tmp_path / "merged" / path.name)


def test_what_cannot_be_merged_is_one_error(tmp_path: Path) -> None:
    base, tied = write_base(tmp_path / "a", "llama", "bfloat16"), write_base(tmp_path / "b", "tied", "bfloat16")
    gpt2 = write_base(tmp_path / "c", "gpt2", "bfloat16")
    lora = write_adapter(tmp_path / "lora", base, **LLAMA)
    head = write_adapter(tmp_path / "head", base, target_modules=["lm_head"])
    whole = write_adapter(tmp_path / "whole", base, **LLAMA, modules_to_save=["embed_tokens"])
    with pytest.raises(
        ModelError, match=r"lora: it trained model\.layers\.0\.mlp\.down_proj\.weight, and .*GPT2LMHead"
    ):
        plan_merge(gpt2, [lora])
    with pytest.raises(ModelError, match=r"head: lm_head\.weight is one weight with model\.embed_tokens\.weight"):
        plan_merge(tied, [head])
    embedding = load_file(whole / "adapter_model.safetensors")
    name = "base_model.model.model.embed_tokens.weight"
    save_file({**embedding, name: torch.zeros(401, 64)}, whole / "adapter_model.safetensors")
    with pytest.raises(
        ModelError, match=r"embed_tokens\.weight is 401 x 64 and the base model's 400 x 64 \(another voc"
    ):
        plan_merge(base, [whole])
    weights = load_file(lora / "adapter_model.safetensors")
    lost = {name: weight for name, weight in weights.items() if "0.self_attn.q_proj.lora_A" not in name}
    for changed, message in (
        (lost, r"layers\.0\.self_attn\.q_proj has only one of A and B"),
        ({**weights, "base_model.model.x.lora_B.bias": torch.ones(1)}, r"x\.lora_B\.bias is a kind of adapter weight"),
    ):
        save_file(changed, lora / "adapter_model.safetensors")
        with pytest.raises(ModelError, match=message):
            plan_merge(base, [lora])
    for change, message in (({"init_lora_weights": "pissa"}, "pissa, changed the base"), ({"peft_type": "IA3"}, "IA3")):
        config = json.loads((head / "adapter_config.json").read_text())
        (head / "adapter_config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(ModelError, match=message):
            plan_merge(base, [head])


def test_a_weight_that_is_not_finite_is_one_error(tmp_path: Path) -> None:
    base = write_base(tmp_path, "llama", "float16")
    adapter = write_adapter(tmp_path / "adapter", base, **LLAMA, init_lora_weights=False)
    weights = load_file(adapter / "adapter_model.safetensors")
    large = {name: weight * 1e5 if "0.self_attn" in name else weight for name, weight in weights.items()}
    save_file(large, adapter / "adapter_model.safetensors")
    with pytest.raises(ModelError, match=r"merged, model\.layers\.0\.self_attn\.q_proj\.weight is not finite"):
        merge(base, [adapter], tmp_path)


def test_damaged_files_are_one_error(tmp_path: Path) -> None:
    base = write_base(tmp_path, "llama", "bfloat16")
    adapter = write_adapter(tmp_path / "adapter", base, **LLAMA)
    path = weight_files(base)[0]
    original = path.read_bytes()
    for content, message in (
        (original[:-1], r"bytes where its header says"),
        (b"\x08" + original[1:], r"not a safetensors file"),
        (b"", r"not a safetensors file"),
    ):
        path.write_bytes(content)
        with pytest.raises(ModelError, match=message):
            plan_merge(base, [adapter])
    path.unlink()
    with pytest.raises(ModelError, match=r"the weights are not there"):
        plan_merge(base, [adapter])
