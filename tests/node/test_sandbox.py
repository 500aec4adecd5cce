"""Who may have a program run in a sandbox, which, and what becomes of it when nobody waits for it any more."""

import asyncio
import contextlib
import json
import os
import pwd
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pullprint.base.clock import SystemClock
from pullprint.model.facts import Facts
from pullprint.node import sandbox
from pullprint.node.confine import MOST, REFUSED, REQUEST_LIMIT, STARTED, UNABLE
from pullprint.node.facts import count_facts
from pullprint.node.sandbox import Limits

GOOD = {"format": "pdf", "pages": 7, "color_pages": 1, "sheets": [], "encrypted": False, "problem": None}
HONEST = f"print({json.dumps(GOOD)!r})"
HANGING = "import time; time.sleep(77777)"
ME = pwd.getpwuid(os.geteuid()).pw_name
SECONDS = 30.0
"""How long something may take that has the lowest priority on a busy machine."""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "stand-in"
    path.write_text(HONEST)
    return path


@pytest.fixture
def document(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "document"
    path.write_bytes(b"any")
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


def request(**changes: Any) -> bytes:
    """A request of kind "facts" with these keys replaced, or left out where they are None."""
    values = {"kind": "facts", "content_type": "application/pdf", "options": "picture=9", "limits": MOST["facts"]}
    return json.dumps({key: value for key, value in (values | changes).items() if value is not None}).encode() + b"\n"


class Confined:
    """A `confine` of its own with this *program* for facts, started as systemd would start it."""

    def __init__(self, program: Path, *arguments: str, path: str = "/usr/bin:/bin") -> None:
        self.connection, theirs = socket.socketpair()
        self.connection.settimeout(SECONDS)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", sandbox._ENTRY, *arguments, f"facts={program}"],
                stdin=theirs, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={"PATH": path},
            )  # fmt: skip

    def __enter__(self) -> "Confined":
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()
        assert self._process.wait(SECONDS) == 0

    def told(self, line: bytes, fds: list[int]) -> bytes:
        """What it answers to this *line* with these descriptors, to the end."""
        socket.send_fds(self.connection, [line], fds)
        return self.heard()

    def heard(self) -> bytes:
        """What it says, to the end, which may be a reset: it reads no more than it must."""
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while data := self.connection.recv(64):
                answer += data
        return answer


@pytest.fixture
def said() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)
    os.close(writing)


