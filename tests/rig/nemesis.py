"""What goes wrong with a site, at random and from one seed: hosts die, hang, lose each other, slow down, come back."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.rig.sites import CLOUD, Hosts

PAUSE = (0.2, 2.0)
"""Seconds between two deeds."""
LAST = (0.5, 6.0)
"""Seconds that one lasts."""
AT_ONCE = 2
"""So many last at the same time."""


@dataclass(frozen=True)
class Deed:
    """Something that goes wrong, and how it is put right."""

    name: str
    do: Callable[[], None]
    undo: Callable[[], None]
    host: str = ""
    """On which nothing else can be done meanwhile."""


@dataclass
class Nemesis:
    """Goes on in a thread of its own until it is told to stop; then everything is healed."""

    hosts: Hosts
    seed: int
    say: Callable[[str], None] = lambda _: None
    deeds: dict[str, int] = field(default_factory=dict)
    """How often each kind was done."""
    failure: BaseException | None = None
    """What the rig itself failed of."""

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)
        self._stop = threading.Event()
        self._cuts: list[tuple[str, str]] = []

    @contextmanager
    def raging(self) -> Iterator[None]:
        """It goes on as long as the block lasts."""
        thread = threading.Thread(target=self._run, name="nemesis")
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()
            self.hosts.heal()
        if self.failure is not None:
            raise self.failure

    def _run(self) -> None:
        under_way: list[tuple[float, Deed]] = []
        try:
            while not self._stop.wait(self._chance.uniform(*PAUSE)):
                now = time.monotonic()
                for end, deed in [entry for entry in under_way if entry[0] <= now]:
                    self.say(f"end of {deed.name}")
                    deed.undo()
                    under_way.remove((end, deed))
                deed = self._choose()
                if len(under_way) < AT_ONCE and not (deed.host and deed.host in {d.host for _, d in under_way}):
                    self.say(deed.name)
                    deed.do()
                    kind = deed.name.partition(" ")[0]
                    self.deeds[kind] = self.deeds.get(kind, 0) + 1
                    under_way.append((now + self._chance.uniform(*LAST), deed))
        except BaseException as error:
            self.failure = error

    def _choose(self) -> Deed:
        hosts, chance = self.hosts, self._chance
        node = chance.choice(hosts.names)
        host = chance.choice((*hosts.names, CLOUD))
        printer = chance.choice(sorted(hosts.all_printers()))
        machine = hosts.all_printers()[printer]
        groups = self._groups()
        rate = chance.choice(["64kbit", "512kbit", "4mbit"])
        cut = [(node, printer)]
        makers: list[tuple[int, Callable[[], Deed]]] = [
            (5, lambda: Deed(f"kill {node}", lambda: hosts.kill(node), lambda: hosts.start(node), node)),
            (2, lambda: Deed("kill cloud", lambda: hosts.kill(CLOUD), lambda: hosts.start(CLOUD), CLOUD)),
            (5, lambda: Deed(f"hang {host}", lambda: hosts.stop(host), lambda: hosts.cont(host), host)),
            (5, lambda: Deed(f"partition {_written(groups)}", lambda: hosts.partition(*groups), self._heal, "network")),
            (2, lambda: Deed(f"cut {node} from {printer}", lambda: self._cut(cut), self._heal, "network")),
            (2, lambda: Deed(f"slow {host} to {rate}", lambda: hosts.slow(host, rate),
                             lambda: hosts.network.full_speed(host))),
            (2, lambda: Deed(f"off {printer}", machine.stop, machine.start, printer)),
        ]  # fmt: skip
        weights = [weight for weight, _ in makers]
        return chance.choices([maker for _, maker in makers], weights)[0]()

    def _groups(self) -> list[list[str]]:
        """Nodes and cloud in two or three groups; printers are reached by all."""
        groups: list[list[str]] = [[] for _ in range(self._chance.choice([2, 2, 3]))]
        for name in (*self.hosts.names, CLOUD):
            self._chance.choice(groups).append(name)
        return [group for group in groups if group]

    def _cut(self, pairs: list[tuple[str, str]]) -> None:
        for one, other in pairs:
            self.hosts.cut(one, other)

    def _heal(self) -> None:
        self.hosts.network.heal(fast=True)


def _written(groups: list[list[str]]) -> str:
    return " | ".join(" ".join(group) for group in groups)
