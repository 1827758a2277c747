"""A packed micro-batch in memory that never moves and has always the same size."""

from typing import Any

import torch

from steps.tokenizer import IGNORED


class StaticBatch:
    """Holds one flattened micro-batch of up to ``tokens`` tokens, filled up with sequences that are not trained on.

    Flash attention reads the sequences' bounds from memory; of them there are always as many, the last ones empty.
    """

    def __init__(self, tokens: int, block: int, sequences: int, device: torch.device) -> None:
        """``block``: no sequence is longer; ``sequences``: no batch has more of them, the filling ones included."""
        self.tokens, self.block, self.sequences = tokens, block, sequences
        self.input_ids = torch.zeros(1, tokens, dtype=torch.long, device=device)
        self.position_ids = torch.zeros(1, tokens, dtype=torch.long, device=device)
        self.targets = torch.full((tokens,), IGNORED, dtype=torch.long, device=device)  # labels, one place to the left
        self.bounds = torch.zeros(sequences + 1, dtype=torch.int32, device=device)
        self.items = torch.ones((), device=device)  # trained tokens of the whole optimiser step
        self._filling = torch.arange(tokens, device=device) % block
        self._ends = torch.arange(1, sequences + 1, dtype=torch.int32, device=device) * block

    def misfit(self, inputs: dict[str, Any]) -> str | None:
        """Why the collator's batch does not fit, or None; reads no memory of the device."""
        if "cu_seq_lens_q" not in inputs or "attention_mask" in inputs:
            return "it is not packed without padding"
        tokens, sequences = inputs["input_ids"].shape[1], inputs["cu_seq_lens_q"].numel() - 1
        filling = -(-(self.tokens - tokens) // self.block)
        if inputs["input_ids"].shape[0] != 1 or tokens > self.tokens:
            return f"{tuple(inputs['input_ids'].shape)} tokens, of at most (1, {self.tokens})"
        if inputs["max_length_q"] > self.block:
            return f"a sequence of {inputs['max_length_q']} tokens, of at most {self.block}"
        if sequences + filling > self.sequences:
            return f"{sequences} sequences and {filling} to fill up, of at most {self.sequences}"
        return None

    def load(self, inputs: dict[str, Any], items: torch.Tensor | int) -> None:
        """Take over a batch that fits, and the number of trained tokens of its optimiser step."""
        tokens, known = inputs["input_ids"].shape[1], inputs["cu_seq_lens_q"].numel()
        rest = self.tokens - tokens
        self.input_ids[:, :tokens].copy_(inputs["input_ids"])
        self.position_ids[:, :tokens].copy_(inputs["position_ids"])
        self.targets[: tokens - 1].copy_(inputs["labels"][0, 1:])
        self.targets[tokens - 1 :].fill_(IGNORED)
        if rest:
            self.input_ids[:, tokens:].zero_()
            self.position_ids[:, tokens:].copy_(self._filling[None, :rest])
        self.bounds[:known].copy_(inputs["cu_seq_lens_q"])
        ends = self._ends[: self.sequences + 1 - known]
        torch.clamp(ends + tokens, max=self.tokens, out=self.bounds[known:])
        if isinstance(items, torch.Tensor):
            self.items.copy_(items)
        else:
            self.items.fill_(items)

    def model_inputs(self) -> dict[str, Any]:
        """What the decoder is called with."""
        return {
            "input_ids": self.input_ids,
            "position_ids": self.position_ids,
            "cu_seq_lens_q": self.bounds,
            "cu_seq_lens_k": self.bounds,
            "max_length_q": self.block,
            "max_length_k": self.block,
            "use_cache": False,
        }
