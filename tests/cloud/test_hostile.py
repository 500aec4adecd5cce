"""Whatever is sent, the cloud answers with a sentence, never breaks, and logs nothing of it."""

import json
import logging

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.cloud.office import Office

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def broken(good: dict) -> st.SearchStrategy[bytes]:
    """*good* with a field changed, or something else altogether."""
    changed = st.tuples(st.sampled_from(sorted(good)), JSON).map(lambda pair: {**good, pair[0]: pair[1]})
    return st.one_of(
        changed.map(lambda v: json.dumps(v).encode()),
        JSON.map(lambda v: json.dumps(v).encode()),
        st.binary(max_size=80),
    )


@pytest.mark.parametrize(
    "route",
    ["session", "claim", "release", "events", "reconcile", "releases", "enrol", "login", "logins", "token", "uploads",
     "welcome", "accept"],
)  # fmt: skip
async def test_hostile_body_is_answered_with_a_sentence(
    office: Office, route: str, caplog: pytest.LogCaptureFixture
) -> None:
    node, token = await office.join(), await office.sign_in()
    held = await node.hold(title="SECRET-TITLE")
    key = json.loads(node.party_key.model_dump_json())
    report = node.job_report(title="SECRET-TITLE")
    good, path = {
        "session": ({"name": "n", "password": "p", "organisation": ""}, "/api/v1/session"),
        "claim": ({"code": "AAAA-AAAA"}, "/api/v1/claim"),
        "release": ({"printer": "none", "changes": {}, "again": False}, f"/api/v1/jobs/{held}/release"),
        "events": (report, "/node/v1/events"),
        "reconcile": ({"epoch": "e", "version": "1", "key": key, "last_event": 0, "jobs": []}, "/node/v1/reconcile"),
        "releases": ({"job": held, "printer": "none", "by": "x", "forces": [1], "changes": {}}, "/node/v1/releases"),
        "enrol": (node.enrolment("AAAA-AAAA"), "/node/v1/enrol"),
        "login": ({"allow": True}, "/api/v1/logins/AAAA-AAAA"),
        "logins": ({"account": "SECRET-TITLE"}, "/node/v1/logins"),
        "token": ({"device_code": "x", "grant_type": "x"}, "/node/v1/logins/token"),
        "welcome": ({"token": "x"}, "/api/v1/welcome"),
        "accept": ({"token": "x", "password": "SECRET-TITLE", "remember": False}, "/api/v1/welcome/accept"),
        "uploads": ({"title": "t", "content_type": "text/plain", "size": 1, "site": ""}, "/api/v1/uploads"),
    }[route]  # fmt: skip
    bodies: list[bytes] = []
    SETTINGS(given(broken(good))(lambda body: bodies.append(body)))()
    for n, raw in enumerate(bodies, 1):
        body = raw
        if route == "events":
            body = b'{"epoch": "e", "events": [{"n": %d, "report": %s}]}' % (n, raw)
        if path.startswith("/node"):
            answer = await node.call("POST", path, body)
        else:
            answer = await office.ask("POST", path, body, token)
        assert answer.status < 500, (raw, answer)
        assert answer.status in (200, 201) or answer.body["sentence"], raw
    caplog.set_level(logging.DEBUG)
    assert "SECRET-TITLE" not in caplog.text


async def test_hostile_queries_and_paths_are_answered_with_a_sentence(office: Office) -> None:
    node, token = await office.join(), await office.sign_in()
    for query in ("since=-1", "since=x", "since=9999999999999999", "since=1.5", "since=%00", "since=²"):
        assert (await node.call("GET", "/node/v1/inbox", query=query)).status in (400, 401)
        assert (await office.ask("GET", f"/api/v1/jobs?{query}", token=token)).status == 400
    for job in ("x", "a" * 31, "A" * 32, "%2e%2e", "a" * 5000):
        assert (await office.ask("GET", f"/api/v1/jobs/{job}", token=token)).status == 404
