"""The web API: who may call, how often, and what strangers learn."""

import asyncio
import ssl
import statistics
import time
from pathlib import Path

import pytest
from aiohttp import web
from tests.cloud.office import PASSWORD, Office

from pullprint.base.errors import ConfigError
from pullprint.cloud import app, page, users
from pullprint.cloud.gate import Access, Cloud, check_declared, declared
from pullprint.cloud.users import Passwords

FORGED = {"Signature-Input": "x", "Signature": "y"}


PUBLIC = {*page.VIEWS, "/p/" + "a" * 32, "/sw.js", "/static/page.js", "/api/v1/session",
          "/api/v1/welcome", "/api/v1/welcome/accept"}  # fmt: skip
"""What strangers may see: the page itself, without anything of anybody in it, and the way in."""


def routes(office: Office) -> list[tuple[str, str, Access | None]]:
    """Every route: its method, an address of it, and who may call."""
    cloud = Cloud(office.settings, office.clock, office.store, None, None, "")  # type: ignore[arg-type]
    found = []
    for route in app.build(cloud).router.routes():
        assert route.resource is not None
        path = route.resource.canonical.replace("{id}", "a" * 32).replace("{name}", "page.js")
        path = path.replace("{code}", "7KQ2-M9XD").replace("{which}", "Foyer").replace("{kind}", "png")
        found.append((route.method, path, declared(route.handler)))
    assert len(found) > 15
    return found


async def test_every_route_refuses_those_who_are_not_what_it_declares(office: Office) -> None:
    foreign, token = await office.join("globex"), await office.sign_in("gus@example.com")
    for method, path, who in routes(office):
        if who is Access.ANYONE:
            assert path in PUBLIC, path
            continue
        if who is Access.METRICS:  # which goes by the caller's address: see test_metrics.py
            continue
        assert (await office.ask(method, path)).status == 401, path
        assert (await office.ask(method, path, token="x" * 43)).status == 401, path
        assert (await office.ask(method, path, **FORGED)).status == 401, path
        if who is Access.USER:
            assert (await foreign.call(method, path)).status == 401, path
        else:
            assert (await office.ask(method, path, token=token)).status == 401, path


async def test_every_route_shows_another_organisation_nothing(office: Office) -> None:
    node, foreign, gus = await office.join(), await office.join("globex"), await office.sign_in("gus@example.com")
    held = await node.hold(title="MARKER", claim_code="7KQ2-M9XD", owner="")
    owned = await node.hold(title="MARKER")
    bodies = {"release": {"printer": "Foyer"}, "claim": {"code": "7KQ2-M9XD"}}
    for method, path, who in routes(office):
        if path.endswith(("session", "sessions")) or path == "/api/v1/events":  # which does not end: see test_stream.py
            continue
        for job in (held, owned):
            there = path.replace("a" * 32, job)
            body = bodies.get(path.rpartition("/")[2], {}) if method == "POST" else None
            if who is Access.USER:
                answer = await office.ask(method, there, body, gus)
            elif who is Access.NODE and not path.endswith("inbox"):
                answer = await foreign.call(
                    method, there, {"job": job, "printer": office.printer, "by": "gus@example.com"}
                )
            else:
                continue
            assert answer.status == 404 or ("MARKER" not in str(answer.body) and "Foyer" not in str(answer.body)), there
            assert answer.status != 202


async def test_route_that_declares_nothing_stops_the_start(office: Office) -> None:
    async def forgotten(_: web.Request) -> web.Response:
        return web.Response()

    careless = web.Application()
    careless.router.add_get("/forgotten", forgotten)
    with pytest.raises(ConfigError, match="forgotten"):
        check_declared(careless)


async def test_session_by_cookie_ends_at_sign_out_when_idle_and_when_old(office: Office) -> None:
    answer = await office.ask("POST", "/api/v1/session", {"name": "ADA@example.com", "password": PASSWORD})
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith("__Host-pullprint=") and "SameSite=Strict" in cookie and "HttpOnly" in cookie
    assert "Secure" in cookie and "Domain" not in cookie and answer.headers["Cache-Control"] == "no-store"
    token = answer.body["token"]
    shown = await office.ask("GET", "/api/v1/session", Cookie=f"__Host-pullprint={token}")
    assert (shown.body["user"], shown.body["organisation"], shown.body["token"]) == ("ada@example.com", "Acme", "")
    new = await office.ask("POST", "/api/v1/session", {"name": "ada@example.com", "password": PASSWORD}, token)
    assert new.status == 201 and new.body["token"] != token
    assert (await office.ask("GET", "/api/v1/session", token=token)).status == 401, "the old one is replaced"
    token = new.body["token"]
    assert (await office.ask("DELETE", "/api/v1/session", token=token)).status == 204
    assert (await office.ask("GET", "/api/v1/session", token=token)).code == "not-signed-in"
    token = await office.sign_in()
    for _ in range(20):
        office.clock.shift += 11 * 3_600
        last = (await office.ask("GET", "/api/v1/session", token=token)).status
    assert last == 401, "a session ends after a week, however it is used"
    token = await office.sign_in()
    office.clock.shift += 13 * 3_600
    assert (await office.ask("GET", "/api/v1/session", token=token)).status == 401


