"""What may be wrong with a host's place in the mesh keeps nobody from printing, and puts itself right."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.mesh.site import DAY, issue
from tests.node.host import ORGANISATION, SITE, Host, Organisation
from tests.node.meshed import Meshed, Office
from tests.rig.documents import pdf

from pullprint.base.clock import ManualClock
from pullprint.base.config import ConfigFile
from pullprint.cloud import tls as ca
from pullprint.model.states import State
from pullprint.node import mesh
from pullprint.node.app import Node as PullprintNode
from pullprint.node.certificate import CertificateRefused, MeshCertificate
from pullprint.node.channel import Channel
from pullprint.node.settings import Settings
from pullprint.node.site import Membership
from pullprint.vault.index import Index
from pullprint.wire import node as wire
from pullprint.wire.mesh import Peer


@pytest.fixture
def office(root: Path, quiet: None) -> Office:
    return Office(root)


async def test_a_port_that_is_taken_is_said_and_tried_again_while_printing_goes_on(
    root: Path, office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mesh, "LISTEN_RETRY", 0.05)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        host = Meshed(root / "reception", office, mesh_listen=f"127.0.0.1:{port}")
        await host.holder.start(3_600)
        await host.join()
        await host.mesh.open()
        assert f"127.0.0.1:{port}" in host.mesh.trouble and await host.mesh.endpoints() == ()
        running = asyncio.create_task(host.mesh.run())
        await asyncio.sleep(0.2)
        assert not running.done()
    async with asyncio.timeout(5):
        while not await host.mesh.endpoints():
            await asyncio.sleep(0.02)
    assert host.mesh.trouble == ""
    running.cancel()
    await asyncio.wait([running])
    host.holder.close()


async def test_without_a_usable_certificate_the_host_goes_on_and_takes_the_renewed_one(
    root: Path, office: Office
) -> None:
    host = Meshed(root / "reception", office)
    await host.holder.start(3_600)
    await host.join()
    good = host.site.membership
    await host.site.join(Membership(**{**_fields(good), "certificate": ""}))
    authority = office.authority

    class Cloud:
        async def post(self, path: str, ask: wire.CertificateAsk, answer: type[Any]) -> wire.Certificate:
            certificate = ca.certify_node(authority, ask.csr, host.node, time.time())
            return wire.Certificate(certificate=certificate, authority=authority.certificate)

    there: list[Any] = [None]
    host.mesh.cloud = lambda: there[0]
    host.mesh.certificate._clock = Quick()  # type: ignore[assignment]
    await host.mesh.open()
    running = asyncio.create_task(host.mesh.run())
    async with asyncio.timeout(5):
        while not host.mesh.trouble:
            await asyncio.sleep(0.01)
        assert await host.mesh.endpoints() == ()
        there[0] = Cloud()
        while not await host.mesh.endpoints():
            await asyncio.sleep(0.01)
    assert host.mesh.trouble == ""
    running.cancel()
    await asyncio.wait([running])
    host.holder.close()


class Quick:
    """Time passes in the certificate's pauses."""

    def now(self) -> float:
        return time.time()

    async def sleep(self, _: float) -> None:
        await asyncio.sleep(0.02)


def _fields(membership: Membership) -> dict[str, str]:
    return {name: getattr(membership, name) for name in Membership.__slots__}


@pytest.fixture
async def certified(root: Path) -> AsyncIterator[tuple[Host, MeshCertificate, ca.Pair]]:
    authority = ca.new_authority("Acme", time.time())
    host = Host(root, Organisation(), {})
    certificate, key = issue(authority, [host.identity.node])
    (host.settings.state_dir / "keys" / "mesh.pem").write_text(key)
    membership = Membership(
        cloud="https://cloud.example.com", cloud_authority="", node=host.identity.node, organisation=ORGANISATION,
        site=SITE, order_pin=host.organisation.pin.hex(), certificate=certificate, authority=authority.certificate,
    )  # fmt: skip
    await host.site.join(membership)
    yield host, MeshCertificate(host.settings.state_dir, host.site, host.clock), authority
    host.holder.close()


