"""What people and their programs are shown: the same words on the page's API and on the node's local socket."""

from typing import Annotated

from pydantic import Field

from pullprint.wire.types import Count, Message, WireFacts, WireTicket


class JobView(Message):
    """A job as its owner sees it."""

    id: str
    title: str
    owner: str
    submitter: str
    host: str
    queue: str
    node: str
    """Name of the host that holds it."""
    state: str
    """A word of `model.states.State`."""
    sentence: str
    """What is the matter with it, or what to do now."""
    content_type: str
    size: Count
    ticket: WireTicket
    facts: WireFacts | None
    created: Count
    expires: Count
    direct_printer: str = ""
    claim_code: str = ""
    """Shown to the submitter of a job without an owner only."""
    doubtful: tuple[int, ...] = ()
    """Ballots that must be named to print an uncertain job again."""
    site: str = ""
    trouble: bool = False
    """The last attempt to print it came to nothing; the sentence says why."""
    printer: str = ""
    """Name of the printer that it is or was sent to."""
    printed: Count | None = None
    """Pages that came out so far, as the printer counts; of an ended job: all of them."""
    picture: bool = False
    """There is a picture of its first page: see `PicturesRequest`."""
    ended: Count | None = None
    copies: Count = 0
    """Holders; 0: not known."""
    awake: Count = 0
    """Those of them that are awake."""
    holders: tuple[str, ...] = ()
    """Their names, this host or the host that it came from first."""


class StepView(Message):
    """One step of a job's trace."""

    at: float
    host: str
    event: str
    text: str
    detail: dict[str, str] = Field(default_factory=dict)


class CapabilitiesView(Message):
    """What a printer can do, in IPP's own words; only what it said itself."""

    color: bool | None = None
    """None: it did not say."""
    sides: Annotated[tuple[str, ...], Field(max_length=16)] = ()
    """``one-sided``, ``two-sided-long-edge``, ``two-sided-short-edge``; empty: it did not say."""
    media: Annotated[tuple[str, ...], Field(max_length=64)] = ()
    """PWG 5101.1 names such as ``iso_a4_210x297mm``; those that are loaded, if it says so, come first."""
    page_ranges: bool = False
    copies: Annotated[int, Field(ge=1, le=9_999)] = 1
    """The most copies of one job; 1 also where it did not say."""


class PrinterView(Message):
    """A printer to choose."""

    id: str
    name: str
    place: str = ""
    site: str = ""
    code: str = ""
    """Short, to type instead of scanning the QR code; unique in the organisation. Not a secret."""
    ready: bool | None = None
    """Whether it answered lately; None: nobody has asked it."""
    trouble: str = ""
    """What it complains of, such as «The printer is out of paper.»"""
    can: CapabilitiesView | None = None


class ReleaseRequest(Message):
    """Print this job there."""

    printer: Annotated[str, Field(min_length=1, max_length=255)]
    """Id or name."""
    changes: dict[str, str] = Field(default_factory=dict, max_length=64)
    """IPP names and values that replace those of the ticket; ``copies`` is one."""
    again: bool = False
    """Print although an earlier attempt may have come out: only after the owner was asked."""
    doubtful: tuple[int, ...] | None = Field(default=None, max_length=1_000)
    """Which attempts the owner was asked about, as `JobView` named them: others stop the release. None: those that are
    in doubt when this arrives."""


class ClaimRequest(Message):
    """The code that the submitter of an unclaimed job was shown."""

    code: Annotated[str, Field(max_length=64)]


class FindingView(Message):
    """One line of ``pullprint doctor``."""

    level: str
    """``ok``, ``warn`` or ``bad``."""
    what: str
    advice: str = ""


class StatusView(Message):
    """How this node is."""

    version: str
    joined: bool
    node: str = ""
    name: str = ""
    organisation: str = ""
    site: str = ""
    cloud: str = ""
    connected: bool = False
    connected_since: float = 0.0
    sentence: str = ""
    held: Count = 0
    unclaimed: Count = 0
    uncertain: Count = 0
    stored_bytes: Count = 0
    unreported: Count = 0
    """Events that the cloud has not acknowledged yet."""
    cloud_version: str = ""
    """What the cloud runs, as it said at the last connect."""
    config_trouble: str = ""
    """What is the matter with the configuration file; empty when nothing is."""


class MeshNodeView(Message):
    """A node of the site, as this one (or the cloud) sees it."""

    node: str
    name: str
    role: str
    """A word of `model.placement.Role`."""
    here: bool = False
    """It is the one that answers."""
    awake: bool = False
    endpoint: str = ""
    """Where it was reached last."""
    version: str = ""
    held: Count = 0
    """Jobs that it holds."""
    room: Count = 0
    """Bytes that it would still store for others."""
    lag: float | None = None
    """Seconds that its last answer took; None: there was none lately."""
    owed: Count = 0
    """Messages that wait for it."""
    trouble: str = ""
    """Why it cannot be reached."""


class MeshJobView(Message):
    """A held job and its copies."""

    id: str
    state: str
    generation: Count
    holders: tuple[str, ...]
    """Node ids."""
    promised: Count = 0
    """The highest ballot that this node promised."""
    attempts: tuple[str, ...] = ()
    """Those that this node voted for, such as «3 by reception: nothing sent»."""


class MeshView(Message):
    """``pullprint mesh``: the site's nodes and, for root, the jobs on this one."""

    site: str
    revision: Count
    """Of the roster."""
    nodes: tuple[MeshNodeView, ...]
    jobs: tuple[MeshJobView, ...] = ()
    placed: Count = 0
    """Jobs held here that have all the copies that they should."""
    short: Count = 0
    """Jobs held here that still lack copies."""


class JoinRequest(Message):
    """``pullprint join``; root only."""

    cloud: Annotated[str, Field(max_length=1_000)]
    code: Annotated[str, Field(max_length=64)]
    authority: Annotated[str, Field(max_length=65_536)] = ""
    """PEM of a private CA that the cloud's certificate comes from; empty for the system's."""


class LoginRequest(Message):
    """``pullprint login``: the caller's local account wants to be a user of the organisation."""


class LoginView(Message):
    """A device authorization response (RFC 8628, 3.2) and how it stands."""

    user_code: str
    verification_uri: str
    verification_uri_complete: str
    """With the code in it: what the QR code says."""
    expires_in: Count
    """Seconds from now."""
    interval: Count
    """Seconds between two looks at it."""
    state: str = "pending"
    """``pending``, ``allowed``, ``denied`` or ``expired``."""
    user: str = ""
    """Who allowed it."""
