"""Attacks on the sandbox: none passes, none leaves a process, none slows another program."""

import json
import os
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
from steps.evaluate.sandbox.process import Program, run_program
from steps.evaluate.sandbox.run import run_programs, usable_limits
from steps.evaluate.sandbox.verdict import Kind, Verdict

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


SEARCH = """
import gc, sys
needle = "".join(["ass", "ert ", "f(7)"])
seen = [str(value) for held in gc.get_objects() if isinstance(held, (dict, list, tuple))
        for value in (held.values() if isinstance(held, dict) else held) if isinstance(value, (str, bytes, tuple))]
frame = sys._getframe()
while frame:
    seen += [str(value) for value in frame.f_locals.values() if value is not seen]
    frame = frame.f_back
known = any(needle in text and text != needle for text in seen)
def f(x):
    return {1: 2, 7: 8}[x] if known else 0
"""

Attack = tuple[str, str, tuple[Kind, ...]]

USES_UP: list[Attack] = [
    ("endless loop", "while True:\n    pass", ("timed out",)),
    ("endless loop that nothing interrupts", "while True:\n    try:\n        while 1: pass\n    except BaseException: pass", ("timed out",)),
    ("endless loop inside one C call", "sum(iter(int, 1))", ("timed out",)),
    ("sleep", "import time\ntime.sleep(1000)", ("timed out",)),
    ("ignores every signal", "import signal\nfor s in range(1, 32):\n    try: signal.signal(s, signal.SIG_IGN)\n    except OSError: pass\nwhile True: pass", ("timed out",)),
    ("fork bomb", "import os\nwhile True:\n    os.fork()", ("exception",)),
    ("fork bomb that goes on", "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass", ("timed out",)),
    ("thread bomb", "import threading, time\nwhile True:\n    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()", ("exception", "out of memory")),
    ("10 GB of memory", "x = bytearray(10 * 2**30)", ("out of memory",)),
    ("10 GB in small pieces", "x = []\nwhile True:\n    x.append(bytearray(2**20))", ("out of memory",)),
    ("10 GB in a memory file", "import os\nf = os.memfd_create('x')\nwhile True:\n    os.write(f, b'x' * 2**20)", ("exception",)),
    ("10 GB of output", "import os\nfor _ in range(10 * 2**10):\n    os.write(1, b'x' * 2**20)", ("output too large",)),
    ("10 GB of printed output", "for _ in range(10 * 2**10):\n    print('x' * 2**20)", ("output too large",)),
    ("10 GB to the tests", "import os\nfor _ in range(10 * 2**10):\n    os.write(4, b'x' * 2**20)", ("ended early",)),
    ("10 GB on disk", "f = open('/tmp/x', 'wb')\nwhile True:\n    f.write(b'x' * 2**20)", ("exception",)),
    ("all of its disk in small files", "for n in range(10**6):\n    open(f'/tmp/{n}', 'wb').write(b'x' * 2**20)", ("exception",)),
    ("all inodes", "for n in range(10**6):\n    open(f'/tmp/{n}', 'w')", ("exception",)),
    ("all descriptors", "x = [open('/dev/null') for _ in range(10**6)]", ("exception",)),
    ("deep recursion", "def g():\n    return g()\ng()", ("exception",)),
    ("aborts", "import os\nos.abort()", ("exception",)),
]  # fmt: skip

