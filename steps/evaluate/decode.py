"""Decoding of many prompts: a batch whose finished rows leave it, and make room for those that wait.

transformers' ``generate`` computes finished rows until the last row of its batch ends, and its continuous batching
(``generate_batch``) is written for GPUs: on a processor it takes longer than one prompt after the other.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from steps.evaluate.sampling import Sampling, sampled

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import DynamicCache, PreTrainedModel

    Model = PreTrainedModel | PeftModel

FREE_SHARE = 0.25
"""Share of the batch that must be finished before it is made smaller and refilled: both copy the rest's cache."""


@dataclass(frozen=True)
class Decoding:
    """What ends an answer, and how many rows are decoded together."""

    end: int  # token id
    pad: int  # token id
    max_new_tokens: int
    batch_size: int


@dataclass
class _Row:
    """One prompt on its way: ``tokens`` are those after the prompt."""

    index: int
    tokens: list[int] = field(default_factory=list)
    done: bool = False


@dataclass
class _Batch:
    """Rows with their cache; a column is a position, and the left columns of short rows are padding."""

    rows: list[_Row]
    cache: "DynamicCache"
    mask: "torch.Tensor"
    last: "torch.Tensor"  # the newest token of each row, not yet in the cache


def decode(
    model: "Model",
    prompts: Sequence[Sequence[int]],
    decoding: Decoding,
    advance: Callable[[int], object],
    sampling: Sampling | None = None,
) -> Iterator[tuple[int, list[int]]]:
    """Each prompt's index with its tokens, the end token last where the model wrote it, as rows finish.

    Prompts start longest first, so that memory is largest at the beginning; the caller has put the model into
    evaluation mode and gradients off. What is computed for a row does not depend on its neighbours beyond rounding.

    Args:
        model: a model for causal language modelling.
        prompts: token ids.
        decoding: what ends an answer, and the rows of a batch.
        advance: told the number of new tokens after each forward pass.
        sampling: how tokens are drawn, with a generator for each prompt; by default the likeliest is taken.
    """
    waiting = sorted(range(len(prompts)), key=lambda index: len(prompts[index]), reverse=True)
    if not keeps_keys_and_values(model):
        yield from _by_generate(model, prompts, waiting, decoding, advance, sampling)
        return
    batch: _Batch | None = None
    while waiting or batch:
        room = decoding.batch_size - (len(batch.rows) if batch else 0)
        if waiting and room:
            new, waiting = waiting[:room], waiting[room:]
            started = _started(model, new, [prompts[index] for index in new], decoding.pad, sampling)
            advance(len(new))
            yield from _note(started, decoding)
            batch = _joined(batch, started) if batch else started
        elif batch:
            _forward(model, batch, sampling)
            advance(sum(not row.done for row in batch.rows))
            yield from _note(batch, decoding)
        if batch:
            batch = _without_finished(batch)


def keeps_keys_and_values(model: "Model") -> bool:
    """Whether the model's cache is nothing but keys and values by position, and its forward pass takes positions.

    Not so for state-space layers and for some old architectures: they are left to ``generate``.
    """
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

    inner = _without_wrapper(model)
    takes = inspect.signature(inner.forward).parameters
    plain = (DynamicLayer, DynamicSlidingWindowLayer)
    keys_and_values = all(type(layer) in plain for layer in DynamicCache(config=inner.config).layers)
    return keys_and_values and {"position_ids", "logits_to_keep", "past_key_values"} <= takes.keys()


def _without_wrapper(model: "Model") -> "PreTrainedModel":
    """PEFT's wrapper has another signature."""
    from peft import PeftModel

    return cast("PreTrainedModel", model.get_base_model() if isinstance(model, PeftModel) else model)


def _started(
    model: "Model", indices: Sequence[int], prompts: Sequence[Sequence[int]], pad: int, sampling: Sampling | None
) -> _Batch:
    """The prompts' own pass through the model, which fills a cache and gives each its first token."""
    from transformers import DynamicCache

    ids, mask = (tensor.to(model.device) for tensor in left_padded(prompts, pad))
    # Without the model's configuration, so that layers with a window keep all columns too: their mask does the rest.
    batch = _Batch([_Row(index) for index in indices], DynamicCache(), mask, ids)
    _choose(model, batch, (mask.cumsum(-1) - 1).clamp(min=0), sampling)
    return batch


def _forward(model: "Model", batch: _Batch, sampling: Sampling | None) -> None:
    """One token more for every row."""
    import torch

    batch.mask = torch.nn.functional.pad(batch.mask, (0, 1), value=1)
    _choose(model, batch, batch.mask.sum(-1, keepdim=True) - 1, sampling)


