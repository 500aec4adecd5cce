"""The cloud's settings: a TOML file, read once; all of them have a default but the certificate."""

import ipaddress
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from pullprint.base.config import PLACE

DEFAULT_FILE = Path("/etc/pullprint/cloud.toml")
CERTIFICATES = Path("/etc/pullprint/cloud")
_TOKEN = re.compile(r"[0-9A-Za-z._~+/=-]{16,128}")
ACCOUNT = "pullprint-cloud"
"""The account that the server runs as, when a package has made it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """``cloud.toml``; keys are written with ``-`` or ``_``."""

    host: str = "0.0.0.0"  # noqa: S104  (nodes and people are elsewhere; TLS and the gate stand in front)
    port: int = 443
    """0 takes any free port; see `port_file`."""
    certificate: Path = CERTIFICATES / "server.pem"
    """PEM, the server's certificate and those that lead to its CA."""
    key: Path = CERTIFICATES / "server.key"
    public_url: str = ""
    """Where people open the page, such as ``https://print.example.com``; empty: the address of this server."""
    proxy: bool = False
    """A reverse proxy on this host ends TLS: plain HTTP, on `socket` or a loopback address only, and the last address
    in X-Forwarded-For is the caller's."""
    socket: Path | None = None
    """A Unix socket for the proxy, instead of `host` and `port`; for whoever is in its group."""
    state_dir: Path = field(default=Path("/var/lib/pullprint-cloud"), metadata=PLACE)
    database: str = field(default="", metadata=PLACE)
    """An SQLAlchemy URL such as ``postgresql+psycopg://…``; empty: SQLite in `state_dir`."""
    port_file: Path | None = None
    """The port that is listened on is written here once connections are accepted."""
    upload_limit_mib: int = 512
    """Of one document that is uploaded on the page."""
    metrics_token: str = ""
    """Whoever has it may read ``/metrics``, as ``Authorization: Bearer``; empty: only programs on this host."""
    replace_after: int = 600
    """Seconds after which a host that is silent is taken to be lost, and another one holds its jobs instead."""
    log_level: str = "info"

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65_535:
            raise ValueError("port must be between 0 and 65535")
        if self.upload_limit_mib < 1:
            raise ValueError("upload_limit_mib must be 1 or more")
        if self.replace_after < 30:
            raise ValueError("replace_after must be 30 seconds or more")
        if self.public_url and not self.public_url.startswith("https://"):
            raise ValueError("public_url must begin with https://")
        if self.proxy and not self.public_url:
            raise ValueError("with proxy = true it needs public_url, the address that people and hosts use")
        if self.proxy and not self.socket and not _is_loopback(self.host):
            raise ValueError('with proxy = true the host must be a loopback address, such as host = "127.0.0.1"')
        if self.socket and not self.proxy:
            raise ValueError("socket is for a reverse proxy, and needs proxy = true")
        if self.metrics_token and not _TOKEN.fullmatch(self.metrics_token):
            raise ValueError("metrics_token must be 16 to 128 letters, digits, or ones of -._~+/=")
        if self.log_level.lower() not in ("debug", "info", "warning", "error"):
            raise ValueError("log_level must be debug, info, warning or error")

    @property
    def database_url(self) -> str:
        """The database's URL."""
        return self.database or f"sqlite:///{self.state_dir.absolute() / 'cloud.sqlite'}"


def host_of(url: str) -> str:
    """The host's name or address in a URL that has one."""
    host = urlsplit(url).hostname
    assert host
    return host


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
