"""What a generated answer is worth without running it."""

import ast
import re
import warnings

from steps.evaluate.answer import Answer

GRADES = ("stops", "parses", "only code")

FENCED = re.compile(r"^[ \t]*```[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)
"""A block of Markdown code, closed or cut."""


def grade(answer: Answer, instruction: str) -> dict[str, bool]:
    """Grades by name.

    ``stops``: the model ended the answer itself. ``parses``: valid, non-empty Python. ``only code``: parses, does
    something (a lone word or a text is valid Python too), holds no Markdown fence, does not repeat the prompt, and
    stops.
    """
    tree = _parse(answer.text)
    parses = tree is not None and bool(tree.body)
    only_code = (
        tree is not None
        and _does_something(tree)
        and answer.stopped
        and "```" not in answer.text
        and not _repeats(answer.text, tree, instruction)
    )
    return {"stops": answer.stopped, "parses": parses, "only code": only_code}


def code_of(text: str) -> str:
    """The program in an answer: all of it where that is Python, else its fenced blocks, else all of it.

    So a chatty model is not said to write code that fails; that it chats is what ``only code`` says.
    """
    blocks = FENCED.findall(text)
    return text if _parse(text) is not None or not blocks else "\n".join(blocks)


def _parse(text: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # of the model's code, not ours
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _does_something(tree: ast.Module) -> bool:
    inert = (ast.Constant, ast.Name, ast.Tuple, ast.JoinedStr)
    return any(not (isinstance(node, ast.Expr) and isinstance(node.value, inert)) for node in tree.body)


def _repeats(text: str, tree: ast.Module, instruction: str) -> bool:
    """Whether a comment or a text of the module's own has the instruction's first line: else it would not parse.

    Indented ones may: a function whose docstring says what was asked for is documented.
    """
    asked = instruction.strip().partition("\n")[0].strip()
    texts = [
        node.value.value for node in tree.body if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    ]
    said = [line.lstrip("#") for line in text.splitlines() if line.startswith("#")]
    said += [line for value in texts if isinstance(value, str) for line in value.splitlines()]
    return bool(asked) and asked in map(str.strip, said)