def _choose(model: "Model", batch: _Batch, positions: "torch.Tensor", sampling: Sampling | None) -> None:
    output = model(
        input_ids=batch.last,
        attention_mask=batch.mask,
        position_ids=positions,
        past_key_values=batch.cache,
        use_cache=True,
        logits_to_keep=1,
    )
    batch.last = _tokens(output.logits[:, -1], [row.index for row in batch.rows], sampling)


def _tokens(logits: "torch.Tensor", indices: Sequence[int], sampling: Sampling | None) -> "torch.Tensor":
    return sampled(logits, indices, sampling) if sampling else logits.argmax(-1, keepdim=True)


def _note(batch: _Batch, decoding: Decoding) -> Iterator[tuple[int, list[int]]]:
    """Give each row its new token; the rows that end with it."""
    for row, token in zip(batch.rows, batch.last.flatten().tolist(), strict=True):
        if not row.done:
            row.tokens.append(token)
            row.done = token == decoding.end or len(row.tokens) == decoding.max_new_tokens
            if row.done:
                yield row.index, row.tokens


def _without_finished(batch: _Batch) -> _Batch | None:
    """The batch without finished rows and without columns that are padding in all others, once that pays."""
    import torch

    alive = [position for position, row in enumerate(batch.rows) if not row.done]
    finished = len(batch.rows) - len(alive)
    if not alive:
        return None
    if finished < max(1, FREE_SHARE * len(batch.rows)):
        return batch
    kept = torch.tensor(alive, device=batch.mask.device)
    batch.mask = batch.mask[kept]
    first = int(batch.mask.any(0).int().argmax())
    batch.mask = batch.mask[:, first:]
    batch.cache.batch_select_indices(kept)
    for layer in _layers(batch.cache):
        layer.keys, layer.values = layer.keys[:, :, first:], layer.values[:, :, first:]
    return _Batch([batch.rows[position] for position in alive], batch.cache, batch.mask, batch.last[kept])


def _joined(one: _Batch, other: _Batch) -> _Batch:
    """Both batches as one; the shorter one's rows get padding on the left."""
    import torch

    length = max(one.mask.shape[1], other.mask.shape[1])
    for mine, theirs in zip(_layers(one.cache), _layers(other.cache), strict=True):
        mine.keys = torch.cat([_lengthened(mine.keys, length), _lengthened(theirs.keys, length)])
        mine.values = torch.cat([_lengthened(mine.values, length), _lengthened(theirs.values, length)])
    masks = [torch.nn.functional.pad(mask, (length - mask.shape[1], 0)) for mask in (one.mask, other.mask)]
    return _Batch(one.rows + other.rows, one.cache, torch.cat(masks), torch.cat([one.last, other.last]))


def _layers(cache: "DynamicCache") -> "list[Any]":
    """Filled, and all of the kind that ``DynamicCache()`` makes without a configuration: its types allow more."""
    return list(cache.layers)


def _lengthened(states: "torch.Tensor", length: int) -> "torch.Tensor":
    import torch

    return torch.nn.functional.pad(states, (0, 0, length - states.shape[-2], 0))


def _by_generate(
    model: "Model",
    prompts: Sequence[Sequence[int]],
    order: Sequence[int],
    decoding: Decoding,
    advance: Callable[[int], object],
    sampling: Sampling | None,
) -> Iterator[tuple[int, list[int]]]:
    """Batch after batch by transformers' ``generate``, whose cache is the model's own affair."""
    import torch
    from transformers import LogitsProcessorList

    indices: Sequence[int] = []

    def only_ours(_: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Leave ``generate`` no choice: its own sampling has one generator for all rows."""
        return torch.full_like(scores, float("-inf")).scatter(-1, _tokens(scores, indices, sampling), 0.0)

    for start in range(0, len(order), decoding.batch_size):
        indices = order[start : start + decoding.batch_size]
        ids, mask = (tensor.to(model.device) for tensor in left_padded([prompts[i] for i in indices], decoding.pad))
        output = model.generate(  # type: ignore[operator]  # PreTrainedModel's types leave the mixin out
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=decoding.max_new_tokens,
            do_sample=False,
            num_beams=1,
            logits_processor=LogitsProcessorList([only_ours]) if sampling else None,
            use_cache=True,
            eos_token_id=decoding.end,
            pad_token_id=decoding.pad,
        )
        for index, tokens in zip(indices, output[:, ids.shape[1] :].tolist(), strict=True):
            kept = tokens[: tokens.index(decoding.end) + 1] if decoding.end in tokens else tokens
            advance(len(kept))
            yield index, kept


def left_padded(prompts: Sequence[Sequence[int]], pad: int) -> tuple["torch.Tensor", "torch.Tensor"]:
    """Ids and attention mask with every prompt at the right edge."""
    import torch

    longest = max(map(len, prompts))
    ids = torch.full((len(prompts), longest), pad, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    return ids, mask
