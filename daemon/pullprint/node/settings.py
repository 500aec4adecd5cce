"""What an admin may set in /etc/pullprint/pullprint.toml. The defaults serve; the file may be missing."""

import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path

from pullprint.wire import intake, local

MACOS = sys.platform == "darwin"
STATE = Path("/usr/local/var/pullprint" if MACOS else "/var/lib/pullprint")
RUNTIME = Path(intake.SOCKET).parent


@dataclass(frozen=True)
class Settings:
    """Paths, limits and names of one node."""

    name: str = field(default_factory=lambda: socket.gethostname().partition(".")[0])
    """What people call this host."""
    state_dir: Path = STATE
    """Keys, sealed jobs, index. Open to the daemon's own account only."""
    runtime_dir: Path = RUNTIME
    """Sockets, and what a backend has to spool: on a tmpfs, so that no plaintext reaches a disk."""
    intake_socket: Path = Path(intake.SOCKET)
    control_socket: Path = Path(local.SOCKET)
    intake_accounts: tuple[str, ...] = ("lp", "root") if not MACOS else ("_lp", "root")
    """Who may hand over documents: the account that CUPS runs backends as."""
    backend_dir: Path = Path("/usr/libexec/cups/backend" if MACOS else "/usr/lib/cups/backend")
    """CUPS's own ipp, ipps, socket and lpd."""
    facts_program: Path = Path("/usr/lib/cups/filter/pullprint-facts")
    convert_program: Path = Path("/usr/lib/cups/filter/pullprint-convert")
    upload_media: str = "iso_a4_210x297mm"
    """Paper for uploaded pictures and texts (PWG 5101.1)."""
    cups_server: str = ""
    """Host or socket of the local cupsd that ``pullprint doctor`` looks at; empty for libcups's default."""
    cups_port: int = 631
    document_limit_mib: int = 4_096
    store_limit_mib: int = 0
    """Of all held documents; 0 for none but the disk."""
    disk_reserve_mib: int = 256
    """Left free; beyond it jobs wait in CUPS."""
    log_level: str = "info"

    def __post_init__(self) -> None:
        if not 1 <= len(self.name) <= 63:
            raise ValueError("name must have 1 to 63 characters")
        if self.document_limit_mib < 1 or self.store_limit_mib < 0 or self.disk_reserve_mib < 0:
            raise ValueError("a limit is below zero")
