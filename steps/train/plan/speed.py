"""Predicted time of an optimiser step: what the card must compute and move, or what the host must launch.

Within 10 % of what was measured on one H100, within 3 % on one H200 (tests/train/test_plan_speed.py).

A micro-batch of t tokens takes little more than the longer of the GPU's work and the host's, which prepares launches
meanwhile (``OVERLAP``); a captured one needs no host. The GPU's work, one after the other:

    products      2 t FLOP a weight and pass: 2 passes over frozen layers (the gradient of a frozen weight isn't
                  needed), 3 over the output layer, whose loss is computed in tiles and once more for its gradient; 1
                  more over recomputed layers (less ``down`` in fused ones, whose end nothing reads), over gate and up
                  with "mlp". At ``EFFICIENCY`` of the card's peak, less in small micro-batches
    attention     12 t (width of all heads) (tokens seen) FLOP a layer, 4 more if recomputed; ``ATTENTION_EFFICIENCY``
    LoRA and      numbers moved to and from memory. A and B are thin, so their products wait for their wide side:
    elementwise   inputs and outputs move 4 times. SwiGLU, norms, rotary, sums: ``ELEMENTWISE`` hidden widths a token.
                  At ``BANDWIDTH_EFFICIENCY`` of the card's
    dequantising  4.5 bits read and a number written for each weight and pass, not for held layers

All constants are of one H100 at the Llama-2-7B shape (docs/performance.md); on other cards FLOP/s and bandwidth scale
them, and the host is assumed to be that machine's. Of those one H200 was measured, and nothing fitted to it.
"""

from steps.train.plan.cards import Card
from steps.train.plan.job import Job
from steps.train.plan.plan import Plan

EFFICIENCY = 0.745
"""Share of the peak that large products reach."""
HALF_TOKENS = 60
"""Tokens at which a product reaches half of that: below some hundreds it waits for its weights."""
ATTENTION_EFFICIENCY = {True: 0.12, False: 0.2}
"""With flash attention over packed blocks, which are short; and with sdpa, whose mask saves no products."""
BANDWIDTH_EFFICIENCY = 0.82
NOTEBOOK = "notebook"
"""The notebook's way: PEFT's and transformers' modules, float32 norms and residual stream."""
ELEMENTWISE = {"fused": 32.0, "liger": 165.0, "plain": 220.0, NOTEBOOK: 1.5 * 220.0}
"""Hidden widths a token moved in a layer besides LoRA's products, forward and backward."""
DROPOUT_MOVES = 7.0
"""Times that dropout moves each projection's input."""
FORWARD_SHARE = 0.35
"""Of what is moved, by the forward pass: what a recomputed layer moves again."""
REMADE_NORMS = 4.0
"""Hidden widths moved to make both norms' outputs again."""
GRAPH_SECONDS = 0.12e-3
"""For each layer of a replayed micro-batch: the gaps between its 120 kernels."""
HOST_SECONDS = {"fused": 6.5e-3, "liger": 10.7e-3, "plain": 12.0e-3, NOTEBOOK: 15.9e-3}
"""The host's work for one layer, forward and backward."""
HOST_AGAIN = 0.6
"""Share of that for a recomputed layer's second forward pass."""
OVERLAP = 4
"""GPU and host never overlap wholly: a micro-batch takes (gpu^4 + host^4)^(1/4), a fifth more where they are equal."""
STEP_SECONDS = 6e-3
"""The host's work of an optimiser step while the GPU waits: batch, norm of the gradients, learning rate, log."""
UPDATE_MOVES = 8
"""Times that the optimiser moves each trained weight's bytes: weight, gradient and states."""


