"""Make the test vectors anew: ``python -m tests.vectors.make`` from the project's root.

All keys, parts and documents follow from `SEED`; HPKE's encapsulation (in the slots) is random, and the files with it.
So they were made once and are kept, and this program says how.
"""

import hashlib
import io
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pullprint.model.job import Context
from pullprint.model.ticket import Ticket
from pullprint.vault import header as layout
from pullprint.vault import keys
from pullprint.vault.header import CHUNK, TAG, Header
from pullprint.vault.parts import open_part, public_half, seal_part
from pullprint.vault.sealing import Party, seal
from pullprint.wire.signature import node_id

SEED = 9264
FOLDER = Path(__file__).parent
SIZES = {"empty": (0, 2), "one-byte": (1, 3), "one-byte-more-than-a-chunk": (65_537, 2)}
"""Name of a vector: bytes of the document, number of parties."""

Piece = tuple[int, int] | bytes
"""A range of the base file, or bytes of its own."""


def document(size: int) -> bytes:
    """The document of *size* bytes: byte *i* is *i* × *i* modulo 251."""
    return bytes(i * i % 251 for i in range(size))


class Vector:
    """One good sealed job with all its secrets."""

    def __init__(self, name: str, size: int, count: int, chance: random.Random) -> None:
        self.name = name
        self.job = chance.randbytes(16).hex()
        self.identity = Ed25519PrivateKey.from_private_bytes(chance.randbytes(32))
        node = node_id(self.identity.public_key().public_bytes_raw())
        names = [node, "cloud", *(chance.randbytes(16).hex() for _ in range(count - 2))]
        self.private = {party: chance.randbytes(32) for party in names}
        self.parties = [Party(p, f"20261121-{chance.randbytes(6).hex()}", public_half(self.private[p])) for p in names]
        self.context = Context(
            organisation="acme", site="berlin", origin_node=node, queue="pullprint", owner="alice@example.com",
            submitter="alice", job_uuid="0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0", title='Bericht "☃" 🖨',
            content_type="application/pdf", ticket=Ticket(2, (("sides", "two-sided-long-edge"), ("media", "A4"))),
            direct_printer="", created=1_795_219_200,
        )  # fmt: skip
        self.document = document(size)
        self.path = FOLDER / f"{name}.job"
        with mock.patch("secrets.token_bytes", chance.randbytes):
            self.header = seal(
                io.BytesIO(self.document).readinto, self.path, job=self.job, context=self.context,
                parties=self.parties, identity=self.identity, limit=1 << 20,
            ).header  # fmt: skip
        self.path.chmod(0o644)
        self.length = len(self.header.encode())
        self.end = self.path.stat().st_size
        self.parts = {
            p.name: open_part(
                self.header.slot(p.name)[1].sealed, self.private[p.name], job=self.job, party=p.name, key=p.key,
                generation=1,
            )
            for p in self.parties
        }  # fmt: skip
        self.data_key = keys.unwrap(self.header, dict(enumerate(self.parts.values())))

    def described(self) -> dict[str, Any]:
        """What stands in the JSON file; all bytes in hex."""
        first, second = list(self.parts.values())[:2]
        salt, header = self.header.salt, self.header
        return {
            "file": self.path.name,
            "job": self.job,
            "document_size": len(self.document),
            "document_sha256": hashlib.sha256(self.document).hexdigest(),
            "identity_private": self.identity.private_bytes_raw().hex(),
            "parties": [
                {"party": p.name, "key": p.key, "private": self.private[p.name].hex(), "public": p.public.hex(),
                 "part": self.parts[p.name].hex()}
                for p in self.parties
            ],
            "pair_key_0_1": keys._pair_key(first, second, salt, self.job, 1, 0, 1).hex(),
            "data_key": self.data_key.hex(),
            "payload_key": keys.payload_key(self.data_key, salt, self.job, header.context_hash).hex(),
            "header_key": keys._derive(self.data_key, salt, b"header", bytes.fromhex(self.job)).hex(),
        }  # fmt: skip

    def signed(self, header: Header) -> bytes:
        """*header* with a good signature of the origin node, and the MAC that it has."""
        return replace(header, signature=self.identity.sign(header.body() + header.mac)).encode()

    def sealed_again(self, header: Header) -> bytes:
        """*header* with a good MAC and a good signature."""
        return self.signed(replace(header, mac=keys.header_mac(self.data_key, header)))

    def rewritten(self, change: Callable[[bytes], bytes]) -> bytes:
        """The header's body after *change*, its lengths put right, with a good signature over it."""
        body = change(self.header.body())
        body = body[:12] + (len(body) + 96).to_bytes(4, "big") + body[16:]
        start = body + self.header.mac
        return start + self.identity.sign(start)

    def other_context(self, raw: bytes) -> bytes:
        """A signed header whose context is *raw*, hash and length put right."""
        old = layout.encode_context(self.context)

        def change(body: bytes) -> bytes:
            body = body[:104] + hashlib.sha256(raw).digest() + body[136:204] + len(raw).to_bytes(4, "big") + body[208:]
            return body[:212] + raw + body[212 + len(old) :]

        return self.rewritten(change)


