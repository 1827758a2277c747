"""Predicted memory of a training, part by part; nothing is fitted but the share that the allocator wastes.

h is the hidden width, f the MLP's inner width, q and k the widths of all query and all key heads, r the rank, e the
bytes of a number in the device's precision, t the tokens of a micro-batch, L the layers.

    before training   weights   4-bit numbers, their constants, and e for all else (``ModelShape.weight_bytes``);
                                shared out over processes: see ``_weights``, and a part of all that is trained
                      adapter   2 bytes a LoRA weight in bfloat16, else 4
    from the first    optimizer its states (``STATES``)
    step              held      one layer's weights dequantised into scratch memory, or those of the held layers
    while a layer     activations   t e ((layers recomputed) h + (layers kept) kept + transient) + masks
    goes backward     logits        tiles of the loss, where they need more than one layer's transient memory
                      gradients     as wide as the adapter

``kept`` is what autograd saves of a fused layer, in numbers a token (steps/train/kernels):

    layer's input h; queries, keys, values q + 2k; attention's output q; residual after attention h; gate and up 2f;
    thin products r for each projection; with "nothing" the outputs of both norms 2h; with "mlp" 2f less

and of a plain one (PEFT's and transformers' modules, with liger's or without): the inputs of the norms h (in float32
without liger), q + 2k, q, the inputs of A (norms' outputs, SwiGLU's product), gate and up 2f (3f without liger), thin
products; with dropout each projection's dropped input and a mask of a byte a number instead of the shared input.

``transient`` is the most that one layer's backward pass needs beside it, in its MLP. Fused: the gradients of the
product, of gate and up, and the product made again, 4f, and two gradients of the residual stream; 1h more for a norm
remade, and 2f + h with "mlp". Plain: two gradients of the product and two of the stream, 2f + 2h (4f without liger),
and one dequantised weight. A layer that is recomputed needs all of this and ``kept`` without its input.

Gradients grow as activations shrink. With one micro-batch a step the peak is the larger of "all activations" and "all
gradients"; with several they add up. A captured step is one whose graph keeps its memory, activations included; the
gradients of several micro-batches then need a total apart, and an evaluation, which elsewhere finds room where the
activations were, comes on top: a layer's 3f + 4h numbers a token, or the tiles. When a step is captured there are no
optimiser states yet, so what torch counts at its peak is less than what is there in the end.

Attention without flash attention has a mask over the whole micro-batch where blocks are packed: t^2 bytes, and a copy
of t^2 e that each layer saves (72.7 GiB at 20 blocks of 512, measured); "eager" keeps the scores of all heads as well.
"""

from dataclasses import dataclass, replace

from steps.train.plan.job import Job
from steps.train.plan.plan import Plan
from steps.train.plan.shape import ATTENTION

GIB = 2**30
CONTEXT = int(0.85 * GIB)
"""CUDA's context, kernels and libraries: between torch's reserved memory and what the device shows as used lie 0.6 to
0.85 GiB (H100)."""
FRAGMENTATION, FRAGMENTATION_BASE = 0.065, int(0.3 * GIB)
"""What torch reserves beyond what is allocated at the peak: a share of the activations, and a base. Fitted: 0.3 to
1.3 GiB of 2 to 30 GiB of activations, 3.9 of 60 (H100)."""
FRAGMENTATION_DROPOUT = 0.065
"""The same for the projections' dropped inputs, which come and go one by one: 2.2 GiB beyond 20, not 1.2 (H100)."""
TOKEN_TILE, VOCABULARY_TILE = 4096, 32768
"""TRL's loss multiplies by the output layer in tiles of so many tokens and words, however few there are
(``trl.kernels.chunked_logprob``)."""

GATHERED_LAYERS = 2
"""That a process has as a whole where weights are shared out: the one at work and the one that is fetched for it."""

STATES: dict[str, tuple[int, float | None]] = {
    "adamw_torch_fused": (2, None),
    "adamw_torch": (2, None),
    "adamw_bnb_8bit": (2, 1.016),
    "adamw_8bit": (2, 1.016),
    "paged_adamw_32bit": (2, 4),
    "paged_adamw_8bit": (2, 1.016),
    "ademamix": (3, 4),
    "ademamix_8bit": (3, 1.016),
    "paged_ademamix_32bit": (3, 4),
    "paged_ademamix_8bit": (3, 1.016),
    "lion_32bit": (1, 4),
    "lion_8bit": (1, 1.016),
    "paged_lion_32bit": (1, 4),
    "paged_lion_8bit": (1, 1.016),
    "adafactor": (1, 0.07),
    "adagrad": (1, None),
    "rmsprop": (1, None),
    "rmsprop_bnb": (1, 4),
    "rmsprop_bnb_8bit": (1, 1.016),
    "rmsprop_bnb_32bit": (1, 4),
    "sgd": (0, None),
}
"""States for each trained weight and the bytes of one; None: those of the weight (torch's own optimisers). 8 bits and a
float32 constant for 256 of them are bitsandbytes'; Adafactor keeps a row and a column in float32, 4/64 of rank 64."""


