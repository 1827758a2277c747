"""The fused path computes what PEFT's own path computes: outputs, gradients, losses, saved files."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file
from transformers import LlamaConfig
from trl.trainer.sft_trainer import SFTTrainer

from steps.quantize.device import describe_device
from steps.quantize.load import load_quantized
from steps.train.kernels import elementwise, mlp
from steps.train.kernels.forwards import SharedInput
from steps.train.kernels.fuse import Fusion, Recompute, fuse
from steps.train.kernels.recognise import is_llama_norm, is_swiglu
from steps.train.kernels.weights import FrozenWeights, Scratch
from steps.train.params import SEVEN_PROJECTIONS
from tests.tiny_peft import float32_trainer, step, tiny_peft, tokens
from tests.tiny_run import TinyRun

TOLERANCE = {"float32": 2e-5, "bfloat16": 2e-2}
"""Allowed difference, as a share of the norm: a few roundings of the type."""


def decoder(model: PeftModel) -> Any:
    """Llama without its head."""
    return cast(Any, model).base_model.model.model


def first_layer(model: PeftModel) -> Any:
    return decoder(model).layers[0]


def differ(one: torch.Tensor, other: torch.Tensor) -> float:
    """Norm of the difference over the norm."""
    return float((one.float() - other.float()).norm() / other.float().norm())


def compare(model: PeftModel, precision: str, **options: Any) -> Fusion:
    """Fuse the model and hold its step against what it did before."""
    logits, gradients = step(model)
    fusion = fuse(model, **options)
    fused_logits, fused_gradients = step(model)
    assert differ(fused_logits, logits) < TOLERANCE[precision]
    assert fused_gradients.keys() == gradients.keys()
    assert len(gradients) == sum(weight.requires_grad for weight in model.parameters())
    off = {name: differ(fused_gradients[name], gradients[name]) for name in gradients}
    assert max(off.values()) < TOLERANCE[precision] * 3, max(off.items(), key=lambda item: item[1])
    return fusion


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("key_value_heads", [4, 1])
@pytest.mark.parametrize("recompute", ["nothing", "norms", "mlp", "layers"])
def test_outputs_and_gradients_are_pefts(
    tmp_path: Path, precision: str, key_value_heads: int, recompute: Recompute
) -> None:
    model = tiny_peft(tmp_path, precision, key_value_heads)
    fusion = compare(model, precision, recompute=recompute)
    assert (fusion.projections, fusion.mlps, fusion.norms, fusion.left) == (14, 2, 5, {})


@pytest.mark.parametrize("recompute", ["norms", "mlp", "layers"])
def test_recomputation_changes_no_number(tmp_path: Path, recompute: Recompute) -> None:
    model = tiny_peft(tmp_path)
    fuse(model)
    logits, gradients = step(model)
    again = tiny_peft(tmp_path)
    fuse(again, recompute=recompute)
    other_logits, other_gradients = step(again)
    assert torch.equal(other_logits, logits)
    for name, gradient in gradients.items():
        torch.testing.assert_close(other_gradients[name], gradient, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_held_weights_are_the_same_numbers(tmp_path: Path, precision: str) -> None:
    """Dequantised once or in each pass, a product sees the same matrix."""
    model, held = tiny_peft(tmp_path, precision), tiny_peft(tmp_path, precision)
    fuse(model)
    fuse(held, hold=True)
    (logits, gradients), (held_logits, held_gradients) = step(model), step(held)
    assert torch.equal(held_logits, logits)
    for name, gradient in gradients.items():
        torch.testing.assert_close(held_gradients[name], gradient, rtol=1e-5, atol=1e-7)


def test_adapter_in_float32_on_a_bfloat16_model_under_autocast(tmp_path: Path) -> None:
    model = tiny_peft(tmp_path, "bfloat16")
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
    with torch.autocast(model.device.type, torch.bfloat16):
        compare(model, "bfloat16")
    types = {weight.grad.dtype for weight in model.parameters() if weight.grad is not None}
    assert types == {torch.float32}


def test_rank_and_scale_of_each_layer_count(tmp_path: Path) -> None:
    model = tiny_peft(
        tmp_path, use_rslora=True, rank_pattern={"k_proj": 4, "up_proj": 2}, alpha_pattern={"q_proj": 3, "down_proj": 5}
    )
    compare(model, "float32")


def test_some_targets_only(tmp_path: Path) -> None:
    model = tiny_peft(tmp_path, target_modules=["q_proj", "v_proj", "down_proj"])
    fusion = compare(model, "float32", recompute="norms")
    assert (fusion.projections, fusion.mlps) == (6, 0)


class TestDropout:
    """Made from seeds, a mask for each projection."""

    def test_share_of_zeros_and_mean(self) -> None:
        x = torch.ones(400, 500)
        dropped = elementwise.dropout(x, 0.1, seed=7)
        assert float((dropped == 0).float().mean()) == pytest.approx(0.1, abs=0.004)  # 6 standard deviations
        assert set(dropped.flatten().tolist()) == {0.0, float(torch.tensor(1 / 0.9))}

    def test_masks_of_neighbouring_seeds_and_places_are_independent(self) -> None:
        shape, device = torch.Size((1000, 200)), torch.device("cpu")
        one, other = (elementwise.kept(shape, 0.5, seed, device).float() - 0.5 for seed in (7, 8))
        for pair in ((one, other), (one[1:], one[:-1]), (one[:, 1:], one[:, :-1])):
            assert abs(float((pair[0] * pair[1]).mean())) * 4 < 0.014  # 6 standard deviations

    def test_gradients_use_the_mask_of_the_forward_pass(self, tmp_path: Path) -> None:
        """Against autograd on the plain formula with the same masks."""
        layer = first_layer(tiny_peft(tmp_path, lora_dropout=0.3)).self_attn.q_proj
        shared = SharedInput([layer], Scratch(), "q", hold=False)
        x = torch.randn(20, 64, generator=torch.Generator().manual_seed(3), requires_grad=True)
        torch.manual_seed(5)
        (output,) = shared._compute(x)
        output.square().sum().backward()  # type: ignore[no-untyped-call]  # torch has no types there
        a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        made = [cast(torch.Tensor, tensor.grad).clone() for tensor in (x, a, b)]
        for tensor in (x, a, b):
            tensor.grad = None
        torch.manual_seed(5)
        seed = int(torch.randint(1 << 31, (1,)))
        dropped = x * elementwise.kept(x.shape, 0.3, seed, x.device) / 0.7
        plain = x @ shared.weights.matrix().t() + layer.scaling["default"] * dropped @ a.t() @ b.t()
        torch.testing.assert_close(output, plain)
        plain.square().sum().backward()
        for gradient, tensor in zip(made, (x, a, b), strict=True):
            torch.testing.assert_close(gradient, tensor.grad, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("recompute", ["nothing", "layers"])
    def test_a_seed_decides_all(self, tmp_path: Path, recompute: Recompute) -> None:
        model = tiny_peft(tmp_path, lora_dropout=0.1)
        fuse(model, recompute=recompute)
        torch.manual_seed(1)
        logits, gradients = step(model)
        torch.manual_seed(1)
        again, again_gradients = step(model)
        other, _ = step(model)
        assert torch.equal(logits, again)
        assert all(torch.equal(again_gradients[name], gradient) for name, gradient in gradients.items())
        assert not torch.equal(logits, other)

    def test_recomputed_layers_draw_the_same_masks(self, tmp_path: Path) -> None:
        model, other = tiny_peft(tmp_path, lora_dropout=0.1), tiny_peft(tmp_path, lora_dropout=0.1)
        fuse(model)
        fuse(other, recompute="layers")
        torch.manual_seed(1)
        _, gradients = step(model)
        torch.manual_seed(1)
        _, other_gradients = step(other)
        for name, gradient in gradients.items():
            torch.testing.assert_close(other_gradients[name], gradient, rtol=1e-5, atol=1e-7)

    def test_the_mean_over_masks_is_the_result_without(self, tmp_path: Path) -> None:
        layer = first_layer(tiny_peft(tmp_path, lora_dropout=0.1)).mlp.down_proj
        shared = SharedInput([layer], Scratch(), "down", hold=False)
        x = torch.randn(4, 192, generator=torch.Generator().manual_seed(3))
        torch.manual_seed(0)
        with torch.no_grad():
            mean = torch.stack([shared._compute(x)[0] for _ in range(400)]).mean(0)
            layer.eval()
            without = shared._compute(x)[0]
            base = x @ shared.weights.matrix().t()
        assert differ(mean - base, without - base) < 0.05
        assert differ(mean - base, without - base) > 0


def test_fewer_bytes_are_kept_than_by_peft(tmp_path: Path) -> None:
    """What autograd keeps between the passes, weights aside, falls with every step of recomputation."""
    sizes = []
    for recompute in (None, "nothing", "norms", "mlp", "layers"):
        model = tiny_peft(tmp_path, lora_dropout=0.1)
        if recompute is not None:
            fuse(model, recompute=recompute)
        sizes.append(kept_bytes(model))
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == len(sizes)
    assert sizes[1] < sizes[0] / 2


def kept_bytes(model: PeftModel) -> int:
    weights = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids = tokens().to(model.device)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        hidden = decoder(model)(input_ids=ids, use_cache=False).last_hidden_state
    assert hidden.requires_grad
    return sum(kept.values())


@pytest.mark.parametrize(
    ("recompute", "matrices"),
    [
        ("nothing", 14 + 4),  # backward: the last layer's are still there; the first q, k, v have no input's gradient
        ("layers", 14 + 7),  # a recomputed layer's are still there in its backward pass
    ],
)
def test_how_often_weights_are_dequantised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recompute: Recompute, matrices: int
) -> None:
    calls: list[object] = []
    plain = elementwise.dequantise

    def counted(weight: Any, out: torch.Tensor) -> None:
        calls.append(weight)
        plain(weight, out)

    monkeypatch.setattr(elementwise, "dequantise", counted)
    model = tiny_peft(tmp_path)
    fuse(model, recompute=recompute)
    step(model)
    assert len(calls) == matrices


def test_a_recomputed_layer_leaves_out_what_nothing_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once each: gate and up recomputed, the product of `down` in the forward pass alone."""
    made: list[str] = []
    plain = mlp.with_branches

    def noted(weights: FrozenWeights, *rest: Any) -> torch.Tensor:
        made.append(weights.kind.split()[0])
        return plain(weights, *rest)

    monkeypatch.setattr(mlp, "with_branches", noted)
    model = tiny_peft(tmp_path)
    fuse(model, recompute="layers")
    step(model)
    forward, recomputed, backward = ["gate_up", "down"], ["gate_up"], ["down", "gate_up"]
    assert made == forward * 2 + (recomputed + backward) * 2


