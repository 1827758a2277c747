"""Attacks on the sandbox: none passes, none leaves a process, none slows another program."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest

from steps.errors import DeviceError
from steps.evaluate.sandbox.limits import Limits
from steps.evaluate.sandbox.process import Program
from steps.evaluate.sandbox.run import run_programs, usable_limits
from steps.evaluate.sandbox.verdict import Verdict

TESTS = ("assert f(1) == 2", "assert f(7) == 8")
REFERENCE = "def f(x):\n    return x + 1\n"
WRONG = "def f(x):\n    return 0\n"
LIMITS = Limits(seconds=2.0)
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def limits() -> Limits:
    try:
        return usable_limits(LIMITS, accept_risk=False)
    except DeviceError as error:
        pytest.skip(f"the kernel forbids isolation: {error}")


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    """A port of 127.0.0.1 that really listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file outside the sandbox that any process may read and write."""
    folder = tmp_path_factory.mktemp("outside")
    path = folder / "secret"
    path.write_text("secret", encoding="ascii")
    for parent in (folder, folder.parent, folder.parent.parent):
        parent.chmod(0o755)
    path.chmod(0o666)
    return path


ATTACKS = re.findall(
    r"^### (.+) -> (.+)\n((?:(?!### ).*\n)*)",
    (ROOT / "tests/evaluate/attacks.txt").read_text(encoding="utf-8"),
    re.MULTILINE,
)
"""Name, kinds of verdict that may be (never that it passed), program."""


def filled(code: str, secret: Path, port: int) -> str:
    """The attack, with a wrong answer behind it: one that gets through has a wrong result in place of an exception."""
    keyctl = {"x86_64": 250, "aarch64": 219}[os.uname().machine]
    values = {"secret": secret, "port": port, "home": Path.home(), "parent": os.getpid(), "keyctl": keyctl}
    for name, value in values.items():
        code = code.replace("{" + name + "}", str(value))
    return code if "def f(" in code else f"{code}\n{WRONG}"


def processes() -> set[int]:
    """Processes of the sandbox that this one has started."""
    return {process.pid for process in psutil.Process().children(recursive=True)}


@pytest.fixture(scope="module")
def verdicts(limits: Limits, secret: Path, server: int) -> list[Verdict]:
    """Of all attacks, each followed by a harmless program."""
    before = processes()
    hostile = [Program(filled(code, secret, server), TESTS, REFERENCE) for _, _, code in ATTACKS]
    counts: list[int] = []
    programs = [program for one in hostile for program in (one, Program(REFERENCE, TESTS, REFERENCE))]
    found = run_programs(programs, limits, counts.append)
    assert counts == list(range(1, len(programs) + 1))
    assert processes() <= before, "a process is left"
    return found


@pytest.mark.parametrize("number", range(len(ATTACKS)), ids=[name for name, _, _ in ATTACKS])
def test_no_attack_passes(number: int, verdicts: list[Verdict], secret: Path) -> None:
    name, kinds, _ = ATTACKS[number]
    verdict = verdicts[2 * number]
    print(f"ATTACK | {name} | {verdict.kind} | {verdict.detail[:90]}")
    assert verdict.kind in kinds.split(", "), verdict
    assert verdict.isolated
    assert secret.read_text(encoding="ascii") == "secret"


def test_attacks_harm_no_other_program(verdicts: list[Verdict]) -> None:
    """Half of what ran was hostile; every harmless program passes."""
    assert [verdict.kind for verdict in verdicts[1::2]] == ["passed"] * len(ATTACKS)


def test_it_ends_with_the_process_that_started_it(limits: Limits) -> None:
    """Also where that process is killed and can clean up nothing."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from steps.evaluate.sandbox.process import Program;"
        "from steps.evaluate.sandbox.run import run_programs; from steps.evaluate.sandbox.limits import Limits;"
        "print('on', flush=True); run_programs([Program('while True: pass')], Limits(seconds=1000))"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(ROOT)], stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        starter.stdout.readline()
        while len(started := psutil.Process(starter.pid).children(recursive=True)) < 5:
            pass
        starter.kill()
    gone, alive = psutil.wait_procs(started, timeout=30)
    assert (len(gone), alive) == (len(started), [])


