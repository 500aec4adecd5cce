"""The newest roster gets everywhere without the cloud; greeting costs little, however many peers there are."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from random import Random

import pytest
from tests.mesh.site import ORGANISATION, SITE, Node, Site
from tests.mesh.test_peers import ANNA, entry

from pullprint.base.clock import ManualClock, SystemClock
from pullprint.mesh import gossip
from pullprint.mesh.client import MeshClient, PeerAway, PeerRefused
from pullprint.mesh.gossip import Gossip
from pullprint.mesh.peers import AWAKE, NotAPeer, Peers
from pullprint.wire.mesh import Hello


def greeter(site: Site, node: Node) -> Gossip:
    return Gossip(node.peers, node.client, lambda token: site.accept(node, token), SystemClock(), every=0.05)


@contextlib.asynccontextmanager
async def gossiping(site: Site, *nodes: Node) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(greeter(site, node).run()) for node in nodes]
        yield
        for task in tasks:
            task.cancel()


async def test_a_revocation_gets_to_a_node_that_only_knows_its_neighbour(site: Site) -> None:
    async with (
        site.node("anna") as anna,
        site.node("bert") as bert,
        site.node("carla") as carla,
        site.node("mallory") as mallory,
    ):
        hidden = anna.entry.model_copy(update={"endpoints": ("127.0.0.1:9",)})
        entries = [bert.entry, carla.entry, mallory.entry]
        await site.tell(site.roster([anna.entry, *entries]), bert, mallory)
        await site.tell(site.roster([hidden, *entries]), carla)
        await mallory.client.hello(carla.node)
        ticket = carla.peers.changed.ticket
        await site.tell(site.roster([hidden, *entries], [mallory.node]), anna)  # all that the cloud still said
        async with gossiping(site, bert, carla), asyncio.timeout(5):
            await carla.peers.changed.wait(ticket)
        assert carla.peers.revoked(mallory.node) and bert.peers.revoked(mallory.node)
        with pytest.raises(NotAPeer):
            carla.peers.peer(mallory.node)
        with pytest.raises(PeerRefused) as refused:
            await mallory.client.hello(carla.node)
        assert refused.value.code == "not-a-peer"


async def test_a_forged_roster_goes_no_further(site: Site, pair: tuple[Node, Node]) -> None:
    anna, bert = pair
    forger = Site(site.directory, authority=site.authority, revision=99)
    forged = forger.roster([bert.entry], [anna.node])

    async def hello() -> Hello:
        return Hello(node=bert.node, version="0.2.0", roster=100)

    async def roster() -> str:
        return forged

    bert.handlers.hello, bert.handlers.roster = hello, roster  # type: ignore[method-assign]
    revision = anna.peers.revision
    await greeter(site, anna).round()
    assert anna.peers.revision == revision and anna.peers.awake(bert.node)


async def test_whoever_is_silent_or_odd_does_not_stop_the_greeting(site: Site) -> None:
    async with site.node("anna") as anna, site.node("bert") as bert, site.node("carla") as carla:
        await site.introduce()

        async def broken() -> Hello:
            raise RuntimeError("odd")

        bert.handlers.hello = broken  # type: ignore[method-assign]
        async with asyncio.TaskGroup() as group:
            running = group.create_task(greeter(site, anna).run())
            async with asyncio.timeout(5):
                while not anna.peers.state(carla.node).lag:
                    await asyncio.sleep(0.01)
            running.cancel()
        assert anna.peers.state(bert.node).hello is None


async def test_a_peer_that_may_be_found_elsewhere_is_looked_for_there_soon(site: Site) -> None:
    async with site.node("anna") as anna, site.node("bert") as bert:
        lost = bert.entry.model_copy(update={"endpoints": ()})
        await site.tell(site.roster([anna.entry, lost]), anna, bert)
        rare = Gossip(anna.peers, anna.client, lambda token: site.accept(anna, token), SystemClock(), every=1_000)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(rare.run())
            async with asyncio.timeout(5):
                while not anna.peers.state(bert.node).trouble:
                    await asyncio.sleep(0.01)
                anna.peers.hint(bert.node, bert.endpoint)
                while not anna.peers.awake(bert.node):
                    await asyncio.sleep(0.01)
            running.cancel()


async def test_two_hundred_peers_are_greeted_in_turns_and_few_at_a_time(site: Site) -> None:
    clock = ManualClock()
    peers = Peers(site.directory, ANNA.node, clock)
    others = [entry(f"n{number}") for number in range(200)]
    await peers.accept(site.roster([ANNA, *others]), site.pin, ORGANISATION, SITE)
    greeted: list[str] = []
    running = most = 0

    class Counting(MeshClient):
        async def hello(self, node: str) -> Hello:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0)
            running -= 1
            greeted.append(node)
            if node == others[0].node:
                raise PeerAway(name="n0", reason="it is silent")
            return Hello(node=node, version="0.2.0", roster=0)

    async def accept(_: str) -> bool:
        pytest.fail("nothing is new")

    client = Counting(peers, None, clock)  # type: ignore[arg-type]
    greeting = Gossip(peers, client, accept, clock, random=Random(1))
    rounds = -(-200 // gossip.ROUND)
    for number in range(rounds):
        await greeting.round()
        assert len(greeted) <= gossip.ROUND * (number + 1)
    assert set(greeted) == {peer.node for peer in others} and most <= gossip.FEW
    assert peers.patience > rounds * gossip.EVERY
    await peers.accept(site.roster([ANNA, *others[:5]]), site.pin, ORGANISATION, SITE)
    greeted.clear()
    await greeting.round()
    assert sorted(greeted) == sorted(peer.node for peer in others[:5]) and peers.patience == AWAKE
