"""Joining an organisation: a join code becomes a membership. Private keys are made here and stay here."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pullprint import __version__
from pullprint.base.clock import Clock
from pullprint.base.errors import BadRequest, PullprintError
from pullprint.base.files import replace
from pullprint.model.owner import tidy_code
from pullprint.node.client import ClockWrong, CloudAway, CloudClient, CloudRefused, NotOurs, check_cloud
from pullprint.node.settings import Settings
from pullprint.node.site import Membership, Site
from pullprint.vault.keyring import Identity, Keyring
from pullprint.wire.node import Enrolment, SignedConfig, Welcome
from pullprint.wire.signature import node_id
from pullprint.wire.views import JoinRequest

log = logging.getLogger(__name__)

_NO_SUCH_ROUTE = frozenset({404, 405})


class AlreadyJoined(PullprintError):
    """This host belongs to {organisation} already, and nothing was changed; `pullprint doctor` says what else there is
    to do. To move it, remove it there, stop pullprintd, delete {state_dir} and join again."""

    code = "already-joined"
    http_status = 409


class CannotReach(PullprintError):
    """This host has not joined, because {cloud} cannot be reached: {reason}. Nothing was changed; put that
    right, then join again with the same code."""

    code = "cloud-away"
    http_status = 503


class NoCloudThere(PullprintError):
    """This host has not joined: what answers at {cloud} does not understand Pullprint {version}. Check the address; if
    it is right, update the older of the two. Nothing was changed."""

    code = "no-cloud"
    http_status = 502


class CannotKeep(PullprintError):
    """This host has not joined, because it cannot keep what it was told in {state_dir}: {reason}. Nothing was changed
    here; put that right, then join again with the same code."""

    code = "cannot-keep"
    http_status = 507


async def join(
    request: JoinRequest, settings: Settings, keyring: Keyring, identity: Identity, site: Site, clock: Clock
) -> None:
    """Enrol at the cloud that *request* names. A failure leaves this host as it was.

    Raises AlreadyJoined, BadRequest, CannotReach, NoCloudThere, CannotKeep, CloudRefused.
    """
    if site.member:
        raise AlreadyJoined(organisation=site.membership.organisation, state_dir=settings.state_dir)
    code = tidy_code(request.code)
    if not code:
        raise BadRequest(reason="a join code looks like 7KQ2-M9XD")
    url = str(check_cloud(request.cloud))
    async with CloudClient(url, request.authority, identity.node, identity.key, clock) as client:
        try:
            async with _no_keys_left_over(settings.state_dir / "keys", site):
                csr = await asyncio.to_thread(_mesh_request, settings, identity.node)
                key = await asyncio.to_thread(keyring.current, clock.now())
                enrolment = Enrolment(
                    version=__version__, code=code, name=settings.name, identity=identity.public, key=key, csr=csr
                )
                welcome = await _enrol(client, enrolment)
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
        except OSError as error:
            raise CannotKeep(state_dir=settings.state_dir, reason=error.strerror or "unknown reason") from error
        try:
            signed = await client.get("/node/v1/config", SignedConfig)
            if signed:
                site.cloud_says(signed.now)
                await site.accept(signed.config)
        except (PullprintError, OSError) as error:
            # It has joined; the channel asks for the configuration, too, for as long as it takes.
            log.warning("no configuration yet: %s", error)


async def _enrol(client: CloudClient, enrolment: Enrolment) -> Welcome:
    """Raises CannotReach, NoCloudThere, CloudRefused."""
    try:
        welcome = await client.post("/node/v1/enrol", enrolment, Welcome)
    except ClockWrong:
        raise
    except NotOurs as error:
        raise NoCloudThere(cloud=client.host, version=__version__) from error
    except CloudAway as error:
        raise CannotReach(**error.fields) from error
    except CloudRefused as error:
        if error.status in _NO_SUCH_ROUTE:
            raise NoCloudThere(cloud=client.host, version=__version__) from error
        raise
    if welcome.node != node_id(enrolment.identity) or len(welcome.order_pin) != 32:
        raise NoCloudThere(cloud=client.host, version=__version__)
    return welcome


@contextlib.asynccontextmanager
async def _no_keys_left_over(directory: Path, site: Site) -> AsyncIterator[None]:
    """Remove from *directory* what was made in vain; before a host has joined, nobody else makes keys there.

    They stay where a membership, which is nothing without them, is on the disk or may still get there: also a failure
    may come after it, and a thread that nobody waits for any more goes on. Who joins again uses them.
    """
    before = await asyncio.to_thread(_files, directory)
    try:
        yield
    except Exception:
        if not await asyncio.to_thread(site.has_membership_file):
            for path in await asyncio.to_thread(_files, directory) - before:
                await asyncio.to_thread(path.unlink)
        raise


def _files(directory: Path) -> set[Path]:
    return set(directory.iterdir())


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