async def test_wrong_password_and_unknown_user_look_alike_and_are_throttled(office: Office) -> None:
    wrong = await office.ask("POST", "/api/v1/session", {"name": "ada@example.com", "password": "x"})
    unknown = await office.ask("POST", "/api/v1/session", {"name": "nobody@example.com", "password": "x"})
    assert (wrong.status, wrong.body) == (unknown.status, unknown.body) and wrong.status == 401
    tries = [office.ask("POST", "/api/v1/session", {"name": "ada@example.com", "password": "x"}) for _ in range(20)]
    statuses = [answer.status for answer in await asyncio.gather(*tries)]
    assert statuses.count(401) == 5 and statuses.count(429) == 15
    right = await office.ask("POST", "/api/v1/session", {"name": "ada@example.com", "password": PASSWORD})
    assert right.status == 429 and int(right.headers["Retry-After"]) > 200
    office.clock.shift = 301
    await office.sign_in()


async def test_signing_in_rightly_is_not_throttled(office: Office) -> None:
    for _ in range(40):
        await office.sign_in()


async def test_unknown_user_takes_as_long_as_a_known_one() -> None:
    passwords = Passwords()
    known: list[float] = []
    unknown: list[float] = []
    encoded = users.hash_password(PASSWORD)
    try:
        for _ in range(5):
            for account, taken in ((encoded, known), (users.NO_PASSWORD, unknown)):
                begin = time.perf_counter()
                assert not await passwords.check("", account), "also not with the decoy's own password"
                taken.append(time.perf_counter() - begin)
        assert await passwords.check(PASSWORD, encoded)
    finally:
        passwords.close()
    assert 0.5 < statistics.median(known) / statistics.median(unknown) < 2


async def test_same_name_and_password_in_two_organisations_asks_which(office: Office) -> None:
    office.add_organisation("initech")
    body = {"name": "ada@example.com", "password": PASSWORD}
    assert (await office.ask("POST", "/api/v1/session", body)).code == "which-organisation"
    answer = await office.ask("POST", "/api/v1/session", {**body, "organisation": "initech"})
    assert (answer.status, answer.body["organisation"]) == (201, "Initech")


async def test_claim_gives_the_job_to_whoever_has_its_code_and_guessing_is_throttled(office: Office) -> None:
    node, token = await office.join(managed=False), await office.sign_in()
    held = await node.hold(claim_code="7KQ2-M9XD")
    assert (await office.ask("GET", f"/api/v1/jobs/{held}", token=token)).status == 404
    gus = await office.sign_in("gus@example.com")
    assert (await office.ask("POST", "/api/v1/claim", {"code": "7KQ2-M9XD"}, gus)).code == "claim-refused"
    claimed = await office.ask("POST", "/api/v1/claim", {"code": "7kq2 m9xd"}, token)
    assert (claimed.status, claimed.body["owner"], claimed.body["claim_code"]) == (200, "ada@example.com", "")
    item = await node.poll_for("owner")
    assert (item["job"], item["owner"]) == (held, "ada@example.com")
    assert (await office.ask("POST", "/api/v1/claim", {"code": "7KQ2-M9XD"}, token)).code == "claim-refused"
    # The node's next report, made before it heard of it, takes nothing back.
    await node.report({**node.job_report(), "job": held, "claim_code": "7KQ2-M9XD"})
    assert (await office.ask("GET", f"/api/v1/jobs/{held}", token=token)).body["owner"] == "ada@example.com"
    statuses = [(await office.ask("POST", "/api/v1/claim", {"code": "AAAA-AAAA"}, token)).status for _ in range(12)]
    assert statuses == [404] * 8 + [429] * 4


