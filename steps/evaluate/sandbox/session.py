"""A doctest session as a test."""

import doctest
from typing import Any


class _Runner(doctest.DocTestRunner):
    """Notes the first failure in place of printing all of them."""

    def __init__(self) -> None:
        super().__init__(verbose=False, optionflags=doctest.FAIL_FAST)
        self.wrong = ""
        self.error: BaseException | None = None

    def report_failure(self, out: Any, test: doctest.DocTest, example: doctest.Example, got: str) -> None:
        """An example that gave something else."""
        self.wrong = f"{example.source.strip()} gave {got.strip()[:200]!r}, expected {example.want.strip()[:200]!r}"

    def report_unexpected_exception(
        self, out: Any, test: doctest.DocTest, example: doctest.Example, exc_info: Any
    ) -> None:
        """An example that raised."""
        self.error = exc_info[1]


def first_failure(text: str, names: dict[str, Any]) -> str:
    """What was wrong with the first example that gave something else, or "".

    Args:
        text: the session.
        names: its global names.

    Raises:
        BaseException: what the first failing example raised.
        ValueError: it is no doctest session.
    """
    runner = _Runner()
    runner.run(doctest.DocTestParser().get_doctest(text, names, "session", None, None), clear_globs=False)
    if runner.error is not None:
        raise runner.error
    return runner.wrong