def predict_step_seconds(job: Job, plan: Plan, card: Card, kernels: str = "") -> float:
    """Seconds of an optimiser step.

    Args:
        job: model and recipe.
        plan: how it is carried out.
        card: where.
        kernels: others than the plan's, by their name in ``ELEMENTWISE``.
    """
    kernels = kernels or ("fused" if plan.fused else "liger" if job.liger else "plain")
    gpu = _products(job, plan, card) + _attention(job, plan, card) + _moved(job, plan, card, kernels)
    gpu += _dequantising(job, plan, card)
    layers = job.shape.layers
    if plan.captured:
        micro = gpu + GRAPH_SECONDS * layers
    else:
        host = HOST_SECONDS[kernels] * (layers + HOST_AGAIN * plan.recomputed_layers)
        micro = (gpu**OVERLAP + host**OVERLAP) ** (1 / OVERLAP)
    update = UPDATE_MOVES * job.trained_bytes / (BANDWIDTH_EFFICIENCY * card.bandwidth)
    return plan.accumulation * micro + STEP_SECONDS + update


def notebook_plan(job: Job) -> Plan:
    """How the notebook carries out its recipe: the micro-batch as given, every layer recomputed, no kernels."""
    training = job.training
    return Plan(training.batch_size, training.gradient_accumulation, job.shape.layers, fused=False)


def _products(job: Job, plan: Plan, card: Card) -> float:
    shape = job.shape
    weights, again = shape.linear_weights, shape.linear_weights
    if plan.fused and job.adapted.whole_mlp:
        again -= shape.layers * shape.inner * shape.hidden
    passes = 2.0 * weights + again * plan.recomputed_layers / shape.layers
    if plan.fused and plan.recompute == "mlp":
        passes += 2 * shape.inner * shape.hidden * (shape.layers - plan.recomputed_layers)
    passes += 3 * shape.output_weights
    tokens = plan.micro_batch * job.block
    rate = EFFICIENCY * _flops(job, card)
    return 2 * (tokens + HALF_TOKENS) * passes / rate


def _flops(job: Job, card: Card) -> float:
    """Float32 products run in tf32, at half the rate, from Ampere on; before at about an eighth."""
    if job.device.precision != "float32":
        return card.flops
    return card.flops / 2 if job.device.tf32 else card.flops / 8


def _attention(job: Job, plan: Plan, card: Card) -> float:
    shape = job.shape
    flash = job.device.attention == "flash_attention_2"
    seen = job.block / 2 if flash or not job.packed else plan.micro_batch * job.block
    each = shape.heads * shape.head_size * seen * plan.micro_batch * job.block
    flop = each * (12 * shape.layers + 4 * plan.recomputed_layers)
    return flop / (ATTENTION_EFFICIENCY[flash] * _flops(job, card))


def _moved(job: Job, plan: Plan, card: Card, kernels: str) -> float:
    shape, adapted = job.shape, job.adapted
    layers = shape.layers
    thin = 4 * (adapted.inputs + adapted.outputs)
    elementwise = ELEMENTWISE[kernels] * shape.hidden
    dropped = DROPOUT_MOVES * adapted.inputs if job.training.lora.dropout else 0
    a_layer = thin + elementwise + dropped
    numbers = a_layer * (layers + FORWARD_SHARE * plan.recomputed_layers)
    if plan.fused and plan.recompute != "nothing":
        numbers += REMADE_NORMS * shape.hidden * (layers - plan.recomputed_layers)
    tokens = plan.micro_batch * job.block
    return tokens * numbers * job.element / (BANDWIDTH_EFFICIENCY * card.bandwidth)


def _dequantising(job: Job, plan: Plan, card: Card) -> float:
    """Two passes; a recomputed layer of the fused kernels finds its weights in the scratch memory."""
    if job.quantization.kind == "none":
        return 0
    shape = job.shape
    passes = 2.0 if plan.fused else 2 + plan.recomputed_layers / shape.layers
    passes *= 1 - plan.held_layers / shape.layers
    moved = shape.linear_weights * (0.56 + job.element)
    return passes * moved / (BANDWIDTH_EFFICIENCY * card.bandwidth)
