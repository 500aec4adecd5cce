"""Who may talk to whom: certificates that are wrong in every way, at both ends of a connection."""

import asyncio
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.mesh.site import ORGANISATION, SITE, Node, Site, issue

from pullprint.cloud import tls as ca
from pullprint.mesh.client import PeerAway, PeerRefused
from pullprint.mesh.peers import NotAPeer
from pullprint.mesh.tls import CertificateUnusable, Credentials, node_of
from pullprint.wire.mesh import News, verify_roster

Certify = Callable[[str], tuple[str, str]]
OTHER = "ab" * 16


async def nobody_talks(site: Site, certificate: Certify | None, authority: str = "") -> None:
    """A host that the roster lists, with this *certificate*: neither calls nor is called, and nothing is said."""
    async with site.node("anna") as anna, site.node("mallory", certificate, authority) as mallory:
        await site.introduce()
        for one, two in ((anna, mallory), (mallory, anna)):
            with pytest.raises(PeerAway):
                await one.client.hello(two.node)
            assert one.peers.state(two.node).trouble and not one.peers.awake(two.node)
        assert not anna.handlers.said and not mallory.handlers.said


async def test_a_ca_of_ones_own_opens_nothing(site: Site) -> None:
    own = ca.new_authority("Acme", time.time())
    await nobody_talks(site, lambda node: issue(own, [node]))


async def test_another_organisation_of_the_same_cloud_is_a_stranger(site: Site) -> None:
    other = ca.new_authority("Globex", time.time())
    await nobody_talks(site, lambda node: issue(other, [node]), other.certificate)


async def test_an_expired_certificate_opens_nothing(site: Site) -> None:
    await nobody_talks(site, site.expired)


async def test_a_certificate_with_a_second_name_opens_nothing(site: Site) -> None:
    await nobody_talks(site, lambda node: issue(site.authority, [node, OTHER]))


async def test_a_certificate_without_a_name_opens_nothing(site: Site) -> None:
    await nobody_talks(site, lambda _: issue(site.authority, []))


async def test_a_certificate_for_a_host_name_opens_nothing(site: Site) -> None:
    await nobody_talks(site, lambda _: issue(site.authority, ["print.example.com"]))


async def test_a_server_certificate_of_the_same_ca_does_not_make_a_peer(site: Site) -> None:
    """The cloud's own CA may have made both; what is for servers only is no client."""

    def server(node: str) -> tuple[str, str]:
        pair = ca.new_server(site.authority, [node], time.time())
        return pair.certificate, pair.key

    async with site.node("anna") as anna, site.node("mallory", server) as mallory:
        await site.introduce()
        with pytest.raises(PeerAway):
            await mallory.client.hello(anna.node)


async def test_whoever_sits_at_a_peers_address_is_told_nothing(site: Site) -> None:
    """A host whose certificate is another node's, where this one is expected."""
    async with site.node("anna") as anna, site.node("bert") as bert, site.node("carla") as carla:
        moved = bert.entry.model_copy(update={"endpoints": carla.entry.endpoints})
        await site.tell(site.roster([anna.entry, moved, carla.entry]), anna, bert, carla)
        with pytest.raises(PeerAway):
            await anna.client.tell(bert.node, "/mesh/v1/news", news())
        assert not carla.handlers.said


async def test_a_peer_that_moved_is_found_at_its_next_address_and_then_there_first(site: Site) -> None:
    async with site.node("anna") as anna, site.node("bert") as bert, site.node("carla") as carla:
        moved = bert.entry.model_copy(update={"endpoints": ("127.0.0.1:9", carla.endpoint, bert.endpoint)})
        await site.tell(site.roster([anna.entry, moved, carla.entry]), anna, bert, carla)
        assert (await anna.client.hello(bert.node)).node == bert.node
        assert anna.peers.endpoints(bert.node)[0] == bert.endpoint
        assert (await anna.client.hello(carla.node)).node == carla.node  # its kept connection is not bert's


async def test_certified_but_not_in_the_roster_is_refused_for_anything(site: Site) -> None:
    async with site.node("anna") as anna, site.node("bert") as bert:
        token = site.roster([anna.entry, bert.entry])
        await site.tell(token, bert)
        await site.tell(site.roster([anna.entry]), anna)
        with pytest.raises(PeerRefused) as refused:
            await bert.client.hello(anna.node)
        assert (refused.value.status, refused.value.code) == (403, NotAPeer.code)
        with pytest.raises(NotAPeer):
            await anna.client.hello(bert.node)