class Answering:
    """A cloud that answers what it is told to."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer
        self.asked = 0

    async def post(self, path: str, ask: wire.CertificateAsk, answer: type[Any]) -> wire.Certificate:
        self.asked += 1
        return wire.Certificate(certificate=self._answer(ask.csr), authority="")


async def test_a_certificate_is_renewed_when_less_than_a_third_of_its_life_is_left(
    certified: tuple[Host, MeshCertificate, ca.Pair],
) -> None:
    host, kept, _ = certified
    loaded = x509.load_pem_x509_certificate(kept.current().encode())
    begin, end = loaded.not_valid_before_utc.timestamp(), loaded.not_valid_after_utc.timestamp()
    for part, due in ((0.1, False), (0.6, False), (0.7, True), (1.5, True)):
        kept._clock = ManualClock(begin + (end - begin) * part)
        assert kept.due(kept.current()) is due
    assert host


async def test_only_a_certificate_for_this_host_and_key_by_the_pinned_ca_is_taken(
    certified: tuple[Host, MeshCertificate, ca.Pair],
) -> None:
    host, kept, authority = certified
    node, now = host.identity.node, time.time()
    first = kept.current()
    stranger = ca.new_authority("Acme", now)
    other = ec.generate_private_key(ec.SECP256R1())
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(other, hashes.SHA256())
    foreign = csr.public_bytes(serialization.Encoding.PEM).decode()
    for answer in (
        lambda csr: ca.certify_node(stranger, csr, node, now + DAY),
        lambda csr: ca.certify_node(authority, csr, "0" * 32, now + DAY),
        lambda _: ca.certify_node(authority, foreign, node, now + DAY),
        lambda csr: ca.certify_node(authority, csr, node, now - 900 * DAY),
        lambda csr: ca.certify_node(authority, csr, node, now - 5 * DAY),
        lambda _: "nonsense",
        lambda _: "\u20ac",
    ):
        with pytest.raises(CertificateRefused):
            await kept.renew(Answering(answer), first)  # type: ignore[arg-type]
        assert kept.current() == first
    good = Answering(lambda csr: ca.certify_node(authority, csr, node, now + DAY))
    await kept.renew(good, first)  # type: ignore[arg-type]
    renewed = kept.current()
    assert renewed != first
    (host.settings.state_dir / "mesh-certificate.pem").write_text("damaged")
    assert kept.current() == first


# What the channel to the cloud has to do with it.


class Cloud:
    """Enough of a cloud for one connect."""

    host = "cloud.example.com"

    def __init__(self, host: Host, **differences: Any) -> None:
        self._host = host
        self._differences = differences
        self.holdings: list[wire.Holdings] = []
        self.roster = ""

    async def get(self, path: str, answer: type[Any], *_: Any) -> Any:
        config = self._host.organisation.config(self._host.identity.node, {})
        return wire.SignedConfig(config=config, now=time.time(), roster=self.roster)

    async def post(self, path: str, message: Any, answer: type[Any], *_: Any) -> Any:
        self.holdings.append(message)
        return wire.Differences(
            report=self._differences.get("report", ()), cancelled=self._differences.get("cancelled", ()),
            now=time.time(),
        )  # fmt: skip


@asynccontextmanager
async def placed(office: Office) -> AsyncIterator[tuple[list[Meshed], str]]:
    async with office.of("reception", "workshop", "archive") as hosts:
        job = (await hosts[0].hold(pdf())).id
        for host in hosts[1:]:
            await host.held(job)
        yield hosts, job


def channel(host: Meshed, cloud: Cloud) -> Channel:
    return Channel(
        cloud, host.site, host.holder, host.releaser, None, host.clock, host.mesh  # type: ignore[arg-type]
    )  # fmt: skip


async def test_the_cloud_hears_of_role_place_room_and_generation_and_its_roster_is_taken(office: Office) -> None:
    async with placed(office) as (hosts, job):
        cloud = Cloud(hosts[0])
        await office.introduce()
        cloud.roster = hosts[0].mesh.peers.token
        hosts[1].mesh.peers._roster = None  # it knows of none
        for host in hosts[:2]:
            cloud._host = host
            await channel(host, cloud)._connect()
        assert hosts[1].mesh.peers.revision == office.revision
        origin, other = cloud.holdings
        assert origin.role == "normal" and origin.room > 0 and origin.endpoints == await hosts[0].mesh.endpoints()
        for said in (origin, other):
            assert [(each.job, each.generation) for each in said.jobs] == [(job, 2)]


async def test_cancelling_claiming_and_settling_reach_every_holder(office: Office) -> None:
    async with placed(office) as (hosts, job):
        for host in hosts:
            take = channel(host, Cloud(host))._take
            await take(wire.OwnerItem(seq=1, job=job, owner="bob@example.com"))
            assert (await host.record(job)).owner == "bob@example.com"
            reports = [report for _, report in await host.holder.read(Index.outbox, 100)]
            of_ours = [report for report in reports if '"kind":"job"' in report]
            assert bool(of_ours) is (host is hosts[0])
        for host in hosts[:2]:
            await channel(host, Cloud(host))._take(wire.SettleItem(seq=2, job=job, by="bob@example.com"))
            assert (await host.record(job)).state is State.DONE
            assert list(host.holder.directory.iterdir()) == []
        await channel(hosts[2], Cloud(hosts[2]))._take(wire.CancelItem(seq=2, job=job, by="bob@example.com"))
        assert (await hosts[2].record(job)).state is State.CANCELLED
        reports = [report for _, report in await hosts[2].holder.read(Index.outbox, 100)]
        assert any('"state":"cancelled"' in report for report in reports)
        assert list(hosts[2].holder.directory.iterdir()) == []


async def test_a_lost_vote_makes_a_job_uncertain_only_where_nobody_else_has_one(office: Office) -> None:
    async with placed(office) as (hosts, job):
        alone = await office_alone(hosts[0])
        await hosts[0].holder.read(Index.lose_votes)
        await channel(hosts[0], Cloud(hosts[0], report=(job, alone)))._connect()
        assert (await hosts[0].record(job)).state is State.HELD
        assert (await hosts[0].record(alone)).state is State.UNCERTAIN


async def office_alone(host: Meshed) -> str:
    host.placement.place = lambda *_: None  # type: ignore[method-assign]
    return (await host.hold(pdf())).id


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("role", "boss"), ("mesh_listen", "9264"), ("mesh_listen", "::1:9264"), ("mesh_listen", "[::]:99999"),
        ("mesh_listen", "localhost:9264"), ("mesh_listen", "127.0.0.1:"), ("mesh_address", "reception"),
        ("mesh_address", "224.0.0.1"), ("mesh_address", "0.0.0.0"), ("min_copies", 0), ("min_copies", 4),
        ("mesh_rate_mib", -1), ("mesh_transfers", 0), ("mesh_transfers", 17),
    ],
)  # fmt: skip
def test_a_setting_that_cannot_be_is_named(setting: str, value: object) -> None:
    with pytest.raises(ValueError, match=setting):
        Settings(**{setting: value})  # type: ignore[arg-type]


def test_settings_of_the_mesh_that_can_be() -> None:
    for changes in ({}, {"mesh_listen": ""}, {"mesh_listen": "192.0.2.7:0"}, {"mesh_address": "2001:db8::1"},
                    {"role": "client", "min_copies": 3}):  # fmt: skip
        Settings(**changes)
    with pytest.raises(ValueError, match="min_copies"):
        Settings(min_copies=2, mesh_listen="")


def test_a_hosts_own_address_is_where_its_way_to_the_cloud_begins() -> None:
    assert mesh._ways_out("https://127.0.0.1:8443")[0] == "127.0.0.1"
    assert all(way not in ("0.0.0.0", "::") for way in mesh._ways_out("https://no-such-host.invalid"))


async def test_the_daemon_listens_before_it_is_ready_and_its_intake_places_jobs(
    root: Path, office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole of pullprintd, with the cloud away."""
    await _disk(root / "daemon", office)
    async with office.of("workshop", "archive") as others:
        ready = asyncio.Event()
        monkeypatch.setattr(
            "pullprint.base.systemd.notify", lambda *said: ready.set() if "READY=1" in str(said) else None
        )
        settings = Settings(
            name="reception", state_dir=root / "daemon" / "state", runtime_dir=root / "daemon",
            intake_socket=root / "daemon" / "intake.sock", control_socket=root / "daemon" / "control.sock",
            mesh_listen="127.0.0.1:0", disk_reserve_mib=0,
        )  # fmt: skip
        config = ConfigFile(Settings, root / "none", optional=True, kept_in=root)
        daemon = await asyncio.to_thread(PullprintNode, settings, office.hosts[0].clock, config)
        stop = asyncio.Event()
        running = asyncio.create_task(daemon.run(stop))
        try:
            async with asyncio.timeout(20):
                await ready.wait()
                assert daemon._mesh._listening is not None, "it is ready, and its mesh does not listen"
                while not await daemon._mesh.endpoints():
                    await asyncio.sleep(0.01)
            entry = Peer(
                node=daemon._identity.node, name="reception", identity=daemon._identity.public,
                endpoints=await daemon._mesh.endpoints(),
            )  # fmt: skip
            await office.introduce(entry)
            await daemon._mesh.accept(others[0].mesh.peers.token)
            sender = Host.__new__(Host)
            sender.root, sender.socket = root, settings.intake_socket
            answer = await sender.submit(pdf())
            word, job, _ = answer.split(" ", 2)
            assert word == "stored"
            for host in others:
                assert (await host.held(job)).replica
            status = await daemon.status()
            assert status.joined and status.held == 1
        finally:
            stop.set()
            await running


async def _disk(root: Path, office: Office) -> None:
    """What a host that has joined has on its disk."""
    host = Meshed(root, office)
    await host.holder.start(3_600)
    await host.join()
    host.holder.close()


async def test_the_cloud_hears_when_a_host_is_reached_elsewhere(office: Office) -> None:
    async with office.of("reception") as (host,):
        said = channel(host, Cloud(host))
        await said._connect()
        waiting = asyncio.create_task(said._stale())
        await asyncio.sleep(0.05)
        assert not waiting.done()
        object.__setattr__(host.settings, "mesh_address", "192.0.2.7")
        host.mesh.moved.ring()
        async with asyncio.timeout(5):
            await waiting
