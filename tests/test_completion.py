"""Completion in real shells, each on a terminal: what is offered, what is put on the line, and that nothing runs."""

import asyncio
import os
import pty
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.cli.standin import Standin, job, serve
from tests.rig.cups import PPD, PrivateCups

from pullprint.cli.completion import quoted, split
from pullprint.model.states import State
from pullprint.wire.views import PrinterView

COMPLETION = Path(__file__).parent.parent / "packaging" / "completion"
LIMIT = 30.0
CTRL_A, CTRL_C, TAB = "\x01", "\x03", "\t"
PROMPT = "READY> "
RELEASE_OPTIONS = {"--help", "--json", "--all", "--printer", "--copies", "--sides", "--color", "--again", "--no-wait"}
SIDES = ["long", "one", "one-sided", "short", "two-sided-long-edge", "two-sided-short-edge"]


class Terminal:
    """An interactive shell, in which ``args`` prints what the words of its line are."""

    def __init__(self, argv: list[str], environment: dict[str, str], folder: Path) -> None:
        self._pid, self._fd = pty.fork()
        if not self._pid:
            os.chdir(folder)
            os.execvpe(argv[0], argv, environment)
        # No dialogue about how many lines there are.
        subprocess.run(["stty", "rows", "200", "cols", "220"], stdin=self._fd, check=True)
        self._read(PROMPT)

    def words(self, line: str) -> list[str]:
        """The words of *line* once TAB has been pressed at its end, as a command gets them."""
        self._write(f"{line}{TAB}{CTRL_A}args \n")
        shown = self._read(f"<end>.*{PROMPT}")
        return re.findall(r"<<(.*?)>>", shown.rpartition("args ")[2], re.DOTALL)

    def listed(self, line: str, until: str) -> str:
        """What is shown when TAB is pressed after *line* till *until* has come; the line is then given up."""
        self._write(line)
        shown, deadline = "", time.monotonic() + LIMIT
        while until not in shown:
            assert time.monotonic() < deadline, shown
            self._write(TAB)
            shown += self._settle()
        self._write(CTRL_C)
        self._read(PROMPT)
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown).replace("\r", "")

    def press(self, line: str) -> None:
        """TAB after *line*, which is then given up."""
        self._write(f"{line}{TAB}")
        self._settle()
        self._write(CTRL_C)
        self._read(PROMPT)

    def _write(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def _settle(self, quiet: float = 1.2) -> str:
        """All that comes until nothing has come for a while."""
        shown = b""
        while select.select([self._fd], [], [], quiet)[0]:
            shown += os.read(self._fd, 65_536)
        return shown.decode("utf-8", "replace")

    def _read(self, until: str) -> str:
        shown, deadline = b"", time.monotonic() + LIMIT
        while not re.search(until.encode(), shown, re.DOTALL):
            left = deadline - time.monotonic()
            assert left > 0 and select.select([self._fd], [], [], left)[0], shown.decode("utf-8", "replace")
            shown += os.read(self._fd, 65_536)
        return shown.decode("utf-8", "replace")

    def close(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._fd)


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Standin]:
    standin = Standin(printers=[PrinterView(id="p1", name="Lobby", place="ground floor"), PrinterView(id="p2", name="My Attic"),
                                PrinterView(id="p3", name="Zoë's $(touch ran) \"!\" `touch ran`;touch ran")])  # fmt: skip
    standin.add(job(0x3F2A0001, "report.pdf"), job(0x77BB0002, "plan for $(touch ran) `touch ran`; touch ran"))
    standin.add(job(0x88CC0003, "a\nb\tc\x1b[2Jd", state=State.UNCERTAIN), job(0x99DD0004, "old", state=State.DONE))
    runner = await serve(standin.app(), tmp_path / "control.sock")
    yield standin
    await runner.cleanup()


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A home with the completions where the packages put them, and ``pullprint`` on the path."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "cwd").mkdir()
    (tmp_path / "cwd" / "authority.pem").write_text("")
    command = tmp_path / "bin" / "pullprint"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m pullprint.cli.main "$@"\n')
    command.chmod(0o755)
    folders = {"bash": "bash-completion/completions", "zsh": "zsh", "fish": "fish/vendor_completions.d"}
    for shell, folder in folders.items():
        shutil.copytree(COMPLETION / shell, tmp_path / "share" / folder)
    kept = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    return kept | {
        "HOME": str(tmp_path), "PATH": f"{tmp_path / 'bin'}:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8",
        "TERM": "xterm", "XDG_DATA_DIRS": f"{tmp_path / 'share'}:/usr/share",
        "PULLPRINT_SOCKET": str(tmp_path / "control.sock"), "CUPS_SERVER": str(tmp_path / "nothing.sock"),
    }  # fmt: skip


