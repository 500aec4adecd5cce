"""What an admin may set in /etc/pullprint/pullprint.toml. The defaults serve; the file may be missing."""

import ipaddress
import socket
from dataclasses import dataclass, field
from pathlib import Path

from pullprint.base.config import PLACE
from pullprint.base.platform import BACKENDS, CUPS_ACCOUNT, FILTERS, RUNTIME, STATE
from pullprint.model.placement import HOLDERS, Role
from pullprint.printers.cups_settings import CONFIGURATION
from pullprint.wire import intake, local
from pullprint.wire.mesh import PORT


@dataclass(frozen=True)
class Settings:
    """Paths, limits and names of one node."""

    name: str = field(default_factory=lambda: socket.gethostname().partition(".")[0])
    """What people call this host."""
    state_dir: Path = field(default=STATE, metadata=PLACE)
    """Keys, sealed jobs, index. Open to the daemon's own account only."""
    runtime_dir: Path = RUNTIME
    """Sockets, and what a backend has to spool: on a tmpfs, so that no plaintext reaches a disk."""
    intake_socket: Path = Path(intake.SOCKET)
    control_socket: Path = Path(local.SOCKET)
    intake_accounts: tuple[str, ...] = (CUPS_ACCOUNT, "root")
    """Who may hand over documents: the account that CUPS runs backends as."""
    backend_dir: Path = BACKENDS
    """CUPS's own ipp, ipps, socket and lpd."""
    facts_program: Path = FILTERS / "pullprint-facts"
    convert_program: Path = FILTERS / "pullprint-convert"
    sandbox_socket: Path = Path("/run/pullprint-sandbox.sock")
    """Of pullprint-sandbox.socket, whose unit names the two programs then; where nobody listens, the daemon makes the
    sandboxes itself."""
    upload_media: str = "iso_a4_210x297mm"
    """Paper for uploaded pictures and texts (PWG 5101.1)."""
    cups_server: str = ""
    """Host or socket of the local cupsd that ``pullprint doctor`` looks at; empty for libcups's default."""
    cups_port: int = 631
    cupsd_conf: Path = CONFIGURATION
    """The configuration of that cupsd."""
    document_limit_mib: int = 4_096
    store_limit_mib: int = 0
    """Of all held documents; 0 for none but the disk."""
    disk_reserve_mib: int = 256
    """Left free; beyond it jobs wait in CUPS, and other hosts' copies are not taken."""
    role: str = Role.NORMAL.value
    """A word of `model.placement.Role`."""
    mesh_listen: str = f"[::]:{PORT}"
    """Address and port for the site's other nodes; port 0 for any, empty for none: then no copies come or go."""
    mesh_address: str = ""
    """Where they reach this host, if not where its way to the cloud begins."""
    min_copies: int = 1
    """On so many nodes a job has to be before CUPS hears that it is stored."""
    mesh_rate_mib: int = 0
    """MiB/s of copies that leave this host; 0 for no limit."""
    mesh_transfers: int = 2
    """Copies that leave at the same time."""
    log_level: str = "info"

    def __post_init__(self) -> None:
        if not 1 <= len(self.name) <= 63:
            raise ValueError("name must have 1 to 63 characters")
        if self.document_limit_mib < 1:
            raise ValueError("document_limit_mib must be 1 or more")
        if self.store_limit_mib < 0:
            raise ValueError("store_limit_mib must be 0 or more")
        if self.disk_reserve_mib < 0:
            raise ValueError("disk_reserve_mib must be 0 or more")
        if not 1 <= self.cups_port <= 65_535:
            raise ValueError("cups_port must be between 1 and 65535")
        if self.role not in (role.value for role in Role):
            raise ValueError("role must be super, normal or client")
        if self.mesh_listen:
            split_address(self.mesh_listen, "mesh_listen")
        if self.mesh_address:
            _check_unicast(self.mesh_address)
        if not 1 <= self.min_copies <= HOLDERS:
            raise ValueError(f"min_copies must be between 1 and {HOLDERS}")
        if self.min_copies > 1 and not self.mesh_listen:
            raise ValueError("min_copies must be 1 on a host without mesh_listen")
        if self.mesh_rate_mib < 0:
            raise ValueError("mesh_rate_mib must be 0 or more")
        if not 1 <= self.mesh_transfers <= 16:
            raise ValueError("mesh_transfers must be between 1 and 16")
        if self.log_level.lower() not in ("debug", "info", "warning", "error"):
            raise ValueError("log_level must be debug, info, warning or error")


def split_address(text: str, name: str) -> tuple[str, int]:
    """Address and port in *text*, such as ``[::]:9264``. Raises ValueError, which names the setting."""
    host, _, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        address, number = ipaddress.ip_address(bare), int(port) if port.isascii() and port.isdecimal() else -1
        if (address.version == 6) != (bare != host) or not 0 <= number < 1 << 16:
            raise ValueError
    except ValueError:
        raise ValueError(f"{name} must be an address and a port, such as [::]:9264 or 192.0.2.7:9264") from None
    return str(address), number


def _check_unicast(text: str) -> None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise ValueError("mesh_address must be an IP address of this host, such as 192.0.2.7") from None
    if address.is_multicast or address.is_unspecified or address == ipaddress.ip_address("255.255.255.255"):
        raise ValueError("mesh_address must be the address of one host, such as 192.0.2.7")
