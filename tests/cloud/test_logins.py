"""`pullprint login` at the cloud: the device flow (RFC 8628) between a node, its cloud and somebody signed in."""

import asyncio
from typing import Any

import pytest
from tests.cloud.office import Answer, NodeClient, Office

from pullprint.cloud import housekeeping, logins, nodes, users
from pullprint.wire.jws import StatementRefused
from pullprint.wire.node import verify_account

ADA = "ada@example.com"


async def begin(node: NodeClient, account: str = "ada") -> dict[str, Any]:
    """The codes for an account."""
    answer = await node.call("POST", "/node/v1/logins", {"account": account})
    assert answer.status == 200, answer
    body: dict[str, Any] = answer.body
    return body


async def poll(node: NodeClient, offer: dict[str, Any]) -> Answer:
    """What the node is told of it now."""
    return await node.call("POST", "/node/v1/logins/token", {"device_code": offer["device_code"]})


async def reply(office: Office, token: str, offer: dict[str, Any], *, allow: bool = True) -> Answer:
    return await office.ask("POST", f"/api/v1/logins/{offer['user_code']}", {"allow": allow}, token)


async def allow(office: Office, node: NodeClient, account: str = "ada", user: str = ADA) -> None:
    """Bind *account*, all the way."""
    offer = await begin(node, account)
    assert (await reply(office, await office.sign_in(user), offer)).status == 204
    assert (await poll(node, offer)).status == 200


async def test_account_becomes_the_user_who_allows_it_and_its_node_is_told_with_a_signature(office: Office) -> None:
    node, token = await office.join(managed=False), await office.sign_in()
    assert node.config is not None
    revision = node.config.revision
    offer = await begin(node)
    assert offer["verification_uri"] == "https://print.example.com/login"
    assert offer["verification_uri_complete"] == f"https://print.example.com/login?code={offer['user_code']}"
    assert (offer["expires_in"], offer["interval"]) == (600, 3)
    assert (await poll(node, offer)).code == "authorization_pending"
    typed = offer["user_code"].lower().replace("-", "")
    shown = await office.ask("GET", f"/api/v1/logins/{typed}", token=token)
    assert shown.body["account"] == "ada" and shown.body["host"] == "desk-1" and shown.body["site"] == "hq"
    assert shown.body["code"] == offer["user_code"]
    assert (await reply(office, token, offer)).status == 204
    await node.poll_for("config")
    config = await node.fetch_config()
    assert config.accounts == {"ada": ADA} and config.revision > revision
    assert config.users == (), "a host that is not managed learns of no other user"
    answer = await poll(node, offer)
    assert (answer.status, answer.body["user"], answer.body["token_type"]) == (200, ADA, "N_A")
    statement, now = answer.body["access_token"], office.clock.now()
    assert verify_account(statement, node.pin, node.id, "acme", "ada", now) == ADA
    for wrong in (("bob", now), ("ada", now + 100)):
        with pytest.raises(StatementRefused):
            verify_account(statement, node.pin, node.id, "acme", *wrong)
    with pytest.raises(StatementRefused):
        verify_account(statement, node.pin, "0" * 32, "acme", "ada", now)


async def test_token_is_given_once(office: Office) -> None:
    node, token = await office.join(managed=False), await office.sign_in()
    offer = await begin(node)
    await reply(office, token, offer)
    answers = await asyncio.gather(*(poll(node, offer) for _ in range(5)))
    assert sorted(a.status for a in answers) == [200, 400, 400, 400, 400]
    assert {a.code for a in answers if a.status == 400} == {"invalid_grant"}


async def test_code_is_answered_once(office: Office) -> None:
    node, token = await office.join(managed=False), await office.sign_in()
    office.store.transact(users.add, "acme", "bob@example.com", "x")
    offer = await begin(node)
    answers = await asyncio.gather(*(reply(office, token, offer, allow=allow) for allow in (True, False, True, False)))
    assert sorted(a.status for a in answers) == [204, 404, 404, 404]
    assert (await office.ask("GET", f"/api/v1/logins/{offer['user_code']}", token=token)).code == "login-refused"


