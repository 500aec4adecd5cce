"""What the backend sends with a document's descriptor: one JSON line, checked here.

The backend cannot import this (it starts an interpreter for every job); ``tests/test_backend.py`` holds the two
together. A second line, ``drop``, takes the document back. Answers are one line: ``stored <job id> <sentence>``,
``refused <sentence>`` or ``later <sentence>``.
"""

import json
import re

from pullprint.base.errors import PullprintError
from pullprint.base.platform import INTAKE_SOCKET
from pullprint.base.text import printable
from pullprint.model.job import CONTENT_TYPE, JOB_UUID, TITLE_LIMIT, UNTITLED, Submission
from pullprint.model.ticket import Ticket

SOCKET = INTAKE_SOCKET
LINE_LIMIT = 1 << 18
"""Bytes of the line, its newline included."""
ANSWER_LIMIT = 4_096
_NAME_LIMIT = 255
_QUEUE = re.compile(r"[^\x00-\x20\x7f/#]{1,127}")  # CUPS's own rule for queue names


class LineRefused(PullprintError):
    """Pullprint did not understand its print backend: {reason}. The job stays in CUPS; the versions may not fit."""

    code = "line-refused"
    http_status = 400


def read_line(line: bytes) -> Submission:
    """The submission that *line* describes. Raises LineRefused, or TicketRefused for options beyond the limits."""
    if len(line) > LINE_LIMIT:
        raise LineRefused(reason="the line is too long")
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise LineRefused(reason="the line is not JSON") from error
    if not isinstance(values, dict) or values.get("v") != 1:
        raise LineRefused(reason="the line is not of version 1")
    uuid = _text(values, "job_uuid").lower()
    queue = _text(values, "queue")
    content_type = _text(values, "content_type").lower()
    if not JOB_UUID.fullmatch(uuid):
        raise LineRefused(reason="job_uuid is not a UUID")
    if not _QUEUE.fullmatch(queue) or printable(queue, 127) != queue:
        raise LineRefused(reason="queue is not a queue's name")
    if not CONTENT_TYPE.fullmatch(content_type):
        raise LineRefused(reason="content_type is not a media type")
    return Submission(
        job_uuid=uuid,
        cups_job_id=_number(values, "cups_job_id"),
        queue=queue,
        device_uri=printable(_text(values, "device_uri"), 1_023),
        submitter=printable(_text(values, "user"), _NAME_LIMIT),
        host=printable(_text(values, "host"), _NAME_LIMIT),
        title=printable(_text(values, "title"), TITLE_LIMIT).strip() or UNTITLED,
        content_type=content_type,
        ticket=Ticket.from_cups(_number(values, "copies"), _text(values, "options")),
    )


def _text(values: dict[str, object], name: str) -> str:
    value = values.get(name)
    if not isinstance(value, str):
        raise LineRefused(reason=f"{name} is missing")
    return value


def _number(values: dict[str, object], name: str) -> int:
    value = values.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 1 << 53:
        raise LineRefused(reason=f"{name} is not a number")
    return value
