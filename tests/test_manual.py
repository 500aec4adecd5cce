"""The manual pages say what the code does: every command, option, setting and default, and nothing besides."""

import argparse
import dataclasses
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperArgument, TyperGroup, TyperOption

from pullprint.cli.arguments import parser
from pullprint.cli.errors import Exit
from pullprint.cloud import config
from pullprint.cloud.main import cli
from pullprint.node import settings

ROOT = Path(__file__).parent.parent
MANUAL = ROOT / "docs" / "man"
DEBIAN = ROOT / "packaging" / "debian"
PAGES = sorted(MANUAL.iterdir())


@dataclasses.dataclass
class Command:
    """A subcommand, or in a page what stands under its heading."""

    options: set[str]
    words: set[str]
    """What has to be said besides: positional arguments, choices, defaults."""


def lines(page: str) -> list[str]:
    return (MANUAL / page).read_text().splitlines()


def flags(line: str) -> set[str]:
    return {f"-{name}" for name in re.findall(r"\bFl (-?[\w-]+)", line)}


def sections(page: str) -> dict[str, list[str]]:
    """The lines of each command by its name, heading first; those before the first one by the empty text."""
    found: dict[str, list[str]] = {"": []}
    name = ""
    for line in lines(page):
        if line.startswith(".Ss "):
            name = " ".join(re.match(r"\.Ss ((?:[a-z-]+(?: |$))+)", line)[1].split())
            assert name not in found
            found[name] = []
        elif line.startswith(".Sh "):
            name = ""
        found[name].append(line)
    return found


def described(section: list[str]) -> set[str]:
    return {flag for line in section if line.startswith((".It", ".Ss")) for flag in flags(line)}


def of_argparse(line: argparse.ArgumentParser, name: str = "") -> Iterator[tuple[str, Command]]:
    """All commands below *line*."""
    below = [action for action in line._actions if isinstance(action, argparse._SubParsersAction)]
    for action in below:
        for word, sub in action.choices.items():
            yield from of_argparse(sub, f"{name} {word}".strip())
    if not below:
        shown = [action for action in line._actions if action.help != argparse.SUPPRESS]
        words = {str(choice) for action in shown for choice in action.choices or ()}
        words |= {str(action.metavar) for action in line._get_positional_actions()}
        yield name, Command({option for action in shown for option in action.option_strings}, words)


def of_typer(command: Any, name: str = "") -> Iterator[tuple[str, Command]]:
    """All commands below *command*."""
    if isinstance(command, TyperGroup):
        for word, sub in command.commands.items():
            yield from of_typer(sub, f"{name} {word}".strip())
        return
    options = [option for option in command.params if isinstance(option, TyperOption)]
    words = {str(option.default) for option in options if option.default and option.default is not True}
    words |= {
        str(argument.metavar or argument.name.upper())
        for argument in command.params
        if isinstance(argument, TyperArgument)
    }
    yield name, Command({text for option in options for text in option.opts} | {"--help"}, words)


COMMANDS = {
    "pullprint.1": (dict(of_argparse(parser())), {"-h", "--help", "--json"}),
    "pullprint-cloud.8": (dict(of_typer(typer.main.get_command(cli))), {"--help"}),
}


@pytest.mark.parametrize("page", COMMANDS)
def test_every_command_is_in_its_page_and_no_other(page: str) -> None:
    assert set(sections(page)) - {""} == set(COMMANDS[page][0])


@pytest.mark.parametrize(
    ("page", "name"), [(page, name) for page, (commands, _) in COMMANDS.items() for name in commands]
)
def test_every_option_is_under_its_command_and_no_other(page: str, name: str) -> None:
    commands, common = COMMANDS[page]
    command, found = commands[name], sections(page)
    assert common <= command.options
    section = found.get(name, [])
    assert described(section) == command.options - common
    explained = {flag for other in found.values() for line in other if line.startswith(".It") for flag in flags(line)}
    assert command.options - common <= explained
    said = re.findall(r"[\w./-]+", "\n".join(section).replace("\\(dq", '"'))
    assert command.words <= {word.rstrip(".") for word in said}