def negative(two: Vector, one: Vector) -> list[dict[str, Any]]:
    """What must be refused, made from *two* (of two chunks) and, for foreign pieces, *one*."""
    header, length, end = two.header, two.length, two.end
    cut, rest = length + CHUNK + TAG, (length, end)
    made: list[dict[str, Any]] = []

    def add(name: str, stage: str, reason: str, *pieces: Piece, parts: dict[str, bytes] | None = None) -> None:
        made.append(
            {
                "name": name,
                "stage": stage,
                "reason": reason,
                "base": two.path.name,
                "job": two.job,
                "pieces": [
                    {"hex": piece.hex()} if isinstance(piece, bytes) else {"from": piece[0], "to": piece[1]}
                    for piece in pieces
                ],
                "parts": {name: part.hex() for name, part in (parts or two.parts).items()},
            }
        )

    def flipped(at: int) -> Sequence[Piece]:
        byte = two.path.read_bytes()[at]
        return (0, at), bytes((byte ^ 1,)), (at + 1, end)

    for name, at in (("magic", 0), ("version", 9), ("chunk-size", 11), ("header-length", 15), ("job", 16), ("salt", 32),
                     ("size", 71), ("tags-digest", 72), ("context-hash", 104), ("commitment", 136), ("origin-key", 168),
                     ("generation", 203), ("context", 230), ("slot", length - 200), ("wrap", length - 120),
                     ("mac", length - 96), ("signature", length - 1)):  # fmt: skip
        add(f"flipped-{name}", "header", f"one bit of the {name} is not what the origin node signed", *flipped(at))
    add("header-cut", "header", "the file ends inside the header", (0, length - 10))
    add("nothing", "header", "an empty file is no sealed job", b"")
    node, cloud = header.slots
    wrap = header.wraps[0]
    for name, reason, lie in (
        ("one-slot", "a job has at least two parties", replace(header, slots=(node,), wraps=())),
        ("party-twice", "a party has one slot", replace(header, slots=(node, replace(cloud, party=node.party)))),
        ("wrap-of-no-slot", "a wrap names two slots that are there", replace(header, wraps=(replace(wrap, second=2),))),
        ("wrap-backwards", "a wrap's slots are in order", replace(header, wraps=(replace(wrap, first=1, second=0),))),
        ("wrap-twice", "the wraps are in order and no pair has two", replace(header, wraps=(wrap, wrap))),
        ("generation-zero", "generations count from 1", replace(header, generation=0)),
        ("size-too-large", "a document has at most 2^40 bytes", replace(header, size=(1 << 40) + 1)),
    ):
        add(name, "header", reason, two.signed(lie), rest)
    add("foreign-origin", "header", "the signer's key does not give the node id that the context names",
        two.signed(replace(header, context=replace(two.context, origin_node="0" * 32))), rest)  # fmt: skip
    add("name-in-capitals", "header", "names are of a-z, 0-9 and -",
        two.rewritten(lambda body: body.replace(b"\x05cloud", b"\x05CLOUD")), rest)  # fmt: skip
    raw = layout.encode_context(two.context)
    add(
        "context-with-spaces",
        "header",
        "the context is canonical JSON",
        two.other_context(raw.replace(b":", b": ")),
        rest,
    )
    add("context-infinite", "header", "copies is a whole number",
        two.other_context(raw.replace(b'"copies":2', b'"copies":Infinity')), rest)  # fmt: skip
    add("context-surrogate", "header", "the context's texts are Unicode",
        two.other_context(raw.replace(b"\\u2603", b"\\ud800")), rest)  # fmt: skip
    add("swapped-header", "header", "another job's header stands before this payload", one.header.encode(), rest)

    add("altered-by-origin", "keys", "a good signature, but the MAC is of the header as it was sealed",
        two.signed(replace(header, context=replace(two.context, owner="mallory@example.com"))), rest)  # fmt: skip
    other = bytes(range(32))
    pair = list(two.parts.values())
    lie = replace(header, wraps=keys.wrap_pairs(other, pair, header.salt, two.job, 1))
    lie = replace(lie, mac=keys.header_mac(other, lie))
    add(
        "uncommitted-key", "keys", "the wrap gives a data key that the header does not commit to", two.signed(lie), rest
    )
    add(
        "other-generation",
        "keys",
        "the wraps are of generation 1",
        two.sealed_again(replace(header, generation=2)),
        rest,
    )
    wrong = {node.party: two.parts[node.party], "cloud": one.parts["cloud"]}
    add("foreign-part", "keys", "the cloud's part is another job's", (0, end), parts=wrong)
    swapped = {node.party: two.parts["cloud"], "cloud": two.parts[node.party]}
    add("swapped-parts", "keys", "the parts are not in their parties' places", (0, end), parts=swapped)
    alone = two.parts[node.party]
    add("one-part", "keys", "one part opens nothing", (0, end), parts={node.party: alone})
    add("one-part-twice", "keys", "one part opens nothing, also as two", (0, end),
        parts={node.party: alone, "cloud": alone})  # fmt: skip

    add("payload-cut", "payload", "the last byte is missing", (0, end - 1))
    add("payload-without-last-chunk", "payload", "the last chunk is missing", (0, cut))
    add("payload-longer", "payload", "something follows the last chunk", (0, end), b"\0")
    add("payload-reordered", "payload", "the chunks are in another order", (0, length), (cut, end), (length, cut))
    add("payload-flipped", "payload", "one bit of the last chunk is another", *flipped(end - 17))
    add("payload-tag-flipped", "payload", "one bit of a chunk's tag is another", *flipped(cut - 1))
    add(
        "payload-foreign-chunk",
        "payload",
        "the last chunk is another job's",
        (0, cut),
        one.path.read_bytes()[one.length :],
    )
    add("tags-digest", "payload", "the tags are not those that the header was sealed with",
        two.sealed_again(replace(header, tags_digest=bytes(32))), rest)  # fmt: skip
    add("size-one-less", "payload", "the size in the header is not the document's",
        two.sealed_again(replace(header, size=header.size - 1)), rest)  # fmt: skip
    return made


