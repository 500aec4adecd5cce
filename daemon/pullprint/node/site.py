"""What this node belongs to: its membership, pinned when it joined, and the site's signed configuration."""

import asyncio
import ipaddress
import json
import logging
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from pullprint import __version__
from pullprint.base.bell import Bell
from pullprint.base.clock import Clock
from pullprint.base.errors import EX_CONFIG, NotFound, PullprintError, WrittenByNewer
from pullprint.base.files import replace
from pullprint.model import owner
from pullprint.model.uri import Network
from pullprint.wire.node import Printer, SiteConfig, verify_config


class MembershipBroken(PullprintError):
    """What this host knows of its organisation, in {path}, cannot be read: {reason}. Held jobs are safe. Restore that
    file from a backup, or delete it and join again."""

    code = "membership-broken"
    exit_status = EX_CONFIG


class NotJoined(PullprintError):
    """This host does not belong to an organisation yet. An admin joins it with `pullprint join`; jobs wait in CUPS."""

    code = "not-joined"
    http_status = 409


FORMAT = 1
"""Of ``membership.json``; raised when an older version could not do with the fields that it knows."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Membership:
    """What ``pullprint join`` left behind; never changes but by joining again."""

    cloud: str
    """URL, without a path."""
    cloud_authority: str
    """PEM of the private CA of the cloud's certificate; empty for the system's."""
    node: str
    organisation: str
    site: str
    order_pin: str
    """Raw Ed25519 public key, hex."""
    certificate: str
    authority: str
    """PEM, for the mesh."""


class Site:
    """Membership, configuration, and the cloud's clock."""

    def __init__(self, state_dir: Path, clock: Clock) -> None:
        self._membership_path = state_dir / "membership.json"
        self._config_path = state_dir / "site.jws"
        self._clock = clock
        self._offset: float | None = None
        self._membership: Membership | None = None
        self._config: SiteConfig | None = None
        self._accepting = asyncio.Lock()
        self.changed = Bell()

    def load(self) -> None:
        """Read what was kept. Blocking. Raises MembershipBroken, WrittenByNewer."""
        if self._membership_path.exists():
            self._membership = _read_membership(self._membership_path)
        if self._membership and self._config_path.exists():
            try:
                self._config = verify_config(self._config_path.read_text("ascii"), self.pin, self.membership.node)
            except (PullprintError, OSError, ValueError) as error:
                # The cloud has it, too: jobs wait in CUPS until it has sent it again.
                log.error("the site's configuration in %s is fetched anew: %s", self._config_path, error)

    @property
    def joined(self) -> bool:
        """Whether there are membership and configuration."""
        return self._membership is not None and self._config is not None

    @property
    def member(self) -> bool:
        """Whether this host was joined, be its configuration here or not."""
        return self._membership is not None

    @property
    def membership(self) -> Membership:
        """Raises NotJoined."""
        if self._membership is None:
            raise NotJoined
        return self._membership

    @property
    def config(self) -> SiteConfig:
        """Raises NotJoined."""
        if self._config is None:
            raise NotJoined
        return self._config

    @property
    def pin(self) -> bytes:
        """The key that signs orders and configurations, raw."""
        return bytes.fromhex(self.membership.order_pin)

    def has_membership_file(self) -> bool:
        """Whether a membership is on the disk, be it known to last or not. Blocking."""
        return self._membership_path.exists()

    async def join(self, membership: Membership) -> None:
        """Keep *membership* durably."""
        text = json.dumps({"format": FORMAT, "written_by": __version__, **asdict(membership)}, indent=1)
        await asyncio.to_thread(replace, self._membership_path, text.encode())
        self._membership = membership
        self.changed.ring()

    async def accept(self, token: str) -> SiteConfig:
        """Check and keep a signed configuration; an older one than is known changes nothing.

        Raises StatementRefused.
        """
        config = await asyncio.to_thread(verify_config, token, self.pin, self.membership.node)
        async with self._accepting:
            if self._config is None or config.revision >= self._config.revision:
                await asyncio.to_thread(replace, self._config_path, token.encode("ascii"))
                self._config = config
        self.changed.ring()
        return self._config

    def cloud_says(self, now: float) -> None:
        """The cloud's clock, from its latest answer."""
        self._offset = now - self._clock.monotonic()

    def cloud_now(self) -> float:
        """What the cloud's clock shows, as far as is known; a clock of ours that is set right or wrong does not
        move it."""
        return self.cloud_time(self._clock.monotonic()) if self._offset is not None else self._clock.now()

    def cloud_time(self, monotonic: float) -> float:
        """What the cloud's clock showed when our monotonic one showed *monotonic*."""
        offset = self._offset if self._offset is not None else self._clock.now() - self._clock.monotonic()
        return monotonic + offset

    def user_of(self, account: str) -> str:
        """The user that a local account of this host is, or empty. Raises NotJoined."""
        config = self.config
        return owner.user_of(account, config.accounts, config.owner_rule, config.users)

    @property
    def networks(self) -> tuple[Network, ...]:
        """Where this site's printers may be."""
        return tuple(ipaddress.ip_network(network) for network in self.config.networks)

    def printer(self, id_or_name: str) -> Printer:
        """The printer of the signed inventory with that id, or else that name. Raises NotFound."""
        wanted = id_or_name.casefold()
        for printer in self.config.printers:
            if printer.id == id_or_name:
                return printer
        for printer in self.config.printers:
            if printer.name.casefold() == wanted:
                return printer
        raise NotFound(what="printer at this site")


def _read_membership(path: Path) -> Membership:
    try:
        values = json.loads(path.read_bytes())
        if int(values.get("format", FORMAT)) > FORMAT:
            what = f"What this host knows of its organisation, {path},"
            raise WrittenByNewer(what=what, version=values.get("written_by", "unknown"), own=__version__)
        known = {field.name: values[field.name] for field in fields(Membership)}
        if not all(isinstance(value, str) for value in known.values()) or len(bytes.fromhex(known["order_pin"])) != 32:
            raise ValueError("a field has the wrong form")
    except KeyError as error:
        raise MembershipBroken(path=path, reason=f"it lacks {error.args[0]}") from error
    except OSError as error:
        raise MembershipBroken(path=path, reason=error.strerror or "it cannot be read") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise MembershipBroken(path=path, reason="it is damaged") from error
    return Membership(**known)