def test_without_the_adapter_the_base_answers(tmp_path: Path) -> None:
    model = tiny_peft(tmp_path).eval()
    ids = tokens()
    with torch.no_grad(), model.disable_adapter():
        base = model(input_ids=ids).logits
    fuse(model)
    with torch.no_grad():
        adapted = model(input_ids=ids).logits
        with model.disable_adapter():
            torch.testing.assert_close(model(input_ids=ids).logits, base, rtol=1e-4, atol=1e-5)
    assert differ(adapted, base) > 0.01


def test_another_input_is_computed_for_itself(tmp_path: Path) -> None:
    attention = first_layer(tiny_peft(tmp_path)).self_attn
    one, other = torch.randn(3, 64), torch.randn(3, 64)
    expected = [attention.q_proj(one), attention.k_proj(other), attention.v_proj(one), attention.k_proj(one)]
    SharedInput([attention.q_proj, attention.k_proj, attention.v_proj], Scratch(), "qkv", hold=False).install()
    given = [attention.q_proj(one), attention.k_proj(other), attention.v_proj(one), attention.k_proj(one)]
    for result, wanted in zip(given, expected, strict=True):
        torch.testing.assert_close(result, wanted)
    first = attention.q_proj(one)
    with torch.no_grad():
        one.add_(1)
    assert not torch.allclose(attention.q_proj(one), first)
    changed = attention.k_proj(one)
    with torch.no_grad():
        one.sub_(1)
    assert not torch.allclose(changed, attention.k_proj(one))


