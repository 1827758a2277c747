"""Captures a micro-batch's forward and backward pass, and replays it.

At these sizes the host needs longer to launch a step's thousands of kernels than the GPU needs to run them. A CUDA
graph launches them all at once. What it reads and writes must stay where it is: the batch (``batch.py``), the seeds
of dropout (``kernels/seeds.py``) and the gradients, which each replay overwrites.
"""

import gc
import traceback
from typing import TYPE_CHECKING, Any, cast

import torch

from steps.tokenizer import IGNORED
from steps.train.graph.batch import StaticBatch
from steps.train.kernels.fuse import Fusion
from steps.train.kernels.head import FrozenHeadLoss
from steps.train.kernels.recognise import head_scales, other_dropout

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

CAPTURE_MODE = "thread_local"
"""Calls of other threads, as the loader's that pins memory, do not end a capture."""
WARM_UPS = 2
"""Passes before the capture: they compile Triton's kernels and allocate what stays."""


def obstacle(model: "PeftModel", fusion: Fusion, *, on_graph: bool) -> str | None:
    """Why this model's step cannot be captured, or None."""
    config: Any = model.get_base_model().config
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    experts = [name for name in ("num_experts", "num_local_experts", "n_routed_experts") if getattr(config, name, None)]
    scaled = head_scales(config)
    dropout = other_dropout(model, fusion.left)
    checks = (
        (on_graph and model.device.type != "cuda", "it needs a CUDA GPU"),
        (on_graph and config._attn_implementation != "flash_attention_2", "it needs flash_attention_2"),
        (dropout is not None, f"dropout that is not ours: {dropout}"),
        (rope in ("dynamic", "longrope"), f"{rope} rotary embeddings depend on the batch"),
        (bool(experts), "a mixture of experts depends on the batch"),
        (bool(scaled), f"the head is more than a product: {', '.join(scaled)}"),
    )
    return next((why for there, why in checks if there), None)


def token_loss(hidden: torch.Tensor, head: Any, batch: StaticBatch) -> torch.Tensor:
    """Cross entropy of all trained tokens over those of the optimiser step; no wait for the GPU.

    A head that is trained or has a bias takes TRL's kernel. TRL itself picks the trained tokens first, for which the
    host must know how many there are.
    """
    rows, targets = hidden.reshape(-1, hidden.shape[-1]), batch.targets
    if not head.weight.requires_grad and head.bias is None:
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        loss: torch.Tensor = FrozenHeadLoss.apply(  # type: ignore[no-untyped-call]  # torch has no types there
            rows.to(dtype), head.weight.to(dtype), targets, 1 / batch.items.clamp(min=1), IGNORED
        )
        return loss
    from trl.kernels import ChunkedLogProbFunction
    from trl.trainer.utils import _CHUNKED_LOGPROB_CHUNK_SIZE

    log_probs: torch.Tensor = ChunkedLogProbFunction.apply(  # type: ignore[no-untyped-call]  # torch has no types there
        rows, head.weight, head.bias, targets.clamp(min=0), 1.0, _CHUNKED_LOGPROB_CHUNK_SIZE, None, 1.0, ("log_probs",)
    )[0]
    return -log_probs.masked_fill(targets == IGNORED, 0).sum() / batch.items.clamp(min=1)


