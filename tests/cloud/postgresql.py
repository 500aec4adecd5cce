"""A private PostgreSQL, where one is installed: on a socket in a folder of its own, ended at the end."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.rig.processes import Process, wait_until


def programs() -> Path | None:
    """The folder with ``initdb`` and ``postgres``, Debian's newest; None where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


@contextmanager
def running(binaries: Path) -> Iterator[str]:
    """The URL of a server without its database's name."""
    # Not below pytest's folder, which is closed to the account that the server must run as.
    folder = Path(tempfile.mkdtemp(prefix="pullprint-pg-"))
    account = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    if os.geteuid() == 0:
        shutil.chown(folder, account)
    become = ["setpriv", f"--reuid={account}", f"--regid={account}", "--init-groups"] if os.geteuid() == 0 else []
    data = folder / "data"
    try:
        subprocess.run(
            [*become, binaries / "initdb", "-D", data, "-U", "pullprint", "-A", "trust", "-E", "UTF8", "--no-sync"],
            check=True,
            capture_output=True,
            cwd="/",
        )
        with (folder / "log").open("wb"):
            shutil.chown(folder / "log", account)
        server = Process(
            [*become, binaries / "postgres", "-D", data, "-k", folder, "-c", "listen_addresses=", "-c", "fsync=off"],
            folder / "log",
            cwd=Path("/"),
        )
        with server:
            wait_until("PostgreSQL", lambda: (folder / ".s.PGSQL.5432").exists())
            yield f"postgresql+psycopg://pullprint@/{{}}?host={folder}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
