"""``make soak N=200``: jobs are printed and released while everything goes wrong; then they are counted at the printers.

Ends with status 1 if a document came out twice, or if one that was acknowledged is neither on paper nor held.
"""

import argparse
import http.client
import random
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from uuid import UUID

from rich.console import Console
from tests.rig.nemesis import Nemesis
from tests.rig.office import NODES, Answer, CommandFailed, Person
from tests.rig.sites import Hosts, document

PRESSERS = 3
"""People who press Print."""
PATIENCE = 5.0
"""Seconds in which the page has to answer while things go wrong."""
CALM = 120.0
"""Seconds for everything to end once all is healed."""
_TROUBLE = (OSError, Answer, CommandFailed, subprocess.TimeoutExpired, http.client.HTTPException, ValueError)


@dataclass
class Tally:
    """What became of the jobs."""

    seed: int
    submitted: int = 0
    """Acknowledged."""
    once: int = 0
    """On paper, once, byte for byte."""
    twice: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    uncertain: int = 0
    """Their owners are asked; on paper once (perhaps in part), or not at all."""
    held: int = 0
    deeds: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        """Nothing twice, nothing lost."""
        return not self.twice and not self.lost

    def __str__(self) -> str:
        lines = [
            f"seed            {self.seed}",
            f"submitted       {self.submitted}",
            f"printed once    {self.once}",
            f"printed twice   {len(self.twice)}  {' '.join(self.twice)}".rstrip(),
            f"lost            {len(self.lost)}  {' '.join(self.lost)}".rstrip(),
            f"uncertain       {self.uncertain}",
            f"still held      {self.held}",
            f"went wrong      {', '.join(f'{name} {count}' for name, count in sorted(self.deeds.items()))}",
            f"seconds         {self.seconds:.0f}",
        ]
        return "\n".join(lines)


class Soak:
    """One run."""

    def __init__(self, hosts: Hosts, jobs: int, seed: int, say: Callable[[str], None] = lambda _: None) -> None:
        self._hosts = hosts
        self._seed = seed
        self._titles = [f"soak-{seed}-{number}" for number in range(jobs)]
        self._say = say
        self._stored: SimpleQueue[str] = SimpleQueue()
        self._documents: dict[str, bytes] = {}
        self._printers = sorted(hosts.all_printers())

    def run(self) -> Tally:
        """Until every job is on paper, uncertain, or has had its time."""
        began = time.monotonic()
        nemesis = Nemesis(self._hosts, self._seed, self._say)
        over = threading.Event()
        people = [
            threading.Thread(target=self._press, args=(number, over), name=f"person {number}")
            for number in range(PRESSERS)
        ]
        for person in people:
            person.start()
        try:
            with nemesis.raging():
                self._submit()
                self._wait_for_people(20.0)
        finally:
            over.set()
            for person in people:
                person.join()
        self._calm_down()
        tally = self._count()
        tally.deeds, tally.seconds = nemesis.deeds, time.monotonic() - began
        return tally

    def _submit(self) -> None:
        """Print every job at some node, again and again until it is stored, as cupsd does."""
        chance = random.Random(self._seed + 1)
        for title in self._titles:
            name, uuid = chance.choice(self._hosts.names), str(UUID(int=chance.getrandbits(128), version=4))
            content = self._documents[title] = document(title, chance.choice([2_000, 40_000, 400_000]))
            while True:
                try:
                    self._hosts.submit(name, title, content, uuid)
                    break
                except CommandFailed:
                    time.sleep(0.2)
            self._stored.put(title)
            time.sleep(chance.uniform(0, 0.6))

    def _press(self, number: int, over: threading.Event) -> None:
        """Press Print for jobs, sometimes twice and at two printers, on the page and in terminals, as long as it is not
        *over*; answers are not believed."""
        chance = random.Random(self._seed + 100 + number)
        me: Person | None = None
        mine: list[str] = []
        while not over.wait(chance.uniform(0.05, 0.4)):
            try:
                mine.append(self._stored.get_nowait())
            except Empty:
                pass
            if not mine:
                continue
            title = chance.choice(mine)
            try:
                me = me or self._person()
                job = me.job(title)
                if job is None:
                    continue
                if job["state"] in ("done", "uncertain"):
                    mine.remove(title)
                elif chance.random() < 0.25:
                    node = self._hosts.host(chance.choice(self._hosts.names))
                    node.pullprint("release", job["id"], "--printer", chance.choice(self._printers), timeout=PATIENCE)
                else:
                    me.release(job["id"], chance.choice(self._printers))
            except _TROUBLE:
                continue

    def _person(self) -> Person:
        person = self._hosts.person()
        person.timeout = PATIENCE
        return person

    def _wait_for_people(self, seconds: float) -> None:
        """Let things go on going wrong for a while, but not when there is nothing left to do."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if self._open(self._person()) == []:
                    return
            except _TROUBLE:
                pass
            time.sleep(0.5)

    def _open(self, me: Person) -> list[str]:
        """Titles of jobs that are neither done nor uncertain."""
        ended = {job["title"] for job in me.jobs() if job["state"] in ("done", "uncertain")}
        return [title for title in self._titles if title not in ended]

    def _calm_down(self) -> None:
        """All is healed: whatever is held comes out now."""
        for node in self._hosts.nodes:
            node.wait_connected(60)
        me = self._hosts.person()
        deadline = time.monotonic() + CALM
        while time.monotonic() < deadline and (titles := self._open(me)):
            for title in titles:
                job = me.job(title)
                if job is not None and job["state"] == "held":
                    try:
                        me.release(job["id"], self._printers[0])
                    except Answer:
                        continue
            time.sleep(1)

    def _count(self) -> Tally:
        tally = Tally(self._seed, submitted=len(self._titles))
        me = self._hosts.person()
        states = {job["title"]: job for job in me.jobs()}
        for title in self._titles:
            job, printed = states.get(title), self._hosts.printed(title)
            state = job["state"] if job else "gone"
            if printed > 1:
                tally.twice.append(title)
            elif state == "uncertain":
                tally.uncertain += 1
            elif self._hosts.printed_whole(self._documents[title]) == 1:
                tally.once += 1
            elif state in ("done", "gone", "cancelled", "expired"):
                tally.lost.append(title)
            else:
                tally.held += 1
            if printed > 1 or (state not in ("done", "uncertain")) or (state == "done" and printed != 1):
                self._say(f"{title} is {state}, printed {printed} times: {me.trace(str(job['id'])) if job else ''}")
        return tally


def soak(jobs: int, seed: int, names: Sequence[str] = NODES[:3], say: Callable[[str], None] = lambda _: None) -> Tally:
    """Run it on a site of its own, and count."""
    with Hosts(names, printers=("lobby",), sinks=("labels",)) as hosts:
        return Soak(hosts, jobs, seed, say).run()


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("jobs", type=int, nargs="?", default=200)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 31), help="of an earlier run, to repeat it")
    parser.add_argument("--nodes", type=int, choices=[2, 3, 4], default=4)
    parser.add_argument("--quiet", action="store_true", help="only the tally")
    arguments = parser.parse_args()
    console = Console(highlight=False)
    console.print(f"{arguments.jobs} jobs, seed {arguments.seed}")
    began = time.monotonic()

    def say(text: str) -> None:
        if not arguments.quiet:
            console.print(f"{time.monotonic() - began:7.1f}  {text}", markup=False)

    tally = soak(arguments.jobs, arguments.seed, NODES[: arguments.nodes], say)
    console.print(str(tally), markup=False)
    sys.exit(0 if tally.good else 1)


if __name__ == "__main__":
    main()
