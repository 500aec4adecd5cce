"""The roster: forged, older, another site's, replayed, damaged on disk; and what is known of peers."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.mesh.site import ORGANISATION, SITE, Site

from pullprint.base.clock import ManualClock
from pullprint.mesh.peers import NotAPeer, Peers, make_endpoint, split_endpoint
from pullprint.wire.jws import StatementRefused
from pullprint.wire.mesh import ENDPOINTS_LIMIT, ROSTER_LIMIT, Hello, Peer
from pullprint.wire.signature import node_id


def entry(name: str, *endpoints: str) -> Peer:
    identity = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    return Peer(node=node_id(identity), name=name, identity=identity, endpoints=endpoints)


ANNA, BERT, CARLA = entry("anna", "192.0.2.1:9264"), entry("bert", "192.0.2.2:9264"), entry("carla")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def peers(tmp_path: Path, clock: ManualClock) -> Peers:
    return Peers(tmp_path, ANNA.node, clock)


async def accept(peers: Peers, site: Site, token: str, organisation: str = ORGANISATION, place: str = SITE) -> bool:
    return await peers.accept(token, site.pin, organisation, place)


async def test_the_newest_roster_counts_and_comes_back_after_a_restart(
    peers: Peers, site: Site, tmp_path: Path, clock: ManualClock
) -> None:
    ticket = peers.changed.ticket
    assert await accept(peers, site, site.roster([ANNA, BERT, CARLA], [CARLA.node]))
    assert [peer.name for peer in peers.others()] == ["bert"]
    assert peers.changed.ticket == ticket + 1 and peers.revision == 1
    again = Peers(tmp_path, ANNA.node, clock)
    again.load(site.pin, ORGANISATION, SITE)
    assert (again.revision, again.token, again.revoked(CARLA.node)) == (1, peers.token, True)
    assert again.peer(BERT.node) == BERT


async def test_an_older_roster_changes_nothing_nor_does_the_same_again(peers: Peers, site: Site) -> None:
    old, new = site.roster([ANNA, BERT]), site.roster([ANNA, BERT], [BERT.node])
    assert await accept(peers, site, new)
    ticket = peers.changed.ticket
    assert not await accept(peers, site, old)
    assert not await accept(peers, site, new)
    assert peers.revoked(BERT.node) and peers.changed.ticket == ticket


async def test_a_roster_that_is_not_this_sites_is_refused(peers: Peers, site: Site, tmp_path: Path) -> None:
    token = site.roster([ANNA, BERT])
    forger = Site(tmp_path, authority=site.authority, revision=99)
    head, payload, signature = token.split(".")
    for bad in (
        forger.roster([ANNA]),
        site.roster([ANNA, BERT], site="köln"[:1] + "oeln"),
        f"{head}.{payload}.{signature[::-1]}",
        f"{head}.{payload}",
        "",
        "x" * (ROSTER_LIMIT + 1),
        site.roster([BERT.model_copy(update={"node": CARLA.node})]),
    ):
        with pytest.raises(StatementRefused):
            await accept(peers, site, bad)
    with pytest.raises(StatementRefused):
        await accept(peers, site, token, organisation="globex")
    assert not peers.others() and not (tmp_path / "roster.jws").exists()


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"a.b.c", b"x" * (ROSTER_LIMIT + 2)])
def test_a_damaged_file_counts_as_none(peers: Peers, site: Site, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "roster.jws").write_bytes(content)
    peers.load(site.pin, ORGANISATION, SITE)
    assert not peers.others() and peers.revision == 0


async def test_a_full_disk_does_not_let_the_revoked_back_in(peers: Peers, site: Site, tmp_path: Path) -> None:
    await accept(peers, site, site.roster([ANNA, BERT]))
    (tmp_path / "roster.jws").unlink()
    (tmp_path / "roster.jws").mkdir()  # nothing can be renamed to that
    token = site.roster([ANNA, BERT], [BERT.node])
    assert await accept(peers, site, token)
    assert peers.revoked(BERT.node) and not peers.others()
    (tmp_path / "roster.jws").rmdir()
    assert not await accept(peers, site, token)  # is not newer, but is kept now
    assert (tmp_path / "roster.jws").read_text() == token


async def test_the_unknown_the_revoked_and_this_node_are_no_peers(peers: Peers, site: Site) -> None:
    await accept(peers, site, site.roster([ANNA, BERT, CARLA], [CARLA.node]))
    for node in (ANNA.node, CARLA.node, "00" * 16, ""):
        for call in (peers.peer, peers.endpoints, peers.state):
            with pytest.raises(NotAPeer):
                call(node)
        with pytest.raises(NotAPeer):
            peers.hint(node, "192.0.2.9:9264")
        peers.heard(node)
        peers.missed(node, "it is silent")
        peers.worked(node, "192.0.2.9:9264")
        assert not peers.awake(node)


async def test_where_a_peer_is_tried_first(peers: Peers, site: Site) -> None:
    await accept(peers, site, site.roster([ANNA, BERT]))
    peers.hint(BERT.node, "192.0.2.77:9264")
    assert peers.endpoints(BERT.node) == ["192.0.2.2:9264", "192.0.2.77:9264"]
    peers.worked(BERT.node, "192.0.2.77:9264")
    assert peers.endpoints(BERT.node) == ["192.0.2.77:9264", "192.0.2.2:9264"]
    # A new roster forgets nothing of those who stay.
    await accept(peers, site, site.roster([ANNA, BERT, CARLA]))
    assert peers.endpoints(BERT.node)[0] == "192.0.2.77:9264"


async def test_hints_without_end_are_forgotten_again(peers: Peers, site: Site) -> None:
    await accept(peers, site, site.roster([ANNA, BERT]))
    for number in range(1_000):
        peers.hint(BERT.node, f"10.0.{number // 256}.{number % 256}:9264")
    assert len(peers.endpoints(BERT.node)) == 1 + ENDPOINTS_LIMIT


@pytest.mark.parametrize(
    "endpoint",
    ["", "host:9264", "224.0.0.1:9264", "0.0.0.0:9264", "[::]:9264", "1.2.3.4:0", "1.2.3.4:65536", "1.2.3:1"],
)
async def test_what_is_no_address_is_never_tried(peers: Peers, site: Site, endpoint: str) -> None:
    await accept(peers, site, site.roster([ANNA, BERT]))
    peers.hint(BERT.node, endpoint)
    assert split_endpoint(endpoint) is None and len(peers.endpoints(BERT.node)) == 1


def test_addresses_are_written_as_they_are_read() -> None:
    for endpoint in ("192.0.2.7:9264", "[2001:db8::7]:9264"):
        place = split_endpoint(endpoint)
        assert place and make_endpoint(*place) == endpoint


async def test_awake_is_who_answered_lately(peers: Peers, site: Site, clock: ManualClock) -> None:
    await accept(peers, site, site.roster([ANNA, BERT]))
    assert not peers.awake(BERT.node) and peers.state(BERT.node).silent is None
    hello = Hello(node=BERT.node, version="0.2.0", roster=1)
    peers.heard(BERT.node, 0.002, hello)
    clock.advance(29)
    assert peers.awake(BERT.node)
    peers.missed(BERT.node, "it is silent")
    clock.advance(2)
    (state,) = peers.states()
    assert (state.awake, state.lag, state.hello, state.trouble) == (False, 0.002, hello, "it is silent")
    peers.heard(BERT.node)
    assert peers.awake(BERT.node) and not peers.state(BERT.node).trouble


async def test_a_hint_wakes_only_for_a_peer_that_does_not_answer(peers: Peers, site: Site) -> None:
    await accept(peers, site, site.roster([ANNA, BERT]))
    ticket = peers.hinted.ticket
    peers.hint(BERT.node, "192.0.2.77:9264")
    peers.hint(BERT.node, "192.0.2.77:9264")
    assert peers.hinted.ticket == ticket + 1
    peers.heard(BERT.node)
    peers.hint(BERT.node, "192.0.2.78:9264")
    assert peers.hinted.ticket == ticket + 1
