"""The figures of a training's report: each against another way to get at it."""

import math
import signal
from pathlib import Path

import pytest
import torch
from datasets import Dataset, DatasetDict
from peft import LoraConfig, PeftModel, get_peft_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from steps.device import Device
from steps.train.account import cost_of
from steps.train.checkpoint import Checkpoints
from steps.train.course import Course
from steps.train.meter import Meter, tokens_in
from steps.train.page import PHASES, draw
from steps.train.params import CheckpointParameters, LoraParameters
from steps.train.report import SkippedStep, TrainedStep
from steps.train.utilization import PEAK_FLOPS, FlopPerToken, flop_per_token, mean_context
from tests.tiny_run import TinyRun
from tests.train.killed import KillPoint, Work, train_until

TOKENS = 48
LAYERS = 2
ON_A_CPU = PHASES.keys() - {"captured"}


def adapted(run: TinyRun) -> PeftModel:
    """The tiny model unquantised with LoRA, so that torch sees every product; every layer's input has a gradient."""
    base = AutoModelForCausalLM.from_pretrained(run.lock.folder, dtype=torch.float32, attn_implementation="eager")
    base.enable_input_require_grads()  # type: ignore[no-untyped-call]  # transformers has no types there
    model = get_peft_model(base, LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    assert isinstance(model, PeftModel)
    return model


@pytest.mark.parametrize("checkpointing", [False, True])
def test_operations_are_those_that_torch_counts(tiny_run: TinyRun, checkpointing: bool) -> None:
    """Eager attention computes all products and then masks, so the context is the whole block.

    torch stops computing a layer again where nothing more is needed: before the product with the last B.
    """
    model = adapted(tiny_run)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    ids = torch.randint(5, 300, (1, TOKENS))
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, labels=ids).loss.backward()
    expected = flop_per_token(model, TOKENS, recomputed_layers=LAYERS * checkpointing)
    last = [weight for name, weight in model.named_parameters() if "down_proj.lora_B" in name]
    left_out = 2 * sum(weight.numel() for weight in last) * checkpointing
    assert counter.get_total_flops() == TOKENS * (expected.computed - left_out)
    assert (expected.model == expected.computed) is not checkpointing


def test_quantised_layers_count_by_their_shape(tiny_run: TinyRun, tmp_path: Path) -> None:
    lora = LoraParameters(r=8, target_modules="all-linear")
    run = tiny_run.train(tmp_path / "adapter", lora=lora, max_steps=2)
    context = mean_context(tiny_run.blocks["train"])
    assert run.flop_per_token == flop_per_token(adapted(tiny_run), context, recomputed_layers=LAYERS).model


def test_a_token_sees_its_own_sequence_up_to_itself() -> None:
    packed = Dataset.from_dict({"input_ids": [[1] * 5], "seq_lengths": [[2, 3]]})
    assert mean_context(packed) == (1 + 2 + 1 + 2 + 3) / 5
    assert mean_context(Dataset.from_dict({"input_ids": [[1, 1], [1, 1, 1]]})) == (1 + 2 + 1 + 2 + 3) / 5


def test_tokens_and_epochs_are_those_of_the_blocks(tiny_run: TinyRun, tmp_path: Path) -> None:
    """Two epochs over seven blocks, packed and then padded."""
    packed = DatasetDict(train=tiny_run.blocks["train"].select(range(7)), validation=tiny_run.blocks["validation"])
    expected = 2 * sum(map(len, packed["train"]["input_ids"]))
    padded = DatasetDict({name: split.remove_columns("seq_lengths") for name, split in packed.items()})
    for name, blocks in (("packed", packed), ("padded", padded)):
        report = tiny_run.train(tmp_path / name, blocks, max_steps=None, epochs=2.0)
        assert (report.tokens, report.epochs) == (expected, 2.0)


