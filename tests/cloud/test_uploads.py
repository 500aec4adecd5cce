"""A document passes through the cloud to one node, once, and whatever ends early ends for both and leaves nothing."""

import asyncio
import contextlib
import io
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.cloud.office import Answer, NodeClient, Office, parts_bytes

from pullprint.cloud import accounts, enrolment, sites, uploads
from pullprint.cloud.nodes import revoke
from pullprint.vault.parts import new_key
from pullprint.vault.upload import Opener, seal_upload
from pullprint.wire.api import sealed_length

MARK = b"MARKER-" + secrets.token_hex(16).encode()
OCTETS = "application/octet-stream"


def wanted(size: int, **changes: Any) -> dict[str, Any]:
    return {"title": "minutes.pdf", "content_type": "application/pdf", "size": size, **changes}


async def offered(office: Office, token: str, size: int, **changes: Any) -> dict[str, Any]:
    answer = await office.ask("POST", "/api/v1/uploads", wanted(size, **changes), token)
    assert answer.status == 201, answer
    return dict(answer.body)


def sealed(offer: dict[str, Any], document: bytes, node: NodeClient) -> bytes:
    return b"".join(seal_upload(document, node.public, offer["id"]))


async def put(office: Office, token: str, upload: str, body: Any, **headers: str) -> Answer:
    """What a browser's PUT is answered; *body* is bytes or pieces of a declared length."""
    sent = {"Authorization": f"Bearer {token}", "Content-Type": OCTETS, **headers}
    url = f"{office.url}/api/v1/uploads/{upload}"
    data = io.BytesIO(body) if isinstance(body, bytes) else body
    async with office.http.put(url, data=data, headers=sent) as response:
        raw = await response.json() if response.content_length else None
        return Answer(response.status, raw, response.headers)


@contextlib.asynccontextmanager
async def fetching(node: NodeClient, upload: str) -> AsyncIterator[aiohttp.ClientResponse]:
    path = f"/node/v1/uploads/{upload}"
    async with node.office.http.get(node.office.url + path, headers=node.signed("GET", path)) as response:
        yield response


async def take(node: NodeClient) -> tuple[dict[str, Any], bytes]:
    """The next upload's item, and the document that was sealed for this node."""
    item = await node.poll_for("upload")
    async with fetching(node, item["upload"]) as response:
        assert (response.status, response.content_length) == (200, sealed_length(item["size"]))
        opener = Opener(node.private, item["upload"])
        document = b""
        async for piece in response.content.iter_chunked(1 << 16):
            document += b"".join(opener.feed(piece))
        return item, document + opener.finish()


async def conclude(node: NodeClient, upload: str, **result: str) -> Answer:
    return await node.call("POST", f"/node/v1/uploads/{upload}", result)


def idle(office: Office, monkeypatch: pytest.MonkeyPatch, **seconds: float) -> None:
    for name, value in seconds.items():
        monkeypatch.setattr(uploads, name.upper(), value)