class CapturedStep:
    """Runs micro-batches by replaying one captured pass; its gradients are those of the ordinary pass.

    It knows the mean cross entropy alone, in float32 or bfloat16: no label smoothing, no scaled loss. The weights must
    stay in their memory.
    """

    def __init__(
        self,
        model: "PeftModel",
        fusion: Fusion,
        *,
        tokens: int,
        block: int,
        sequences: int,
        autocast: torch.dtype | None,
        on_graph: bool = True,
    ) -> None:
        """Sizes that no batch exceeds: ``tokens`` and ``sequences`` of one that is filled up, tokens of a ``block``.

        ``autocast`` is the trainer's type, if any. Without ``on_graph`` the same code runs uncaptured, for tests.
        """
        base: Any = model.get_base_model()
        self.model, self.on_graph = model, on_graph
        self.tokens, self.block, self.sequences = tokens, block, sequences
        self.autocast = autocast
        self.decoder, self.head = cast("PreTrainedModel", base.base_model), base.get_output_embeddings()
        self.scratch = fusion.scratch
        self.why_not = obstacle(model, fusion, on_graph=on_graph)
        self.error = ""  # the traceback of a capture that failed
        self.replayed, self.passed_over = 0, 0
        self.misfits: set[str] = set()
        self.weights = [weight for weight in model.parameters() if weight.requires_grad]
        self.gradients: list[torch.Tensor] = []  # of the last replay alone
        self.totals: list[torch.Tensor] = []  # of an optimiser step's micro-batches, where there are several
        self.batch: StaticBatch | None = None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._loss = torch.empty(0)

    def __str__(self) -> str:
        if self.why_not:
            return f"not captured: {self.why_not}"
        misfits = f"; did not fit: {', '.join(sorted(self.misfits))}" if self.misfits else ""
        return f"captured: {self.replayed} replayed, {self.passed_over} not{misfits}"

    def run(self, inputs: dict[str, Any], items: torch.Tensor | int | None) -> torch.Tensor | None:
        """Add the batch's gradients to those of the weights and return its share of the loss; None if it cannot."""
        if self.why_not is None:
            self._prepare(inputs, items)
        why = self.why_not or self._misfit(inputs, items)
        if why is not None or self.batch is None or items is None:
            self.misfits |= {why} if why and self.why_not is None else set()
            self.passed_over += 1
            return None
        self.batch.load(inputs, items)
        before = self._set_aside()
        self.scratch.seeds.fill()
        loss = self._replay(self.batch)
        self._hand_over(before)
        self.scratch.forget()
        self.replayed += 1
        return loss.clone()

    def _misfit(self, inputs: dict[str, Any], items: torch.Tensor | int | None) -> str | None:
        if self.batch is None:
            return "no batch fitted yet"
        return "the step's trained tokens are not counted" if items is None else self.batch.misfit(inputs)

    def _prepare(self, inputs: dict[str, Any], items: torch.Tensor | int | None) -> None:
        """Make the static memory and capture, at the first batch that fits and starts an optimiser step."""
        if self.batch is not None or items is None or "cu_seq_lens_q" not in inputs:
            return
        if any(weight.grad is not None for weight in self.weights):
            return
        batch = StaticBatch(self.tokens, self.block, self.sequences, inputs["input_ids"].device)
        if batch.misfit(inputs):
            return
        self.batch = batch
        batch.load(inputs, items)
        state = torch.get_rng_state()
        try:
            self._capture(batch)
        except torch.OutOfMemoryError:
            self.release()
            raise
        except Exception as error:  # whatever a library does that a capture forbids: training goes on without
            self.why_not = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            self.error = traceback.format_exc()
            print(f"  train: {self}\n{self.error}", flush=True)
            self._give_up()
        finally:
            torch.set_rng_state(state)
            self.scratch.forget()
            self._drop_gradients()

    def release(self) -> None:
        """Give the memory back; the next batch that fits is captured anew."""
        self.batch = None
        self._give_up()
        self._drop_gradients()
        gc.collect()
        torch.cuda.empty_cache()

    def _give_up(self) -> None:
        self._graph, self.gradients, self.totals = None, [], []
        self._loss = torch.empty(0)
        self.scratch.seeds.memory = None

    def _capture(self, batch: StaticBatch) -> None:
        seeds = self.scratch.seeds
        if not self.on_graph:
            self._give_seeds_memory(batch)
            return
        torch.cuda.synchronize()
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch has no types there
        with torch.cuda.stream(stream):
            self._give_seeds_memory(batch)
            for _ in range(WARM_UPS):
                seeds.fill()
                self._pass(batch)
        torch.cuda.synchronize()
        self._drop_gradients()  # memory that is free now goes back before the capture
        gc.collect()
        self.scratch.forget()
        with torch.cuda.stream(stream):  # left for sure, also where a failed capture leaves its own not
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, stream=stream, capture_error_mode=CAPTURE_MODE):
                self._loss = self._pass(batch)
            self.gradients = self._taken()
        torch.cuda.synchronize()

    def _give_seeds_memory(self, batch: StaticBatch) -> None:
        """Run a pass to see how many seeds it draws, and which weights take part."""
        self._pass(batch)
        self.weights = [weight for weight in self.weights if weight.grad is not None]
        if self.scratch.seeds.drawn:
            self.scratch.seeds.memory = torch.zeros(
                self.scratch.seeds.drawn, dtype=torch.int32, device=self.model.device
            )

    def _taken(self) -> list[torch.Tensor]:
        return [weight.grad for weight in self.weights if weight.grad is not None]

    def _drop_gradients(self) -> None:
        for weight in self.weights:
            weight.grad = None

    def _set_aside(self) -> list[torch.Tensor]:
        """The gradients of earlier micro-batches, where the replay does not overwrite them; none at a step's start."""
        before = self._taken()
        if not before or not self.gradients or before[0] is not self.gradients[0]:
            return before
        if not self.totals:
            self.totals = [torch.empty_like(gradient) for gradient in before]
        torch._foreach_copy_(self.totals, before)
        return self.totals

    def _hand_over(self, before: list[torch.Tensor]) -> None:
        """Give the weights their gradients, added to those before."""
        if before:
            torch._foreach_add_(before, self.gradients)
        for weight, gradient in zip(self.weights, before or self.gradients, strict=True):
            weight.grad = gradient

    def _replay(self, batch: StaticBatch) -> torch.Tensor:
        if self._graph is None:
            loss = self._pass(batch)
            self.gradients = self._taken()
            return loss
        self._graph.replay()
        return self._loss

    def _pass(self, batch: StaticBatch) -> torch.Tensor:
        """Forward and backward pass of the static batch; its loss. The weights have its gradients alone."""
        self._drop_gradients()
        with self.scratch.seeds.reading(), self._autocast():
            hidden: torch.Tensor = self.decoder(**batch.model_inputs()).last_hidden_state
            loss = token_loss(hidden, self.head, batch)
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no types there
        return loss.detach()

    def _autocast(self) -> torch.autocast:
        """The trainer's; without its cache, which would keep what a captured pass made."""
        dtype = self.autocast or torch.bfloat16
        return torch.autocast(
            self.model.device.type, dtype=dtype, enabled=self.autocast is not None, cache_enabled=False
        )
