"""Sampled answers: what is drawn depends on the prompt and on the answer's number, not on the batch or the order."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Draw:
    """One sampled answer to a prompt: how its tokens are drawn, and which of the prompt's answers it is."""

    temperature: float
    top_p: float
    number: int


@dataclass(frozen=True)
class Sampling:
    """How the tokens of many answers are drawn; each answer has a generator of its own."""

    temperature: float
    top_p: float
    generators: Sequence[np.random.Generator]


def sampling_of(prompts: Sequence[Sequence[int]], draws: Sequence[Draw]) -> Sampling | None:
    """How an answer to each prompt is drawn; all have one temperature and one top-p. Without draws, greedily."""
    if not draws:
        return None
    generators = [generator_of(ids, draw.number) for ids, draw in zip(prompts, draws, strict=True)]
    return Sampling(draws[0].temperature, draws[0].top_p, generators)


def generator_of(prompt_ids: Sequence[int], number: int) -> np.random.Generator:
    """The generator of a prompt's answer of that number, the same in every run and for both models."""
    digest = hashlib.sha256(json.dumps([list(prompt_ids), number]).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest))


def sampled(logits: "torch.Tensor", answers: Sequence[int], sampling: Sampling) -> "torch.Tensor":
    """One token for each row, drawn by inverting the distribution function with one uniform number of its generator.

    So a draw takes one number of the answer's generator whatever the vocabulary, the device and the other rows;
    ``torch.multinomial`` takes one generator for the whole batch.

    Args:
        logits: rows and vocabulary.
        answers: which generator each row has.
        sampling: temperature, top-p and the generators.
    """
    import torch
    from transformers import TemperatureLogitsWarper, TopPLogitsWarper

    ids = torch.empty(len(logits), 0, dtype=torch.long)  # of what was written so far: neither looks at it
    scores = TemperatureLogitsWarper(sampling.temperature)(ids, logits.float())
    if sampling.top_p < 1:
        scores = TopPLogitsWarper(sampling.top_p)(ids, scores)
    upto = scores.softmax(-1).double().cumsum(-1)
    uniform = [[sampling.generators[answer].random()] for answer in answers]
    target = torch.tensor(uniform, dtype=torch.double, device=logits.device) * upto[:, -1:]
    return torch.searchsorted(upto, target, right=True).clamp(max=logits.shape[-1] - 1)