def test_options_of_all_commands() -> None:
    top = {option for action in parser()._actions for option in action.option_strings}
    found = sections("pullprint.1")[""]
    assert {flag for line in found if line.startswith(".It") for flag in flags(line)} == top
    assert "--json" in {flag for line in found for flag in flags(line)}
    shared = {flag for line in sections("pullprint-cloud.8")[""] if line.startswith(".It") for flag in flags(line)}
    assert shared == {"--config", "--json", "--help", "--version"}


def test_options_of_the_daemon() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "pullprint.node.main", "--help"], capture_output=True, text=True, check=True
    )
    known = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", ran.stdout.partition("options:")[2]))
    assert {flag for line in lines("pullprintd.8") if line.startswith(".It") for flag in flags(line)} == known


def test_exit_codes() -> None:
    status = (MANUAL / "pullprint.1").read_text().partition(".Sh EXIT STATUS")[2].partition(".Sh")[0]
    assert {int(code) for code in re.findall(r"^\.It (\d+)$", status, re.MULTILINE)} == {*map(int, Exit), 130}


@pytest.mark.parametrize(
    ("page", "kind"), [("pullprint.toml.5", settings.Settings), ("pullprint-cloud.toml.5", config.Settings)]
)
def test_every_setting_is_in_its_page_with_its_default(page: str, kind: Any) -> None:
    """A setting is written as in the file, ``name = default``, or without a default where it has none to write."""
    found = {}
    for line in lines(page):
        if line.startswith(".It Ic "):
            name, *default = shlex.split(line.removeprefix(".It Ic ").replace("\\(dq", r"\""))
            found[name.replace("-", "_")] = tomllib.loads(f"x {' '.join(default[1:])}")["x"] if default else None
    expected = {}
    for field in dataclasses.fields(kind):
        default = None if field.default is dataclasses.MISSING else field.default
        expected[field.name] = (
            list(default) if isinstance(default, tuple) else str(default) if isinstance(default, Path) else default
        )
    assert found == expected


def test_every_unit_is_named() -> None:
    page = (MANUAL / "pullprintd.8").read_text()
    names = [
        path.name.removeprefix("pullprint.")
        for path in DEBIAN.glob("pullprint.*")
        if path.suffix in (".service", ".socket")
    ]
    assert len(names) >= 4 and [name for name in names if name not in page] == []


def test_every_page_that_is_referred_to_is_there_or_another_packages() -> None:
    ours = {path.name for path in PAGES}
    text = "\n".join(path.read_text() for path in [*PAGES, *DEBIAN.glob("*.service"), *DEBIAN.glob("*.socket")])
    named = set(re.findall(r"\.Xr (pullprint\S*) (\d)", text)) | set(re.findall(r"man:(\S+)\((\d)\)", text))
    assert named and {f"{name}.{section}" for name, section in named} <= ours


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_mandoc_and_groff_have_nothing_to_say(page: Path) -> None:
    linted = subprocess.run(["mandoc", "-Tlint", "-Wwarning", str(page)], capture_output=True, text=True)
    assert (linted.stdout + linted.stderr, linted.returncode) == ("", 0)
    # lintian's groff-message; MANROFFSEQ empty: without tbl and others.
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "MANROFFSEQ": "", "MANWIDTH": "80"}
    shown = subprocess.run(
        ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", str(page)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert (shown.stderr, shown.returncode) == ("", 0)


def test_the_packages_install_every_page_and_completion() -> None:
    pages = [line for file in DEBIAN.glob("*.manpages") for line in file.read_text().split()]
    assert sorted(pages) == [str(path.relative_to(ROOT)) for path in PAGES]
    installed = [line.split()[0] for file in DEBIAN.glob("*.install") for line in file.read_text().splitlines()]
    completions = [str(path.relative_to(ROOT)) for path in (ROOT / "packaging" / "completion").glob("*/*")]
    assert completions and set(completions) <= set(installed)