def bash(environment: dict[str, str], home: Path) -> Terminal:
    rc = home / "bashrc"
    rc.write_text(
        f"PS1='{PROMPT}'; unset HISTFILE PROMPT_COMMAND\n"
        "bind 'set bell-style none'; bind 'set page-completions off'; bind 'set enable-bracketed-paste off'\n"
        ". /usr/share/bash-completion/bash_completion\n"
        "args() { printf '<<%s>>' \"$@\"; echo '<'end'>'; }\n"
    )
    return Terminal(["bash", "--noprofile", "--rcfile", str(rc), "-i"], environment, home / "cwd")


def zsh(environment: dict[str, str], home: Path) -> Terminal:
    (home / ".zshrc").write_text(
        f"PS1='{PROMPT}'; unset zle_bracketed_paste; unsetopt PROMPT_SP; bindkey -e; bindkey '^I' complete-word; unsetopt AUTO_MENU; LISTMAX=500\n"
        f"fpath=({home / 'share' / 'zsh'} $fpath)\n"
        f"autoload -Uz compinit; compinit -u -d {home / 'zcompdump'}\n"
        "args() { printf '<<%s>>' \"$@\"; echo '<'end'>'; }\n"
    )
    return Terminal(["zsh", "-d", "-i"], environment, home / "cwd")


@pytest.fixture(params=[bash, zsh])
async def shell(request: pytest.FixtureRequest, environment: dict[str, str], tmp_path: Path) -> AsyncIterator[Terminal]:
    terminal = await asyncio.to_thread(request.param, environment, tmp_path)
    yield terminal
    await asyncio.to_thread(terminal.close)
    assert not list(tmp_path.rglob("ran")), "something that was to be completed has been run"


async def fish(environment: dict[str, str], home: Path, line: str, *, escape: bool = False) -> list[str]:
    """What fish offers for *line*: values, each with a tab and what is said of it."""
    how = "complete --escape -C" if escape else "complete -C"
    ran = await asyncio.to_thread(
        subprocess.run, ["fish", "--no-config", "-c", f"cd {home}/cwd; source {home}/share/fish/vendor_completions.d/{line.split(maxsplit=1)[0]}.fish; {how} $argv[1]", line],
        env=environment, capture_output=True, text=True, timeout=LIMIT, check=True,
    )  # fmt: skip
    assert not ran.stderr and not list(home.rglob("ran"))
    return ran.stdout.splitlines()


def values(offered: list[str]) -> list[str]:
    return sorted(line.partition("\t")[0] for line in offered)


WORDS = [
    ("pullprint rel", ["pullprint", "release"]),
    ("sudo pullprint rel", ["sudo", "pullprint", "release"]),
    ("pullprint release --si", ["pullprint", "release", "--sides"]),
    ("pullprint release --sides two-sided-s", ["pullprint", "release", "--sides", "two-sided-short-edge"]),
    ("pullprint release --color=m", ["pullprint", "release", "--color=mono"]),
    ("pullprint release 3f", ["pullprint", "release", "3f2a0001"]),
    ("pullprint release 3f2a0001 7", ["pullprint", "release", "3f2a0001", "77bb0002"]),
    ("pullprint settle ", ["pullprint", "settle", "88cc0003"]),
    ("pullprint release -P M", ["pullprint", "release", "-P", "My Attic"]),
    ("pullprint release -P My\\ A", ["pullprint", "release", "-P", "My Attic"]),
    ("pullprint release -P 'My A", ["pullprint", "release", "-P", "My Attic"]),
    ('pullprint release -P "My A', ["pullprint", "release", "-P", "My Attic"]),
    ("pullprint release --printer=My\\ A", ["pullprint", "release", "--printer=My Attic"]),
    ("pullprint --json jo", ["pullprint", "--json", "jo"]),
    ("pullprint queue rem", ["pullprint", "queue", "remove"]),
    ("pullprint queue add new -P L", ["pullprint", "queue", "add", "new", "-P", "Lobby"]),
    ("pullprint join https://print.example.com CODE --ca aut",
     ["pullprint", "join", "https://print.example.com", "CODE", "--ca", "authority.pem"]),
    ("pullprint join https://print.example.com CODE --ca=aut",
     ["pullprint", "join", "https://print.example.com", "CODE", "--ca=authority.pem"]),
    ("pullprint nonsense --", ["pullprint", "nonsense", "--"]),
    ("pullprint-cloud organ", ["pullprint-cloud", "organisation"]),
    ("pullprint-cloud user inv", ["pullprint-cloud", "user", "invite"]),
    ("pullprint-cloud site add acme hq --own", ["pullprint-cloud", "site", "add", "acme", "hq", "--owner-rule"]),
    ("pullprint-cloud serve --config aut", ["pullprint-cloud", "serve", "--config", "authority.pem"]),
    ("pullprint-cloud certificate --out=aut", ["pullprint-cloud", "certificate", "--out=authority.pem"]),
]  # fmt: skip
"""What is typed before TAB is pressed, and the words that the command then gets."""