@pytest.mark.parametrize(
    ("settings", "why"),
    [({"use_dora": True}, "a variant of LoRA"), ({"lora_bias": True}, "the adapter has a bias")],
)
def test_what_is_not_plain_lora_stays_pefts(tmp_path: Path, settings: dict[str, Any], why: str) -> None:
    model = tiny_peft(tmp_path, **settings)
    before, _ = step(model)
    fusion = fuse(model)
    after, _ = step(model)
    assert (fusion.projections, fusion.norms, len(fusion.left)) == (0, 0, 14)
    assert f"14 left to PEFT: {why}" in str(fusion)
    assert torch.equal(before, after)


def test_other_mlps_and_norms_are_recognised_as_such(tmp_path: Path) -> None:
    from transformers.models.gemma.configuration_gemma import GemmaConfig
    from transformers.models.gemma.modeling_gemma import GemmaMLP, GemmaRMSNorm
    from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm

    config = GemmaConfig(hidden_size=8, intermediate_size=16)
    gelu = GemmaMLP(config)  # type: ignore[no-untyped-call]  # transformers has no types there
    silu = LlamaMLP(LlamaConfig(hidden_size=64, intermediate_size=16))  # type: ignore[no-untyped-call]  # transformers has no types there
    assert not is_swiglu(gelu)
    assert not is_llama_norm(GemmaRMSNorm(8))  # it multiplies by 1 + weight
    assert not is_swiglu(torch.nn.Linear(8, 8))
    assert is_swiglu(silu)
    norm = LlamaRMSNorm(8)
    assert not is_llama_norm(norm)  # its weight is trained
    assert is_llama_norm(norm.requires_grad_(False))


