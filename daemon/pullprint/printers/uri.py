"""A printer's name becomes an address once, and the document goes to the address that was checked."""

import asyncio
import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

from pullprint.base.errors import PullprintError
from pullprint.model.uri import BadUri, Network, PrinterUri, check_uri, within

__all__ = ["BadUri", "NoSuchHost", "PrinterUri", "check_uri", "resolve"]

RESOLVE_SECONDS = 5.0


class NoSuchHost(PullprintError):
    """The printer's name {host} is not known on this network. Nothing was sent; ask who looks after the
    printers.
    """

    code = "no-such-host"
    http_status = 502


async def resolve(uri: PrinterUri, networks: Sequence[Network]) -> PrinterUri:
    """*uri* with its host pinned to an address; every address of the name must be inside *networks*.

    Pinned, because a name that is looked up again by the backend may answer differently (DNS rebinding). ipps
    keeps the name: TLS checks it. Raises BadUri for an address outside, NoSuchHost for no address within 5 s.
    """
    if uri.address is not None:
        return check_uri(uri.raw, networks)
    try:
        async with asyncio.timeout(RESOLVE_SECONDS):
            found = await asyncio.get_running_loop().getaddrinfo(uri.host, uri.port, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError, UnicodeError) as error:
        raise NoSuchHost(host=uri.host) from error
    addresses = [address for entry in found if (address := _address(str(entry[4][0]))) is not None]
    if not addresses:
        raise NoSuchHost(host=uri.host)
    if not all(within(address, networks) for address in addresses):
        raise BadUri(reason="its name leads outside the networks of this site")
    if uri.scheme == "ipps":
        return uri
    # IPv4 first: printers announce IPv6 addresses that they then do not listen on.
    return uri.with_host(min(addresses, key=lambda address: address.version).compressed)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        return address.ipv4_mapped or (address if address.scope_id is None else None)
    return address
