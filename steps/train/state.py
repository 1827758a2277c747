"""Whether two states of a training are the same."""

import hashlib

import numpy as np
import torch

from steps.train.distributed.shard import part


def fingerprint_of(state: object) -> str:
    """SHA-256 of tensors, arrays, numbers and texts, however nested."""
    digest = hashlib.sha256()

    def add(value: object) -> None:
        if isinstance(value, dict):
            for name in sorted(value, key=repr):  # a file may have given them another order
                digest.update(repr(name).encode())
                add(value[name])
        elif isinstance(value, list | tuple):
            for one in value:
                add(one)
        elif isinstance(value, torch.Tensor):
            digest.update(str(value.dtype).encode())
            digest.update(part(value.detach()).cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        else:
            digest.update(value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode())

    add(state)
    return digest.hexdigest()
