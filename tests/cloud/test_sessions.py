"""Sessions that last, the list of them, and how they end."""

import asyncio
import time

import pytest
from tests.cloud.office import PASSWORD, Answer, Office

from pullprint.cloud.user_agent import describe

DAY = 86_400
PIXEL = "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Mobile Safari/537.36"
IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 "
    "Mobile/15E148 Safari/604.1"
)
WINDOWS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36"
)


async def enter(office: Office, *, remember: bool = False, agent: str = PIXEL, token: str = "") -> Answer:
    """A sign-in from a browser."""
    body = {"name": "ada@example.com", "password": PASSWORD, "remember": remember}
    answer = await office.ask("POST", "/api/v1/session", body, token, **{"User-Agent": agent})
    assert answer.status == 201
    return answer


async def status(office: Office, token: str) -> int:
    return (await office.ask("GET", "/api/v1/session", token=token)).status


async def test_remembered_session_lasts_for_weeks_of_idleness_and_half_a_year_at_most(office: Office) -> None:
    answer = await enter(office, remember=True)
    token = answer.body["token"]
    assert f"Max-Age={180 * DAY};" in answer.headers["Set-Cookie"]
    office.clock.shift += 29 * DAY
    assert await status(office, token) == 200
    for _ in range(6):
        office.clock.shift += 25 * DAY
        assert await status(office, token) == 200
    office.clock.shift += 2 * DAY
    assert await status(office, token) == 401, "after half a year, however it is used"
    token = (await enter(office, remember=True)).body["token"]
    office.clock.shift += 31 * DAY
    assert await status(office, token) == 401


async def test_session_that_is_not_remembered_goes_with_the_browser_and_after_hours(office: Office) -> None:
    answer = await enter(office)
    assert "max-age" not in answer.headers["Set-Cookie"].lower()
    assert "expires" not in answer.headers["Set-Cookie"].lower()
    office.clock.shift += 12 * 3_600 + 1
    assert await status(office, answer.body["token"]) == 401


async def test_list_names_each_place_and_one_of_them_can_be_ended(office: Office) -> None:
    phone = (await enter(office, remember=True)).body["token"]
    office.clock.shift += 400
    desk = (await enter(office, agent=WINDOWS)).body["token"]
    listed = (await office.ask("GET", "/api/v1/sessions", token=phone)).body
    assert [(s["name"], s["kind"], s["current"]) for s in listed] == [
        ("Chrome on Android", "page", True),
        ("Chrome on Windows", "page", False),
    ], "the phone has just been used"
    assert all(abs(s["created"] - office.clock.now()) < 500 and s["used"] >= s["created"] for s in listed)
    assert phone not in str(listed) and desk not in str(listed)
    assert (await office.ask("DELETE", f"/api/v1/sessions/{listed[1]['id']}", token=phone)).status == 204
    assert (await status(office, desk), await status(office, phone)) == (401, 200)
    again = await office.ask("DELETE", f"/api/v1/sessions/{listed[1]['id']}", token=phone)
    assert again.code == "not-found"


async def test_nobody_else_sees_or_ends_a_session(office: Office) -> None:
    ada, gus = (await enter(office)).body["token"], await office.sign_in("gus@example.com")
    listed = (await office.ask("GET", "/api/v1/sessions", token=ada)).body
    assert len((await office.ask("GET", "/api/v1/sessions", token=gus)).body) == 1
    for which in (listed[0]["id"], "", "%00", "x" * 4_000, "' OR 1=1"):
        assert (await office.ask("DELETE", f"/api/v1/sessions/{which}", token=gus)).status == 404, which
    await office.ask("DELETE", "/api/v1/sessions", token=gus)
    assert (await status(office, gus), await status(office, ada)) == (401, 200)


async def test_everywhere_ends_all_of_them_and_this_one_too(office: Office) -> None:
    tokens = [(await enter(office, remember=remember)).body["token"] for remember in (True, False, True)]
    answer = await office.ask("DELETE", "/api/v1/sessions", token=tokens[0])
    assert answer.status == 204 and '__Host-pullprint=""' in answer.headers["Set-Cookie"]
    assert [await status(office, token) for token in tokens] == [401, 401, 401]


async def test_what_is_parked_under_a_session_ends_with_it(office: Office) -> None:
    away, here = (await enter(office)).body["token"], (await enter(office)).body["token"]
    version = (await office.ask("GET", "/api/v1/jobs", token=away)).body["version"]
    parked = asyncio.create_task(office.ask("GET", f"/api/v1/jobs?since={version}&wait=20", token=away))
    other = asyncio.create_task(office.ask("GET", f"/api/v1/jobs?since={version}&wait=2", token=here))
    await asyncio.sleep(0.3)
    assert not parked.done()
    listed = (await office.ask("GET", "/api/v1/sessions", token=here)).body
    theirs = next(s["id"] for s in listed if not s["current"])
    begin = time.perf_counter()
    await office.ask("DELETE", f"/api/v1/sessions/{theirs}", token=here)
    assert (await parked).status == 401 and time.perf_counter() - begin < 2
    assert (await other).status == 200, "the other session goes on waiting"


async def test_live_view_is_told_that_its_session_is_over(office: Office) -> None:
    away, here = (await enter(office)).body["token"], (await enter(office)).body["token"]
    bearer = {"Authorization": f"Bearer {away}"}
    async with asyncio.timeout(5), office.http.get(f"{office.url}/api/v1/events", headers=bearer) as stream:
        assert await stream.content.readline() == b"event: jobs\n"
        await office.ask("DELETE", "/api/v1/sessions", token=here)
        rest = await stream.content.read()
    assert rest.endswith(b"event: ended\ndata:\n\n")


@pytest.mark.parametrize(
    ("agent", "name"),
    [
        (PIXEL, "Chrome on Android"),
        (IPHONE, "Safari on iPhone"),
        (WINDOWS, "Chrome on Windows"),
        (WINDOWS + " Edg/126.0.0.0", "Edge on Windows"),
        (WINDOWS + " OPR/112.0.0.0", "Opera on Windows"),
        (IPHONE.replace("Version/", "CriOS/126.0 Version/"), "Chrome on iPhone"),
        ("Mozilla/5.0 (Android 14; Mobile; rv:127.0) Gecko/127.0 Firefox/127.0", "Firefox on Android"),
        ("Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0", "Firefox on Linux"),
        (IPHONE.replace("iPhone; CPU iPhone OS 17_5 like", "Macintosh; Intel"), "Safari on Mac"),
        ("Mozilla/5.0", "A browser"),
        ("curl/8.7.1", "A program"),
        ("", "A program"),
        ("Mozilla/5.0 <script>alert(1)</script>\u202e\x1b[31m", "A browser"),
        ("Mozilla/5.0 " + "x" * 5_000 + "Firefox/127.0", "A browser"),
        ("Firefox on Windows", "A program"),
    ],
)
def test_browser_is_told_in_words_of_ours(agent: str, name: str) -> None:
    assert describe(agent) == name
