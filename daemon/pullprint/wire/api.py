"""The cloud's HTTP API, which its own page uses and anyone may.

JSON both ways. The session is a cookie (``__Host-pullprint``: Secure, HttpOnly, SameSite=Strict) or, for programs, the
same token as ``Authorization: Bearer``. Every change needs ``Content-Type: application/json``, which a foreign page
cannot send without the cloud's consent. Failures are `wire.node.Failure` with the error's HTTP status.

======================================  =====================  =====================================================
request                                 answer                 who
======================================  =====================  =====================================================
``POST /api/v1/session``                `Session`, 201         anyone: `SignIn`; throttled by name and address
``POST /api/v1/welcome``                `Invitation`           anyone: `InvitationToken`; throttled by address
``POST /api/v1/welcome/accept``         `Session`, 201         anyone: `Acceptance`, which uses the link up; throttled
``GET /api/v1/session``                 `Session`              signed in
``DELETE /api/v1/session``              204                    signed in
``GET /api/v1/sessions``                list of `SessionView`  signed in: where else
``DELETE /api/v1/sessions/{id}``        204                    signed in: that one ends, or that account is theirs no
                                                               more
``DELETE /api/v1/sessions``             204                    signed in: all sessions end, this one too; local
                                                               accounts stay
``GET /api/v1/events``                  server-sent events     signed in: ``jobs`` with a `JobList` now and after
                                                               each change; ``printers`` when one of them has
                                                               changed; ``ended`` when the session is over; comments
                                                               in between
``GET /api/v1/jobs``                    `JobList`              own jobs, newest first, also those that ended lately;
                                                               ``?since=V&wait=S`` parks until version V is outdated
``GET /api/v1/jobs/{id}``               `JobView`              owner
``GET /api/v1/jobs/{id}/trace``         list of `StepView`     owner
``POST /api/v1/jobs/{id}/release``      `JobView`, 202         owner: `ReleaseRequest`
``POST /api/v1/jobs/{id}/settle``       `JobView`              owner: an uncertain job came out
``DELETE /api/v1/jobs/{id}``            `JobView`, 202         owner
``GET /api/v1/history``                 `History`              own jobs that ended, latest first; ``?before=CURSOR``
``POST /api/v1/claim``                  `JobView`              signed in: `ClaimRequest`; throttled
``POST /api/v1/pictures``               list of `Picture`      owner: `PicturesRequest`; those that can be had now
``POST /api/v1/uploads``                `UploadOffer`, 201     signed in: `UploadRequest`
``PUT /api/v1/uploads/{id}``            `JobView`, 201         who was offered it: the sealed document
                                                               (``application/octet-stream``, see `UploadOffer`)
``GET /api/v1/printers``                list of `PrinterView`  signed in
``GET /api/v1/printers/{which}``        `PrinterView`          signed in; by id or short code
``GET /api/v1/printers/{id}/sign.pdf``  the sheet, A5          signed in; also ``sign.png`` and ``sign.svg``: the
                                                               QR code alone
``GET /api/v1/logins/{code}``           `PendingLogin`         signed in; throttled
``POST /api/v1/logins/{code}``          204                    signed in: `LoginAnswer`; throttled
======================================  =====================  =====================================================

``/p/{printer id}`` is what a printer's QR code says, ``/login?code=CODE`` what that of ``pullprint login`` does, and
``/welcome#TOKEN`` what an invited user is sent; all are the page itself.
"""

from typing import Annotated

from pydantic import Field, SecretStr

from pullprint.wire.types import Blob, Count, JobId, Key, Message, Name
from pullprint.wire.views import JobView

COOKIE = "__Host-pullprint"
BODY_LIMIT = 1 << 17
WAIT_LIMIT = 25.0
"""Seconds that a job list parks at most."""


class SignIn(Message):
    """A user's name and password."""

    name: Name
    password: Annotated[SecretStr, Field(max_length=1_024)]
    organisation: Annotated[str, Field(max_length=64)] = ""
    """Its short name; needed only by someone who has the same name and password in several."""
    remember: bool = False
    """Stay signed in on this device, for weeks instead of hours."""


class InvitationToken(Message):
    """The token of a link to choose a password with."""

    token: Annotated[SecretStr, Field(max_length=128)]


class Invitation(Message):
    """Who may choose a password."""

    user: str
    organisation: str
    """For people: the organisation's full name."""


class Acceptance(InvitationToken):
    """The user chooses a password, and is signed in."""

    password: Annotated[SecretStr, Field(max_length=1_024)]
    remember: bool = False
    """As in `SignIn`."""


class Session(Message):
    """Who is signed in."""

    user: str
    organisation: str
    """For people: the organisation's full name."""
    token: str = ""
    """The bearer token, given once, at sign-in."""
    expires: Count


class JobList(Message):
    """A user's jobs, and the version of this list to wait on."""

    version: Count
    jobs: tuple[JobView, ...]


class SessionView(Message):
    """One place where a user is signed in, or a local account that is theirs."""

    id: str
    kind: str
    """``page`` for a session, ``account`` for a local account of a host."""
    name: str
    """Such as «Firefox on Android», or «ada on reception»."""
    created: Count
    used: Count
    """Last; of an account: when it was bound."""
    current: bool = False


class History(Message):
    """Jobs that ended, and where to go on; *next* is empty at the end."""

    jobs: tuple[JobView, ...]
    next: str = ""


class PicturesRequest(Message):
    """Pictures of the first pages of these jobs, their keys sealed to *public*: raw X25519, made for this page view."""

    public: Key
    jobs: Annotated[tuple[JobId, ...], Field(min_length=1, max_length=32)]


class Picture(Message):
    """*picture* is AES-256-GCM: 12 bytes nonce, WebP, 16 bytes tag, additional data the job's id in ASCII. Its key is
    in *key*, as `vault.parts.seal_picture_key` seals it."""

    job: JobId
    picture: Blob
    key: Blob


class UploadRequest(Message):
    """A document that is about to be uploaded."""

    title: Name
    content_type: Name
    size: Count
    """Bytes of the document itself."""
    site: str = ""
    """Whose node is to take it; empty: any of the organisation's."""


class UploadOffer(Message):
    """Seal the document to *public* and PUT it.

    The body is a fresh 32-byte key as `vault.parts.seal_upload_key` seals it (80 bytes), then the document in pieces of
    `UPLOAD_PIECE` bytes, the last one shorter and perhaps empty, each AES-256-GCM with its tag of 16 bytes behind it.
    The nonce is 7 zero bytes, the piece's number from 0 (4 bytes, big-endian) and 0x01 for the last piece, else 0x00.
    Its Content-Length is `sealed_length` of the size that was asked for. An offer is good for five minutes, once.
    """

    id: str
    public: Key
    limit: Count
    """Bytes of a document."""


UPLOAD_PIECE = 1 << 18
UPLOAD_HEAD = 80
"""Bytes of the sealed key in front."""
UPLOAD_TAG = 16


def sealed_length(size: int) -> int:
    """Bytes that a document of *size* bytes has as the body of a PUT."""
    return UPLOAD_HEAD + size + (size // UPLOAD_PIECE + 1) * UPLOAD_TAG


class PendingLogin(Message):
    """Who wants to be let in by a device code."""

    code: str
    account: str
    host: str
    site: str
    expires: Count


class LoginAnswer(Message):
    """Whether that local account is the caller's."""

    allow: bool