async def test_a_tab_completes_the_word(daemon: Standin, shell: Terminal) -> None:
    for typed, words in WORDS:
        assert await asyncio.to_thread(shell.words, typed) == words, typed


async def test_a_hostile_printers_name_is_one_word_and_is_not_run(daemon: Standin, shell: Terminal) -> None:
    for quote in ("", "'", '"'):
        words = await asyncio.to_thread(shell.words, f"pullprint release -P {quote}Z")
        assert words == ["pullprint", "release", "-P", daemon.printers[2].name]


async def test_what_is_typed_is_not_run(daemon: Standin, shell: Terminal) -> None:
    for typed in (
        "pullprint release $(touch ran) -P ",
        'pullprint release "$(touch ran)',
        "pullprint --socket `touch ran` rel",
    ):
        await asyncio.to_thread(shell.press, typed)


async def test_jobs_are_listed_with_their_titles_harmlessly(daemon: Standin, shell: Terminal) -> None:
    shown = await asyncio.to_thread(shell.listed, "pullprint release ", "88cc0003")
    assert "3f2a0001" in shown and "report.pdf" in shown
    assert "77bb0002" in shown and "plan for $(touch ran) `touch ran`; touch ran" in shown
    assert "a b c\ufffd[2Jd" in shown and "\x1b" not in shown
    assert "99dd0004" not in shown
    shown = await asyncio.to_thread(shell.listed, "pullprint release 3f2a0001 ", "88cc0003")
    assert "77bb0002" in shown and "report.pdf" not in shown


async def test_nothing_is_said_where_the_daemon_does_not_answer(shell: Terminal) -> None:
    typed = ["pullprint", "release"]
    assert await asyncio.to_thread(shell.words, "pullprint release 3f") == [*typed, "3f"]
    assert await asyncio.to_thread(shell.words, "pullprint release -P L") == [*typed, "-P", "L"]
    assert "pullprintd" not in await asyncio.to_thread(shell.listed, "pullprint release ", "--copies")


async def test_fish_offers_the_same(daemon: Standin, environment: dict[str, str], tmp_path: Path) -> None:
    async def offered(line: str) -> list[str]:
        return await fish(environment, tmp_path, line)

    assert await offered("pullprint rel") == ["release\tprint jobs and wait until they are on paper"]
    assert values(await offered("pullprint release --si")) == ["--sides"]
    assert RELEASE_OPTIONS <= set(values(await offered("pullprint release --")))
    assert values(await offered("pullprint release --sides ")) == SIDES
    assert await offered("pullprint release --color=m") == ["--color=mono", "--color=monochrome"]
    assert values(await offered("pullprint queue ")) == ["add", "list", "remove", "resume"]
    jobs = await offered("pullprint release ")
    assert jobs == [
        "3f2a0001\treport.pdf",
        "77bb0002\tplan for $(touch ran) `touch ran`; touch ran",
        "88cc0003\ta b c\ufffd[2Jd",
    ]
    assert await offered("pullprint release 3f2a0001 ") == jobs[1:]
    assert values(await offered("pullprint release -P ")) == sorted(printer.name for printer in daemon.printers)
    assert await offered("pullprint release -P My\\ A") == ["My Attic"]
    assert await offered("pullprint release 3f2a0001 --printer=M") == ["--printer=My Attic"]
    assert await offered("pullprint join https://print.example.com CODE --ca a") == ["authority.pem"]
    assert await offered("pullprint join https://print.example.com CODE --ca=a") == ["--ca=authority.pem"]
    (escaped,) = await fish(environment, tmp_path, "pullprint release -P Z", escape=True)
    told = await asyncio.to_thread(
        subprocess.run, ["fish", "--no-config", "-c", f"printf %s {escaped}"], capture_output=True, text=True
    )
    assert told.stdout == daemon.printers[2].name
    assert values(await offered("pullprint-cloud user ")) == ["add", "invite", "list", "password", "remove"]
    assert values(await offered("pullprint-cloud site add acme hq --ow")) == ["--owner-rule"]
    assert await offered("pullprint-cloud serve --config aut") == ["authority.pem"]


