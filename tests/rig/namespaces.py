"""A small network of its own: hosts in network namespaces on one switch, which can be cut, slowed and healed.

Only root can make one. All of it lives in namespaces with random names, so that addresses collide with nothing, and it
is gone with them. A cut is silence, as with a pulled cable: packets vanish, nobody is refused. It is made of permanent
neighbour entries that lead nowhere, because packet filters are not in every kernel that this runs on.
"""

import ctypes
import os
import secrets
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import permutations
from pathlib import Path
from types import TracebackType
from typing import Self

SUBNET = "10.83.17"
NETWORK = f"{SUBNET}.0/24"
_NOWHERE = "02:00:00:00:ff:ff"
_RUNTIME = Path("/run/netns")
_CLONE_NEWNET = 0x4000_0000
_LIBC = ctypes.CDLL(None, use_errno=True)


def cannot_make_networks() -> str:
    """Why no namespaces can be made here; empty when they can."""
    if os.geteuid() != 0:
        return "only root can make network namespaces"
    name = f"pullprint-{secrets.token_hex(4)}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return made.stderr.strip()
    subprocess.run(["ip", "netns", "delete", name], check=False)
    return ""


def enter(namespace: str, argv: Sequence[str]) -> list[str]:
    """The command that runs *argv* in *namespace*, with the same process id; *argv* itself without one."""
    return ["nsenter", f"--net={_RUNTIME / namespace}", "--", *argv] if namespace else list(argv)


@contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Sockets that this thread makes meanwhile are the *namespace*'s, and stay so; without one: nothing changes."""
    if not namespace:
        yield
        return
    with open("/proc/thread-self/ns/net") as home, (_RUNTIME / namespace).open() as there:
        _set_namespace(there.fileno())
        try:
            yield
        finally:
            _set_namespace(home.fileno())


def _set_namespace(fd: int) -> None:
    if _LIBC.setns(fd, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


class Network:
    """Hosts by name, each with an address and a namespace. A context manager."""

    def __init__(self, *hosts: str) -> None:
        self.hosts = hosts
        # With our process id: a switch in use has no processes, so only this tells whose it is when something is left.
        self._prefix = f"pullprint-{os.getpid()}-{secrets.token_hex(4)}"
        self._switch = f"{self._prefix}-switch"
        self._made: list[str] = []
        self._cuts: set[tuple[str, str]] = set()

    def address(self, host: str) -> str:
        """Where *host* is."""
        return f"{SUBNET}.{self.hosts.index(host) + 10}"

    def namespace(self, host: str) -> str:
        """What ``ip netns`` calls it."""
        return f"{self._prefix}-{host}"

    def __enter__(self) -> Self:
        try:
            self._make()
        except BaseException:
            self._remove()
            raise
        return self

    def _make(self) -> None:
        for namespace in (self._switch, *map(self.namespace, self.hosts)):
            _ip(["netns", "add", namespace])
            self._made.append(namespace)
        _batch(self._switch, ["link add switch type bridge forward_delay 0", "link set switch up"])
        for number, host in enumerate(self.hosts):
            namespace = self.namespace(host)
            _batch(
                namespace,
                [
                    "link set lo up",
                    f"link add net address {self._mac(host)} type veth peer name port{number} netns {self._switch}",
                    f"addr add {self.address(host)}/24 dev net",
                    # No IPv6 outside lo, where a cut would have to be made, too.
                    "link set net addrgenmode none",
                    "link set net up",
                    "route add 224.0.0.0/4 dev net",
                ],
            )
            _batch(self._switch, [f"link set port{number} master switch", f"link set port{number} up"])
        for host in self.hosts:
            self._point(host, *(other for other in self.hosts if other != host))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def _remove(self) -> None:
        while self._made:
            subprocess.run(["ip", "netns", "delete", self._made.pop()], check=False)

    def _mac(self, host: str) -> str:
        return f"02:00:00:00:00:{self.hosts.index(host) + 10:02x}"

    def _point(self, host: str, *others: str) -> None:
        """Write down anew at *host* which way leads to *others*."""
        _batch(
            self.namespace(host),
            [
                f"neigh replace {self.address(other)} dev net nud permanent lladdr "
                f"{_NOWHERE if (host, other) in self._cuts else self._mac(other)}"
                for other in others
            ],
        )

    def cut(self, one: str, *others: str) -> None:
        """Nothing passes between *one* and each of *others* any more, also of connections that stand."""
        self._cuts |= {pair for other in others for pair in ((one, other), (other, one))}
        self._point(one, *others)
        for other in others:
            self._point(other, one)

    def cut_one_way(self, sender: str, receiver: str) -> None:
        """What *sender* sends does not arrive at *receiver*; the other way it does."""
        self._cuts.add((sender, receiver))
        self._point(sender, receiver)

    def cut_off(self, host: str) -> None:
        """*host* is alone."""
        self.cut(host, *(other for other in self.hosts if other != host))

    def join(self, one: str, *others: str) -> None:
        """Undo `cut`."""
        self._cuts -= {pair for other in others for pair in ((one, other), (other, one))}
        self._point(one, *others)
        for other in others:
            self._point(other, one)

    def join_again(self, host: str) -> None:
        """Undo `cut_off`."""
        self.join(host, *(other for other in self.hosts if other != host))

    def partition(self, *groups: Sequence[str]) -> None:
        """Only hosts of one group reach each other; who stands in no group reaches everybody."""
        self.heal(fast=True)
        for one, two in permutations(groups, 2):
            for host in one:
                self.cut(host, *two)

    def slow(self, host: str, rate: str) -> None:
        """Each way to and from *host* carries *rate*, as tc(8) writes it: ``1mbit``."""
        port = f"port{self.hosts.index(host)}"
        for namespace, device in ((self.namespace(host), "net"), (self._switch, port)):
            limit = ["root", "tbf", "rate", rate, "burst", "32kb", "latency", "400ms"]
            subprocess.run(enter(namespace, ["tc", "qdisc", "replace", "dev", device, *limit]), check=True)

    def full_speed(self, host: str) -> None:
        """Undo `slow`."""
        port = f"port{self.hosts.index(host)}"
        for namespace, device in ((self.namespace(host), "net"), (self._switch, port)):
            # Fails where there is nothing to undo.
            subprocess.run(
                enter(namespace, ["tc", "qdisc", "delete", "dev", device, "root"]), check=False, capture_output=True
            )

    def heal(self, *, fast: bool = False) -> None:
        """Everybody reaches everybody, at full speed; with *fast* slow links stay slow."""
        cut, self._cuts = self._cuts, set()
        for host in {host for host, _ in cut}:
            self._point(host, *(other for one, other in cut if one == host))
        if not fast:
            for host in self.hosts:
                self.full_speed(host)

    def processes(self, host: str) -> list[int]:
        """Ids of all that runs there."""
        found = subprocess.run(
            ["ip", "netns", "pids", self.namespace(host)], capture_output=True, text=True, check=True
        )
        return [int(word) for word in found.stdout.split()]


def _ip(words: Sequence[str]) -> None:
    subprocess.run(["ip", *words], check=True)


def _batch(namespace: str, lines: Sequence[str]) -> None:
    """Carry out the commands in *lines* inside *namespace*; one process for all of them."""
    subprocess.run(["ip", "-netns", namespace, "-batch", "-"], input="\n".join(lines), text=True, check=True)
