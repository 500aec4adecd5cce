"""The cloud's settings: a TOML file, read once; all of them have a default but the certificate."""

from dataclasses import dataclass
from pathlib import Path

DEFAULT_FILE = Path("/etc/pullprint/cloud.toml")


@dataclass(frozen=True, slots=True)
class Settings:
    """``cloud.toml``; keys are written with ``-`` or ``_``."""

    host: str = "0.0.0.0"  # noqa: S104  (nodes and people are elsewhere; TLS and the gate stand in front)
    port: int = 443
    """0 takes any free port; see `port_file`."""
    certificate: Path = Path("/etc/pullprint/cloud/server.pem")
    """PEM, the server's certificate and those that lead to its CA."""
    key: Path = Path("/etc/pullprint/cloud/server.key")
    public_url: str = ""
    """Where people open the page, such as ``https://print.example.com``; empty: the address of this server."""
    state_dir: Path = Path("/var/lib/pullprint-cloud")
    database: str = ""
    """An SQLAlchemy URL such as ``postgresql+psycopg://…``; empty: SQLite in `state_dir`."""
    port_file: Path | None = None
    """The port that is listened on is written here once connections are accepted."""
    upload_limit_mib: int = 512
    """Of one document that is uploaded on the page."""
    log_level: str = "info"

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65_535:
            raise ValueError("port must be between 0 and 65535")
        if self.upload_limit_mib < 1:
            raise ValueError("upload_limit_mib must be 1 or more")
        if self.public_url and not self.public_url.startswith("https://"):
            raise ValueError("public_url must begin with https://")
        if self.log_level.lower() not in ("debug", "info", "warning", "error"):
            raise ValueError("log_level must be debug, info, warning or error")

    @property
    def database_url(self) -> str:
        """The database's URL."""
        return self.database or f"sqlite:///{self.state_dir.absolute() / 'cloud.sqlite'}"
