"""A site in one process: a CA, an order key, a roster, and nodes with real TLS on loopback."""

import contextlib
import datetime
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from tests.mesh.memory import MemoryHandlers

from pullprint.base.clock import SystemClock
from pullprint.cloud import tls as ca
from pullprint.mesh.client import MeshClient
from pullprint.mesh.peers import Peers, make_endpoint
from pullprint.mesh.rate import Rate
from pullprint.mesh.server import MeshServer, bind
from pullprint.mesh.tls import Credentials
from pullprint.wire.mesh import Peer, Roster, sign_roster
from pullprint.wire.signature import node_id

ORGANISATION, SITE = "acme", "bonn"
JOB = "00112233445566778899aabbccddeeff"
DAY = 86_400.0


@dataclass
class Node:
    """A node of the site, running."""

    node: str
    identity: bytes
    name: str
    directory: Path
    peers: Peers
    credentials: Credentials
    handlers: MemoryHandlers
    rate: Rate
    server: MeshServer
    client: MeshClient
    sock: socket.socket

    @property
    def endpoint(self) -> str:
        return make_endpoint(*self.sock.getsockname()[:2])

    @property
    def port(self) -> int:
        return int(self.sock.getsockname()[1])

    @property
    def entry(self) -> Peer:
        return Peer(node=self.node, name=self.name, identity=self.identity, endpoints=(self.endpoint,))


@dataclass
class Site:
    """The organisation's side."""

    directory: Path
    authority: ca.Pair = field(default_factory=lambda: ca.new_authority("Acme", time.time()))
    order_key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    nodes: list[Node] = field(default_factory=list)
    revision: int = 0

    @property
    def pin(self) -> bytes:
        return self.order_key.public_key().public_bytes_raw()

    def roster(self, entries: Sequence[Peer], revoked: Sequence[str] = (), site: str = SITE) -> str:
        """Signed, each with a new revision."""
        self.revision += 1
        roster = Roster(
            organisation=ORGANISATION, site=site, revision=self.revision, peers=tuple(entries), revoked=tuple(revoked)
        )
        return sign_roster(roster, self.order_key.private_bytes_raw())

    async def tell(self, token: str, *nodes: Node) -> None:
        for node in nodes:
            await self.accept(node, token)

    async def accept(self, node: Node, token: str) -> bool:
        return await node.peers.accept(token, self.pin, ORGANISATION, SITE)

    async def introduce(self, *revoked: Node) -> None:
        """Everyone knows everyone."""
        token = self.roster([node.entry for node in self.nodes], [node.node for node in revoked])
        await self.tell(token, *self.nodes)

    @contextlib.asynccontextmanager
    async def node(
        self,
        name: str,
        certificate: Callable[[str], tuple[str, str]] | None = None,
        authority: str = "",
        rate: int = 0,
    ) -> AsyncIterator[Node]:
        """*certificate* gives PEM and key for a node id; the CA is the site's, unless *authority* says otherwise."""
        identity = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
        node = node_id(identity)
        directory = self.directory / name
        directory.mkdir()
        pem, key = (certificate or self.certificate)(node)
        (directory / "mesh.pem").write_text(key)
        (directory / "own.pem").write_text(pem)
        (directory / "ca.pem").write_text(authority or self.authority.certificate)
        clock = SystemClock()
        credentials = Credentials(pem, directory / "mesh.pem", authority or self.authority.certificate)
        peers = Peers(directory, node, clock)
        handlers = MemoryHandlers(node, directory, peers)
        budget = Rate(clock, rate)
        server = MeshServer(peers, handlers, credentials, clock, budget)
        sock = bind("127.0.0.1", 0)
        async with server.serving(sock), MeshClient(peers, credentials, clock, budget) as client:
            made = Node(node, identity, name, directory, peers, credentials, handlers, budget, server, client, sock)
            self.nodes.append(made)
            yield made
            self.nodes.remove(made)

    def certificate(self, node: str) -> tuple[str, str]:
        """As the cloud makes it."""
        return issue(self.authority, [node])

    def expired(self, node: str) -> tuple[str, str]:
        return issue(self.authority, [node], time.time() - 900 * DAY)


def issue(authority: ca.Pair, names: Sequence[str], now: float | None = None) -> tuple[str, str]:
    """Certificate and key (PEM) for any *names*, also such as the cloud would never certify."""
    key = ec.generate_private_key(ec.SECP256R1())
    if len(names) == 1:
        request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
        csr = request.public_bytes(serialization.Encoding.PEM).decode()
        certificate = ca.certify_node(authority, csr, names[0], time.time() if now is None else now)
    else:
        issuer_key = serialization.load_pem_private_key(authority.key.encode(), None)
        assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
        issuer = x509.load_pem_x509_certificate(authority.certificate.encode())
        begin = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)
        uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        made = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "odd")]))
            .issuer_name(issuer.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + datetime.timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        )
        if names:
            made = made.add_extension(
                x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False
            )
        certificate = made.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate, private.decode()