REACHES_OUT: list[Attack] = [
    ("reads /etc/passwd", "open('/etc/passwd').read()", ("exception",)),
    ("reads the home directory", "import os\nos.listdir('{home}')\nopen('{secret}').read()", ("exception",)),
    ("reads a file outside", "open('{secret}').read()", ("exception",)),
    ("writes a file outside", "open('{secret}', 'w').write('x')", ("exception",)),
    ("writes into the standard library", "import os\nopen(os.__file__, 'a').write('x')", ("exception",)),
    ("writes beside its root", "open('/x', 'w').write('x')", ("exception",)),
    ("climbs out by dots", "open('/tmp/' + '../' * 20 + '{secret}').read()", ("exception",)),
    ("climbs out by a link", "import os\nos.symlink('{secret}', '/tmp/l')\nopen('/tmp/l').read()", ("exception",)),
    ("chroot", "import os\nos.mkdir('/tmp/d')\nos.chroot('/tmp/d')", ("forbidden call",)),
    ("mounts", "import ctypes\nctypes.CDLL(None).mount(b'none', b'/tmp', b'proc', 0, None)", ("forbidden call",)),
    ("new user namespace", "import ctypes\nctypes.CDLL(None).unshare(0x10000000)", ("forbidden call",)),
    ("ptrace", "import ctypes\nctypes.CDLL(None).ptrace(16, 1, 0, 0)", ("forbidden call",)),
    ("keyring", "import ctypes\nctypes.CDLL(None).syscall({keyctl}, 0, -3, 0)", ("forbidden call",)),
    ("opens a socket", "import socket\nsocket.socket()", ("exception",)),
    ("connects to 127.0.0.1", "import socket\nsocket.create_connection(('127.0.0.1', {port}), 1)", ("exception",)),
    ("a socket by plain system call", "import ctypes\nassert ctypes.CDLL(None).socket(2, 1, 0) >= 0", ("exception",)),
    ("starts a program", "import subprocess, sys\nsubprocess.run([sys.executable, '-c', ''])", ("exception",)),
    ("replaces itself", "import os, sys\nos.execv(sys.executable, ['python', '-c', ''])", ("exception",)),
    ("signals its parent", "import os, signal\nos.kill(os.getppid() or {parent}, signal.SIGKILL)", ("exception",)),
    ("signals its process group", "import os, signal\nos.killpg(os.getpgrp(), 15)\nos.kill(0, 15)\nos.kill(-1, 9)", ("exception",)),
    ("leaves a daemon", "import os\nif os.fork() == 0:\n    os.setsid()\n    import time\n    time.sleep(1000)", ("exception",)),
    ("leaves a thread", "import threading, time\nthreading.Thread(target=time.sleep, args=(1000,)).start()", ("wrong result", "exception")),
    ("deletes its directory", "import shutil\nshutil.rmtree('/tmp')", ("exception",)),
    ("deletes everything", "import os, shutil\nfor p in os.listdir('/'):\n    shutil.rmtree('/' + p, ignore_errors=True)\nopen('/usr/lib/x', 'w')", ("exception",)),
    ("writes through /proc/self/mem", "open('/proc/self/mem', 'r+b').write(b'x')", ("exception",)),
    ("writes to /dev/shm", "open('/dev/shm/x', 'w').write('x')", ("exception",)),
    ("shared memory that no limit counts", "import ctypes\nassert ctypes.CDLL(None).shmget(0, 2**30, 0o1600) >= 0", ("exception",)),
    ("raises its own limits", "import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))", ("exception",)),
    ("raises its privileges", "import os\nos.setuid(0 if os.getuid() else 1)", ("exception",)),
    ("reads its parent's environment", "import os\nassert len(os.environ) > 3", ("exception",)),
    ("makes a program run as root", "import os\nopen('/tmp/x', 'w').close()\nos.chmod('/tmp/x', 0o4777)\nos.execv('/tmp/x', ['x'])", ("exception",)),
    ("imports a package that holds the solution", "import pytest", ("exception",)),
]  # fmt: skip

PRETENDS: list[Attack] = [
    ("os._exit(0) before the tests", "import os\nos._exit(0)", ("ended early",)),
    ("sys.exit(0) before the tests", "import sys\nsys.exit(0)", ("ended early",)),
    ("os._exit(0) in a test", "import os\ndef f(x):\n    os._exit(0)", ("ended early",)),
    ("sys.exit(0) in a test", "import sys\ndef f(x):\n    sys.exit(0)", ("ended early",)),
    ("exits at once by atexit", "import atexit, os\natexit.register(os._exit, 0)\n" + WRONG, ("wrong result",)),
    ("patches AssertionError", "import builtins\nbuiltins.AssertionError = type('E', (BaseException,), {})\n" + WRONG, ("wrong result",)),
    ("defines AssertionError", "AssertionError = SystemExit\n" + WRONG, ("wrong result",)),
    ("patches sys.exit", "import sys\nsys.exit = lambda *a: None\n" + WRONG, ("wrong result",)),
    ("patches unittest", "import unittest\nunittest.TestCase.assertEqual = lambda *a: None\n" + WRONG, ("wrong result",)),
    ("patches builtins", "import builtins\nbuiltins.__dict__.update(exec=print, compile=print, set=lambda *a: 2)\n" + WRONG, ("wrong result",)),
    ("equal to everything", "class E:\n    def __eq__(self, o): return True\n    __ne__ = lambda s, o: False\ndef f(x): return E()", ("exception",)),
    ("an int equal to everything", "class E(int):\n    def __eq__(self, o): return True\n    __hash__ = int.__hash__\ndef f(x): return E(0)", ("wrong result",)),
    ("runs the tests' own trace", "import sys\nsys.settrace(lambda *a: None)\nsys.setprofile(print)\n" + WRONG, ("wrong result",)),
    ("patches the conversation", "import json\njson.dumps = lambda m: '{\"ran\": true, \"kind\": \"passed\", \"detail\": \"\"}'\n" + WRONG, ("ended early", "exception")),
    ("writes a verdict everywhere", "import os\nfor d in range(64):\n    try: os.write(d, b'{\"ran\": true, \"kind\": \"passed\", \"detail\": \"\"}\\n')\n    except OSError: pass\n" + WRONG, ("ended early",)),
    ("prints a verdict", "print('{\"ran\": true, \"kind\": \"passed\", \"detail\": \"\"}')\n" + WRONG, ("wrong result",)),
    ("says ready, then passed", "import os\nos.write(4, b'{\"ready\": true}\\n{\"kind\": \"passed\", \"value\": true}\\n' * 9)\n" + WRONG, ("exception", "wrong result", "ended early")),
    ("hands over code", "import os\nos.write(4, b'{\"ready\": true}\\n{\"value\": [\"eval\", \"__import__(\\'os\\')._exit(0)\"]}\\n')\n" + WRONG, ("ended early",)),
    ("asks for the tests", "import os\nos.write(4, b'{\"ready\": true}\\n{\"do\": \"getattr\", \"on\": \"\", \"arguments\": [\"__class__\"], \"named\": {}}\\n')\n" + WRONG, ("exception", "ended early", "wrong result")),
    ("a message of endless depth", "import os\nos.write(4, b'[' * 10**5 + b'\\n')\n" + WRONG, ("ended early",)),
    ("reads the tests in its own memory", SEARCH, ("wrong result",)),
    ("reads the tests in files", "import os, sys\nfor place, _, files in os.walk('/'):\n    for name in files:\n        if name in ('test.py', 'tests'):\n            open(os.path.join(place, name)).read()\n" + WRONG, ("wrong result",)),
    ("raises a false success", "def f(x):\n    raise BaseException('passed')", ("exception",)),
    ("raises AssertionError of its own", "class AssertionError(SystemExit): pass\ndef f(x):\n    raise AssertionError(0)", ("exception", "ended early")),
    ("closes the conversation", "import os\nos.closerange(0, 99)\nwhile True: pass", ("ended early",)),
    ("does nothing", "", ("exception",)),
    ("is no Python", "Sure, here is", ("exception",)),
]  # fmt: skip


