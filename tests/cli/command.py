"""The command as a real process: on pipes, or on a terminal of a given width."""

import asyncio
import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import time
from dataclasses import dataclass
from pathlib import Path

COMMAND = (sys.executable, "-m", "pullprint.cli.main")
LIMIT = 30.0


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    """Standard output; on a terminal, all that it showed."""
    err: str = ""


def environment(socket: Path, more: dict[str, str]) -> dict[str, str]:
    """What the command finds in its environment: little, so that the tester's own settings do not matter."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return kept | {"PULLPRINT_SOCKET": str(socket), "LANG": "C.UTF-8", "TERM": "xterm-256color", "TZ": "UTC"} | more


async def on_pipes(socket: Path, *arguments: str, **variables: str) -> Ended:
    """Run it as a script does."""
    ran = await asyncio.to_thread(
        subprocess.run,
        [*COMMAND, *arguments],
        env=environment(socket, variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=LIMIT,
    )
    return Ended(ran.returncode, ran.stdout.decode(), ran.stderr.decode())


async def on_terminal(socket: Path, *arguments: str, width: int = 80, typed: str = "", **variables: str) -> Ended:
    """Run it as a person does, on a terminal of *width* columns, with *typed* typed ahead."""
    return await asyncio.to_thread(_on_terminal, environment(socket, variables), arguments, width, typed)


def _on_terminal(environment: dict[str, str], arguments: tuple[str, ...], width: int, typed: str) -> Ended:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    process = subprocess.Popen(
        [*COMMAND, *arguments], env=environment, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    os.write(ours, typed.encode())
    shown, deadline = b"", time.monotonic() + LIMIT
    try:
        while time.monotonic() < deadline:
            try:
                data = os.read(ours, 65_536)
            except OSError:  # EIO: the other side was closed
                break
            if not data:
                break
            shown += data
        code = process.wait(timeout=LIMIT)
    finally:
        os.close(ours)
        if process.poll() is None:
            process.kill()
            process.wait()
    return Ended(code, shown.decode("utf-8", "replace").replace("\r\n", "\n"))
