"""What SIGTERM and Ctrl-C do while a training notes them, whatever they did before."""

import signal
import threading
from pathlib import Path

import pytest

from steps.train.preemption import signals_noted
from tests.children import exit_code_of
from tests.train.signalled import handled_by


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_the_first_is_noted_and_a_ctrl_c_after_it_ends(first: signal.Signals) -> None:
    with handled_by(signal.SIGINT, signal.default_int_handler):
        with signals_noted() as asked:
            assert not asked.is_set()
            signal.raise_signal(first)
            assert asked.is_set()
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


def test_sigterm_ends_nothing_however_often_it_comes() -> None:
    """Kubernetes and schedulers repeat it; the checkpoint is under way."""
    with signals_noted() as asked:
        for _time in range(3):
            signal.raise_signal(signal.SIGTERM)
        assert asked.is_set()


def test_a_second_ctrl_c_while_the_first_is_being_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(threading.Event):
        """The second comes when the first one's handler has asked for the event or sets it, whichever is earlier."""

        left = 1

        def is_set(self) -> bool:
            found = super().is_set()
            self.interrupt()
            return found

        def set(self) -> None:
            self.interrupt()
            super().set()

        def interrupt(self) -> None:
            self.left -= 1
            if self.left == 0:
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("steps.train.preemption.threading.Event", Interrupted)
    with handled_by(signal.SIGINT, signal.default_int_handler), signals_noted(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_an_ignored_ctrl_c_stays_ignored_and_sigterm_counts() -> None:
    """A script's ``qlora run ... &`` is not asked to go by the Ctrl-C that ends what runs in front."""
    with handled_by(signal.SIGINT, signal.SIG_IGN):
        with signals_noted() as asked:
            for _time in range(2):
                signal.raise_signal(signal.SIGINT)
            assert not asked.is_set()
            signal.raise_signal(signal.SIGTERM)
            assert asked.is_set()
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def interrupted_twice(noted: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with signals_noted() as asked:
        signal.raise_signal(signal.SIGINT)
        noted.write_text(str(asked.is_set()))
        signal.raise_signal(signal.SIGINT)
        noted.write_text("still there")


def test_a_second_ctrl_c_ends_a_process_without_pythons_handler(tmp_path: Path) -> None:
    assert exit_code_of(interrupted_twice, tmp_path / "noted") == -signal.SIGINT
    assert (tmp_path / "noted").read_text() == "True"