class TestTraining:
    """Through TRL's trainer and collator, on packed blocks."""

    def test_the_loss_curve_is_that_of_the_plain_path(self, tiny_run: TinyRun, tmp_path: Path) -> None:
        plain, _ = trained(tiny_run, tmp_path, None)
        assert plain[0] - plain[-1] > 0.2  # there is a curve
        for recompute in ("nothing", "norms", "mlp", "layers"):
            losses, _ = trained(tiny_run, tmp_path, recompute)
            assert losses == pytest.approx(plain, abs=CURVE)

    def test_the_adapter_is_saved_in_pefts_layout(self, tiny_run: TinyRun, tmp_path: Path) -> None:
        _, plain = trained(tiny_run, tmp_path, None)
        _, fused = trained(tiny_run, tmp_path, "norms")
        plain.save_pretrained(str(tmp_path / "plain"))
        fused.save_pretrained(str(tmp_path / "fused"))
        names = [set(load_file(tmp_path / kind / "adapter_model.safetensors")) for kind in ("plain", "fused")]
        assert names[0] == names[1]
        assert {path.name for path in (tmp_path / "plain").iterdir()} == {
            path.name for path in (tmp_path / "fused").iterdir()
        }
        device = describe_device("float32", "sdpa")
        loaded = PeftModel.from_pretrained(load_quantized(tiny_run.model, device), str(tmp_path / "fused")).eval()
        ids = torch.tensor([tiny_run.blocks["train"][0]["input_ids"]], device=loaded.device)
        with torch.no_grad():
            expected = fused.eval()(input_ids=ids).logits
            torch.testing.assert_close(loaded(input_ids=ids).logits, expected, rtol=1e-3, atol=1e-3)

    def test_trained_twice_is_equal_to_the_bit(self, tiny_run: TinyRun, tmp_path: Path) -> None:
        first, second = (trained(tiny_run, tmp_path, "layers", dropout=0.1, steps=3)[1] for _ in range(2))
        other = dict(second.named_parameters())
        assert all(torch.equal(weight, other[name]) for name, weight in first.named_parameters())


CURVE = 2e-3
"""Nats: by so much two curves of ten steps in float32 may differ, since roundings add up from step to step."""


def trained(
    run: TinyRun, folder: Path, recompute: Recompute | None, dropout: float = 0.0, steps: int = 10
) -> tuple[list[float], PeftModel]:
    """Loss of each step, and the model; fused unless ``recompute`` is None."""
    lora = LoraConfig(
        r=8, lora_alpha=16, lora_dropout=dropout, target_modules=list(SEVEN_PROJECTIONS), task_type="CAUSAL_LM"
    )
    settings = {"max_steps": steps, "per_device_train_batch_size": 2, "lr_scheduler_type": "constant"}
    trainer = float32_trainer(SFTTrainer, run, folder, lora, **settings)
    model = cast(PeftModel, trainer.model)
    if recompute is not None:
        assert fuse(model, recompute=recompute).left == {}
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry], model