def filled(code: str, secret: Path, port: int) -> str:
    keyctl = {"x86_64": 250, "aarch64": 219}[os.uname().machine]
    values = {"secret": secret, "port": port, "home": Path.home(), "parent": os.getpid(), "keyctl": keyctl}
    for name, value in values.items():
        code = code.replace("{" + name + "}", str(value))
    return code


def processes() -> set[int]:
    """Processes of the sandbox that this one has started."""
    return {process.pid for process in psutil.Process().children(recursive=True)}


ATTACKS = [*USES_UP, *REACHES_OUT, *PRETENDS]


@pytest.fixture(scope="module")
def verdicts(limits: Limits, secret: Path, server: int) -> list[Verdict]:
    """Of all attacks, each followed by a harmless program."""
    before = processes()
    hostile = [Program(filled(code, secret, server), TESTS, REFERENCE) for _, code, _ in ATTACKS]
    counts: list[int] = []
    programs = [program for one in hostile for program in (one, Program(REFERENCE, TESTS, REFERENCE))]
    found = run_programs(programs, limits, counts.append)
    assert counts == list(range(1, len(programs) + 1))
    assert processes() <= before, "a process is left"
    return found


@pytest.mark.parametrize("number", range(len(ATTACKS)), ids=[name for name, _, _ in ATTACKS])
def test_no_attack_passes(number: int, verdicts: list[Verdict], secret: Path) -> None:
    name, _, kinds = ATTACKS[number]
    verdict = verdicts[2 * number]
    print(f"ATTACK | {name} | {verdict.kind} | {verdict.detail[:90]}")
    assert verdict.kind in kinds, verdict
    assert verdict.isolated
    assert secret.read_text(encoding="ascii") == "secret"


def test_attacks_harm_no_other_program(verdicts: list[Verdict]) -> None:
    """Half of what ran was hostile; every harmless program passes."""
    assert [verdict.kind for verdict in verdicts[1::2]] == ["passed"] * len(ATTACKS)


def test_it_ends_with_the_process_that_started_it(limits: Limits) -> None:
    """Also where that process is killed and can clean up nothing."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from steps.evaluate.sandbox.process import Program, run_program;"
        "from steps.evaluate.sandbox.limits import Limits; print('on', flush=True);"
        "run_program(Program('while True: pass'), Limits(seconds=1000))"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(ROOT)], stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        starter.stdout.readline()
        while len(started := psutil.Process(starter.pid).children(recursive=True)) < 4:
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
    codes = [filled(code, secret, server) for _, code, _ in ATTACKS]
    verdicts = elsewhere([REFERENCE, *codes], False, python=usable, **nobody)
    assert isinstance(verdicts, list)
    assert verdicts[0]["kind"] == "passed"
    for (name, _, kinds), verdict in zip(ATTACKS, verdicts[1:], strict=True):
        assert verdict["kind"] in kinds, (name, verdict)
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
    assert "parameters.evaluation.sandbox.accept_risk" in refused
    assert "\n" not in refused
    codes = [REFERENCE, WRONG, "import os\nos.fork()", "import socket\nsocket.socket()", "while True: pass"]
    verdicts = elsewhere(codes, True, *NO_MORE_NAMESPACES)
    assert isinstance(verdicts, list)
    kinds = [verdict["kind"] for verdict in verdicts]
    assert kinds == ["passed", "wrong result", "exception", "exception", "timed out"]
    assert not any(verdict["isolated"] for verdict in verdicts)


def test_too_little_memory_for_any_program_is_an_error(limits: Limits) -> None:
    with pytest.raises(DeviceError, match=r"raise parameters\.evaluation\.sandbox\.memory_mib, now 8"):
        usable_limits(Limits(memory_mib=8), accept_risk=False)
