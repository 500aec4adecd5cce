"""The sealed job's header: what it looks like, byte for byte.

All numbers are big-endian and unsigned. The payload (`vault.stream`) follows the header and ends the file.

======  ====  ==========================================================================================
offset  size  field
======  ====  ==========================================================================================
0       8     magic ``pulljob\\n``
8       2     version: 1
10      2     chunk size in KiB: 64
12      4     length of the whole header, signature included
16      16    job id
32      32    salt
64      8     size of the document in bytes
72      32    SHA-256 over the authentication tags of all chunks, in order
104     32    SHA-256 of the context
136     32    commitment to the data key
168     32    public key of the origin node (Ed25519), whose SHA-256 begins with the node's id
200     4     generation of the key parts
204     4     length *c* of the context
208     2     number of slots
210     2     number of wraps
212     *c*   context: canonical JSON of `model.job.Context`
…             slots: length (1) and name of the party, length (1) and name of its key, 80 bytes of sealed part
…             wraps: slot numbers *a* < *b* (1 + 1), 48 bytes: the data key under HKDF(part *a* ‖ part *b*)
…       32    MAC: HMAC-SHA256 over all of the above under a key derived from the data key
…       64    signature of the origin node over all of the above
======  ====  ==========================================================================================

This module reads and writes the layout and checks the signature; keys are `vault.keys`' matter.
"""

import hashlib
import json
import re
import struct
from dataclasses import dataclass, fields

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from pullprint.base.errors import PullprintError
from pullprint.model.job import Context
from pullprint.model.ticket import Ticket, TicketRefused
from pullprint.vault.parts import SLOT_SIZE
from pullprint.wire.signature import node_id

MAGIC = b"pulljob\n"
VERSION = 1
CHUNK_KIB = 64
CHUNK = CHUNK_KIB * 1024
TAG = 16
WRAP_SIZE = 48
MAC_SIZE = 32
SIGNATURE_SIZE = 64
HEADER_LIMIT = 1 << 19
CONTEXT_LIMIT = 1 << 18
DOCUMENT_LIMIT = 1 << 40
SLOTS_LIMIT = 16
GENERATION_LIMIT = 1 << 31
CREATED_LIMIT = 1 << 40

_CONTEXT_FIELDS = tuple(field.name for field in fields(Context))
_FIXED = struct.Struct(">8sHHI16s32sQ32s32s32s32sIIHH")
_NAME = re.compile(r"[0-9a-z][0-9a-z-]{0,63}")
_SURROGATE = re.compile("[\ud800-\udfff]")


class SealDamaged(PullprintError):
    """The stored copy of this job is damaged or was tampered with: {reason}. Nothing of it was printed; another
    copy may be good, else print it again."""

    code = "seal-damaged"


class SealNewer(SealDamaged):
    """This job was sealed by a newer Pullprint (format {version}), and this version cannot open it. It is kept as it
    is: install the newer version again to print it."""

    code = "seal-newer"


@dataclass(frozen=True, slots=True)
class Slot:
    """One party's sealed key part."""

    party: str
    """A node id, or ``cloud``."""
    key: str
    """Which of the party's keys it is sealed to."""
    sealed: bytes


@dataclass(frozen=True, slots=True)
class Wrap:
    """The data key under the parts of two slots."""

    first: int
    second: int
    sealed: bytes


@dataclass(frozen=True, slots=True)
class Header:
    """A header's fields; *mac* and *signature* are over everything before them."""

    job: str
    salt: bytes
    size: int
    tags_digest: bytes
    context: Context
    commitment: bytes
    origin_key: bytes
    generation: int
    slots: tuple[Slot, ...]
    wraps: tuple[Wrap, ...]
    mac: bytes = bytes(MAC_SIZE)
    signature: bytes = bytes(SIGNATURE_SIZE)

    @property
    def context_hash(self) -> bytes:
        """SHA-256 of the context's canonical JSON."""
        return hashlib.sha256(encode_context(self.context)).digest()

    def slot(self, party: str) -> tuple[int, Slot]:
        """The number and the slot of *party*; raises SealDamaged when it is no party to this job."""
        for number, slot in enumerate(self.slots):
            if slot.party == party:
                return number, slot
        raise SealDamaged(reason=f"{party} is no party to it")

    def body(self) -> bytes:
        """All that the MAC covers."""
        context = encode_context(self.context)
        variable = b"".join(
            [context]
            + [_named(slot.party) + _named(slot.key) + slot.sealed for slot in self.slots]
            + [bytes((wrap.first, wrap.second)) + wrap.sealed for wrap in self.wraps]
        )
        fixed = _FIXED.pack(
            MAGIC,
            VERSION,
            CHUNK_KIB,
            _FIXED.size + len(variable) + MAC_SIZE + SIGNATURE_SIZE,
            bytes.fromhex(self.job),
            self.salt,
            self.size,
            self.tags_digest,
            hashlib.sha256(context).digest(),
            self.commitment,
            self.origin_key,
            self.generation,
            len(context),
            len(self.slots),
            len(self.wraps),
        )
        return fixed + variable

    def encode(self) -> bytes:
        """The header's bytes."""
        return self.body() + self.mac + self.signature