def slots(vector: Vector) -> list[dict[str, Any]]:
    """Slots that their party must not be able to open: each is sealed for another purpose."""
    party = vector.parties[1]
    part = vector.parts[party.name]
    right: dict[str, Any] = {"job": vector.job, "party": party.name, "key": party.key, "generation": 1}
    reasons = {
        "job": ("0" * 32, "it was sealed for another job"),
        "party": (vector.parties[0].name, "it was sealed for another party"),
        "key": ("20000101-000000000000", "it was sealed to a key of another name"),
        "generation": (2, "it was sealed for another generation"),
    }
    return [
        {"slot": seal_part(part, party.public, **(right | {field: value})).hex(),
         "private": vector.private[party.name].hex(), "reason": reason} | right
        for field, (value, reason) in reasons.items()
    ]  # fmt: skip


def main() -> None:
    """Write all vectors into this folder."""
    chance = random.Random(SEED)
    vectors = {name: Vector(name, size, count, chance) for name, (size, count) in SIZES.items()}
    two, one = vectors["one-byte-more-than-a-chunk"], vectors["one-byte"]
    contents = {
        "positive": [vector.described() for vector in vectors.values()],
        "negative": negative(two, one),
        "slots": slots(two),
    }
    for name, values in contents.items():
        (FOLDER / f"{name}.json").write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
