"""The runner: two runs never overlap, a failure reaches the hook, and the hook never hides it."""

import fcntl
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipelines.credentials import without_secrets
from pipelines.schedule import hook, run, store
from pipelines.schedule.plan import Schedule
from pipelines.schedule.systemd import BUSY
from tests.serving import Handler, serving

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "hf_" + "Planted" * 3


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(ROOT)


def scheduled(configuration: Path, on_failure: str | None = None) -> None:
    """A schedule "nightly", as the runner finds it."""
    store.keep(store.entry_of(Schedule("nightly", configuration, "0 3 * * *", None, on_failure), "crontab"))


def test_a_second_run_ends_at_once_and_is_no_failure(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    scheduled(tmp_path / "nightly.yaml", f"touch {tmp_path}/called")
    with store.alone("nightly"):
        assert run.main("nightly") == BUSY == 75
    assert f"nightly: its former run, process {os.getpid()} on " in capfd.readouterr().out
    assert not (tmp_path / "called").exists()
    assert store.noted("nightly") == ""


def test_a_killed_run_is_reported_and_frees_the_lock(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Killed while it waits for another schedule's run, as the kernel kills what takes too much memory."""
    scheduled(tmp_path / "nightly.yaml", f'echo "$QLORA_EXIT_CODE" >{tmp_path}/called; cat >>{tmp_path}/called')
    codes: list[int] = []
    runner = threading.Thread(target=lambda: codes.append(run.main("nightly")))
    with store.alone("another"):
        runner.start()
        until(lambda: store.noted("nightly") == "" and holder() is not None)
        os.kill(int(str(holder())), signal.SIGKILL)
        runner.join(timeout=60)
    assert codes == [128 + signal.SIGKILL]
    assert (tmp_path / "called").read_text().splitlines()[:2] == [
        "-9",
        f"nightly failed on {os.uname().nodename} ({tmp_path}/nightly.yaml, exit code -9)",
    ]
    with store.alone("nightly"):
        pass
    assert "the run failed, exit code -9" in capfd.readouterr().out


def holder() -> str | None:
    """The process that holds the schedule's lock."""
    path = store.state_folder() / "nightly.lock"
    if not path.exists():
        return None
    with path.open("r+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return stream.read().partition(" ")[0] or None
    return None


def until(condition: Callable[[], bool]) -> None:
    """Wait for it."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


def test_another_schedule_waits_its_turn(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    scheduled(tmp_path / "nightly.yaml")
    codes: list[int] = []
    waiting = threading.Thread(target=lambda: codes.append(run.main("nightly")))
    with store.alone("another"):
        waiting.start()
        until(lambda: "waits for the end of another schedule's run" in capfd.readouterr().out)
        assert codes == []
        store.forget("nightly")
    waiting.join(timeout=60)
    assert codes == [1], "it went on, and found that it had been removed meanwhile"
    assert "error: no schedule is called nightly" in capfd.readouterr().out


def test_a_failure_reaches_the_command_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", "planted-token")
    config = tmp_path / "nightly.yaml"
    config.write_text(
        "model: {name: failing}\nparameters:\n  base_model: {folder: /nowhere/planted-token/base}\n"
        "  data: {sources: [{files: /nowhere/rows.jsonl}]}\n"
    )
    scheduled(config, f"env >{tmp_path}/parts; cat >{tmp_path}/text; exit 3")
    assert run.main("nightly") == 1, "the run's own exit code, and not the hook's"
    said = capfd.readouterr().out
    assert "on-failure hook failed: the command ended with exit code 3" in said
    text, parts = (tmp_path / "text").read_text(), (tmp_path / "parts").read_text()
    assert "parameters.base_model.folder: /nowhere/***/base is not a folder" in text
    assert "QLORA_SCHEDULE=nightly\n" in parts
    assert "QLORA_EXIT_CODE=1\n" in parts
    assert "QLORA_ERROR=" in parts
    assert " failed: parameters.base_model.folder: /nowhere/***/base is not a folder" in store.noted("nightly")
    for shown in (text, parts.partition("QLORA_ERROR=")[2], store.noted("nightly")):
        assert "planted-token" not in shown


class Receiver(Handler):
    """Keeps what is posted; /refuse answers with 500."""

    posted: list[tuple[str, dict[str, object]]]

    def do_POST(self) -> None:
        """As http.server calls it."""
        self.posted.append((self.headers["Content-Type"], json.loads(self.body())))
        self.answer({}, 500 if self.path.startswith("/refuse") else 200)


@pytest.fixture
def server() -> Iterator[str]:
    """A receiver's address."""
    Receiver.posted = []
    with serving(Receiver) as address:
        yield address


FAILURE = hook.Failure("nightly", "/data/nightly.yaml", 1, "no rows", host="box")


def test_a_failure_is_posted_as_json(server: str) -> None:
    assert hook.call(f"{server}/hook", FAILURE) == ""
    assert Receiver.posted == [
        (
            "application/json",
            {
                "schedule": "nightly",
                "configuration": "/data/nightly.yaml",
                "exit_code": 1,
                "error": "no rows",
                "host": "box",
                "text": "nightly failed on box (/data/nightly.yaml, exit code 1)\nno rows",
            },
        )
    ]


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/refuse/S3CRET", "127.0.0.1: HTTP Error 500: Internal Server Error"),
        ("/hook S3CRET\n", "InvalidURL: not an address that can be called"),
        (":S3CRET", "InvalidURL: not an address that can be called"),
    ],
)
def test_a_hook_that_fails_is_told_without_its_address(server: str, path: str, told: str) -> None:
    problem = hook.call(server + path, FAILURE)
    assert problem == told


def test_nobody_listens(server: str) -> None:
    assert "127.0.0.1: " in hook.call("http://127.0.0.1:1/S3CRET", FAILURE)
    assert "S3CRET" not in hook.call("no-such-command S3CRET", FAILURE)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"token {TOKEN} refused", "token *** refused"),
        ("s3: https://me:pass@store/x failed", "s3: https://***@store/x failed"),
        ("key sk-1234 is wrong", "key *** is wrong"),
        ("AKIAPLANTEDPLANTEDPL and ghp_plantedPLANTEDplantedPLANTEDplantedPLA", "*** and ***"),
        ("it is true", "it is true"),
        ("nothing here: hf_ and /data/a@b", "nothing here: hf_ and /data/a@b"),
    ],
)
def test_secrets_are_starred(monkeypatch: pytest.MonkeyPatch, text: str, shown: str) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "sk-1234")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    assert without_secrets(text) == shown


def test_an_unknown_schedule_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    assert run.main("nowhere") == 1
    assert capfd.readouterr().err == ("error: no schedule is called nowhere; list them with: qlora schedule list\n")
