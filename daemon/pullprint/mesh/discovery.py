"""Finding peers again when neither the cloud nor their old addresses help: DNS-SD over multicast (RFC 6762, 6763).

Whatever is heard is anybody's word. It only says where a node of the roster may be tried; that it is this node, it
proves by its certificate. What is announced is the node's id, which means nothing to others: no name of a host, a
person or an organisation. python-zeroconf is imported only here, and late: daemons start without waiting for it.
"""

import asyncio
import contextlib
import ipaddress
import logging
import re
import socket
from typing import TYPE_CHECKING

from pullprint.base.backoff import Backoff
from pullprint.base.clock import Clock
from pullprint.mesh.peers import NotAPeer, Peers, make_endpoint
from pullprint.wire.mesh import ENDPOINTS_LIMIT

if TYPE_CHECKING:
    from zeroconf import ServiceStateChange, Zeroconf
    from zeroconf.asyncio import AsyncZeroconf

SERVICE = "_pullprint._tcp.local."
SERVICES = 256
"""Announcements that are remembered or waited for."""
LOOKUPS = 4
"""Announcements that are looked into at a time."""
LOOKUP_TIME = 3.0
"""Seconds for one."""
LOOK_EVERY = 30.0
"""Seconds between two looks at this host's own addresses."""
# The id, and what is appended where somebody else uses the name already.
_NAME = re.compile(rf"(?P<node>[0-9a-f]{{32}})(-[0-9])?\.{re.escape(SERVICE)}")

log = logging.getLogger(__name__)


class Discovery:
    """Announces this node and tells `Peers` where others were heard."""

    def __init__(
        self, peers: Peers, own_node: str, port: int, clock: Clock, interfaces: tuple[str, ...] | None = None
    ) -> None:
        """*port*: where the mesh listens. *interfaces*: this host's addresses to use, also loopback; None: all."""
        self._peers = peers
        self._own = own_node
        self._port = port
        self._clock = clock
        self._interfaces = interfaces
        self._names: dict[str, None] = {}
        self._queue: asyncio.Queue[str] = asyncio.Queue(SERVICES)

    async def run(self) -> None:
        """Announce and listen until cancelled; where that cannot be done, try again from time to time."""
        backoff = Backoff(first=5.0, cap=600.0)
        while True:
            try:
                await self._session()
                backoff.reset()
            except Exception as error:  # noqa: BLE001  (an optional extra: nothing in it may end the daemon)
                while isinstance(error, ExceptionGroup):
                    error = error.exceptions[0]
                log.warning("other hosts cannot be found by multicast: %s: %s", type(error).__name__, error)
                await self._clock.sleep(backoff.next())

    async def _session(self) -> None:
        """Until this host's addresses change."""
        from zeroconf import InterfaceChoice, IPVersion
        from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

        addresses = await self._own_addresses()
        if not addresses:
            await self._until_addresses_change(addresses)
            return
        interfaces = InterfaceChoice.Default if self._interfaces is None else list(self._interfaces)
        zeroconf = AsyncZeroconf(interfaces=interfaces, ip_version=IPVersion.V4Only)
        try:
            info = AsyncServiceInfo(
                SERVICE,
                f"{self._own}.{SERVICE}",
                port=self._port,
                server=f"{self._own}.local.",
                parsed_addresses=addresses[:ENDPOINTS_LIMIT],
            )
            browser = AsyncServiceBrowser(zeroconf.zeroconf, SERVICE, handlers=[self._heard])
            async with asyncio.TaskGroup() as group:
                workers = [group.create_task(self._look_up(zeroconf), name="mesh: look up") for _ in range(LOOKUPS)]
                workers.append(group.create_task(self._look_again(), name="mesh: look again"))
                await zeroconf.async_register_service(info, allow_name_change=True)
                await self._until_addresses_change(addresses)
                for worker in workers:
                    worker.cancel()
            await browser.async_cancel()
        finally:
            await zeroconf.async_close()

    async def _own_addresses(self) -> list[str]:
        if self._interfaces is not None:
            return list(self._interfaces)
        return await asyncio.to_thread(own_addresses)

    async def _until_addresses_change(self, addresses: list[str]) -> None:
        while await self._own_addresses() == addresses:
            await self._clock.sleep(LOOK_EVERY)

    def _heard(self, zeroconf: "Zeroconf", service_type: str, name: str, state_change: "ServiceStateChange") -> None:
        # python-zeroconf passes these by name.
        from zeroconf import ServiceStateChange

        match = _NAME.fullmatch(name)
        if match is None or match["node"] == self._own or state_change is ServiceStateChange.Removed:
            return
        if name not in self._names and len(self._names) >= SERVICES:
            del self._names[self._droppable()]
        self._names[name] = None
        self._enqueue(name)

    def _droppable(self) -> str:
        """The oldest of somebody who is not in the roster, if there is one."""
        known = {peer.node for peer in self._peers.others()}
        return next((name for name in self._names if name[:32] not in known), next(iter(self._names)))

    def _enqueue(self, name: str) -> None:
        with contextlib.suppress(asyncio.QueueFull):  # more than that at once is nobody's honest word
            self._queue.put_nowait(name)

    async def _look_again(self) -> None:
        """Whoever was not in the roster may be now."""
        ticket = self._peers.changed.ticket
        while True:
            await self._peers.changed.wait(ticket)
            ticket = self._peers.changed.ticket
            for name in list(self._names):
                self._enqueue(name)

    async def _look_up(self, zeroconf: "AsyncZeroconf") -> None:
        from zeroconf.asyncio import AsyncServiceInfo

        while True:
            name = await self._queue.get()
            node = name[:32]
            with contextlib.suppress(NotAPeer):
                self._peers.peer(node)
                info = AsyncServiceInfo(SERVICE, name)
                if not await info.async_request(zeroconf.zeroconf, LOOKUP_TIME * 1_000) or not info.port:
                    continue
                for address in info.parsed_addresses()[:ENDPOINTS_LIMIT]:
                    if self._may_be_tried(address):
                        self._peers.hint(node, make_endpoint(address, info.port))

    def _may_be_tried(self, text: str) -> bool:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return False
        if address.is_loopback:
            return self._interfaces is not None
        # A link-local address of IPv6 is nothing without its interface.
        return not (address.is_multicast or address.is_unspecified or address.is_reserved or address.is_link_local)


def own_addresses() -> list[str]:
    """Where this host can be reached from its networks, IPv4 first. Blocking; empty where it has none."""
    import ifaddr

    try:
        adapters = list(ifaddr.get_adapters())
        texts = {ip.ip if isinstance(ip.ip, str) else ip.ip[0] for adapter in adapters for ip in adapter.ips}
    except OSError as error:  # getifaddrs(3) wants AF_NETLINK
        log.info("only this host's main addresses are known: %s", error.strerror)
        texts = _main_addresses()
    found = [ipaddress.ip_address(text) for text in texts]
    good = [each for each in found if not (each.is_loopback or each.is_link_local or each.is_multicast)]
    return [str(each) for each in sorted(good, key=lambda each: (each.version, int(each)))]


def _main_addresses() -> set[str]:
    """From where this host would send to elsewhere; nothing is sent."""
    found = set()
    for family, there in (
        (socket.AF_INET, "224.0.0.251"),
        (socket.AF_INET, "192.0.2.1"),
        (socket.AF_INET6, "2001:db8::1"),
    ):
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((there, 5353))
            found.add(str(sock.getsockname()[0]))
    return found
