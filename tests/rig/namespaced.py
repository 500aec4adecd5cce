"""A Debian system of its own for what only root does: names, /etc, /var/lib, /run and network are a namespace's, the
programs are this machine's. No systemd runs in it; with `service` a stand-in for systemctl starts the real server."""

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.rig.processes import Process, wait_until

REPOSITORY = Path(__file__).resolve().parents[2]
ACCOUNT = "pullprint-cloud"
HOST = "print.example.com"
ADDRESS = "10.20.30.5"
_VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"
PYTHON = f"/media/bin/{_VERSION}"
ENVIRONMENT = {
    "PATH": "/run/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "PYTHONDONTWRITEBYTECODE": "1",
    # Wherever these lie, the accounts of the machine can reach them there.
    "LD_LIBRARY_PATH": "/media/lib",
    "PYTHONPATH": f"/mnt/daemon:/srv/lib/{_VERSION}/site-packages",
}
_BOOT = f"""
set -e
mount --bind {REPOSITORY} /mnt
mount --bind {sys.prefix} /srv
mount --bind {sys.base_prefix} /media
mount --bind "$1/etc" /etc
mount --bind "$1/lib" /var/lib
mount -t tmpfs run /run
mkdir -m 0755 /run/bin
ip link set lo up
ip link add office type veth peer name switch
ip addr add {ADDRESS}/24 dev office
ip link set office up
ip link set switch up
hostname {HOST}
useradd --system --user-group --home-dir /var/lib/{ACCOUNT} --shell /usr/sbin/nologin {ACCOUNT}
touch /run/booted
exec sleep infinity
"""
_SYSTEMCTL = f"""#!/bin/sh
# Stands in for systemctl with the one unit: the server is real, and is its account.
[ "$1" = --quiet ] && shift
running() {{ [ -e /run/server.pid ] && kill -0 "$(cat /run/server.pid)" 2>/dev/null; }}
stop() {{
    if running; then kill "$(cat /run/server.pid)"; while running; do sleep 0.05; done; fi
    rm -f /run/server.pid
}}
start() {{
    : >/run/server.log
    if [ -e /run/broken ]; then cat /run/broken >/run/server.log; rm /run/broken; return 1; fi
    setpriv --reuid={ACCOUNT} --regid={ACCOUNT} --init-groups --inh-caps=+net_bind_service \\
        --ambient-caps=+net_bind_service {PYTHON} -m pullprint.cloud.main serve >/run/server.log 2>&1 &
    echo $! >/run/server.pid
    until grep -q 'ready on' /run/server.log; do running || return 1; sleep 0.05; done
}}
case $1 in
    is-active) running ;;
    is-enabled) [ -e /run/enabled ] ;;
    enable) touch /run/enabled ;;
    disable) rm -f /run/enabled ;;
    stop) stop ;;
    start) running || start ;;
    restart) stop; start ;;
    *) exit 1 ;;
esac
"""


class Machine:
    """One such system, as long as the block lasts. Only root can make one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.etc = folder / "etc"
        self.lib = folder / "lib"
        self._init = Process(
            ["unshare", "--mount", "--net", "--uts", "--propagation", "private", "sh", "-c", _BOOT, "sh", folder],
            folder / "boot.log",
        )

    def __enter__(self) -> Self:
        shutil.copytree("/etc", self.etc, symlinks=True, ignore_dangling_symlinks=True)
        shutil.rmtree(self.etc / "pullprint", ignore_errors=True)
        with (self.etc / "hosts").open("w") as hosts:
            hosts.write(f"127.0.0.1 localhost\n{ADDRESS} {HOST} print\n")
        self.lib.mkdir()
        self._init.start()
        try:
            wait_until("the machine", lambda: self.run("test", "-e", "/run/booted", check=False).returncode == 0)
        except TimeoutError as error:
            self._init.stop()
            raise TimeoutError(f"{error}: {self._init.log_tail()}") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.run("/run/bin/systemctl", "stop", check=False)
        finally:
            self._init.stop()

    def service(self) -> None:
        """From now on systemd seems to run here."""
        script = "cat >/run/bin/systemctl; chmod 0755 /run/bin/systemctl; mkdir -p /run/systemd/system"
        self.run("sh", "-c", script, data=_SYSTEMCTL)
        self.run(
            "sh", "-c", "printf '#!/bin/sh\\ncat /run/server.log' >/run/bin/journalctl; chmod 0755 /run/bin/journalctl"
        )

    def enter(self, *words: str) -> list[str]:
        """The command that runs *words* in this machine."""
        return ["nsenter", f"--target={self._init.pid}", "--mount", "--net", "--uts", "--wd=/", "--", *words]

    def run(
        self, *words: str, data: str = "", check: bool = True, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run *words* as root of this machine."""
        return subprocess.run(
            self.enter(*words), input=data, env={**ENVIRONMENT, **(env or {})}, check=check,
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    def command(self, *words: str, data: str = "") -> subprocess.CompletedProcess[str]:
        """``pullprint-cloud …`` as root."""
        return self.run(PYTHON, "-m", "pullprint.cloud.main", *words, data=data, check=False)

    def state(self) -> dict[str, tuple[int, int, int, bytes]]:
        """All that belongs to the server: mode, owner, group and content."""
        found = {}
        for root in (self.etc / "pullprint", self.lib):
            for path in [root, *root.rglob("*")]:
                if path.exists():
                    stat = path.stat()
                    data = path.read_bytes() if path.is_file() else b""
                    found[str(path.relative_to(self.folder))] = (stat.st_mode, stat.st_uid, stat.st_gid, data)
        return found