async def test_denied_login_binds_nothing_and_says_so(office: Office) -> None:
    node, token = await office.join(managed=False), await office.sign_in()
    offer = await begin(node)
    assert (await reply(office, token, offer, allow=False)).status == 204
    assert (await poll(node, offer)).code == "access_denied"
    assert (await node.fetch_config()).accounts == {}
    assert (await reply(office, token, offer)).code == "login-refused"


async def test_code_ends_after_ten_minutes(office: Office) -> None:
    node = await office.join(managed=False)
    offer, forgotten = await begin(node), await begin(node, "bob")
    office.clock.shift += 601
    token = await office.sign_in()
    assert (await reply(office, token, offer)).code == "login-refused"
    assert (await poll(node, offer)).code == "expired_token"
    office.store.transact(housekeeping.forget)
    assert (await poll(node, forgotten)).code == "expired_token", "its node still hears of it"
    last = await begin(node)
    office.clock.shift += 1_300
    office.store.transact(housekeeping.forget)
    assert (await poll(node, last)).code == "invalid_grant"


async def test_answer_given_in_time_can_still_be_fetched(office: Office) -> None:
    node, token = await office.join(managed=False), await office.sign_in()
    offer = await begin(node)
    office.clock.shift += 590
    await reply(office, token, offer)
    office.clock.shift += 60
    assert (await poll(node, offer)).body["user"] == ADA


async def test_hasty_node_is_slowed_down_by_five_seconds_each_time(office: Office) -> None:
    node = await office.join(managed=False)
    offer = await begin(node)

    async def after(seconds: float) -> str:
        office.clock.shift += seconds
        return (await poll(node, offer)).code

    assert await after(0) == "authorization_pending"
    assert await after(3) == "authorization_pending"
    assert await after(1) == "slow_down"
    assert await after(4) == "slow_down", "eight seconds now"
    assert await after(10) == "slow_down", "and thirteen now"
    assert await after(18) == "authorization_pending"
    assert await after(18) == "authorization_pending"
    await reply(office, await office.sign_in(), offer)
    assert (await poll(node, offer)).status == 200, "an answer is not kept waiting"


async def test_guessing_codes_is_throttled(office: Office) -> None:
    node, token = await office.join(managed=False), await office.sign_in()
    offer = await begin(node)
    guesses = ["AAAA-AAAA", "", "x" * 200, "7KQ2", "%00", "../session"]
    statuses = [
        (await office.ask(method, f"/api/v1/logins/{guess or '-'}", {"allow": True}, token)).status
        for method in ("GET", "POST")
        for guess in guesses
        if "/" not in guess
    ]
    assert set(statuses) == {404} and len(statuses) == 10
    assert (await office.ask("GET", f"/api/v1/logins/{offer['user_code']}", token=token)).status == 429
    assert (await reply(office, token, offer)).status == 429
    assert (await node.fetch_config()).accounts == {}
    office.clock.shift += 599
    assert (await reply(office, token, await begin(node))).status == 429, "also another code"
    office.clock.shift += 10
    offer = await begin(node)
    for _ in range(15):
        found = await office.ask("GET", f"/api/v1/logins/{offer['user_code']}", token=token)
        assert found.status == 200, "right codes cost nothing"
    assert (await reply(office, token, offer)).status == 204


async def test_one_address_cannot_guess_as_many_users(office: Office) -> None:
    await office.join(managed=False)
    for n in range(7):
        office.add_organisation(f"other-{n}", f"user{n}@example.com")
    statuses = []
    for n in range(7):
        token = await office.sign_in(f"user{n}@example.com")
        statuses += [(await office.ask("GET", "/api/v1/logins/AAAA-AAAA", token=token)).status for _ in range(10)]
    assert statuses == [404] * 60 + [429] * 10


