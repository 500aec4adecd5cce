"""Debian systems that boot with systemd, in containers, on a network of their own that leads nowhere else.

`base_root` makes the file tree of a fresh Debian and fetches what apt will want to install there, once; a `Machine` is a
copy of it that systemd-nspawn boots. Machines reach each other over a bridge in a network namespace, and nothing else.
"""

import contextlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

BOOT_SECONDS = 90.0
REBOOTS = 133
"""How systemd-nspawn ends that is asked to reboot what it runs (systemd-nspawn(1), --keep-unit)."""
SEEDS = ("systemd", "systemd-sysv", "dbus", "procps", "iproute2", "ca-certificates", "libpam-systemd")
TOOLS = ("debootstrap", "systemd-nspawn", "nsenter", "ip", "apt-ftparchive", "gpg")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


RUNNING: list["Machine"] = []
"""Those that are switched on."""


class Failed(AssertionError):
    """A command in a machine did not end as it should."""


def run(*argv: str | Path, env: dict[str, str] | None = None, timeout: float = 600) -> str:
    """What a command of this host says; raises Failed with its whole output when it fails."""
    done = subprocess.run(
        [str(word) for word in argv], env=env, timeout=timeout, text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    if done.returncode:
        raise Failed(f"{shlex.join(str(word) for word in argv)} ended with {done.returncode}:\n{done.stdout[-6_000:]}")
    return done.stdout


def cannot_boot() -> str:
    """Why no machine can be booted here; empty if one can, as far as can be told before it is tried."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "only root on Linux can boot systems"
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing:
        return f"not installed: {', '.join(missing)}"
    probe = f"pp-probe-{os.getpid()}"
    try:
        run("ip", "netns", "add", probe)
        run("ip", "netns", "exec", probe, "unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "true")
    except Failed as error:
        return f"namespaces are not allowed here: {error}"
    finally:
        subprocess.run(["ip", "netns", "delete", probe], check=False, capture_output=True)
    return ""


def base_root(folder: Path, suite: str, packages: Sequence[str]) -> tuple[Path, Path]:
    """A fresh Debian, and a flat repository with *packages* and all that they depend on, for machines without a network.

    Both are made from the archives that this host's own apt uses, and kept in *folder* for the next time.
    """
    root, archive = folder / f"{suite}-root", folder / f"{suite}-archive"
    wanted = "\n".join(packages)
    if (archive / "wanted").is_file() and (archive / "wanted").read_text() == wanted:
        return root, archive
    for old in (root, archive):
        shutil.rmtree(old, ignore_errors=True)
    archive.mkdir(parents=True)
    sources = [tuple(line.split()) for line in run("apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)",
                                            "Created-By: Packages").splitlines()]  # fmt: skip
    own = platform.freedesktop_os_release()["VERSION_CODENAME"]
    sources = [(uri, release.replace(own, suite)) for uri, release in sources]
    mirror = next(uri for uri, release in sources if release == suite)
    run("debootstrap", "--variant=minbase", f"--include={','.join(SEEDS)}", suite, root, mirror)
    etc = root / "etc/apt"
    (etc / "sources.list").write_text("".join(f"deb {uri} {release} main\n" for uri, release in sources))
    # The way to the archives is this host's; what it does after installing is not.
    way = [line for line in run("apt-config", "dump").splitlines() if line.startswith("Acquire::")]
    (etc / "apt.conf.d/99host").write_text("\n".join(way) + "\n")
    shutil.copy("/etc/ssl/certs/ca-certificates.crt", root / "etc/ssl/certs/ca-certificates.crt")
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    run("chroot", root, "apt-get", "-q", "update")
    run("chroot", root, "apt-get", "-q", "-y", "--no-install-recommends", "--download-only", "install", *packages)
    for deb in (root / "var/cache/apt/archives").glob("*.deb"):
        shutil.move(deb, archive / deb.name)
    index = run("sh", "-c", 'cd "$1" && apt-ftparchive packages .', "sh", archive)
    (archive / "Packages").write_text(index)
    (etc / "apt.conf.d/99host").unlink()
    (root / "etc/resolv.conf").unlink()
    (etc / "sources.list").write_text("deb [trusted=yes] file:/srv/debian ./\n")
    shutil.rmtree(root / "var/lib/apt/lists")
    (root / "var/lib/apt/lists").mkdir()
    (archive / "wanted").write_text(wanted)
    return root, archive


@contextlib.contextmanager
def network(name: str) -> Iterator[str]:
    """A network namespace with the bridge that machines are plugged into; its name."""
    run("ip", "netns", "add", name)
    try:
        run("ip", "-n", name, "link", "add", "lan", "type", "bridge")
        run("ip", "-n", name, "link", "set", "lan", "up")
        yield name
    finally:
        run("ip", "netns", "delete", name)


def _control_groups(name: str) -> list[Path]:
    """Where a machine's own systemd keeps its services, in each hierarchy that one uses: two in the same would end each
    other's processes."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    own = dict(line.split(":", 2)[1:] for line in Path("/proc/self/cgroup").read_text().splitlines())
    found = []
    for _, where, kind, options, *_ in mounts:
        controllers = "" if kind == "cgroup2" else "name=systemd" if "name=systemd" in options.split(",") else None
        if kind in ("cgroup", "cgroup2") and controllers in own:
            found.append(Path(where + own[controllers]) / name)
    return found


class Machine:
    """One booted system; the end of ``with`` is its power cut."""

    def __init__(self, name: str, address: str, lan: str, root: Path, binds: dict[Path, str]) -> None:
        """*root* is the machine's own; *binds* are folders of this host that it sees, read-only."""
        self.name = name
        self.address = address
        self.root = root
        self.console = root.with_suffix(".console")
        self._lan = lan
        self._netns = f"{lan}-{name}"
        self._binds = binds
        self._nspawn: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Machine":
        self._plug_in()
        try:
            self.boot()
        except BaseException:
            self._unplug()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind:
            print(f"The journal of {self.name}:", self.journal())
        self.cut_power()
        self._unplug()

    def boot(self) -> None:
        """Switch it on, and wait until systemd has started everything."""
        assert self._nspawn is None
        binds = [f"--bind-ro={source}:{target}" for source, target in self._binds.items()]
        groups = _control_groups(self._netns)
        for group in groups:
            group.mkdir()
        enter = 'while [ "$1" != -- ]; do echo $$ > "$1/cgroup.procs"; shift; done; shift; exec "$@"'
        with self.console.open("ab") as console:
            self._nspawn = subprocess.Popen(
                ["sh", "-c", enter, "sh", *map(str, groups), "--",
                 "systemd-nspawn", "--quiet", "--boot", f"--directory={self.root}", f"--hostname={self.name}",
                 "--register=no", "--keep-unit", "--console=pipe", "--resolv-conf=off", "--timezone=off",
                 "--link-journal=no", f"--network-namespace-path=/run/netns/{self._netns}", *binds],
                stdin=subprocess.DEVNULL, stdout=console, stderr=console,
            )  # fmt: skip
        RUNNING.append(self)
        self._wait_booted()

    def reboot(self) -> None:
        """As its user would, in order; returns once it is up again."""
        assert self._nspawn is not None
        self.status_of("systemctl reboot")
        if self._nspawn.wait(BOOT_SECONDS) != REBOOTS:
            raise Failed(f"{self.name} does not reboot, but ends")
        self._gone()
        self.boot()

    def cut_power(self) -> None:
        """End every process of it at once."""
        if self._nspawn is None:
            return
        leader = self._leader()
        if leader:
            os.kill(leader, 9)
        try:
            self._nspawn.wait(15)
        except subprocess.TimeoutExpired:
            self._nspawn.kill()
            self._nspawn.wait()
        self._gone()

    def _gone(self) -> None:
        """Forget it, and take away what it leaves in this host's control groups."""
        self._nspawn = None
        RUNNING.remove(self)
        for group in _control_groups(self._netns):
            for inner, _, _ in os.walk(group, topdown=False):
                Path(inner).rmdir()

    def shell(self, command: str, user: str = "root", typed: str = "", timeout: float = 300) -> str:
        """What *command* says (stderr too) in a shell of *user*. Raises Failed unless it ends with 0."""
        status, said = self.status_of(command, user, typed, timeout)
        if status:
            raise Failed(f"{self.name}: {command}\nended with {status}:\n{said[-6_000:]}")
        return said

    def status_of(self, command: str, user: str = "root", typed: str = "", timeout: float = 300) -> tuple[int, str]:
        """The exit status of *command*, and what it says."""
        done = subprocess.run(self._argv(command, user), input=typed, timeout=timeout, text=True, check=False,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
        return done.returncode, done.stdout

    def start(self, command: str, user: str = "root") -> subprocess.Popen[str]:
        """*command*, going on beside; ended by its caller."""
        return subprocess.Popen(self._argv(command, user), stdin=subprocess.DEVNULL, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip

    def journal(self) -> str:
        """What our daemons and CUPS said lately, for whoever wonders why a test failed."""
        try:
            return self.status_of("journalctl --no-pager -n 80 -u 'pullprint*' -u cups", timeout=20)[1]
        except subprocess.SubprocessError as error:
            return str(error)

    def _argv(self, command: str, user: str) -> list[str]:
        # What enters from outside has this host's capabilities, and could set its clock.
        as_user = ["setpriv", "--bounding-set", "-sys_time,-sys_boot,-sys_module,-sys_rawio", "--", "setsid"]
        if user != "root":
            as_user += ["runuser", "-u", user, "--"]
        return ["nsenter", "--all", f"--target={self._leader()}", "--root", "--wd",
                "env", "-i", f"PATH={PATH}", "LANG=C.UTF-8", "DEBIAN_FRONTEND=noninteractive", f"USER={user}",
                f"HOME={'/root' if user == 'root' else f'/home/{user}'}", *as_user, "sh", "-c", command]  # fmt: skip

    def _leader(self) -> int:
        """The process of this host that is the machine's init; 0 while there is none."""
        if self._nspawn is None:
            return 0
        try:
            children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children").read_text().split()
        except OSError:
            return 0
        return int(children[-1]) if children else 0

    def _wait_booted(self) -> None:
        deadline = time.monotonic() + BOOT_SECONDS
        while True:
            if self._nspawn is None or self._nspawn.poll() is not None:
                raise Failed(f"{self.name} does not boot:\n{self.console.read_text('utf-8', 'replace')[-4_000:]}")
            if self._leader():
                _, state = self.status_of("systemctl is-system-running")
                if state.strip() in ("running", "degraded"):
                    return
            if time.monotonic() > deadline:
                raise Failed(f"{self.name} has not booted in {BOOT_SECONDS:g} s:\n"
                             f"{self.console.read_text('utf-8', 'replace')[-4_000:]}")  # fmt: skip
            time.sleep(0.2)

    def _plug_in(self) -> None:
        run("ip", "netns", "add", self._netns)
        port = f"to-{self.name}"
        run("ip", "-n", self._lan, "link", "add", port, "type", "veth", "peer", "name", "host0", "netns", self._netns)
        run("ip", "-n", self._lan, "link", "set", port, "master", "lan", "up")
        run("ip", "-n", self._netns, "address", "add", f"{self.address}/24", "dev", "host0")
        for device in ("lo", "host0"):
            run("ip", "-n", self._netns, "link", "set", device, "up")

    def _unplug(self) -> None:
        run("ip", "netns", "delete", self._netns)
