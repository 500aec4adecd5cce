"""Links with which a user chooses a password: once, in time, and without a trace of the token."""

import asyncio
import json
import logging
import sqlite3
from pathlib import Path

import pytest
from tests.cloud.office import PASSWORD, Answer, Office
from tests.cloud.test_server import command, write_settings

from pullprint.base.errors import BadRequest, NotFound
from pullprint.cloud import housekeeping, invitations, throttle, users
from pullprint.cloud.tables import invitation

ADA = "ada@example.com"
CHOSEN = "another horse, another staple"
HOUR = 3_600


def invite(office: Office, user: str = ADA, hours: int = invitations.HOURS, organisation: str = "acme") -> str:
    return office.store.transact(invitations.invite, organisation, user, hours)


async def show(office: Office, token: str) -> Answer:
    return await office.ask("POST", "/api/v1/welcome", {"token": token})


async def accept(office: Office, token: str, password: str = CHOSEN, session: str = "", **more: object) -> Answer:
    return await office.ask("POST", "/api/v1/welcome/accept", {"token": token, "password": password, **more}, session)


async def sign_in(office: Office, password: str, user: str = ADA) -> int:
    return (await office.ask("POST", "/api/v1/session", {"name": user, "password": password})).status


async def test_invited_user_chooses_a_password_and_is_signed_in_like_anybody(office: Office) -> None:
    office.store.transact(users.add, "acme", "Eve@example.com", users.NO_PASSWORD)
    token = invite(office, "EVE@example.com")
    for _ in range(2):
        shown = await show(office, token)
        assert (shown.status, shown.body) == (200, {"user": "eve@example.com", "organisation": "Acme"})
        assert shown.headers["Cache-Control"] == "no-store"
    answer = await accept(office, token, remember=True)
    assert answer.status == 201
    assert (answer.body["user"], answer.body["organisation"]) == ("eve@example.com", "Acme")
    ordinary = await office.ask("POST", "/api/v1/session", {"name": ADA, "password": PASSWORD, "remember": True})
    cookies = [each.headers["Set-Cookie"].partition(";") for each in (answer, ordinary)]
    assert cookies[0][0] == f"__Host-pullprint={answer.body['token']}" and cookies[0][2] == cookies[1][2]
    assert (await office.ask("GET", "/api/v1/session", token=answer.body["token"])).body["user"] == "eve@example.com"
    assert await sign_in(office, CHOSEN, "eve@example.com") == 201


async def test_user_who_has_no_password_yet_cannot_sign_in(office: Office) -> None:
    office.store.transact(users.add, "acme", "eve@example.com", users.NO_PASSWORD)
    for password in ("", " ", PASSWORD, users.NO_PASSWORD):
        assert await sign_in(office, password, "eve@example.com") == 401


async def test_link_works_once_and_ends_what_the_old_password_opened(office: Office) -> None:
    before, token = await office.sign_in(), invite(office)
    assert await sign_in(office, PASSWORD) == 201, "an invitation alone changes nothing"
    assert (await accept(office, token)).status == 201
    assert (await office.ask("GET", "/api/v1/session", token=before)).status == 401
    assert (await sign_in(office, PASSWORD), await sign_in(office, CHOSEN)) == (401, 201)
    assert (await accept(office, token, "a third password")).code == "invitation-refused"
    assert await sign_in(office, CHOSEN) == 201


async def test_accepting_replaces_the_session_of_whoever_was_signed_in_there(office: Office) -> None:
    gus = await office.sign_in("gus@example.com")
    assert (await accept(office, invite(office), session=gus)).body["user"] == ADA
    assert (await office.ask("GET", "/api/v1/session", token=gus)).status == 401


async def test_unknown_used_expired_replaced_and_withdrawn_links_look_alike(office: Office) -> None:
    used, expired = invite(office), invite(office, "gus@example.com", 1, "globex")
    assert (await accept(office, used)).status == 201
    office.clock.shift += HOUR + 1
    replaced = invite(office)
    other_password = invite(office)
    assert (await show(office, replaced)).status == 404 and (await show(office, other_password)).status == 200
    office.store.transact(users.set_password, "acme", ADA, users.hash_password(PASSWORD))
    office.store.transact(users.add, "acme", "eve@example.com", users.NO_PASSWORD)
    removed = invite(office, "eve@example.com")
    office.store.transact(users.remove, "acme", "eve@example.com")
    tokens = ("", "x", "x" * 43, "\u00e9\u2028", used, expired, replaced, other_password, removed)
    answers = [each for token in tokens for each in (await show(office, token), await accept(office, token, "short"))]
    assert {(each.status, json.dumps(each.body)) for each in answers} == {
        (404, json.dumps({"code": "invitation-refused", "sentence": invitations.InvitationRefused().sentence}))
    }
    assert await sign_in(office, PASSWORD) == 201


async def test_removed_users_link_is_not_their_successors(office: Office) -> None:
    token = invite(office)
    office.store.transact(users.remove, "acme", ADA)
    office.store.transact(users.add, "acme", ADA, users.NO_PASSWORD)
    assert (await accept(office, token)).status == 404


async def test_link_lasts_for_its_hours(office: Office) -> None:
    token = invite(office, hours=2)
    office.clock.shift += 2 * HOUR - 5
    assert (await show(office, token)).status == 200
    office.clock.shift += 6
    assert (await accept(office, token)).status == 404


async def test_bad_password_does_not_use_the_link_up(office: Office) -> None:
    token = invite(office)
    for password in ("", "seven77", "x" * 1_025):
        assert (await accept(office, token, password)).status == 400
    assert (await accept(office, token, "seven77")).code == "password-refused"
    assert (await accept(office, token, "eight888")).status == 201
    assert await sign_in(office, "eight888") == 201