@dataclass(frozen=True)
class Memory:
    """Bytes at the peak, by what takes them. Memory that serves several parts in turn is counted once."""

    weights: int
    adapter: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    dequantised: int  # held, or scratch
    evaluation: int  # beside a captured step
    fragmentation: int
    context: int
    allocated: int  # what torch.cuda.max_memory_allocated shows

    @property
    def reserved(self) -> int:
        """What torch takes from the device before the first evaluation."""
        return self.total - self.context - self.evaluation

    @property
    def total(self) -> int:
        """What must be free before the process starts."""
        return sum(self.parts.values())

    @property
    def parts(self) -> dict[str, int]:
        """The parts of the total, for a table."""
        return {
            "weights": self.weights,
            "adapter": self.adapter,
            "gradients": self.gradients,
            "optimiser": self.optimizer,
            "activations": self.activations,
            "logits": self.logits,
            "dequantised weights": self.dequantised,
            "evaluation": self.evaluation,
            "fragmentation": self.fragmentation,
            "CUDA context": self.context,
        }


def predict_memory(job: Job, plan: Plan) -> Memory:
    """Memory of the job carried out by the plan; the formula is the module's docstring."""
    lora, on_gpu = job.training.lora, job.device.kind == "cuda"
    parts = job.processes if plan.sharded else 1
    if not on_gpu:
        plan = replace(plan, fused=False)  # what is faster there keeps what transformers' and PEFT's modules keep
    adapter = job.trained_bytes // parts
    weights = _weights(job, plan)
    optimizer = _optimizer_bytes(job) // parts
    dequantised = _dequantised(job, plan)
    kept, transient = _activations(job, plan)
    logits = _logits(job, plan)
    gradients = adapter  # each as wide as its weight

    working = max(transient, logits)
    several = plan.accumulation > 1
    alive = gradients if several and not plan.captured else 0
    during = max(kept + working + alive, gradients + transient)  # of the backward pass
    message = gradients if job.processes > 1 and not plan.sharded else 0  # all of them in a row, to be summed
    totals = message + (gradients if several and plan.captured else 0)

    fixed = weights + adapter + dequantised
    at_step = fixed + optimizer + gradients + totals
    allocated = max(fixed + during + (0 if plan.captured else optimizer + message), at_step)
    shown_gradients = max(alive, gradients - kept, 0) + totals
    shown_logits = max(logits - transient, 0)
    activations = during + totals - shown_gradients - shown_logits
    wasted = FRAGMENTATION + (FRAGMENTATION_DROPOUT if lora.dropout else 0)
    return Memory(
        weights=weights,
        adapter=adapter,
        gradients=shown_gradients,
        optimizer=optimizer,
        activations=activations,
        logits=shown_logits,
        dequantised=dequantised,
        evaluation=_evaluation(job, plan, logits) if plan.captured else 0,
        fragmentation=FRAGMENTATION_BASE + int(wasted * (activations + shown_logits)) if on_gpu else 0,
        context=CONTEXT if on_gpu else 0,
        allocated=allocated,
    )


def _weights(job: Job, plan: Plan) -> int:
    """Bytes of the base model; shared out, all but 4-bit numbers stays whole, and two layers are."""
    whole = job.shape.weight_bytes(job.quantization, job.element)
    if not plan.sharded:
        return whole
    shared = job.shape.linear_weights // 2
    gathered = GATHERED_LAYERS * (shared + job.trained * job.adapter_element) // job.shape.layers
    return whole - shared + shared // job.processes + gathered


def _optimizer_bytes(job: Job) -> int:
    count, each = STATES[job.training.optimizer]
    return count * job.trained_bytes if each is None else int(count * each * (job.trained + job.trained_whole))


def _dequantised(job: Job, plan: Plan) -> int:
    """Memory of the fused kernels for weights in the device's precision; see ``FrozenWeights``."""
    if not plan.fused:
        return 0
    scratch = 1 if plan.held_layers < job.shape.layers else 0
    return (plan.held_layers + scratch) * job.adapted.dequantised * job.element


