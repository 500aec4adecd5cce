"""What an admin may set in /etc/pullprint/pullprint.toml. The defaults serve; the file may be missing."""

import socket
from dataclasses import dataclass, field
from pathlib import Path

from pullprint.base.config import PLACE
from pullprint.base.platform import BACKENDS, CUPS_ACCOUNT, FILTERS, RUNTIME, STATE
from pullprint.printers.cups_settings import CONFIGURATION
from pullprint.wire import intake, local


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
    """Left free; beyond it jobs wait in CUPS."""
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
        if self.log_level.lower() not in ("debug", "info", "warning", "error"):
            raise ValueError("log_level must be debug, info, warning or error")
