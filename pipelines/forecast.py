"""The plan that a run would begin with, and what it would take, without the card and without the weights."""

import re
from collections.abc import Iterator
from dataclasses import replace

from pipelines.config import CheckedConfig
from steps.device import Choice, Hardware, choose, describe_hardware
from steps.errors import DeviceError, ModelError
from steps.format.params import PromptParameters
from steps.quantize.params import QuantizationParameters
from steps.resolve.params import BaseModelParameters
from steps.split.params import SplitParameters
from steps.train.params import TrainingParameters
from steps.train.plan.cards import Card, card_of, named_card
from steps.train.plan.choose import PlannedPlan, budget_of, plans, why
from steps.train.plan.job import Job
from steps.train.plan.memory import GIB, Memory
from steps.train.plan.params import PlanParameters
from steps.train.plan.speed import NOTEBOOK, notebook_plan, predict_step_seconds

FLASH_ATTENTION = (8, 0)
"""Compute capability from which flash-attn is assumed to be installed on a card that is only named."""
ROW_TOKENS = 200
"""Mean tokens of a row, prompt and completion, where only the number of rows is known: assumed, and said so."""
UNITS = {"GIB": GIB, "GB": 10**9, "MIB": 2**20, "MB": 10**6, "": GIB}


def bytes_of(size: str) -> int:
    """``24GiB``, ``24 GB``, ``24000MiB``, or a plain number of GiB, as bytes.

    Raises:
        DeviceError: it is none of these.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", size)
    if match is None or match[2].upper() not in UNITS or not float(match[1]):
        raise DeviceError(f"--memory {size} is no size; write it as 24GiB, 24GB, 24000MiB or 24 (GiB)")
    return int(float(match[1]) * UNITS[match[2].upper()])


def hardware_of(gpu: str | None, memory: str | None) -> Hardware:
    """The named card, or what this machine has; with the memory that the user gives it.

    Raises:
        DeviceError: no card is called so, or the size is none.
    """
    if gpu is None:
        hardware = describe_hardware()
    else:
        card = named_card(gpu)
        hardware = card.hardware(flash_attention=card.capability >= FLASH_ATTENTION)
    if memory is None:
        return hardware
    return replace(hardware, memory_bytes=min(bytes_of(memory), hardware.memory_bytes))


def job_of(config: CheckedConfig, hardware: Hardware) -> Job:
    """The training that a configuration describes.

    Raises:
        ConfigError: a parameter that the plan needs is not valid.
        DeviceError: the hardware lacks the precision or the attention that is asked for.
        ModelError: the base model's configuration cannot be read, or the model has no layer of a name that is targeted.
    """
    from steps.resolve.configuration import model_config
    from steps.train.plan.shape import shape_of

    training = config.valid("training", TrainingParameters)
    prompt = config.valid("prompt", PromptParameters)
    base_model = config.valid("base_model", BaseModelParameters)
    device = choose(hardware, training.precision, training.attention)
    processes = config.valid("plan", PlanParameters).distributed.processes
    shape = shape_of(model_config(base_model), trust_remote_code=base_model.trust_remote_code)
    if absent := shape.absent(training.lora):
        raise ModelError(
            f"parameters.training.lora.target_modules: the base model has no linear layer {', '.join(absent)}; it has "
            f"{', '.join(sorted({layer.child for layer in shape.linear}))}"
        )
    return Job(
        shape=shape,
        training=training,
        device=device,
        block=prompt.max_length,
        packed=prompt.packing == "bfd" or device.attention == "flash_attention_2",
        filled=min(1.0, ROW_TOKENS / prompt.max_length) if prompt.packing == "none" else 1.0,
        quantization=config.valid("quantization", QuantizationParameters),
        processes=1 if processes == "auto" else processes,  # how many GPUs there will be is not known
    )


def forecast(config: CheckedConfig, hardware: Hardware, *, named: bool) -> Iterator[str]:
    """The section of ``qlora check``, line by line.

    Args:
        config: of the run.
        hardware: what it would run on.
        named: whether that is a card that need not be here.

    Raises:
        PipelineError: as in :func:`job_of`; DeviceError also if nothing fits.
    """
    parameters = config.valid("plan", PlanParameters)
    job = job_of(config, hardware)
    best = plans(job, parameters, hardware)[0]
    budget = budget_of(parameters, hardware, None)
    on_gpu = hardware.kind == "cuda"
    where = f"{hardware.name}, {budget / GIB:.1f} GiB" if on_gpu else "the CPU, since PyTorch finds no GPU"
    yield f"plan for {where}: {best.plan}"
    choices = [Choice("attention", job.device.attention, _attention(job, named=named))]
    choices += why(job, parameters, best, budget)
    width = max(len(choice.value) for choice in choices)
    for choice in choices:
        yield f"  {choice.name:<21}{choice.value:<{width}}  {choice.reason}"
    yield ""
    if not on_gpu:
        yield "  memory and speed are predicted for GPUs alone: processors differ too much"
        return
    yield from _memory(best.memory)
    yield ""
    yield from _speed(config, job, best, card_of(hardware.name))


def _attention(job: Job, *, named: bool) -> str:
    found = next(choice.reason for choice in job.device.choices if choice.name == "attention")
    needs = named and job.device.attention == "flash_attention_2"
    return "if flash-attn is installed there (pip install -e '.[flash]')" if needs else found


def _memory(memory: Memory) -> Iterator[str]:
    yield "  predicted memory       GiB"
    in_turn = {"gradients": "in the memory that activations leave", "logits": "in what one layer needs later"}
    for name, size in memory.parts.items():
        if size or name in in_turn:
            yield f"    {name:<19}{size / GIB:7.2f}  {'' if size else in_turn[name]}".rstrip()
    yield f"    {'total':<19}{memory.total / GIB:7.2f}"


def _speed(config: CheckedConfig, job: Job, best: PlannedPlan, card: Card | None) -> Iterator[str]:
    if card is None or best.seconds is None:
        yield "  predicted speed      none: the card is not in the table of cards"
        return
    tokens = job.processes * job.blocks * job.block
    shared = f" by {job.processes} processes, their exchange left out" if job.processes > 1 else ""
    yield (
        f"  predicted speed      {tokens / best.seconds:,.0f} tokens/s: {best.seconds:.2f} s an optimiser step of "
        f"{tokens:,} tokens, {1e6 * best.seconds / tokens / 3600:.3f} hours a million tokens{shared}"
    )
    theirs = predict_step_seconds(
        replace(job, device=replace(job.device, attention="sdpa"), packed=True), notebook_plan(job), card, NOTEBOOK
    )
    yield (
        f"  the notebook's way   {tokens / theirs:,.0f} tokens/s (PEFT's modules, float32 norms, sdpa, every layer "
        f"recomputed): this plan is {theirs / best.seconds:.1f} times as fast"
    )
    yield from _whole(config, job, best.seconds)
    yield "  Speeds are scaled from one H100's by FLOP/s and bandwidth; one H200 was within 3 %, others not tried."


def _whole(config: CheckedConfig, job: Job, seconds: float) -> Iterator[str]:
    training, splits = job.training, config.valid("splits", SplitParameters)
    if training.max_steps is not None:
        steps, why_so = training.max_steps, "training.max_steps"
    elif splits.max_rows is not None:
        sides = sum(side * splits.max_rows if side < 1 else side for side in (splits.validation, splits.test))
        tokens = ROW_TOKENS * (splits.max_rows - sides)
        steps = max(1, round(training.epochs * tokens / (job.processes * job.blocks * job.block)))
        why_so = f"{training.epochs:g} epochs of splits.max_rows, if a row has {ROW_TOKENS} tokens"
    else:
        return
    hours = steps * seconds / 3600
    yield f"  whole training       {steps:,} optimiser steps ({why_so}): {hours:.2f} hours without evaluations"
