"""The cloud's HTTP API, which its own page uses and anyone may.

JSON both ways. The session is a cookie (``__Host-pullprint``: Secure, HttpOnly, SameSite=Strict) or, for programs, the
same token as ``Authorization: Bearer``. Every change needs ``Content-Type: application/json``, which a foreign page
cannot send without the cloud's consent. Failures are `wire.node.Failure` with the error's HTTP status.

====================================  =======================  =====================================================
request                               answer                   who
====================================  =======================  =====================================================
``POST /api/v1/session``              `Session`, 201           anyone: `SignIn`; throttled by name and address
``GET /api/v1/session``               `Session`                signed in
``DELETE /api/v1/session``            204                      signed in
``GET /api/v1/jobs``                  `JobList`                own jobs, newest first, also those that ended lately;
                                                               ``?since=V&wait=S`` parks until version V is outdated
``GET /api/v1/jobs/{id}``             `JobView`                owner
``GET /api/v1/jobs/{id}/trace``       list of `StepView`       owner
``POST /api/v1/jobs/{id}/release``    `JobView`, 202           owner: `ReleaseRequest`
``POST /api/v1/jobs/{id}/settle``     `JobView`                owner: an uncertain job came out
``DELETE /api/v1/jobs/{id}``          `JobView`, 202           owner
``POST /api/v1/claim``                `JobView`                signed in: `ClaimRequest`; throttled
``GET /api/v1/printers``              list of `PrinterView`    signed in
====================================  =======================  =====================================================
"""

from typing import Annotated

from pydantic import Field, SecretStr

from pullprint.wire.types import Count, Message, Name
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