@pytest.mark.parametrize("hours", [0, -1, invitations.HOURS_LIMIT + 1])
async def test_link_has_at_least_an_hour_and_at_most_a_month(office: Office, hours: int) -> None:
    with pytest.raises(BadRequest):
        invite(office, hours=hours)


async def test_nobody_is_invited_whom_there_is_not(office: Office) -> None:
    for user, organisation in (("nobody@example.com", "acme"), (ADA, "globex"), (ADA, "nowhere")):
        with pytest.raises(NotFound):
            invite(office, user, organisation=organisation)


async def test_two_who_accept_at_once_one_of_them_wins(office: Office) -> None:
    token = invite(office)
    passwords = [f"password number {n}" for n in range(8)]
    answers = await asyncio.gather(*(accept(office, token, password) for password in passwords))
    assert sorted(each.status for each in answers) == [201] + [404] * 7
    [winner] = [password for password, each in zip(passwords, answers, strict=True) if each.status == 201]
    losers = [password for password in passwords if password != winner]
    assert [await sign_in(office, password) for password in (winner, *losers[:3])] == [201, 401, 401, 401]


async def test_invited_many_times_at_once_the_last_link_is_good(office: Office) -> None:
    tokens = await asyncio.gather(*(office.store.run(invitations.invite, "acme", ADA, 1) for _ in range(12)))
    answers = [(await show(office, token)).status for token in tokens]
    assert sorted(answers) == [200] + [404] * 11 and len(set(tokens)) == 12


async def test_password_and_link_at_once_leave_one_password_and_no_link(office: Office) -> None:
    token, encoded = invite(office), users.hash_password("an administrator's")
    answer, _ = await asyncio.gather(accept(office, token), office.store.run(users.set_password, "acme", ADA, encoded))
    assert answer.status in (201, 404)
    assert sorted([await sign_in(office, CHOSEN), await sign_in(office, "an administrator's")]) == [201, 401]
    assert (await show(office, token)).status == 404


async def test_guessing_is_throttled_and_good_links_are_not_counted(office: Office) -> None:
    token = invite(office)
    for n in range(throttle.WELCOME_ADDRESS.attempts):
        assert (await show(office, f"guess-{n}")).status == 404
    for refused in (await show(office, token), await accept(office, token)):
        assert refused.status == 429 and int(refused.headers["Retry-After"]) > 0
    office.clock.shift += throttle.WELCOME_ADDRESS.seconds + 1
    for _ in range(throttle.WELCOME_ADDRESS.attempts + 1):
        assert (await show(office, token)).status == 200


async def test_foreign_page_cannot_sign_anybody_in_with_a_link(office: Office) -> None:
    token = invite(office)
    body = {"token": token, "password": CHOSEN}
    crossed = await office.ask("POST", "/api/v1/welcome/accept", body, **{"Sec-Fetch-Site": "cross-site"})
    assert crossed.status == 403
    form = await office.ask("POST", "/api/v1/welcome/accept", body, **{"Content-Type": "text/plain"})
    assert form.status == 400
    assert (await show(office, token)).status == 200


async def test_housekeeping_forgets_links_whose_time_is_over(office: Office) -> None:
    invite(office, hours=1)
    kept = invite(office, "gus@example.com", 2, "globex")
    office.clock.shift += HOUR + 1
    office.store.transact(housekeeping.forget)
    assert [row.user for row in office.store.transact(lambda t: t.all(invitation.select()))] == ["gus@example.com"]
    assert (await show(office, kept)).status == 200


async def test_token_is_in_no_log_and_not_on_disk(office: Office, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    token = invite(office)
    assert len(token) >= 43
    await show(office, token)
    await accept(office, token, "short")
    await accept(office, token)
    await accept(office, token)
    assert token not in caplog.text and CHOSEN not in caplog.text
    files = [path for path in office.settings.state_dir.rglob("*") if path.is_file()]
    assert files and all(token.encode() not in path.read_bytes() for path in files)


def test_command_prints_a_link_and_makes_the_user_if_told_to(tmp_path: Path) -> None:
    write_settings(tmp_path)
    command(tmp_path, "organisation", "add", "acme", "Acme")
    away = command(tmp_path, "user", "add", "acme", "eve@example.com", "--invite", check=False)
    assert away.returncode == 1 and "public_url" in away.stderr and "Traceback" not in away.stderr
    with (tmp_path / "cloud.toml").open("a") as settings:
        settings.write('public_url = "https://print.example.com/"\n')
    made = json.loads(command(tmp_path, "user", "add", "acme", "Eve@example.com", "--invite", "--json").stdout)
    assert (made["user"], made["hours"]) == ("eve@example.com", 72)
    assert made["link"].startswith("https://print.example.com/welcome#")
    plain = command(tmp_path, "user", "invite", "acme", "eve@example.com", "--hours", "2").stdout
    assert plain.startswith("https://print.example.com/welcome#") and "2 hours" in plain
    database = sqlite3.connect(tmp_path / "state" / "cloud.sqlite")
    assert database.execute("SELECT user, expires - created FROM invitation").fetchall() == [("eve@example.com", 7_200)]
    database.close()
    for words in (
        ("user", "invite", "acme", "nobody@example.com"),
        ("user", "invite", "acme", "eve@example.com", "--hours", "0"),
        ("user", "add", "acme", "eve@example.com", "--invite"),
        ("user", "add", "acme", "max@example.com", "--invite", "--password-stdin"),
    ):
        refused = command(tmp_path, *words, check=False)
        assert refused.returncode == 1 and refused.stderr.startswith("pullprint-cloud: ") and not refused.stdout
