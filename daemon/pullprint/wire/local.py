"""Between the ``pullprint`` command and pullprintd: HTTP on a Unix socket, the caller known by the peer's uid.

====================================  ====================  ==========================================================
request                               answer                who
====================================  ====================  ==========================================================
``GET /v1/status``                    `StatusView`          anyone on this host
``GET /v1/printers``                  list of `PrinterView` anyone on this host
``GET /v1/jobs``                      list of `JobView`     own jobs; root sees all with ``?all=1``
``GET /v1/jobs/{id}``                 `JobView`             owner, root
``GET /v1/jobs/{id}/trace``           list of `StepView`    owner, root; ``?after=N&wait=S`` parks until there is more
``POST /v1/jobs/{id}/release``        `JobView`             owner: `ReleaseRequest`
``POST /v1/jobs/{id}/settle``         `JobView`             owner: "it came out"
``DELETE /v1/jobs/{id}``              `JobView`             owner, root
``GET /v1/mesh``                      `MeshView`            anyone on this host; its jobs for root only
``GET /metrics``                      text              anyone on this host; for Prometheus (text format 0.0.4)
``GET /v1/doctor``                    list of `FindingView` anyone on this host
``POST /v1/join``                     `StatusView`          root and the daemon's own account: `JoinRequest`
``POST /v1/sleep``                    `loans.SleepView`     the same: this host goes to sleep, its votes to the cloud
``POST /v1/wake``                     `loans.SleepView`     the same: it is awake
``POST /v1/login``                    `LoginView`           anyone on this host, for the calling account
``GET /v1/login``                     `LoginView`           the same account: how it stands; ``?wait=S`` parks while
                                                            nobody has answered
``DELETE /v1/login``                  `LoginView`           the same account: it is not wanted any more
====================================  ====================  ==========================================================

``{id}`` may be the beginning of a job id, if it is unique among the caller's jobs.
"""

from pullprint.base.platform import CONTROL_SOCKET

SOCKET = CONTROL_SOCKET
BODY_LIMIT = 1 << 20
ANSWER_LIMIT = 16 << 20
WAIT_LIMIT = 25.0
"""Seconds that a request parks at most."""
