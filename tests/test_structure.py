"""The house rules that a machine can hold: who imports whom, how long things are, and that exemptions have a reason."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]

FOLDERS = ("pipelines", "steps", "materializers", "docker", "tests")

FILE_LINES = 300
FUNCTION_LINES = 40  # from its signature to its end, without the docstring

KERNEL = "a GPU kernel is one function, with an argument a line"
THEIRS = "another project's recipe, in one piece as it is written there"
TABLE = "a value a line"
STORY = "what happens, in its order"
LONGER = {
    "steps/merge/merge.py:_report": TABLE,
    "steps/train/kernels/triton_attention.py:_forward": KERNEL,
    "steps/train/kernels/triton_attention_backward.py:_backward_queries": KERNEL,
    "steps/train/kernels/triton_attention_backward.py:_backward_keys": KERNEL,
    "tests/benchmarks/cpu_training.py:plain": THEIRS,
    "tests/benchmarks/gpu_training.py:their_trainer": THEIRS,
    "tests/benchmarks/several_gpus.py:measure": TABLE,
    "tests/end_to_end/test_server_drill.py:test_the_server_restarts_between_two_steps": STORY,
    "tests/pipelines/test_shipped_configs.py:test_llama2_7b_is_the_notebook": TABLE,
    "tests/tiny_peft.py:tiny_peft": TABLE,
}
"""Functions that may be longer, and why."""

EXEMPTION = re.compile(r"#\s*(noqa\b|type: ignore)(?P<rules>: [A-Z]+\d+(, ?[A-Z]+\d+)*|\[[\w\-, ]+\])?(?P<reason>.*)")


def sources() -> list[Path]:
    return sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions_in(path: Path) -> Iterator[tuple[str, int]]:
    """Name and lines of each function."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first, end = node.body[0], node.end_lineno or node.lineno
            text = ast.get_docstring(node, clean=False)
            documented = (first.end_lineno or first.lineno) - first.lineno + 1 if text is not None else 0
            yield f"{name_of(path)}:{node.name}", end - node.lineno + 1 - documented


def test_imports_keep_the_contracts_of_pyproject() -> None:
    """Rooms run left to right and are entered by their doors, step.py alone imports zenml, and nothing goes round."""
    command = "from importlinter.cli import lint_imports_command as main; main(['--no-cache'])"
    ran = subprocess.run([sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_no_file_imports_itself_by_way_of_others() -> None:
    graph = grimp.build_graph("pipelines", "steps", "materializers", cache_dir=None)
    TopologicalSorter({name: graph.find_modules_directly_imported_by(name) for name in graph.modules}).prepare()


def test_no_file_is_longer_than_300_lines() -> None:
    lengths = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in sources()}
    assert {name: lines for name, lines in lengths.items() if lines > FILE_LINES} == {}


def test_no_function_is_longer_than_40_lines_without_a_reason() -> None:
    longer = {name: lines for path in sources() for name, lines in functions_in(path) if lines > FUNCTION_LINES}
    assert longer.keys() == LONGER.keys(), longer


def test_every_exemption_names_its_rule_and_its_reason() -> None:
    for path in sources():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            found = EXEMPTION.search(line) if path != Path(__file__) else None
            if found:
                assert found["rules"], f"{name_of(path)}:{number}: which rule?"
                assert found["reason"].lstrip(" -#"), f"{name_of(path)}:{number}: why?"