async def test_list_parks_until_something_changes_and_no_longer(office: Office) -> None:
    node, token = await office.join(), await office.sign_in()
    first = (await office.ask("GET", "/api/v1/jobs", token=token)).body
    parked = asyncio.create_task(office.ask("GET", f"/api/v1/jobs?since={first['version']}&wait=20", token=token))
    await asyncio.sleep(0.2)
    assert not parked.done()
    held = await node.hold()
    async with asyncio.timeout(2):
        listing = (await parked).body
    assert [view["id"] for view in listing["jobs"]] == [held] and listing["version"] > first["version"]
    begin = time.perf_counter()
    same = await office.ask("GET", f"/api/v1/jobs?since={listing['version']}&wait=1", token=token)
    assert same.body == listing and 0.9 < time.perf_counter() - begin < 3
    await node.report_state(held, "done")
    office.clock.shift = 86_500
    token = await office.sign_in()
    assert (await office.ask("GET", "/api/v1/jobs", token=token)).body["jobs"] == []


async def test_foreign_page_cannot_act_with_the_cookie(office: Office) -> None:
    node, token = await office.join(), await office.sign_in()
    path = f"/api/v1/jobs/{await node.hold()}/release"
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert (await office.ask("POST", path, b"printer=Foyer", token, **form)).status == 400
    assert (await office.ask("POST", path, {"printer": "Foyer"}, token, **{"Content-Type": "text/plain"})).status == 400
    crossed = await office.ask("POST", path, {"printer": "Foyer"}, token, **{"Sec-Fetch-Site": "cross-site"})
    assert crossed.code == "not-allowed"


async def announce(office: Office, path: str, length: int, headers: str) -> int:
    """The status of the answer to a POST of which only the head is sent; the cloud soon hangs up."""
    context = ssl.create_default_context(cafile=office.authority)
    port = int(office.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="127.0.0.1")
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n"
    writer.write(f"{head}{headers}\r\n".encode())
    async with asyncio.timeout(5):
        line, _ = await reader.readline(), await reader.read()
    writer.close()
    await writer.wait_closed()
    return int(line.split()[1])


async def test_bodies_that_are_too_large_compressed_or_never_come_are_refused(office: Office) -> None:
    token, node = await office.sign_in(), await office.join()
    signed = "".join(f"{name}: {value}\r\n" for name, value in node.signed("POST", "/node/v1/events").items())
    bearer = f"Authorization: Bearer {token}\r\n"
    stranger = signed.replace(node.id, "0" * 32)
    announced = [
        ("/api/v1/claim", 1 << 18, bearer, 413),
        ("/api/v1/claim", 1 << 18, "", 401),
        ("/api/v1/session", 1 << 18, "", 413),
        ("/node/v1/events", 17 << 20, signed, 413),
        ("/node/v1/events", 1 << 18, stranger, 413),
        ("/node/v1/enrol", 1 << 18, signed, 413),
        ("/node/v1/enrol", 1 << 18, "", 401),
    ]
    statuses = await asyncio.gather(*(announce(office, *rest) for *rest, _ in announced))
    assert statuses == [status for *_, status in announced]
    squeezed = await office.ask("POST", "/api/v1/claim", b"{}", token, **{"Content-Encoding": "gzip"})
    assert squeezed.status == 400
    assert (await office.ask("GET", "/nowhere")).code == "not-found"
    assert (await office.ask("PATCH", "/api/v1/session")).code == "method-refused"


async def test_page_comes_with_a_policy_that_lets_in_nothing_else(office: Office, tmp_path: Path) -> None:
    (tmp_path / "static").mkdir()
    (tmp_path / "index.html").write_text("<!doctype html>")
    (tmp_path / "static" / "page.js").write_text("1")
    (tmp_path / "static" / "notes.txt").write_text("secret")
    site = web.Application()
    page.add(site, tmp_path)
    check_declared(site)
    runner = web.AppRunner(site)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with office.http.get(url + "/") as answer:
            assert answer.status == 200 and answer.headers["Content-Security-Policy"] == page.POLICY
            tag = answer.headers["ETag"]
        async with office.http.get(url + "/", headers={"If-None-Match": tag}) as answer:
            assert answer.status == 304
        async with office.http.get(url + "/static/page.js") as answer:
            assert answer.content_type == "text/javascript"
    finally:
        await runner.cleanup()
    for path in ("/static/notes.txt", "/static/..%2findex.html", "/static/nothing"):
        found = await office.ask("GET", path)
        assert found.status == 404 and found.headers["X-Content-Type-Options"] == "nosniff"
