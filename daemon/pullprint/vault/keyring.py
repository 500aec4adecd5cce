"""A node's private keys, on its own disk and nowhere else.

The identity (Ed25519) lives as long as the node. The HPKE keys (X25519) are *day keys*: a new one each day, destroyed
when the last job sealed to it has ended; that is what shredding means on an SSD, where overwriting a file means little.
"""

import calendar
import re
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pullprint.base.files import private_directory, sync_directory, write_once
from pullprint.vault import parts
from pullprint.vault.parts import PartRefused
from pullprint.wire.node import PartyKey
from pullprint.wire.signature import node_id

DAY = 86_400
_DAY_KEY = re.compile(r"(?P<day>[0-9]{8})-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this node is."""

    node: str
    key: Ed25519PrivateKey

    @property
    def public(self) -> bytes:
        """The raw Ed25519 public key."""
        return self.key.public_key().public_bytes_raw()


class Keyring:
    """The keys under one directory, which only its owner may enter."""

    def __init__(self, directory: Path) -> None:
        self._directory = private_directory(directory)

    def identity(self) -> Identity:
        """This node's identity, made at the first call."""
        path = self._directory / "identity"
        if not path.exists():
            write_once(path, Ed25519PrivateKey.generate().private_bytes_raw())
        key = Ed25519PrivateKey.from_private_bytes(path.read_bytes())
        return Identity(node=node_id(key.public_key().public_bytes_raw()), key=key)

    def current(self, now: float) -> PartyKey:
        """The day key that new jobs are sealed to at *now* (seconds since the epoch), made if there is none."""
        today = time.strftime("%Y%m%d", time.gmtime(now))
        name = next((key for key in self.names() if key.startswith(today)), None)
        if name is None:
            name = f"{today}-{secrets.token_hex(6)}"
            private, _ = parts.new_key()
            write_once(self._directory / name, private)
        return PartyKey(key=name, public=parts.public_half(self.private(name)), expires=(int(now) // DAY + 2) * DAY)

    def party(self, name: str) -> PartyKey:
        """The public half of day key *name*. Raises PartRefused when it is not (or no longer) here."""
        day = calendar.timegm(time.strptime(name[:8], "%Y%m%d")) if _DAY_KEY.fullmatch(name) else 0
        return PartyKey(key=name, public=parts.public_half(self.private(name)), expires=day + 2 * DAY)

    def names(self) -> list[str]:
        """All day keys, oldest first."""
        return sorted(path.name for path in self._directory.iterdir() if _DAY_KEY.fullmatch(path.name))

    def private(self, name: str) -> bytes:
        """The raw private half of day key *name*. Raises PartRefused when it is not (or no longer) here."""
        if not _DAY_KEY.fullmatch(name):
            raise PartRefused(reason="its key has an impossible name")
        try:
            return (self._directory / name).read_bytes()
        except FileNotFoundError as error:
            raise PartRefused(reason="the key that it was sealed to has been destroyed") from error

    def destroy_unused(self, used: set[str], now: float) -> list[str]:
        """Destroy every day key that is older than yesterday and not in *used*; returns their names."""
        yesterday = time.strftime("%Y%m%d", time.gmtime(now - DAY))
        doomed = [name for name in self.names() if name not in used and name[:8] < yesterday]
        for name in doomed:
            path = self._directory / name
            with path.open("r+b", buffering=0) as file:
                file.write(bytes(parts.KEY_SIZE))
            path.unlink()
        if doomed:
            sync_directory(self._directory)
        return doomed
