"""Peers greet each other, so that each knows who is awake, and so that the newest roster, and with it the news of
whoever was shut out, gets everywhere without the cloud."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from random import Random, SystemRandom

from pullprint.base.clock import Clock
from pullprint.base.errors import PullprintError
from pullprint.mesh.client import MeshClient
from pullprint.mesh.peers import AWAKE, Peers

EVERY = 10.0
"""Seconds between two rounds, plus or minus a fifth."""
FEW = 8
"""Peers that are greeted at a time."""
ROUND = 24
"""Peers in one round, so that a large site costs each node no more than a small one: they take turns."""
SOON = 2.0
"""Seconds before a peer that may be found elsewhere is looked for there."""

log = logging.getLogger(__name__)

Accept = Callable[[str], Awaitable[bool]]


class Gossip:
    """Greets, and passes rosters on."""

    def __init__(
        self,
        peers: Peers,
        client: MeshClient,
        accept: Accept,
        clock: Clock,
        every: float = EVERY,
        random: Random | None = None,
    ) -> None:
        """*accept* takes a roster's JWS, verifies it and raises StatementRefused: `Peers.accept` with the site's pin.

        *every*: seconds between two rounds.
        """
        self._peers = peers
        self._client = client
        self._accept = accept
        self._clock = clock
        self._every = every
        self._random = random or SystemRandom()
        self._turns: deque[str] = deque()
        self._fetching: set[int] = set()

    async def run(self) -> None:
        """Greet until cancelled; no peer can stop it."""
        while True:
            ticket = self._peers.hinted.ticket
            await self.round()
            pause = self._every * self._random.uniform(0.8, 1.2)
            begin = self._clock.monotonic()
            while (rest := pause - (self._clock.monotonic() - begin)) > 0:
                if not await self._peers.hinted.wait(ticket, rest):
                    break
                await self._clock.sleep(min(SOON, self._every))
                ticket = self._peers.hinted.ticket
                await self._greet([peer.node for peer in self._peers.others() if not self._peers.awake(peer.node)])

    async def round(self) -> None:
        """Greet those whose turn it is."""
        nodes = [peer.node for peer in self._peers.others()]
        rounds = -(-len(nodes) // ROUND)
        # Two may be lost before somebody counts as asleep, wherever there are so many that each waits for its turn.
        self._peers.patience = max(AWAKE, 2.5 * rounds * self._every)
        there = set(nodes)
        self._turns = deque(node for node in self._turns if node in there)
        new = there.difference(self._turns)
        self._turns.extendleft(node for node in nodes if node in new)
        chosen = [self._turns.popleft() for _ in range(min(ROUND, len(self._turns)))]
        self._turns.extend(chosen)
        self._random.shuffle(chosen)
        await self._greet(chosen)

    async def _greet(self, nodes: list[str]) -> None:
        waiting = iter(nodes[:ROUND])

        async def work() -> None:
            for node in waiting:
                await self._greet_one(node)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(FEW, len(nodes))):
                group.create_task(work(), name="mesh: greet")

    async def _greet_one(self, node: str) -> None:
        try:
            hello = await self._client.hello(node)
            if hello.roster <= self._peers.revision or hello.roster in self._fetching:
                return
            self._fetching.add(hello.roster)
            try:
                await self._accept(await self._client.roster(node))
            finally:
                self._fetching.discard(hello.roster)
        except PullprintError as error:
            log.debug("%s: %s", node, error)
        except Exception:  # one odd peer must not end the greeting of all others
            log.exception("greeting %s", node)