def test_every_moment_belongs_to_one_phase(tiny_run: TinyRun) -> None:
    cost = tiny_run.report.cost
    assert cost.seconds_in.keys() == ON_A_CPU
    assert all(seconds > 0 for seconds in cost.seconds_in.values())
    assert math.isclose(sum(cost.seconds_in.values()), cost.seconds)
    assert cost.seconds_in["start"] > tiny_run.report.preflight_seconds > 0, "it is no training"
    training = cost.seconds - sum(cost.seconds_in[phase] for phase in ("start", "evaluation", "checkpoints"))
    assert cost.tokens_per_second == pytest.approx(tiny_run.report.tokens / training)
    assert cost.tokens_per_second_overall == pytest.approx(tiny_run.report.tokens / cost.seconds)


def test_costs_are_summed_over_a_kill(tiny_run: TinyRun, tmp_path: Path) -> None:
    """The checkpoint that the work goes on from holds what had been spent until then."""
    work = Work.of(tiny_run, tmp_path)
    assert train_until(work, KillPoint("optimizer", 8), tmp_path / "killed") == -signal.SIGKILL
    folder = work.store().newest()
    assert folder is not None
    before = Course.load(folder)
    report = work.train(tmp_path / "rerun")
    assert report.resumed_from == [6]
    assert before.tokens < report.tokens == tiny_run.report.tokens
    assert report.epochs == tiny_run.report.epochs
    for phase in ON_A_CPU:
        assert report.cost.seconds_in[phase] > before.seconds_in[phase] > 0
    assert report.cost.seconds == pytest.approx(sum(report.cost.seconds_in.values()))
    assert report.cost.peak_memory_bytes >= before.peak_memory_bytes

    finished = work.train(tmp_path / "again")  # nothing is left to train
    same = {phase: seconds for phase, seconds in finished.cost.seconds_in.items() if phase in ("forward", "data")}
    assert same == {phase: report.cost.seconds_in[phase] for phase in same}
    assert finished.tokens == report.tokens
    assert finished.cost.seconds_in["start"] > report.cost.seconds_in["start"]


def test_energy_is_told_only_if_every_process_could(tmp_path: Path) -> None:
    for before, own, expected in ((7.0, 2.0, 9.0), (None, 2.0, None), (7.0, None, None)):
        Course(energy_joules=before, peak_memory_bytes=5).save(tmp_path)
        course = Course(energy_joules=own, peak_memory_bytes=3)
        course.resume(tmp_path, 4)
        assert (course.energy_joules, course.peak_memory_bytes, course.resumed_from) == (expected, 5, [4])


