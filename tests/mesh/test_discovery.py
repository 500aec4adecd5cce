"""Found again by multicast, here on loopback; whatever anybody else announces is only a place to try, if that."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.mesh.site import Node, Site
from tests.mesh.test_peers import entry
from zeroconf import ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

from pullprint.base.clock import SystemClock
from pullprint.mesh import discovery
from pullprint.mesh.client import PeerAway
from pullprint.mesh.discovery import SERVICE, SERVICES, Discovery, own_addresses

LOOPBACK = ("127.0.0.1",)


def searching(node: Node) -> Discovery:
    return Discovery(node.peers, node.node, node.port, SystemClock(), LOOPBACK)


@contextlib.asynccontextmanager
async def running(*discoveries: Discovery) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(each.run()) for each in discoveries]
        yield
        for task in tasks:
            task.cancel()


async def apart(site: Site, anna: Node, bert: Node) -> None:
    """They know of each other, but not where."""
    entries = [node.entry.model_copy(update={"endpoints": ()}) for node in (anna, bert)]
    await site.tell(site.roster(entries), anna, bert)


async def hinted(node: Node, ticket: int) -> None:
    async with asyncio.timeout(20):
        await node.peers.hinted.wait(ticket)


async def test_nodes_whose_addresses_are_lost_find_each_other(site: Site) -> None:
    async with site.node("anna") as anna, site.node("bert") as bert:
        await apart(site, anna, bert)
        with pytest.raises(PeerAway):
            await anna.client.hello(bert.node)
        tickets = anna.peers.hinted.ticket, bert.peers.hinted.ticket
        async with running(searching(anna), searching(bert)):
            await hinted(anna, tickets[0])
            await hinted(bert, tickets[1])
        assert anna.peers.endpoints(bert.node) == [bert.endpoint]
        await anna.client.hello(bert.node)
        await bert.client.hello(anna.node)


async def test_a_node_that_joins_the_roster_later_is_not_forgotten_and_strangers_are_not_tried(site: Site) -> None:
    async with site.node("anna") as anna, site.node("bert") as bert:
        await site.tell(site.roster([anna.entry]), anna)
        search = searching(anna)
        async with running(search, searching(bert)), asyncio.timeout(20):
            while not search._names:
                await asyncio.sleep(0.05)
            ticket = anna.peers.hinted.ticket
            await apart(site, anna, bert)
            await hinted(anna, ticket)
        assert anna.peers.endpoints(bert.node) == [bert.endpoint]


async def test_what_somebody_else_announces_for_a_peer_leads_nowhere(site: Site) -> None:
    async with site.node("anna") as anna, site.node("bert") as bert, site.node("mallory") as mallory:
        await apart(site, anna, bert)
        ticket = anna.peers.hinted.ticket
        liar = AsyncZeroconf(interfaces=list(LOOPBACK))
        info = AsyncServiceInfo(
            SERVICE,
            f"{bert.node}.{SERVICE}",
            port=mallory.port,
            server="mallory.local.",
            parsed_addresses=["127.0.0.1", "224.0.0.1", "0.0.0.0"],
        )
        try:
            await liar.async_register_service(info)
            async with running(searching(anna)):
                await hinted(anna, ticket)
        finally:
            await liar.async_close()
        assert anna.peers.endpoints(bert.node) == [mallory.endpoint]
        with pytest.raises(PeerAway):
            await anna.client.hello(bert.node)
        anna.peers.hint(bert.node, bert.endpoint)
        await anna.client.hello(bert.node)


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "::1", "169.254.1.1", "fe80::1", "224.0.0.1", "0.0.0.0", "::", "host"]
)
async def test_an_address_that_is_no_peers_is_not_tried(site: Site, address: str) -> None:
    async with site.node("anna") as anna:
        search = Discovery(anna.peers, anna.node, anna.port, SystemClock())
        assert not search._may_be_tried(address) and search._may_be_tried("192.0.2.7")


async def test_names_without_end_are_forgotten_but_not_those_of_peers(site: Site) -> None:
    async with site.node("anna") as anna, site.node("bert") as bert:
        await apart(site, anna, bert)
        search = searching(anna)

        def heard(name: str, change: ServiceStateChange = ServiceStateChange.Added) -> None:
            search._heard(None, SERVICE, name, change)  # type: ignore[arg-type]

        heard(f"{bert.node}.{SERVICE}")
        for _ in range(2 * SERVICES):
            heard(f"{entry('x').node}.{SERVICE}")
        assert len(search._names) == SERVICES == search._queue.qsize() and f"{bert.node}.{SERVICE}" in search._names
        before = list(search._names)
        for name in (
            f"{anna.node}.{SERVICE}",
            f"Anna's laptop.{SERVICE}",
            SERVICE,
            f"{bert.node}-12.{SERVICE}",
            "\x00",
        ):
            heard(name)
        heard(f"{entry('y').node}.{SERVICE}", ServiceStateChange.Removed)
        assert list(search._names) == before


async def test_a_host_without_multicast_goes_on_without(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Waiting(SystemClock):
        async def sleep(self, seconds: float) -> None:
            slept.set()
            await asyncio.sleep(seconds)

    def refuse(*_: object, **__: object) -> Zeroconf:
        raise OSError(98, "Address already in use")

    slept = asyncio.Event()
    monkeypatch.setattr("zeroconf.asyncio.AsyncZeroconf", refuse)
    async with site.node("anna") as anna:
        async with running(Discovery(anna.peers, anna.node, anna.port, Waiting(), LOOPBACK)), asyncio.timeout(5):
            await slept.wait()
    assert "Address already in use" in caplog.text


@pytest.mark.parametrize("confined", [False, True])
def test_what_is_never_told_as_ones_own_address(monkeypatch: pytest.MonkeyPatch, confined: bool) -> None:
    everything = own_addresses()
    if confined:  # as by systemd's RestrictAddressFamilies

        def refuse() -> None:
            raise OSError(97, "Address family not supported by protocol")

        monkeypatch.setattr("ifaddr.get_adapters", refuse)
    assert set(own_addresses()) <= set(everything)
    for address in own_addresses():
        assert not address.startswith(("127.", "169.254.", "fe80", "ff")) and address != "::1"


def test_zeroconf_is_imported_late_and_only_there() -> None:
    here = Path(discovery.__file__).parent
    for path in here.glob("*.py"):
        lines = path.read_text().splitlines()
        assert not any(line.startswith(("import zeroconf", "from zeroconf")) for line in lines), path
        assert path.name == "discovery.py" or not any("zeroconf" in line for line in lines), path