async def test_code_is_worth_nothing_in_another_organisation_or_on_another_node(office: Office) -> None:
    node, other, foreign = await office.join(), await office.join(), await office.join("globex")
    gus = await office.sign_in("gus@example.com")
    offer = await begin(node)
    assert (await reply(office, gus, offer)).code == "login-refused"
    assert (await office.ask("GET", f"/api/v1/logins/{offer['user_code']}", token=gus)).code == "login-refused"
    await reply(office, await office.sign_in(), offer)
    for stranger in (other, foreign):
        assert (await poll(stranger, offer)).code == "invalid_grant"
        withdrawn = await stranger.call("POST", "/node/v1/logins/withdraw", {"device_code": offer["device_code"]})
        assert withdrawn.status == 204
    assert (await other.fetch_config()).accounts == {} == (await foreign.fetch_config()).accounts
    assert (await poll(node, offer)).body["user"] == ADA


async def test_new_code_replaces_the_accounts_older_one(office: Office) -> None:
    node, token = await office.join(managed=False), await office.sign_in()
    first, second = await begin(node), await begin(node)
    assert (await reply(office, token, first)).code == "login-refused"
    assert (await poll(node, first)).code == "invalid_grant"
    assert (await reply(office, token, second)).status == 204


async def test_withdrawn_code_binds_nothing(office: Office) -> None:
    node, token = await office.join(managed=False), await office.sign_in()
    offer = await begin(node)
    assert (await node.call("POST", "/node/v1/logins/withdraw", offer)).status == 204
    assert (await reply(office, token, offer)).code == "login-refused"
    assert (await poll(node, offer)).code == "invalid_grant"


async def test_node_has_a_limited_number_of_pending_logins(office: Office) -> None:
    node, token = await office.join(managed=False), await office.sign_in()
    tries = [node.call("POST", "/node/v1/logins", {"account": f"user{n}"}) for n in range(26)]
    answers = await asyncio.gather(*tries)
    assert sorted(a.status for a in answers) == [200] * logins.PENDING_LIMIT + [429] * 6
    await reply(office, token, next(a.body for a in answers if a.status == 200))
    assert (await node.call("POST", "/node/v1/logins", {"account": "more"})).status == 200, "answered ones do not count"
    other = await office.join(managed=False)
    assert (await other.call("POST", "/node/v1/logins", {"account": "ada"})).status == 200


@pytest.mark.parametrize(
    "account",
    ["", "a\nb", "a\x1b[31m", "a\x00", "\u202eada", "ada ", "a" * 65, "-rf", "älice", "a/b", "<b>", "{user}", 7],
)
async def test_account_name_that_no_account_can_have_is_refused(office: Office, account: object) -> None:
    node = await office.join(managed=False)
    answer = await node.call("POST", "/node/v1/logins", {"account": account})
    assert answer.code == "bad-request"


async def test_bound_account_owns_its_jobs_on_a_host_that_is_not_managed_and_no_others(office: Office) -> None:
    node, token = await office.join(managed=False), await office.sign_in()
    office.store.transact(users.add, "acme", "eve@example.com", "x")
    await allow(office, node, "ada")
    mine = await node.hold(submitter="ada", host="")
    others = [
        await node.hold(submitter="bob", host="", claim_code="7KQ2-M9XD"),
        await node.hold(submitter="ada", host="elsewhere", claim_code="7KQ2-M9XE"),
        await node.hold(submitter="ada", host="", owner="eve@example.com", claim_code="7KQ2-M9XF"),
        await node.hold(submitter="", host="", claim_code="7KQ2-M9XG"),
    ]
    listed = [job["id"] for job in (await office.ask("GET", "/api/v1/jobs", token=token)).body["jobs"]]
    assert listed == [mine]

    async def release(job: str, by: str) -> Answer:
        return await node.call("POST", "/node/v1/releases", {"job": job, "printer": office.printer, "by": by})

    assert (await release(mine, "eve@example.com")).code == "not-allowed"
    assert [(await release(job, ADA)).code for job in others] == ["not-allowed"] * 4
    answer = await release(mine, ADA)
    assert answer.status == 200
    order, _ = node.open(answer.body)
    assert (order.job, order.by) == (mine, ADA)