def test_work_before_the_training_proper_is_start() -> None:
    """So a rehearsal's passes are no training."""
    course = Course()
    meter = Meter(course, on_gpu=False)
    meter.add(tokens_in({"input_ids": torch.ones(1, 7)}))
    meter.mark("forward")
    meter.begin()
    meter.add(tokens_in({"input_ids": torch.ones(2, 3), "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]])}))
    meter.mark("forward")
    meter.update()
    assert course.seconds_in.keys() == {"start", "forward"}
    assert course.tokens == 5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU's events")
def test_a_gpus_time_is_read_when_it_has_passed() -> None:
    course = Course()
    meter = Meter(course, on_gpu=True)
    meter.begin()
    torch.cuda._sleep(2_000_000_000)  # type: ignore[no-untyped-call]  # torch's; cycles: about a second
    meter.mark("forward")
    meter.update()
    assert "forward" not in course.seconds_in, "it did not wait for the GPU"
    meter.update(wait=True)
    assert course.seconds_in["forward"] > 0.5
    assert course.energy_joules is None or course.energy_joules > 0


@pytest.mark.parametrize(
    ("name", "precision", "share"),
    [("NVIDIA H100 80GB HBM3", "bfloat16", 0.4), ("NVIDIA H100 80GB HBM3", "float32", None), ("CPU", "bfloat16", None)],
)
def test_utilisation_is_speed_over_the_cards_peak(name: str, precision: str, share: float | None) -> None:
    """1000 tokens in 2 + 1 + 1 seconds; loading and evaluating are no training."""
    course = Course(tokens=1000, seconds_in={"start": 9.0, "forward": 2.0, "backward": 1.0, "rest": 1.0})
    peak = PEAK_FLOPS["NVIDIA H100 80GB HBM3"]
    device = Device("cuda", name, precision, "sdpa", tf32=True, reason="")
    flop = FlopPerToken(model=0.4 * peak / 250, computed=0.6 * peak / 250)
    cost = cost_of(course, flop, device, 1)
    assert cost.tokens_per_second == 250
    assert cost.model_flop_utilization == (share and pytest.approx(share))
    assert cost.computed_flop_utilization == (share and pytest.approx(0.6))
    assert cost_of(course, flop, device, 2).model_flop_utilization == (share and pytest.approx(share / 2))


def test_the_page_shows_what_is_known_and_says_what_is_not(tiny_run: TinyRun) -> None:
    report = tiny_run.report
    cost = report.cost.model_copy(
        update={
            "peak_flops": 989.4e12,
            "model_flop_utilization": 0.41,
            "computed_flop_utilization": 0.57,
            "energy_joules": 7200.0,
        }
    )
    known = report.model_copy(update={"cost": cost})
    html = known.html()
    assert all(text in html for text in ("41.0%", "57.0%", "2.0 Wh", "lora.target_modules", "PyTorch finds no GPU"))
    assert known.metadata()["model_flop_utilization"] == 0.41
    assert known.metadata()["energy_watt_hours"] == 2.0
    if report.cost.memory_of == "process":
        assert report.html().count("not known") == 2
        assert "energy_watt_hours" not in report.metadata()


def test_incidents_are_marked_in_the_figure(tiny_run: TinyRun) -> None:
    steps = [TrainedStep(step=step, loss=2, learning_rate=1e-4, grad_norm=1) for step in (1, 2, 4)]
    skipped = [SkippedStep(step=3, reason="the loss is not finite", blocks=[0], row_ids=["a"])]
    report = tiny_run.report.model_copy(update={"steps": steps, "spikes": [4], "skipped": skipped})
    (drawing,) = draw(report).sections[0].figures
    assert all(label in drawing for label in ("loss spike", "step skipped", "gradient norm", "learning rate"))
    assert drawing.count("#e5484d") >= 2 * 2, "in both panels"


def test_figures_are_handed_on_as_they_come(tiny_run: TinyRun, tmp_path: Path) -> None:
    """And the earlier ones again when work is resumed, so that an experiment tracker's curves are whole."""
    store = Checkpoints(tmp_path / "checkpoints", "work", CheckpointParameters())
    seen: list[tuple[int, dict[str, float]]] = []
    again: dict[int, dict[str, float]] = {}
    report = tiny_run.train(tmp_path / "adapter", store=store, on_metrics=lambda *figures: seen.append(figures))
    tiny_run.train(tmp_path / "done", store=store, on_metrics=lambda step, new: again.setdefault(step, {}).update(new))
    steps = {step: figures for step, figures in seen if "loss" in figures}
    assert {step: figures["loss"] for step, figures in steps.items()} == {one.step: one.loss for one in report.steps}
    curves = {"loss", "learning_rate", "grad_norm"}
    assert all(figures.keys() == {*curves, "tokens_per_second", "memory_gib"} for figures in steps.values())
    measured = {step: figures for step, figures in seen if "validation_loss" in figures}
    assert measured == {one.step: {"validation_loss": one.loss} for one in report.validation}
    assert seen.index((4, measured[4])) == 4, "live, not at the end"
    whole = {step: {name: figures[name] for name in curves} | measured.get(step, {}) for step, figures in steps.items()}
    assert again == whole
