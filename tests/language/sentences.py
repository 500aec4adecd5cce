"""Every sentence of the daemons that a person may read on the page, found in their source.

Sentences are the docstrings of errors, and literals that look like a sentence; of f-strings, what is filled in has the
last name in its expression. Files that only administrators hear from, in a terminal or a log, are left out, and so is
what hosts say to each other.
"""

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "daemon" / "pullprint"
ROOMS = ("base", "model", "wire", "vault", "printers", "node", "cloud")
TERMINAL = frozenset(
    {
        "base/config.py", "base/lock.py", "node/doctor.py", "node/main.py", "node/settings.py", "node/join.py",
        "printers/cups_check.py", "cloud/admin.py", "cloud/config.py", "cloud/main.py", "cloud/enrolment.py",
        "cloud/organisations.py", "cloud/tls.py", "cloud/sites.py", "model/owner.py", "cloud/signs.py",
        "cloud/setup.py", "cloud/system.py", "cloud/certificates.py", "cloud/metrics.py", "node/metrics.py", "node/overview.py",
        "node/mesh.py", "node/copies.py", "node/certificate.py", "node/sleep.py",
    }
)  # fmt: skip
_SENTENCE = re.compile(r"[A-Z{].*[^\s.]\s.*\.")


def sentences() -> dict[str, str]:
    """Each sentence with the file that it comes from."""
    trees = {path: ast.parse(path.read_text()) for room in ROOMS for path in sorted((SOURCE / room).rglob("*.py"))}
    errors = _errors(trees.values())
    found: dict[str, str] = {}
    for path, tree in trees.items():
        name = path.relative_to(SOURCE).as_posix()
        if name not in TERMINAL and "migrations" not in name:
            for sentence in _of(tree, errors):
                found.setdefault(sentence, name)
    return found


def _errors(trees: Iterable[ast.Module]) -> set[str]:
    """The names of all classes whose docstring is what a person reads."""
    bases = {
        node.name: {base.id for base in node.bases if isinstance(base, ast.Name)}
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    errors = {"PullprintError"}
    while more := {name for name, above in bases.items() if above & errors} - errors:
        errors |= more
    return errors


def _of(tree: ast.Module, errors: set[str]) -> Iterator[str]:
    silent = {id(node) for node in _not_for_people(tree)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name in errors:
            text = " ".join((ast.get_docstring(node) or "").split())
        elif isinstance(node, ast.Constant | ast.JoinedStr) and id(node) not in silent:
            text = _text(node)
        else:
            continue
        if _SENTENCE.fullmatch(text):
            yield text


def _not_for_people(tree: ast.Module) -> Iterator[ast.AST]:
    """Docstrings, what goes to the log, ValueErrors, parts of f-strings."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield from node.values
        elif isinstance(node, ast.Call) and _silent(node.func):
            for argument in node.args:
                yield from ast.walk(argument)


def _silent(function: ast.expr) -> bool:
    if isinstance(function, ast.Attribute):
        return function.attr in ("info", "warning", "error", "exception", "debug", "compile")
    return isinstance(function, ast.Name) and function.id in ("ValueError", "TypeError", "RuntimeError")


def _text(node: ast.Constant | ast.JoinedStr) -> str:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    parts = (
        part.value if isinstance(part, ast.Constant) else f"{{{_name(part.value)}}}"
        for part in node.values
        if isinstance(part, ast.Constant | ast.FormattedValue)
    )
    return "".join(str(part) for part in parts)


def _name(expression: ast.expr) -> str:
    """What an f-string fills in, by one word."""
    nodes = list(ast.walk(expression))
    attributes = [node.attr for node in nodes if isinstance(node, ast.Attribute)]
    return (attributes or [node.id for node in nodes if isinstance(node, ast.Name)])[0].strip("_")