def encode_context(context: Context) -> bytes:
    """Canonical JSON: sorted names, no white space, UTF-8 escaped to ASCII."""
    # By hand: dataclasses.asdict copies deeply, which took longer than everything else that is done with a header.
    values = {name: getattr(context, name) for name in _CONTEXT_FIELDS}
    values["ticket"] = {"copies": context.ticket.copies, "options": context.ticket.options}
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def payload_length(size: int) -> int:
    """Bytes that a document of *size* bytes has when sealed; an empty document is one empty chunk."""
    return size + TAG * max(1, -(-size // CHUNK))


def read_length(start: bytes) -> int:
    """The header's length from its first 16 bytes. Raises SealDamaged, SealNewer."""
    if len(start) < 16 or start[:8] != MAGIC:
        raise SealDamaged(reason="it does not begin like a sealed job")
    version, chunk, length = struct.unpack(">HHI", start[8:16])
    if version > VERSION:
        raise SealNewer(version=version)
    if version != VERSION or chunk != CHUNK_KIB:
        raise SealDamaged(reason=f"it is of version {version}, which this program cannot read")
    if not _FIXED.size + MAC_SIZE + SIGNATURE_SIZE < length <= HEADER_LIMIT:
        raise SealDamaged(reason="its header has an impossible length")
    return int(length)


def decode(data: bytes) -> Header:
    """The header in *data*, which is as long as it says, with a good signature of the origin node.

    Raises SealDamaged; a header that decodes encodes to the same bytes again.
    """
    if read_length(data[:16]) != len(data):
        raise SealDamaged(reason="its header is cut off")
    header = _parse(data)
    if header.encode() != data:
        raise SealDamaged(reason="its header is not written as this version writes it")
    if node_id(header.origin_key) != header.context.origin_node:
        raise SealDamaged(reason="its origin node and key do not belong together")
    try:
        Ed25519PublicKey.from_public_bytes(header.origin_key).verify(header.signature, data[:-SIGNATURE_SIZE])
    except InvalidSignature as error:
        raise SealDamaged(reason="the origin node's signature is wrong") from error
    return header


def _parse(data: bytes) -> Header:
    (_, _, _, _, job, salt, size, digest, context_hash, commitment, origin, generation, context_size, slot_count,
     wrap_count) = _FIXED.unpack_from(data)  # fmt: skip
    if (
        size > DOCUMENT_LIMIT
        or context_size > CONTEXT_LIMIT
        or not 2 <= slot_count <= SLOTS_LIMIT
        or not 1 <= generation <= GENERATION_LIMIT
    ):
        raise SealDamaged(reason="its header has an impossible number")
    reader = _Reader(data, _FIXED.size)
    raw_context = reader.take(context_size)
    if hashlib.sha256(raw_context).digest() != context_hash:
        raise SealDamaged(reason="its context is not the one that was sealed")
    slots = tuple(Slot(reader.name(), reader.name(), reader.take(SLOT_SIZE)) for _ in range(slot_count))
    wraps = tuple(Wrap(reader.byte(), reader.byte(), reader.take(WRAP_SIZE)) for _ in range(wrap_count))
    pairs = [(wrap.first, wrap.second) for wrap in wraps]
    if any(not first < second < slot_count for first, second in pairs):
        raise SealDamaged(reason="a wrap names no pair of slots")
    if pairs != sorted(set(pairs)):
        raise SealDamaged(reason="its wraps are not in order")
    if len({slot.party for slot in slots}) != slot_count:
        raise SealDamaged(reason="a party has two slots")
    mac, signature = reader.take(MAC_SIZE), reader.take(SIGNATURE_SIZE)
    reader.end()
    return Header(
        job=job.hex(), salt=salt, size=size, tags_digest=digest, context=_context(raw_context), commitment=commitment,
        origin_key=origin, generation=generation, slots=slots, wraps=wraps, mac=mac, signature=signature,
    )  # fmt: skip


def _context(raw: bytes) -> Context:
    try:
        values = json.loads(raw)
        ticket, created = values.pop("ticket"), values.pop("created")
        options = tuple((name, value) for name, value in ticket["options"])
        texts = [text for pair in options for text in pair] + list(values.values())
        if values.keys() != _TEXTS or any(type(text) is not str or _SURROGATE.search(text) for text in texts):
            raise SealDamaged(reason="its context has a field of the wrong kind")
        if type(created) is not int or type(ticket["copies"]) is not int or not 0 <= created <= CREATED_LIMIT:
            raise SealDamaged(reason="its context has a number out of range")
        return Context(ticket=Ticket(copies=ticket["copies"], options=options), created=created, **values)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, TicketRefused) as error:
        raise SealDamaged(reason="its context cannot be read") from error


_TEXTS = {field.name for field in fields(Context)} - {"ticket", "created"}


def _named(name: str) -> bytes:
    if not _NAME.fullmatch(name):
        raise ValueError("a party's or key's name has 1 to 64 of a-z, 0-9 and -")
    return bytes((len(name),)) + name.encode("ascii")


class _Reader:
    """Takes fields off a buffer; running out is damage."""

    def __init__(self, data: bytes, position: int) -> None:
        self._data = data
        self._position = position

    def take(self, count: int) -> bytes:
        piece = self._data[self._position : self._position + count]
        if len(piece) != count:
            raise SealDamaged(reason="its header is cut off")
        self._position += count
        return piece

    def byte(self) -> int:
        return self.take(1)[0]

    def name(self) -> str:
        name = self.take(self.byte()).decode("latin-1")
        if not _NAME.fullmatch(name):
            raise SealDamaged(reason="a party or key in its header has an impossible name")
        return name

    def end(self) -> None:
        if self._position != len(self._data):
            raise SealDamaged(reason="its header is longer than its fields")
