"""Sealed jobs made on the spot, with all their keys."""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pullprint.model.facts import Facts
from pullprint.model.job import Context, new_job_id
from pullprint.model.states import State
from pullprint.model.ticket import Ticket
from pullprint.model.votes import Vote
from pullprint.vault.header import Header
from pullprint.vault.opening import OpenJob
from pullprint.vault.parts import new_key, open_part
from pullprint.vault.record import Record
from pullprint.vault.sealing import Party, seal
from pullprint.wire.node import CLOUD
from pullprint.wire.signature import node_id

LIMIT = 1 << 30
DAY_KEY = "20261121-0123456789ab"


@dataclass
class Parties:
    """An origin node, its cloud and other holders, with their private keys."""

    identity: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    others: int = 0
    private: dict[str, bytes] = field(default_factory=dict)
    parties: list[Party] = field(default_factory=list)

    def __post_init__(self) -> None:
        holders = [f"{number:032x}" for number in range(1, self.others + 1)]
        for name in (self.node, CLOUD, *holders):
            self.private[name], public = new_key()
            self.parties.append(Party(name, DAY_KEY, public))

    @property
    def node(self) -> str:
        return node_id(self.identity.public_key().public_bytes_raw())

    def context(self, **changes: object) -> Context:
        made = Context(
            organisation="acme", site="berlin", origin_node=self.node, queue="pullprint", owner="alice@example.com",
            submitter="alice", job_uuid="0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0", title="Jahresbericht ☃",
            content_type="application/pdf", ticket=Ticket(2, (("sides", "two-sided-long-edge"), ("x-new", "a b"))),
            direct_printer="", created=1_780_000_000,
        )  # fmt: skip
        return replace(made, **changes)  # type: ignore[arg-type]

    def seal(self, path: Path, document: bytes, *, job: str = "", limit: int = LIMIT) -> Header:
        return seal(
            io.BytesIO(document).readinto, path, job=job or new_job_id(), context=self.context(), parties=self.parties,
            identity=self.identity, limit=limit,
        ).header  # fmt: skip

    def part(self, header: Header, party: str) -> bytes:
        _, slot = header.slot(party)
        return open_part(
            slot.sealed, self.private[party], job=header.job, party=party, key=slot.key, generation=header.generation
        )

    def open(self, path: Path, job: str, *names: str) -> bytes:
        """The document, opened with the parts of the parties *names* (node and cloud when none are named)."""

        def parts(header: Header) -> Mapping[str, bytes]:
            return {name: self.part(header, name) for name in names or (self.node, CLOUD)}

        with OpenJob(path, job, parts) as opened:
            return b"".join(bytes(chunk) for chunk in opened.chunks())


def record(**changes: object) -> Record:
    """A held job's row with everything filled in that a test does not care about."""
    job = new_job_id()
    uuid = f"{job[:8]}-{job[8:12]}-{job[12:16]}-{job[16:20]}-{job[20:]}"
    made = Record(
        id=job, job_uuid=uuid, cups_job_id=7, queue="pullprint", owner="alice@example.com", submitter="alice",
        host="", title="Report", content_type="application/pdf", size=1234, ticket=Ticket(1, (("sides", "one-sided"),)),
        facts=Facts(pages=3), state=State.HELD, sentence="Held.", created=1_780_000_000, expires=1_780_086_400,
        direct_printer="", claim_code="", generation=1, own_key=DAY_KEY, cloud_key="cloud-1", cloud_slot=bytes(96),
        vote=Vote(), printer="", changed=1_780_000_000.0,
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]
