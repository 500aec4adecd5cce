"""A job: what was submitted, by whom, and what is known of it."""

import hashlib
import re
import secrets
from dataclasses import dataclass

from pullprint.model.ticket import Ticket

JOB_ID = re.compile(r"[0-9a-f]{32}")
JOB_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
CONTENT_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}")  # RFC 6838 4.2
TITLE_LIMIT = 255
"""Characters; IPP's own limit for job-name (RFC 8011 5.1.3: name, 255 octets) in a kinder unit."""
UNTITLED = "Untitled"


def new_job_id() -> str:
    """A fresh job id: 128 random bits as 32 lower-case hex digits; users type as much of it as is unique."""
    return secrets.token_hex(16)


def attempt_name(job: str, ballot: int) -> str:
    """What a printer is told as the name of *job* in attempt *ballot*: 128 bits as hex digits that mean nothing to it,
    and by which every holder can ask for it later."""
    return hashlib.sha256(f"pullprint attempt {job} {ballot}".encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Submission:
    """What the backend hands over with a document."""

    job_uuid: str
    """The bare UUID of IPP's job-uuid; the same for every run of the backend for one job."""
    cups_job_id: int
    queue: str
    device_uri: str
    submitter: str
    """The local account, or what the client claimed to be (requesting-user-name)."""
    host: str
    """job-originating-host-name, or empty."""
    title: str
    content_type: str
    ticket: Ticket


@dataclass(frozen=True, slots=True)
class Context:
    """What a sealed job is bound to; hashed into its payload key and readable in its header.

    Whoever changes a byte of it can no longer open the job.
    """

    organisation: str
    site: str
    origin_node: str
    queue: str
    owner: str
    """The user's name in the organisation, or empty while nobody owns the job."""
    submitter: str
    job_uuid: str
    title: str
    content_type: str
    ticket: Ticket
    direct_printer: str
    """The printer's name for a direct queue, else empty."""
    created: int
    """Seconds since the epoch, by the origin node's clock."""