async def test_fish_is_told_nothing_where_the_daemon_does_not_answer(
    environment: dict[str, str], tmp_path: Path
) -> None:
    assert await fish(environment, tmp_path, "pullprint release -P ") == []


def ask(environment: dict[str, str], *words: str) -> list[str]:
    ran = subprocess.run(
        ["pullprint", "__complete", "words", *words], env=environment, capture_output=True, text=True, timeout=LIMIT, check=True
    )  # fmt: skip
    assert not ran.stderr
    return ran.stdout.splitlines()


@pytest.fixture(scope="module")
def cups() -> Iterator[PrivateCups]:
    with PrivateCups({"PULLPRINT_INTAKE": "/nonexistent/intake.sock", "PULLPRINT_WAIT": "1"}) as running:
        running.add_queue("lobby", "pullprint:/printer/Lobby", PPD)
        running.add_queue("other", "socket://127.0.0.1:9", PPD)
        yield running


def test_queues_of_ours_are_offered_to_be_removed(environment: dict[str, str], cups: PrivateCups) -> None:
    assert ask(environment | {"CUPS_SERVER": str(cups.socket)}, "queue", "remove", "") == ["lobby"]
    # Without any, the options are what is left to say.
    without = ask(environment | {"CUPS_SERVER": "/nonexistent/cups.sock"}, "queue", "remove", "")
    assert without and all(line.startswith("-") for line in without)


async def test_a_daemon_that_is_slow_or_mad_offers_nothing_and_soon(
    daemon: Standin, environment: dict[str, str]
) -> None:
    from aiohttp import web

    async def stall(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(LIMIT)
        return web.Response()

    async def rave(_: web.Request) -> web.StreamResponse:
        return web.json_response([{"id": "$(touch ran)"}, 7])

    daemon.raw = rave
    assert await asyncio.to_thread(ask, environment, "release", "") != []  # options, for want of jobs
    assert await asyncio.to_thread(ask, environment, "release", "-P", "") == []
    daemon.raw = stall
    began = time.monotonic()
    assert await asyncio.to_thread(ask, environment, "release", "-P", "") == []
    assert time.monotonic() - began < 5


async def test_socket_option_and_odd_ids(daemon: Standin, environment: dict[str, str], tmp_path: Path) -> None:
    elsewhere = environment | {"PULLPRINT_SOCKET": "/nonexistent"}
    daemon.add(job().model_copy(update={"id": "$(touch ran)"}))
    named = await asyncio.to_thread(ask, elsewhere, "--socket", str(tmp_path / "control.sock"), "trace", "")
    assert named == await asyncio.to_thread(ask, environment, "trace", "")
    assert [line.partition("\t")[0] for line in named] == ["3f2a0001", "77bb0002", "88cc0003"]


@pytest.mark.parametrize("quote", ["", "'", '"'])
@pytest.mark.parametrize(
    "value", ["plain", "a b", "it's", 'x"y', "$HOME `x` \\", "a:b=c@d", "~", "Zoë & #1;<>|*?[]{}()", "!!"]
)
def test_what_is_quoted_is_read_back_by_bash(value: str, quote: str) -> None:
    line = f"printf %s {quote}{quoted(value, quote)}{quote}"
    if "!" not in value:  # of which only an interactive bash makes something
        assert subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd="/").stdout == value
        assert split(line).words == ["printf", "%s", value]


def test_the_completions_of_the_server_are_of_this_version(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(COMPLETION / "generate"), str(tmp_path)], check=True)
    made = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(made) == 3
    for path in made:
        assert (COMPLETION / path.relative_to(tmp_path)).read_text() == path.read_text(), (
            "run packaging/completion/generate"
        )


def test_shellcheck_has_nothing_to_say() -> None:
    subprocess.run(["shellcheck", *map(str, (COMPLETION / "bash").iterdir())], check=True)
