"""Adapters merged into a checkpoint shard by shard, a block of rows at a time: memory does not grow with the model."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steps.errors import ModelError
from steps.merge.changes import Change, LowRank, changes_of
from steps.merge.dequantized import Dequantized, dequantized_of
from steps.merge.layout import Layout, layout_of
from steps.merge.loftq import rounded
from steps.merge.shards import FinishedShards
from steps.merge.tensors import StoredTensor, read_header, weight_files
from steps.quantize.params import QuantizationParameters

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = 2**22
"""Bytes that are read, or float32 values' bytes that are computed, at once: what stays in a processor's cache."""

Block = Callable[[], memoryview]
"""Makes some of a file's bytes."""


@dataclass(frozen=True)
class Merging:
    """What is to be done: everything that can be known from headers is checked before a weight is read."""

    files: list[Path]
    layout: Layout
    stored: dict[str, StoredTensor]
    changes: dict[str, list[Change]]
    rounding: QuantizationParameters | None = None  # of changed weights, for an adapter that was trained so (LoftQ)
    dequantized: Dequantized = field(default_factory=Dequantized)  # weights that take the place of the base's

    def into_dequantized(self, quantized: Path, *, trust_remote_code: bool = False) -> "Merging":
        """The same into the weights that the quantised model multiplies by, those without an adapter included.

        Raises:
            ModelError: a quantised weight is not one tensor of the base model.
        """
        dequantized = dequantized_of(quantized, self.layout, trust_remote_code=trust_remote_code)
        return replace(self, rounding=None, dequantized=dequantized)

    def replaces(self, tensor: str) -> bool:
        """Whether the tensor is not copied as it is."""
        return tensor in self.changes or tensor in self.dequantized

    def require_vocabulary(self, tokens: int, base: str) -> None:
        """Raise :class:`ModelError` where the tokenizer has more tokens than the model has embeddings."""
        rows = self.stored[self.layout.tensors[self.layout.embedding]].rows
        if rows < tokens:
            raise ModelError(
                f"{base}: the tokenizer has {tokens} tokens and the model's vocabulary {rows}; adapter and base do not "
                "belong together"
            )


def plan_merge(
    base: Path,
    adapters: Sequence[Path],
    *,
    trust_remote_code: bool = False,
    rounding: QuantizationParameters | None = None,
) -> Merging:
    """What merging the adapters, in their order, into the checkpoint ``base`` changes.

    Each update is added to the result of those before it; DoRA's magnitudes refer to the base model's weights, as in
    training; of two adapters that hold the same weight whole the later one counts.

    Args:
        base: the base model.
        adapters: folders in PEFT's layout.
        trust_remote_code: whether the model brings code of its own.
        rounding: type to which changed weights are rounded before, for an adapter that was trained so (LoftQ).

    Raises:
        ModelError: base and adapters do not belong together, or cannot be merged.
    """
    files = weight_files(base)
    stored = {tensor.name: tensor for path in files for tensor in read_header(path)[1]}
    layout = layout_of(base, stored, trust_remote_code=trust_remote_code)
    return Merging(files, layout, stored, changes_of(adapters, layout, stored), rounding)


def merge_shards(merging: Merging, finished: FinishedShards, device: str) -> int:
    """Write every shard that is not there yet; names, headers and layout are the base model's.

    New weights are computed in float32 and rounded once, to the type that the base has them in. All else is copied
    byte by byte.

    Args:
        merging: what :func:`plan_merge` gave.
        finished: where shards wait until all of them are done.
        device: ``"cuda"`` or ``"cpu"``; where the products run.

    Returns:
        How many shards were there already.

    Raises:
        ModelError: a new weight is not finite, or is stored in another type than bf16, fp16 or fp32.
    """
    kept = 0
    for path in merging.files:
        if finished.has(path.name):
            kept += 1
            continue
        with finished.writing(path.name) as (temporary, record):
            record(_write(temporary, _content(path, merging, device)))
    return kept