def _activations(job: Job, plan: Plan) -> tuple[int, int]:
    """Bytes that wait for the backward pass when the last layer's begins, and the most that one layer needs beside."""
    shape = job.shape
    kept_layers = shape.layers - plan.recomputed_layers
    number = plan.micro_batch * job.block * job.element
    mask_once, mask_each = _masks(job, plan)
    kept = number * _kept(job, plan, plan.recompute) + mask_each
    checkpoint = number * shape.hidden
    ends = 2 * number * shape.hidden  # the last layer's output, and the last norm's
    waiting = plan.recomputed_layers * checkpoint + kept_layers * kept + ends + mask_once

    last = number * _transient(job, plan, plan.recompute) + _one_weight(job, plan)
    if not plan.recomputed_layers:
        return waiting, last
    again = number * (_kept(job, plan, "nothing") - shape.hidden + _transient(job, plan, "nothing"))
    again += mask_each + _one_weight(job, plan)
    beside = again - kept_layers * kept  # when its turn comes the kept layers are gone
    return waiting, max(last if kept_layers else 0, beside)


def _kept(job: Job, plan: Plan, recompute: str) -> int:
    """Numbers a token that a layer keeps for its backward pass."""
    shape = job.shape
    h, f = shape.hidden, shape.inner
    heads, keys = shape.heads * shape.head_size, shape.kv_heads * shape.head_size
    thin = int(job.training.lora.r * job.adapted.count)
    kept = 2 * h + heads + 2 * keys + heads + thin
    if plan.fused and job.adapted.whole_mlp:
        copies = 1 + 1 / job.element if job.training.lora.dropout else 1  # dropped inputs, and masks of a byte
        kept += int(job.adapted.left * copies)
        return kept + (2 * h if recompute == "nothing" else 0) + (0 if recompute == "mlp" else 2 * f)
    return kept + _plain_extra(job)


def _plain_extra(job: Job) -> int:
    """Numbers a token that PEFT's and transformers' modules keep beyond the stream and attention's tensors."""
    shape, lora, adapted = job.shape, job.training.lora, job.adapted
    children = adapted.children
    h, f = shape.hidden, shape.inner
    extra = 2 * f if job.liger or not shape.swiglu else 3 * f
    extra += 0 if job.liger or job.element == 4 else 2 * h  # the norms' inputs in float32
    extra += int(adapted.outputs) if lora.dora else 0
    if lora.dropout or not shape.swiglu:  # each input apart, or names that say nothing of who shares one
        return extra + int(adapted.inputs + (adapted.inputs / job.element if lora.dropout else 0))
    shared = h * bool(children & set(ATTENTION)) + h * bool(children & {"gate_proj", "up_proj"})
    return extra + shared + f * ("down_proj" in children)


def _transient(job: Job, plan: Plan, recompute: str) -> int:
    """Numbers a token that one layer's backward pass needs besides what was kept."""
    h, f = job.shape.hidden, job.shape.inner
    if not plan.fused or not job.adapted.whole_mlp:
        return 2 * h + (2 * f if job.liger else 4 * f)
    remade = {"nothing": 0, "norms": h, "mlp": 2 * h + 2 * f}[recompute]
    return 4 * f + 2 * h + remade


def _one_weight(job: Job, plan: Plan) -> int:
    """Bytes of the largest weight as bitsandbytes dequantises it in each product."""
    if plan.fused or job.quantization.kind == "none":
        return 0
    return job.element * job.shape.largest


def _logits(job: Job, plan: Plan) -> int:
    """The loss's tile, and the hidden states' gradient in float32 and in the device's precision."""
    tokens = plan.micro_batch * job.block
    return min(tokens, TOKEN_TILE) * VOCABULARY_TILE * job.element + tokens * job.shape.hidden * (4 + job.element)


def _evaluation(job: Job, plan: Plan, logits: int) -> int:
    """Bytes of a pass without gradients; its tiles need no gradient of the hidden states."""
    h, f = job.shape.hidden, job.shape.inner
    number = plan.micro_batch * job.block * job.element
    return max(number * (3 * f + 4 * h), logits - plan.micro_batch * job.block * h * 4)


def _masks(job: Job, plan: Plan) -> tuple[int, int]:
    """Bytes of the attention's mask: once, and in each layer."""
    if job.device.attention == "flash_attention_2":
        return 0, 0
    tokens = plan.micro_batch * job.block
    pairs = tokens**2 if job.packed else plan.micro_batch * job.block**2
    scores = pairs * job.shape.heads * (2 * job.element + 4) if job.device.attention == "eager" else 0
    return pairs, pairs * job.element + scores
