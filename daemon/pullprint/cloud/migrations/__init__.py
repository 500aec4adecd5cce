"""The schema's history, and how a database gets to its end.

`upgrade` runs at the start of every command. It may run twice at once, and beside a server: the second waits for
the first, and finds nothing to do.
"""

from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

from pullprint import __version__
from pullprint.base.errors import WrittenByNewer

HEAD = "0006"
"""The newest revision in ``versions``; a test holds the two together."""
_VERSIONS = Path(__file__).parent / "versions"
_LOCK = 0x70756C6C  # any number that no other program's advisory lock has


def upgrade(engine: Engine) -> None:
    """Bring the database to `HEAD`. Raises WrittenByNewer, and SQLAlchemy's OperationalError when another process holds
    it for too long."""
    with engine.connect() as connection, connection.begin():
        if _revision(connection) == HEAD:
            return
    with engine.connect() as connection, connection.begin():
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        if _revision(connection) != HEAD:
            _migrate(connection)


def _revision(connection: Connection) -> str:
    """The database's revision, empty for a new one. Raises WrittenByNewer for one that is not in ``versions``."""
    if not inspect(connection).has_table("alembic_version"):
        return ""
    row = connection.execute(text("SELECT version_num FROM alembic_version")).first()
    revision = str(row[0]) if row else ""
    if revision and not any(path.name.startswith(f"{revision}_") for path in _VERSIONS.iterdir()):
        own = f"{__version__}, schema {HEAD}"
        raise WrittenByNewer(what="The cloud's database", version=f"its schema is {revision}", own=own)
    return revision


def _migrate(connection: Connection) -> None:
    from alembic import command  # 200 ms that a command on an up-to-date database need not wait
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