async def test_a_document_becomes_the_users_job(
    office: Office, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    node, token = await office.join(), await office.sign_in()
    document = MARK + secrets.token_bytes(3 << 20)
    offer = await offered(office, token, len(document))
    assert offer["limit"] == 512 << 20
    sending = asyncio.create_task(put(office, token, offer["id"], sealed(offer, document, node)))
    item, came = await take(node)
    assert came == document
    assert (item["owner"], item["title"], item["key"]) == ("ada@example.com", "minutes.pdf", "day-1")
    job = await node.hold(title="minutes.pdf", queue="")
    assert not sending.done(), "the answer waits for what the node says"
    assert (await conclude(node, offer["id"], job=job)).status == 204
    answer = await sending
    assert (answer.status, answer.body["id"], answer.body["state"]) == (201, job, "held")
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert MARK not in kept and came[-64:] not in kept
    assert MARK.decode() not in caplog.text
    assert (await put(office, token, offer["id"], b"x")).status == 404, "an offer is good once"


async def test_what_the_node_says_against_it_is_the_answer(office: Office) -> None:
    node, token = await office.join(), await office.sign_in()
    offer = await offered(office, token, 8 << 20)
    sending = asyncio.create_task(put(office, token, offer["id"], sealed(offer, bytes(8 << 20), node)))
    item = await node.poll_for("upload")
    async with fetching(node, item["upload"]) as response:
        await response.content.readexactly(100)
        await conclude(node, item["upload"], code="not-printable", sentence="A zip file cannot be printed.")
    answer = await sending
    assert (answer.status, answer.body) == (
        422, {"code": "not-printable", "sentence": "A zip file cannot be printed."}
    )  # fmt: skip


async def test_an_unmanaged_host_is_offered_the_documents_of_those_only_who_have_an_account_there(
    office: Office,
) -> None:
    node, token = await office.join(managed=False), await office.sign_in()
    wanted = {"title": "a.txt", "content_type": "text/plain", "size": 5}
    assert (await office.ask("POST", "/api/v1/uploads", wanted, token)).code == "no-node-awake"
    office.store.transact(accounts.bind, node.id, "ada", "acme", "ada@example.com")
    offer = await offered(office, token, 5)
    sending = asyncio.create_task(put(office, token, offer["id"], sealed(offer, b"hello", node)))
    await take(node)
    await conclude(node, offer["id"], job=await node.hold(submitter="x", owner=""))
    assert (await sending).body["owner"] == "ada@example.com"


async def test_a_node_cannot_answer_with_somebody_elses_job(office: Office) -> None:
    node, token = await office.join(), await office.sign_in()
    stranger = await office.join("globex")
    foreign = await stranger.hold(owner="gus@example.com")
    offer = await offered(office, token, 5)
    sending = asyncio.create_task(put(office, token, offer["id"], sealed(offer, b"hello", node)))
    await take(node)
    await conclude(node, offer["id"], job=foreign)
    assert (await sending).status == 404


async def test_other_users_and_nodes_get_nothing_of_it(office: Office) -> None:
    node, token = await office.join(), await office.sign_in()
    stranger = await office.join("globex")
    foreigner = await office.sign_in("gus@example.com")
    offer = await offered(office, token, 5)
    body = sealed(offer, b"hello", node)
    for other in (foreigner, ""):
        assert (await put(office, other, offer["id"], body)).status in (401, 404)
    async with fetching(node, offer["id"]) as response:
        assert response.status == 404, "nothing is under way yet"
    sending = asyncio.create_task(put(office, token, offer["id"], body))
    await node.poll_for("upload")
    async with fetching(stranger, offer["id"]) as response:
        assert response.status == 404
    assert (await conclude(stranger, offer["id"], code="x", sentence="y")).status == 404
    async with fetching(node, offer["id"]) as response:
        assert await response.read() == body
    async with fetching(node, offer["id"]) as response:
        assert response.status == 404, "it was fetched before"
    await conclude(node, offer["id"], job=await node.hold())
    assert (await sending).status == 201


async def test_only_the_node_whose_key_was_offered_may_fetch_and_the_asked_site_comes_first(office: Office) -> None:
    office.store.transact(sites.add, "acme", "branch", ["127.0.0.0/8"], "{user}@example.com", 86_400)
    code = office.store.transact(enrolment.new_join_code, "acme", "branch", 30, managed=True)
    here, there, token = await office.join(), NodeClient(office), await office.sign_in()
    assert (await there.enrol(code)).status == 200
    for site, node, other in (("hq", here, there), ("branch", there, here), ("hq", here, there)):
        await other.fetch_config()  # it was heard of last
        offer = await offered(office, token, 5, site=site)
        assert parts_bytes(offer["public"]) == node.public
        sending = asyncio.create_task(put(office, token, offer["id"], sealed(offer, b"hello", node)))
        await node.poll_for("upload")
        async with fetching(other, offer["id"]) as response:
            assert response.status == 404
        assert (await conclude(other, offer["id"], code="x", sentence="y")).status == 404
        async with fetching(node, offer["id"]) as response:
            assert response.status == 200
            await response.read()
        await conclude(node, offer["id"], code="no", sentence="No.")
        assert (await sending).status == 422


@pytest.mark.parametrize("change", [-1, 1])
async def test_a_length_that_lies_is_refused_before_the_node_hears_of_it(office: Office, change: int) -> None:
    node, token = await office.join(), await office.sign_in()
    offer = await offered(office, token, 1_000)
    body = sealed(offer, bytes(1_000 + change), node)
    answer = await put(office, token, offer["id"], body)
    assert answer.status == 400 and "length" in answer.body["sentence"]


async def test_a_body_without_a_length_or_of_another_kind_is_refused(office: Office) -> None:
    node, token = await office.join(), await office.sign_in()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"x"

    offer = await offered(office, token, 5)
    assert (await put(office, token, offer["id"], pieces())).status == 400
    for headers in (
        {"Content-Type": "application/json"},
        {"Content-Encoding": "gzip"},
        {"Sec-Fetch-Site": "cross-site"},
    ):
        offer = await offered(office, token, 5)
        answer = await put(office, token, offer["id"], sealed(offer, b"hello", node), **headers)
        assert answer.status in (400, 403), headers


async def test_too_much_and_nothing_at_all_are_refused(office: Office) -> None:
    await office.join()
    token = await office.sign_in()
    answer = await office.ask("POST", "/api/v1/uploads", wanted((512 << 20) + 1), token)
    assert answer.status == 413 and "512 MiB" in answer.body["sentence"]
    assert (await office.ask("POST", "/api/v1/uploads", wanted(0), token)).status == 400


async def test_without_a_node_that_is_awake_there_is_a_sentence(office: Office) -> None:
    token = await office.sign_in()
    assert (await office.ask("POST", "/api/v1/uploads", wanted(5), token)).code == "no-node-awake"
    await office.join("globex")
    assert (await office.ask("POST", "/api/v1/uploads", wanted(5), token)).code == "no-node-awake"
    node = await office.join()
    assert (await office.ask("POST", "/api/v1/uploads", wanted(5), token)).status == 201
    office.clock.shift = uploads.AWAY_AFTER + 1
    assert (await office.ask("POST", "/api/v1/uploads", wanted(5), token)).code == "no-node-awake"
    await node.fetch_config()
    assert (await office.ask("POST", "/api/v1/uploads", wanted(5), token)).status == 201
    office.store.transact(revoke, "acme", node.id)
    assert (await office.ask("POST", "/api/v1/uploads", wanted(5), token)).code == "no-node-awake"


async def test_a_node_that_does_not_come_is_given_up(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    idle(office, monkeypatch, fetch_time=0.3)
    node, token = await office.join(), await office.sign_in()
    offer = await offered(office, token, 5)
    answer = await put(office, token, offer["id"], sealed(offer, b"hello", node))
    assert (answer.status, answer.code) == (504, "node-silent")
    async with fetching(node, offer["id"]) as response:
        assert response.status == 404


async def test_a_node_that_says_nothing_afterwards_is_given_up(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    idle(office, monkeypatch, result_time=0.3)
    node, token = await office.join(), await office.sign_in()
    offer = await offered(office, token, 5)
    sending = asyncio.create_task(put(office, token, offer["id"], sealed(offer, b"hello", node)))
    await take(node)
    answer = await sending
    assert answer.code == "upload-broken" and "Look at your jobs" in answer.body["sentence"], "it may be held"
    assert (await conclude(node, offer["id"], job=await node.hold())).status == 404


async def test_a_sender_that_falls_asleep_is_given_up_and_the_node_told(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    idle(office, monkeypatch, idle=0.3)
    node, token = await office.join(), await office.sign_in()
    offer = await offered(office, token, 1 << 20)
    body = sealed(offer, bytes(1 << 20), node)

    async def slowly() -> AsyncIterator[bytes]:
        yield body[:1_000]
        await asyncio.sleep(2)
        yield body[1_000:]

    sending = asyncio.create_task(
        put(office, token, offer["id"], slowly(), **{"Content-Length": str(len(body))})
    )  # fmt: skip
    await node.poll_for("upload")
    with pytest.raises(aiohttp.ClientError):
        async with fetching(node, offer["id"]) as response:
            await response.read()
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)


async def test_a_browser_that_goes_away_ends_the_nodes_request_at_once(office: Office) -> None:
    node, token = await office.join(), await office.sign_in()
    offer = await offered(office, token, 1 << 20)
    body = sealed(offer, bytes(1 << 20), node)

    async def half() -> AsyncIterator[bytes]:
        yield body[: 1 << 19]
        await asyncio.sleep(60)

    sending = asyncio.create_task(put(office, token, offer["id"], half(), **{"Content-Length": str(len(body))}))
    await node.poll_for("upload")
    async with asyncio.timeout(5), fetching(node, offer["id"]) as response:
        await response.content.readexactly(1 << 18)
        sending.cancel()
        with pytest.raises(aiohttp.ClientError):
            await response.read()
    assert (await conclude(node, offer["id"], job=await node.hold())).status == 404


async def test_a_node_that_goes_away_ends_the_browsers_request_at_once(office: Office) -> None:
    node, token = await office.join(), await office.sign_in()
    offer = await offered(office, token, 1 << 20)
    body = sealed(offer, bytes(1 << 20), node)

    async def half() -> AsyncIterator[bytes]:
        yield body[: 1 << 19]
        await asyncio.sleep(3)
        yield body[1 << 19 :]

    sending = asyncio.create_task(put(office, token, offer["id"], half(), **{"Content-Length": str(len(body))}))
    await node.poll_for("upload")
    async with fetching(node, offer["id"]) as response:
        await response.content.readexactly(1_000)
        response.close()
    async with asyncio.timeout(2.5):
        answer = await sending
    assert (answer.status, answer.code) == (502, "upload-broken")


async def test_a_sender_waits_while_its_receiver_is_slow(office: Office) -> None:
    node, token = await office.join(), await office.sign_in()
    size = 48 << 20
    offer = await offered(office, token, size)
    body = sealed(offer, bytes(size), node)
    sent = 0

    async def counted() -> AsyncIterator[bytes]:
        nonlocal sent
        for start in range(0, len(body), 1 << 18):
            yield body[start : start + (1 << 18)]
            sent = min(start + (1 << 18), len(body))

    sending = asyncio.create_task(put(office, token, offer["id"], counted(), **{"Content-Length": str(len(body))}))
    await node.poll_for("upload")
    await asyncio.sleep(1)
    # The cloud keeps no more than its pieces; the rest of this lies in the buffers of two sockets.
    assert sent < 24 << 20
    async with fetching(node, offer["id"]) as response:
        assert len(await response.read()) == len(body)
    await conclude(node, offer["id"], code="no", sentence="No.")
    assert (await sending).status == 422


async def test_two_at_once_do_not_mix_and_a_third_waits_its_turn(office: Office) -> None:
    node, token = await office.join(), await office.sign_in()
    documents = {}
    sending = {}
    for letter in (b"a", b"b"):
        offer = await offered(office, token, 600_000)
        documents[offer["id"]] = letter * 600_000
        body = sealed(offer, documents[offer["id"]], node)
        sending[offer["id"]] = asyncio.create_task(put(office, token, offer["id"], body))
        await node.poll_for("upload")
    third = await offered(office, token, 5)
    answer = await put(office, token, third["id"], sealed(third, b"hello", node))
    assert answer.status == 429 and answer.headers["Retry-After"]

    async def take_one(upload: str) -> bytes:
        async with fetching(node, upload) as response:
            opener = Opener(node.private, upload)
            return b"".join(opener.feed(await response.read())) + opener.finish()

    came = await asyncio.gather(*(take_one(upload) for upload in documents))
    assert list(came) == list(documents.values())
    for upload in documents:
        job = await node.hold()
        await conclude(node, upload, job=job)
        assert (await sending[upload]).body["id"] == job
    sending_third = asyncio.create_task(put(office, token, third["id"], sealed(third, b"hello", node)))
    await take(node)
    await conclude(node, third["id"], job=await node.hold())
    assert (await sending_third).status == 201, "the refused one may be sent again"


async def test_one_organisation_leaves_room_for_others(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "UNDER_WAY_ORGANISATION", 1)
    node, ada = await office.join(), await office.sign_in()
    other, gus = await office.join("globex"), await office.sign_in("gus@example.com")
    first, second = await offered(office, ada, 5), await offered(office, ada, 5)
    foreign = await offered(office, gus, 5)
    sending = asyncio.create_task(put(office, ada, first["id"], sealed(first, b"hello", node)))
    await take(node)
    assert (await put(office, ada, second["id"], sealed(second, b"hello", node))).status == 429
    theirs = asyncio.create_task(put(office, gus, foreign["id"], sealed(foreign, b"hello", other)))
    await take(other)
    await conclude(other, foreign["id"], job=await other.hold(owner="gus@example.com"))
    assert (await theirs).status == 201
    await conclude(node, first["id"], job=await node.hold())
    assert (await sending).status == 201


async def test_an_offer_ends_and_the_oldest_gives_way(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    node, token = await office.join(), await office.sign_in()
    first = await offered(office, token, 5)
    for _ in range(uploads.OFFERS):
        last = await offered(office, token, 5)
    assert (await put(office, token, first["id"], sealed(first, b"hello", node))).status == 404
    monkeypatch.setattr(uploads, "OFFER_TIME", -1.0)
    late = await offered(office, token, 5)
    assert (await put(office, token, late["id"], sealed(late, b"hello", node))).status == 404
    assert (await put(office, token, last["id"], b"x")).status == 400, "the others are still good"


async def test_a_key_sealed_for_another_node_does_not_open(office: Office) -> None:
    """What the cloud passes on it could not read: only the private half that was offered opens it."""
    node, token = await office.join(), await office.sign_in()
    offer = await offered(office, token, 5)
    body = b"".join(seal_upload(b"hello", new_key()[1], offer["id"]))
    sending = asyncio.create_task(put(office, token, offer["id"], body))
    with pytest.raises(Exception, match="cannot be opened"):
        await take(node)
    await conclude(node, offer["id"], code="upload-damaged", sentence="Damaged.")
    assert (await sending).status == 422