IN_ANOTHER_PROCESS = """
import json, sys
sys.path.insert(0, sys.argv[1])
from dataclasses import asdict
from steps.errors import DeviceError
from steps.evaluate.sandbox.limits import Limits
from steps.evaluate.sandbox.process import Program
from steps.evaluate.sandbox.run import run_programs, usable_limits
asked = json.load(sys.stdin)
try:
    limits = usable_limits(Limits(**asked["limits"]), asked["accept_risk"])
except DeviceError as error:
    print(json.dumps(str(error)))
else:
    programs = [Program(code, asked["tests"], asked["reference"]) for code in asked["codes"]]
    print(json.dumps([asdict(verdict) for verdict in run_programs(programs, limits)]))
"""


def elsewhere(codes: list[str], accept_risk: bool, *prefix: str, python: str = sys.executable, **how: object) -> object:
    """Verdicts, or the error, of a process of its own."""
    asked = {
        "codes": codes,
        "tests": TESTS,
        "reference": REFERENCE,
        "accept_risk": accept_risk,
        "limits": asdict(LIMITS),
    }
    command = [*prefix, python, "-c", IN_ANOTHER_PROCESS, str(ROOT)]
    ended = subprocess.run(  # type: ignore[call-overload]  # how is a user, or nothing
        command, input=json.dumps(asked), capture_output=True, text=True, check=False, cwd="/", **how
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_as_an_ordinary_user(limits: Limits, secret: Path, server: int) -> None:
    if os.geteuid() != 0:
        pytest.skip("the tests already run as an ordinary user")
    nobody = {"user": 65534, "group": 65534, "extra_groups": []}
    pythons = [sys.executable, "/usr/bin/python3"]
    check = "import sys; sys.path.insert(0, sys.argv[1]); import steps.evaluate.sandbox.run"
    usable = next((python for python in pythons if _starts([python, "-c", check, str(ROOT)], nobody)), None)
    if usable is None:
        pytest.skip("nobody can run no Python of this machine that knows this project")
    codes = [filled(code, secret, server) for _, _, code in ATTACKS]
    verdicts = elsewhere([REFERENCE, *codes], False, python=usable, **nobody)
    assert isinstance(verdicts, list)
    assert verdicts[0]["kind"] == "passed"
    for (name, kinds, _), verdict in zip(ATTACKS, verdicts[1:], strict=True):
        assert verdict["kind"] in kinds.split(", "), (name, verdict)
        assert verdict["isolated"]
    assert secret.read_text(encoding="ascii") == "secret"


def _starts(command: list[str], how: dict[str, object]) -> bool:
    try:
        return subprocess.run(command, check=False, capture_output=True, cwd="/", **how).returncode == 0  # type: ignore[call-overload,no-any-return]  # how is a user
    except PermissionError:
        return False


NO_MORE_NAMESPACES = ("unshare", "-Ur", "sh", "-c", 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$0" "$@"')


def test_where_the_kernel_forbids_isolation_it_refuses_unless_the_risk_is_accepted(limits: Limits) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("no unshare command with which to take the right away")
    refused = elsewhere([], False, *NO_MORE_NAMESPACES)
    assert isinstance(refused, str)
    assert "cannot be isolated" in refused
    assert "parameters.evaluation.sandbox.execute: where_isolated or never" in refused
    assert "accept_risk: true" in refused
    assert "\n" not in refused
    codes = [REFERENCE, WRONG, "import os\nos.fork()", "import socket\nsocket.socket()", "while True: pass"]
    verdicts = elsewhere(codes, True, *NO_MORE_NAMESPACES)
    assert isinstance(verdicts, list)
    kinds = [verdict["kind"] for verdict in verdicts]
    assert kinds == ["passed", "wrong result", "exception", "exception", "timed out"]
    assert not any(verdict["isolated"] for verdict in verdicts)