async def test_account_of_another_node_releases_nothing_here(office: Office) -> None:
    node, other = await office.join(managed=False), await office.join(managed=False)
    await allow(office, other)
    held = await node.hold(submitter="ada", host="", claim_code="7KQ2-M9XD")
    token = await office.sign_in()
    assert (await office.ask("GET", f"/api/v1/jobs/{held}", token=token)).status == 404
    await office.ask("POST", "/api/v1/claim", {"code": "7KQ2-M9XD"}, token)
    refused = await node.call("POST", "/node/v1/releases", {"job": held, "printer": office.printer, "by": ADA})
    assert refused.code == "not-allowed" and "pullprint login" in refused.body["sentence"]


async def test_account_is_listed_beside_sessions_and_can_be_taken_back(office: Office) -> None:
    node, other, token = await office.join(managed=False), await office.join(managed=False), await office.sign_in()
    await allow(office, node)
    await allow(office, other)
    accounts = [s for s in (await office.ask("GET", "/api/v1/sessions", token=token)).body if s["kind"] == "account"]
    assert [s["name"] for s in accounts] == ["ada on desk-1", "ada on desk-1"]
    assert len({s["id"] for s in accounts}) == 2
    eve_password = "another battery staple horse"
    office.store.transact(users.add, "acme", "eve@example.com", users.hash_password(eve_password))
    eve = await office.sign_in("eve@example.com", eve_password)
    assert (await office.ask("DELETE", f"/api/v1/sessions/{accounts[0]['id']}", token=eve)).status == 404
    await office.ask("DELETE", "/api/v1/sessions", token=token)
    token = await office.sign_in()
    assert (await node.fetch_config()).accounts == {"ada": ADA}, "signing out everywhere is about sessions"
    for account in accounts:
        assert (await office.ask("DELETE", f"/api/v1/sessions/{account['id']}", token=token)).status == 204
    await node.poll_for("config")
    assert (await node.fetch_config()).accounts == {} == (await other.fetch_config()).accounts
    held = await node.hold(submitter="ada", host="")
    assert (await office.ask("GET", f"/api/v1/jobs/{held}", token=token)).status == 404


async def test_latest_login_of_an_account_counts(office: Office) -> None:
    node = await office.join(managed=False)
    password = "another battery staple horse"
    office.store.transact(users.add, "acme", "eve@example.com", users.hash_password(password))
    await allow(office, node)
    offer = await begin(node)
    assert (await reply(office, await office.sign_in("eve@example.com", password), offer)).status == 204
    assert (await node.fetch_config()).accounts == {"ada": "eve@example.com"}


async def test_removed_user_has_no_accounts_and_gets_no_token(office: Office) -> None:
    node, token = await office.join(managed=False), await office.sign_in()
    await allow(office, node, "bob")
    offer = await begin(node)
    await reply(office, token, offer)
    office.store.transact(users.remove, "acme", ADA)
    assert (await node.fetch_config()).accounts == {}
    assert (await poll(node, offer)).code == "access_denied"


async def test_host_that_was_shut_out_is_let_in_by_nobody(office: Office) -> None:
    node, token = await office.join(managed=False), await office.sign_in()
    await allow(office, node, "bob")
    offer = await begin(node)
    office.store.transact(nodes.revoke, "acme", node.id)
    assert (await reply(office, token, offer)).code == "login-refused"
    listed = (await office.ask("GET", "/api/v1/sessions", token=token)).body
    assert {s["kind"] for s in listed} == {"page"}