def running(mark: Path) -> list[bytes]:
    """The command lines of the bubblewraps that name *mark*."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes())
        except OSError:
            continue
    return [line for line in lines if line.startswith(b"bwrap\0") and str(mark).encode() in line]


def settled(mark: Path) -> list[bytes]:
    """What still runs when everything had time to end."""
    until = time.monotonic() + SECONDS
    while (left := running(mark)) and time.monotonic() < until:
        time.sleep(0.02)
    return left


class TestRequests:
    def test_a_good_one_is_served(self, program: Path, document: int, said: tuple[int, int]) -> None:
        for arguments in ((), (f"--caller={ME}",)):
            with Confined(program, *arguments) as confined:
                assert confined.told(request(), [document, said[1]]) == STARTED + b"0\n"
            assert json.loads(os.read(said[0], 4096)) == GOOD

    def test_nothing_runs_too(self, program: Path, document: int, said: tuple[int, int]) -> None:
        with Confined(program) as confined:
            assert confined.told(request(kind="nothing", options=""), [document, said[1]]) == STARTED + b"0\n"

    def test_how_it_ended_is_told(self, program: Path, document: int, said: tuple[int, int]) -> None:
        for source, status in [("raise SystemExit(13)", 13), ("import os; os.abort()", 128 + signal.SIGABRT)]:
            program.write_text(source)
            with Confined(program) as confined:
                assert confined.told(request(), [document, said[1]]) == STARTED + b"%d\n" % status

    @pytest.mark.parametrize(
        "line",
        [
            b"\n", b"null\n", b"[]\n", b"{}\n", b'"facts"\n', b"\xff\xfe\n", b"[" * 2_000 + b"\n", request()[:-1],
            request() + b"more", request(options="x" * REQUEST_LIMIT), request(kind="shell"), request(kind=["facts"]),
            request(kind=None), request(options=None), request(content_type=None), request(options=7),
            request(options="x" * 256), request(options="a\0b"), request(options="naïve"),
            request(content_type="a\nb"), request(limits=[]), request(limits=7),
            request(limits={"files": -1}), request(limits={"files": True}), request(limits={"files": None}),
            request(limits={"files": "9"}), request(limits={"files": 9.0}), request(limits={"files": float("nan")}),
        ],
    )  # fmt: skip
    def test_others_are_refused(self, line: bytes, program: Path, document: int, said: tuple[int, int]) -> None:
        with Confined(program) as confined:
            assert confined.told(line, [document, said[1]]) == REFUSED

    @pytest.mark.parametrize(
        ("limits", "given"),
        [
            (None, MOST["facts"]), ({}, MOST["facts"]), (MOST["office"], MOST["facts"]), ({"root": 1}, MOST["facts"]),
            ({"files": 1 << 40, "memory": 1 << 28, "processes": 2}, MOST["facts"] | {"memory": 1 << 28}),
        ],
    )  # fmt: skip
    def test_a_daemon_of_another_version_is_served_and_gets_no_more(
        self, limits: dict[str, int] | None, given: dict[str, int], document: int, said: tuple[int, int],
        program: Path,
    ) -> None:  # fmt: skip
        program.write_text(
            "import resource as r\nfor n in (r.RLIMIT_CPU, r.RLIMIT_AS, r.RLIMIT_FSIZE, r.RLIMIT_NPROC, r.RLIMIT_NOFILE):"
            "\n    print(r.getrlimit(n)[0])\n"
        )
        with Confined(program) as confined:
            asked = request(limits=limits, command=["/bin/sh"], from_the_future={"a": [1]})
            assert confined.told(asked, [document, said[1]]) == STARTED + b"0\n"
        assert list(map(int, os.read(said[0], 4096).split())) == list(given.values())

    def test_descriptors_are_two_and_what_they_should_be(
        self, tmp_path: Path, program: Path, document: int, said: tuple[int, int]
    ) -> None:
        writable, folder = os.open(tmp_path / "document", os.O_RDWR), os.open(tmp_path, os.O_RDONLY)
        try:
            for fds in (
                [], [document], [document, said[1], document], [document, said[1]] * 50, [said[0], said[1]],
                [writable, said[1]], [folder, said[1]], [document, document], [said[1], document],
            ):  # fmt: skip
                with Confined(program) as confined:
                    assert confined.told(request(), fds) == REFUSED, fds
        finally:
            os.close(writable)
            os.close(folder)

    def test_another_account_is_refused(self, program: Path, document: int, said: tuple[int, int]) -> None:
        other = "daemon" if ME != "daemon" else "nobody"
        with Confined(program, f"--caller={other}") as confined:
            assert confined.told(request(), [document, said[1]]) == REFUSED

    def test_a_caller_that_says_nothing_is_not_waited_for(self, program: Path) -> None:
        with Confined(program) as confined:
            assert confined.heard() == REFUSED

    def test_where_there_can_be_no_sandbox_it_says_so(
        self, program: Path, document: int, said: tuple[int, int], tmp_path: Path
    ) -> None:
        with Confined(program, path="/nowhere") as confined:
            assert confined.told(request(), [document, said[1]]) == UNABLE
        with Confined(tmp_path / "missing") as confined:
            assert confined.told(request(), [document, said[1]]) == UNABLE
        with Confined(program) as confined:
            assert confined.told(request(kind="convert", limits=MOST["convert"]), [document, said[1]]) == UNABLE


class TestEnd:
    @pytest.mark.parametrize("ending", ["closes", "closes its half", "says more"])
    def test_a_run_ends_with_its_connection(
        self, ending: str, program: Path, document: int, said: tuple[int, int]
    ) -> None:
        program.write_text(f"print('here', flush=True); {HANGING}")
        with Confined(program) as confined:
            socket.send_fds(confined.connection, [request()], [document, said[1]])
            assert os.read(said[0], 64) == b"here\n"
            assert running(program)
            if ending == "closes its half":
                confined.connection.shutdown(socket.SHUT_WR)
            elif ending == "says more":
                confined.connection.send(request())
            if ending != "closes":
                assert confined.heard() == STARTED
        assert not settled(program)

    def test_a_caller_that_is_killed_leaves_nothing_running(self, tmp_path: Path, program: Path) -> None:
        program.write_text(f"import os; os.write(1, b'x' * 99); {HANGING}")
        caller = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(
                """
                import asyncio, os, sys
                from pathlib import Path
                from pullprint.base.clock import SystemClock
                from pullprint.node.sandbox import Limits, Sandbox
                async def main():
                    document = os.open(sys.argv[1], os.O_RDONLY)
                    run = Sandbox("facts", Path(sys.argv[1]), document, "a/b", Limits(), SystemClock().monotonic() + 60)
                    await run.run_into(lambda said: os.write(1, said), "", SystemClock())
                asyncio.run(main())
                """
            ), str(program)],
            stdout=subprocess.PIPE,
        )  # fmt: skip
        with caller:
            assert caller.stdout is not None
            assert caller.stdout.read(99) == b"x" * 99
            caller.kill()
        assert not settled(program)


@asynccontextmanager
async def service(path: Path, program: Path) -> AsyncIterator[list[int]]:
    """What pullprint-sandbox.socket does: a `confine` for each connection; the list has a status for each that
    ended."""
    ended: list[int] = []

    async def serve(connection: socket.socket) -> None:
        with connection:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-c", sandbox._ENTRY, f"--caller={ME}", f"facts={program}"),
                stdin=connection.fileno(), env={"PATH": "/usr/bin:/bin"},
            )  # fmt: skip
        ended.append(await process.wait())

    async def accept(listener: socket.socket, group: asyncio.TaskGroup) -> None:
        while True:
            connection, _ = await asyncio.get_running_loop().sock_accept(listener)
            group.create_task(serve(connection))

    with socket.socket(socket.AF_UNIX) as listener:
        listener.setblocking(False)
        listener.bind(str(path))
        listener.listen()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(accept(listener, group))
            yield ended
            task.cancel()


class TestService:
    async def _counted(self, document: int, path: Path, program: Path = Path("/nowhere"), **limits: float) -> Facts:
        counted = await count_facts(
            document, "application/pdf", program=program, clock=SystemClock(),
            limits=Limits(**limits), service=path,  # type: ignore[arg-type]
        )  # fmt: skip
        return counted.facts

    async def test_it_is_asked_where_it_is_there_and_has_its_own_programs(
        self, root: Path, program: Path, document: int
    ) -> None:
        async with service(root / "s", program) as ended:
            assert (await self._counted(document, root / "s")).pages == 7
        assert ended == [0]

    async def test_where_nobody_listens_a_child_is_started(self, root: Path, program: Path, document: int) -> None:
        assert (await self._counted(document, root / "missing", program)).pages == 7
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(root / "stale"))
        assert (await self._counted(document, root / "stale", program)).pages == 7

    @pytest.mark.parametrize(
        ("source", "problem"),
        [
            (HANGING, "timeout"),
            ("while True: print('x' * 99)", "invalid"),
            (f"import os, time; os.close(1); {HANGING}", "timeout"),
            ("import subprocess; subprocess.run(['/usr/bin/true'])", "crashed"),
        ],
        ids=["hangs", "floods", "closes-stdout", "forks"],
    )
    async def test_what_a_program_does_ends_with_its_run(
        self, source: str, problem: str, root: Path, program: Path, document: int
    ) -> None:
        program.write_text(source)
        async with service(root / "s", program) as ended:
            found = await self._counted(document, root / "s", wall_seconds=SECONDS if problem == "crashed" else 3.0)
            assert found == Facts.unknown(problem)
            assert not running(program), "nobody is waited for who still runs"
        assert set(ended) == {0}

    async def test_cancelling_ends_it(self, root: Path, program: Path, document: int) -> None:
        program.write_text(HANGING)
        async with service(root / "s", program):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._counted(document, root / "s")
            assert not running(program)

    @pytest.mark.parametrize(
        ("answer", "problem"),
        [
            (b"", "no-sandbox"), (UNABLE, "no-sandbox"), (REFUSED, "no-sandbox"), (b"x" * 99_999, "no-sandbox"),
            (STARTED, "timeout"), (STARTED + b"-1\n", "timeout"), (STARTED + b"3\n", "no-sandbox"),
        ],
    )  # fmt: skip
    async def test_a_service_that_breaks_off_is_not_waited_for(
        self, answer: bytes, problem: str, root: Path, document: int
    ) -> None:
        """As systemd does where there are too many connections, or the memory of a run is at its end."""

        async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(answer)
            writer.close()

        async with await asyncio.start_unix_server(serve, root / "s"):
            assert await self._counted(document, root / "s") == Facts.unknown(problem)

    async def test_a_service_that_hangs_costs_the_time_of_a_run(
        self, root: Path, document: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sandbox, "_ENDING_SECONDS", 0.2)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(root / "s"))
            listener.listen()
            begin = time.monotonic()
            assert await self._counted(document, root / "s", wall_seconds=0.5) == Facts.unknown("timeout")
        assert time.monotonic() - begin < 5


class TestChild:
    async def test_one_that_hangs_is_killed(
        self, document: int, program: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Such as one that was stopped by a signal."""
        monkeypatch.setattr(sandbox, "_ENDING_SECONDS", 0.2)
        monkeypatch.setattr(sandbox, "_ENTRY", HANGING)
        limits = Limits(wall_seconds=0.5)
        found = await count_facts(document, "a/b", program=program, clock=SystemClock(), limits=limits)
        assert found.facts == Facts.unknown("timeout")

    async def test_each_run_is_waited_for_once(
        self, document: int, program: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """asyncio warns of a child that somebody else has waited for."""
        for _ in range(5):
            assert (await count_facts(document, "a/b", program=program, clock=SystemClock())).facts.pages == 7
        assert not caplog.records