async def test_a_revoked_peer_is_refused_at_once_on_a_connection_that_stands(
    pair: tuple[Node, Node], site: Site
) -> None:
    anna, bert = pair
    reader, writer = await raw(bert, anna)
    assert b"200 OK" in await get(reader, writer, "/mesh/v1/hello")
    # Before the server's task has had a turn to close it, the roster counts already.
    token = site.roster([anna.entry, bert.entry], [bert.node])
    anna.peers._take(verify_roster(token, site.pin, ORGANISATION, SITE), token)
    writer.write(b"GET /mesh/v1/hello HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"200 OK" not in await reader.read()  # 403, or nothing: the connection is closed
    writer.transport.abort()
    with pytest.raises(PeerRefused) as refused:
        await bert.client.hello(anna.node)
    assert refused.value.code == NotAPeer.code and anna.peers.revoked(bert.node)


async def test_the_connections_of_a_revoked_peer_are_closed(pair: tuple[Node, Node], site: Site) -> None:
    anna, bert = pair
    reader, writer = await raw(bert, anna)
    async with asyncio.timeout(5):
        await site.introduce(bert)
        assert await reader.read() == b""
    writer.transport.abort()


async def test_tls_1_2_is_not_spoken(pair: tuple[Node, Node]) -> None:
    anna, bert = pair
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=Path(bert.directory / "ca.pem").read_text())
    context.load_cert_chain(bert.directory / "own.pem", bert.directory / "mesh.pem")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection("127.0.0.1", anna.port, ssl=context, server_hostname=anna.node)


async def test_a_server_of_tls_1_2_is_not_spoken_to(site: Site) -> None:
    async with site.node("anna") as anna, site.node("bert") as bert:
        bert.credentials.server.minimum_version = ssl.TLSVersion.TLSv1_2
        bert.credentials.server.maximum_version = ssl.TLSVersion.TLSv1_2
        await site.introduce()
        with pytest.raises(PeerAway):
            await anna.client.hello(bert.node)


async def test_a_session_is_never_taken_up_again(pair: tuple[Node, Node]) -> None:
    """It would be as good as a certificate that has expired, or was made void, meanwhile."""
    anna, bert = pair
    reader, writer = await raw(anna, bert)
    await get(reader, writer, "/mesh/v1/hello")
    assert not writer.get_extra_info("ssl_object").session.has_ticket
    writer.transport.abort()


async def test_without_a_certificate_nobody_gets_in(pair: tuple[Node, Node]) -> None:
    anna, _ = pair
    context = ssl.create_default_context(cadata=Path(anna.directory / "ca.pem").read_text())
    with pytest.raises((ssl.SSLError, ConnectionError)):
        reader, writer = await asyncio.open_connection("127.0.0.1", anna.port, ssl=context, server_hostname=anna.node)
        try:
            writer.write(b"GET /mesh/v1/hello HTTP/1.1\r\nHost: x\r\n\r\n")
            await reader.readexactly(1)
        except asyncio.IncompleteReadError as error:
            raise ConnectionResetError from error
        finally:
            writer.transport.abort()


async def test_a_renewed_certificate_is_shown_from_the_next_handshake_on(pair: tuple[Node, Node], site: Site) -> None:
    anna, bert = pair
    before: list[str] = []
    after: list[str] = []
    for seen in (before, after):
        _, writer = await raw(bert, anna)
        seen.append(writer.get_extra_info("peercert")["serialNumber"])
        writer.transport.abort()
        certificate, key = site.certificate(anna.node)
        (anna.directory / "mesh.pem").write_text(key)
        anna.credentials.renew(certificate, anna.directory / "mesh.pem", site.authority.certificate)
    assert before != after
    await anna.client.hello(bert.node)
    await bert.client.hello(anna.node)


async def test_a_certificate_that_does_not_fit_changes_nothing(pair: tuple[Node, Node], site: Site) -> None:
    anna, bert = pair
    certificate, _ = site.certificate(anna.node)
    for broken in (certificate, "", "-----BEGIN CERTIFICATE-----\nüä\n-----END CERTIFICATE-----\n"):
        with pytest.raises(CertificateUnusable):
            anna.credentials.renew(broken, anna.directory / "mesh.pem", site.authority.certificate)
    with pytest.raises(CertificateUnusable, match="No such file"):
        anna.credentials.renew(certificate, anna.directory / "gone.pem", site.authority.certificate)
    await anna.client.hello(bert.node)
    await bert.client.hello(anna.node)


@pytest.mark.parametrize(
    "names",
    [(), (("DNS", OTHER), ("DNS", OTHER)), (("DNS", OTHER.upper()),), (("IP Address", OTHER),), (("DNS", "*"),)],
)
def test_only_one_name_is_a_name(names: tuple[tuple[str, str], ...]) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        node_of({"subjectAltName": names})
    with pytest.raises(ssl.SSLCertVerificationError):
        node_of(None)
    assert node_of({"subjectAltName": (("DNS", OTHER),)}) == OTHER


def news() -> News:
    return News(job="00" * 16, generation=2, kind="printed", ballot=1, order="o-1")


async def raw(client: Node, server: Node) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection as *client*, without HTTP."""
    return await asyncio.open_connection(
        "127.0.0.1", server.port, ssl=client.credentials.client, server_hostname=server.node
    )


async def get(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> bytes:
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return await reader.readuntil(b"}")


def test_the_contexts_speak_tls_1_3_only(site: Site, tmp_path: Path) -> None:
    certificate, key = site.certificate(OTHER)
    (tmp_path / "key.pem").write_text(key)
    credentials = Credentials(certificate, tmp_path / "key.pem", site.authority.certificate)
    for context in (credentials.server, credentials.client):
        assert context.minimum_version == ssl.TLSVersion.TLSv1_3 and context.verify_mode == ssl.CERT_REQUIRED
    assert credentials.client.check_hostname and not credentials.server.num_tickets
