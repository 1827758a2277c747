"""What torch is asked for while something runs."""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Called(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no types there
    """Notes each operator with its arguments."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has no types there
        self.calls: list[tuple[Any, tuple[Any, ...]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls.append((func, args))
        return func(*args, **(kwargs or {}))

    def arguments(self, operator: Any) -> list[tuple[Any, ...]]:
        """Of each call of an operator."""
        return [arguments for called, arguments in self.calls if called is operator]

    def joined(self) -> list[list[torch.Size]]:
        """Shapes of the matrices that are copied to lie side by side, each time."""
        cats = self.arguments(torch.ops.aten.cat.default)
        return [[part.shape for part in parts] for parts, *dim in cats if dim == [1] and parts[0].dim() == 2]
