"""The commands that README.md and the pages below docs/ name, and whether each could be typed as it stands there."""

import importlib.util
import re
import shlex
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import zenml.cli  # noqa: F401 - registers ZenML's commands
from zenml.cli.cli import cli

from pipelines.cli import main

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))

FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`((?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?(?:qlora|zenml|make|python|pip) [^`]+)`")

CLICK = {"qlora": main, "zenml": cli}
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = re.findall(r"^([a-z-]+):.*##", MAKEFILE, re.MULTILINE)
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]


@dataclass(frozen=True)
class Command:
    """One command as a reader would type it."""

    page: str
    line: int
    words: tuple[str, ...]
    whole: bool
    """From a block that can be pasted; within a sentence options and arguments may be left out."""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {shlex.join(self.words)}"

    @property
    def name(self) -> str:
        """Program and subcommands, without options and arguments: ``qlora schedule list``, ``make test``."""
        first, *rest = self.words
        if first in CLICK:
            return " ".join((first, *_descend(CLICK[first], rest)[0]))
        if first == "python":
            return f"python {_script(rest)}"
        return " ".join((first, *rest[:1])) if first != "make" else f"make {next(w for w in rest if '=' not in w)}"


def commands() -> Iterator[Command]:
    """Every command of every page."""
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        page = path.relative_to(ROOT).as_posix()
        for block in FENCED.finditer(text):
            if block[1] in ("sh", ""):
                yield from _of_block(page, text.count("\n", 0, block.start(2)) + 1, block[2], prompts=not block[1])
        prose = FENCED.sub(lambda block: re.sub(r"[^\n]", " ", block[0]), text)
        for found in INLINE.finditer(prose):
            words = _words(" ".join(found[1].split()))
            yield from _each(page, prose.count("\n", 0, found.start()) + 1, words, whole=False)


def _of_block(page: str, line: int, text: str, *, prompts: bool) -> Iterator[Command]:
    """The commands of a fenced block; in one that shows output too they stand after ``$``."""
    for number, logical in _logical_lines(text):
        if prompts and not logical.startswith("$ "):
            continue
        try:
            words = _words(logical.removeprefix("$ "))
        except ValueError:  # a quotation that goes on: curl's data
            words = logical.removeprefix("$ ").split()[:1]
        yield from _each(page, line + number, words, whole=True)


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    start, whole = 0, ""
    for number, line in enumerate(text.splitlines()):
        start = start if whole else number
        whole += line.removesuffix("\\")
        if not line.endswith("\\"):
            yield start, whole
            whole = ""


def _words(text: str) -> list[str]:
    words = shlex.split(text, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words.pop(0)
    return [words[0].removeprefix(".venv/bin/"), *words[1:]] if words else []


def _each(page: str, line: int, words: Sequence[str], *, whole: bool) -> Iterator[Command]:
    """The command, each target of a ``make``, and the command that a container is given."""
    if not words:
        return
    if words[0] == "make":
        settings = [word for word in words[1:] if "=" in word]
        for target in [word for word in words[1:] if "=" not in word]:
            yield Command(page, line, ("make", target, *settings), whole)
        return
    yield Command(page, line, tuple(words), whole)
    if words[0] == "docker":
        image = next(place for place, word in enumerate(words) if word.startswith("qlora-pipeline:"))
        yield Command(page, line, tuple(words[image + 1 :]), whole)


def fault(command: Command) -> str | None:
    """What is wrong with the command, or None; its files are looked up in the current folder."""
    first, *rest = command.words
    if first in CLICK:
        return _click_fault(CLICK[first], rest, command.whole)
    if first == "make":
        if rest[0] not in TARGETS:
            return f"no target {rest[0]}"
        unknown = [word for word in rest[1:] if f"$({word.split('=')[0]})" not in MAKEFILE]
        return f"no variable {unknown[0]}" if unknown else None
    if first == "pip":
        extras = re.findall(r"\[([\w,-]+)\]", " ".join(rest))
        missing = [name for several in extras for name in several.split(",") if name not in EXTRAS]
        return f"no extra {missing[0]}" if missing else None
    if first == "python":
        return _python_fault(rest)
    missing_files = [
        word for word in rest if re.match(r"(configs|docker|docs|tests)/", word) and not Path(word).exists()
    ]
    return f"no file {missing_files[0]}" if missing_files else None


def _descend(command: click.Command, words: Sequence[str]) -> tuple[list[str], click.Command, list[str]]:
    """The subcommands that the words go through, the last one, and what is left for it."""
    path, rest = [], list(words)
    while isinstance(command, click.Group) and rest and rest[0] in command.commands:
        command = command.commands[rest[0]]
        path.append(rest.pop(0))
    return path, command, rest


def _click_fault(program: click.Command, words: Sequence[str], whole: bool) -> str | None:
    path, command, rest = _descend(program, words)
    if not path:
        return f"no command {rest[0]}"
    if whole:
        try:
            command.make_context(path[-1], rest)
        except click.ClickException as error:
            return error.format_message()
        return None
    known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
    unknown = [word for word in rest if word.startswith("-") and word.split("=")[0] not in known]
    return f"no option {unknown[0]}" if unknown else None


def _script(words: Sequence[str]) -> str:
    """``-m module`` or the file that python is given."""
    rest = list(words)
    while rest[:1] == ["-W"]:
        rest = rest[2:]
    return " ".join(rest[:2]) if rest[0] == "-m" else rest[0]


def _python_fault(words: Sequence[str]) -> str | None:
    """A module that is not there, an option that its source does not name, a file that does not exist."""
    script = _script(words)
    if script.startswith("-") and not script.startswith("-m "):
        return None  # python's own options
    found = importlib.util.find_spec(script.removeprefix("-m ")) if script.startswith("-m ") else None
    path = Path(found.origin) if found and found.origin else ROOT / script
    if not path.is_file():
        return f"no {script}"
    rest = words[words.index(script.split()[-1]) + 1 :]
    source = path.read_text(encoding="utf-8")
    absent = [word for word in rest if word.startswith("--") and f'"{word}"' not in source]
    absent += [word for word in rest if word.startswith("tests/") and not (ROOT / word).exists()]
    return f"{script} has no {absent[0]}" if absent else None
