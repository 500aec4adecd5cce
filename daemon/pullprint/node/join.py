"""Joining an organisation: a join code becomes a membership. Private keys are made here and stay here."""

import asyncio

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pullprint import __version__
from pullprint.base.clock import Clock
from pullprint.base.errors import BadRequest, PullprintError
from pullprint.base.files import replace
from pullprint.model.owner import tidy_code
from pullprint.node.client import CloudAway, CloudClient, check_cloud
from pullprint.node.settings import Settings
from pullprint.node.site import Membership, Site
from pullprint.vault.keyring import Identity, Keyring
from pullprint.wire.node import Enrolment, SignedConfig, Welcome
from pullprint.wire.views import JoinRequest


class AlreadyJoined(PullprintError):
    """This host belongs to {organisation} already. To move it, remove it there, delete its state directory and
    join again."""

    code = "already-joined"
    http_status = 409


async def join(
    request: JoinRequest, settings: Settings, keyring: Keyring, identity: Identity, site: Site, clock: Clock
) -> None:
    """Enrol at the cloud that *request* names. A failure leaves this host as it was.

    Raises AlreadyJoined, BadRequest, CloudAway, CloudRefused.
    """
    if site.member:
        raise AlreadyJoined(organisation=site.membership.organisation)
    code = tidy_code(request.code)
    if not code:
        raise BadRequest(reason="a join code looks like 7KQ2-M9XD")
    url = str(check_cloud(request.cloud))
    csr = await asyncio.to_thread(_mesh_request, settings, identity.node)
    enrolment = Enrolment(
        version=__version__,
        code=code,
        name=settings.name,
        identity=identity.public,
        key=await asyncio.to_thread(keyring.current, clock.now()),
        csr=csr,
    )
    async with CloudClient(url, request.authority, identity.node, identity.key, clock) as client:
        welcome = await client.post("/node/v1/enrol", enrolment, Welcome)
        if welcome.node != identity.node or len(welcome.order_pin) != 32:
            raise CloudAway(cloud=client.host, reason="it welcomed another node")
        membership = Membership(
            cloud=url,
            cloud_authority=request.authority,
            node=welcome.node,
            organisation=welcome.organisation,
            site=welcome.site,
            order_pin=welcome.order_pin.hex(),
            certificate=welcome.certificate,
            authority=welcome.authority,
        )
        await site.join(membership)
        signed = await client.get("/node/v1/config", SignedConfig)
        if signed:
            site.cloud_says(signed.now)
            await site.accept(signed.config)


def _mesh_request(settings: Settings, node: str) -> str:
    """A signing request (PEM) for this node's mesh certificate; its key is made at the first call."""
    path = settings.state_dir / "keys" / "mesh.pem"
    if path.exists():
        key = serialization.load_pem_private_key(path.read_bytes(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise BadRequest(reason="the mesh key on disk is not one of ours")
    else:
        key = ec.generate_private_key(ec.SECP256R1())
        replace(
            path,
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
        )
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, node)])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()