def _write(target: Path, blocks: Iterator[Block]) -> str:
    """Write the blocks in order and give their SHA-256; threads make the next ones and the hash meanwhile."""
    digest = hashlib.sha256()
    waiting: deque[Future[memoryview]] = deque()
    with target.open("wb") as stream, _workers() as (pool, count), ThreadPoolExecutor(1) as hashing:

        def put(block: memoryview) -> None:
            hashed = hashing.submit(digest.update, block)
            stream.write(block)
            hashed.result()

        for block in blocks:
            waiting.append(pool.submit(block))
            if len(waiting) > count:
                put(waiting.popleft().result())
        while waiting:
            put(waiting.popleft().result())
    return digest.hexdigest()


@contextmanager
def _workers() -> Iterator[tuple[ThreadPoolExecutor, int]]:
    """Threads, and how many: as many as torch would use within one product.

    Each computes blocks of its own alone. Threads that share the work of a small block would wait for each other, on a
    machine that does other work most of all.
    """
    import torch

    count = torch.get_num_threads()
    with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            yield pool, count
        finally:
            torch.set_num_threads(count)


def merged_tensors(merging: Merging, device: str) -> Iterator[tuple[str, "Tensor"]]:
    """What :func:`merge_shards` would write of the tensors that it does not copy, by their names."""
    import torch

    for path in merging.files:
        for tensor in read_header(path)[1]:
            if merging.replaces(tensor.name):
                content = bytearray().join(block() for block in _changed(path, tensor, merging, device))
                yield tensor.name, torch.frombuffer(content, dtype=tensor.dtype(str(path))).view(tensor.shape)


def _content(path: Path, merging: Merging, device: str) -> Iterator[Block]:
    """The new file's bytes, in order."""
    header, tensors = read_header(path)
    yield lambda: memoryview(header)
    done = len(header)
    for tensor in (one for one in tensors if merging.replaces(one.name)):
        yield from _copied(path, done, tensor.start)
        yield from _changed(path, tensor, merging, device)
        done = tensor.stop
    yield from _copied(path, done, path.stat().st_size)


def _copied(path: Path, start: int, stop: int) -> Iterator[Block]:
    for at in range(start, stop, BLOCK):
        yield partial(_read, path, at, min(at + BLOCK, stop))


def _read(path: Path, start: int, stop: int) -> memoryview:
    buffer = memoryview(bytearray(stop - start))
    with path.open("rb", buffering=0) as stream:
        stream.seek(start)
        done = 0
        while done < len(buffer):
            count = stream.readinto(buffer[done:])
            if not count:
                raise ModelError(f"{path}: the file became shorter while it was read; fetch it again")
            done += count
    return buffer


def _changed(path: Path, tensor: StoredTensor, merging: Merging, device: str) -> Iterator[Block]:
    """The tensor's new bytes, a block of rows at a time."""
    import torch

    dtype, changes = tensor.dtype(str(path)), merging.changes.get(tensor.name, [])
    width = (tensor.stop - tensor.start) // tensor.rows
    steps = [change.rows(device) for change in changes]
    low_rank = [change for change in changes if isinstance(change, LowRank)]
    magnitudes = any(change.magnitude for change in low_rank)

    def read(start: int, stop: int) -> "Tensor":
        data = _read(path, tensor.start + start * width, tensor.start + stop * width)
        return torch.frombuffer(data, dtype=dtype).view(stop - start, *tensor.shape[1:]).to(device)

    whole: Tensor | None = None  # a quantised weight is not made by rows
    if tensor.name in merging.dequantized:
        whole = merging.dequantized.weight(tensor, device)
    elif merging.rounding and low_rank:
        whole = rounded(read(0, tensor.rows), merging.rounding)

    def make(start: int, stop: int) -> memoryview:
        base = (read(start, stop) if whole is None else whole[start:stop]).float()
        weight = base.clone() if magnitudes else base  # LoRA alone needs no base, and changes it in place
        for step in steps:
            weight = step(weight, base, start)
        new = weight.to(dtype)
        if not torch.isfinite(torch.stack(weight.aminmax()).to(dtype)).all():  # a NaN anywhere is both
            raise ModelError(f"{path}: merged, {tensor.name} is not finite; the adapter is broken or fp16 too narrow")
        data: Any = new.cpu().contiguous().view(torch.uint8).numpy()
        return memoryview(data).cast("B")

    together = any(change.needs_all_rows for change in low_rank)
    count = tensor.rows if together else max(1, BLOCK // (4 * prod(tensor.shape[1:])))
    for start in range(0, tensor.rows, count):
        yield partial(make, start, min(start + count, tensor.rows))
