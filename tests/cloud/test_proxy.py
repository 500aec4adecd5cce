"""Behind the real Caddy and nginx, run from the examples that are shipped, with only names, ports and files replaced."""

import asyncio
import dataclasses
import re
import secrets
import ssl
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from sqlalchemy import select
from tests.cloud.office import CHEAP, Office, ShiftedClock, make_settings, open_office
from tests.cloud.test_stream import listening, refused, until_free
from tests.cloud.test_uploads import conclude, fetching, offered, put, sealed, take
from tests.rig import office as rig
from tests.rig.documents import pdf
from tests.rig.office import Cloud
from tests.rig.printers import IppPrinter
from tests.rig.processes import Process, free_port

from pullprint.base.errors import ConfigError
from pullprint.cloud import app, stream
from pullprint.cloud.config import Settings
from pullprint.cloud.migrations import upgrade
from pullprint.cloud.store import Store, Transaction
from pullprint.cloud.tables import throttle as throttle_table
from pullprint.cloud.throttle import ENROL_ADDRESS, SIGN_IN_ADDRESS, Limit
from pullprint.cloud.users import Passwords

EXAMPLES = Path(__file__).parents[2] / "packaging" / "examples"
CALLER = "127.0.0.77"
PROMPT = 1.0
"""Seconds within which what is not held back arrives, also on a busy machine."""


def caddy(folder: Path, port: int, upstream: str) -> Process:
    """Caddy on this *port*, before what listens at *upstream*: a port of 127.0.0.1 or a socket's path."""
    text = (EXAMPLES / "Caddyfile").read_text()
    site = f"https://localhost:{port} {{\n\ttls {folder / 'server.pem'} {folder / 'server.key'}"
    text = replaced(text, "\nprint.example.com {", f"\n{site}")
    text = replaced(text, " 127.0.0.1:9265 ", f" unix/{upstream} " if upstream[0] == "/" else f" 127.0.0.1:{upstream} ")
    own = folder / "Caddyfile"
    own.write_text("{\n\tadmin off\n\tauto_https disable_redirects\n\tdefault_bind 127.0.0.1\n}\n" + text)
    env = {"HOME": str(folder), "PATH": "/usr/bin:/bin"}
    return Process(["caddy", "run", "--adapter", "caddyfile", "--config", own], folder / "caddy.log", env=env)


def nginx(folder: Path, port: int, upstream: str) -> Process:
    """nginx, the same."""
    text = (EXAMPLES / "nginx.conf").read_text()
    text = replaced(
        text, "server 127.0.0.1:9265;", f"server {'unix:' if upstream[0] == '/' else '127.0.0.1:'}{upstream};"
    )
    text = replaced(text, "/etc/letsencrypt/live/print.example.com/fullchain.pem", str(folder / "server.pem"))
    text = replaced(text, "/etc/letsencrypt/live/print.example.com/privkey.pem", str(folder / "server.key"))
    text = replaced(text, "listen 443 ", f"listen 127.0.0.1:{port} ")
    text = replaced(text, "listen 80;", f"listen 127.0.0.1:{free_port()};")
    text = re.sub(r"\n *listen \[::\].*;", "", text).replace("server_name print.example.com;", "server_name localhost;")
    temporary = "".join(
        f"{name}_temp_path {folder / name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    own = folder / "nginx.conf"
    own.write_text(
        f"daemon off;\nuser root;\npid {folder}/nginx.pid;\nerror_log {folder}/nginx.log;\nworker_processes 1;\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{temporary}{text}\n}}\n"
    )
    return Process(["/usr/sbin/nginx", "-p", folder, "-c", own, "-e", folder / "nginx.log"], folder / "nginx.out")


def replaced(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new)


PROXIES = {"caddy": caddy, "nginx": nginx}


@asynccontextmanager
async def behind(kind: str, folder: Path, socket: Path | None = None) -> AsyncIterator[Office]:
    """A cloud behind a proxy; the office's requests come from `CALLER` and go through the proxy."""
    front, clock = free_port(), ShiftedClock()
    settings = dataclasses.replace(
        make_settings(folder), proxy=True, socket=socket, port=0, public_url=f"https://localhost:{front}"
    )
    store = Store(settings.database_url, clock)
    upgrade(store.engine)
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    connector = aiohttp.TCPConnector(ssl=context, limit=0, local_addr=(CALLER, 0))
    try:
        async with app.serving(settings, clock, Passwords(CHEAP)) as port:
            proxy = PROXIES[kind](folder, front, str(socket or port))
            await asyncio.to_thread(proxy.start, ("127.0.0.1", front))
            try:
                async with aiohttp.ClientSession(connector=connector) as http:
                    office = Office(settings.public_url, store, clock, http, settings, folder / "ca.pem")
                    office.add_organisation("acme")
                    office.printer = office.add_printer("acme", "Foyer")
                    yield office
            finally:
                await asyncio.to_thread(proxy.stop)
    finally:
        store.close_now()


@pytest.fixture(params=PROXIES)
async def office(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Office]:
    async with behind(request.param, tmp_path) as running:
        yield running


def counted(office: Office, limit: Limit, address: str) -> bool:
    """Whether attempts from *address* are counted."""

    def work(t: Transaction) -> bool:
        return t.one(select(throttle_table).where(throttle_table.c.key == limit.key(address))) is not None

    return office.store.transact(work)


async def test_people_sign_in_and_are_counted_by_the_address_that_they_have(office: Office) -> None:
    wrong = {"name": "ada@example.com", "password": "no"}
    spoofed = {"X-Forwarded-For": "203.0.113.9", "X-Real-IP": "203.0.113.9", "Forwarded": "for=203.0.113.9"}
    assert (await office.ask("POST", "/api/v1/session", wrong, **spoofed)).code == "sign-in-refused"
    assert counted(office, SIGN_IN_ADDRESS, CALLER)
    assert not counted(office, SIGN_IN_ADDRESS, "203.0.113.9") and not counted(office, SIGN_IN_ADDRESS, "127.0.0.1")
    for _ in range(5):
        await office.ask("POST", "/api/v1/session", wrong)
    many = await office.ask("POST", "/api/v1/session", wrong, **spoofed)
    assert (many.status, many.code) == (429, "too-many") and int(many.headers["Retry-After"]) > 0


async def test_cookies_and_protections_are_those_of_a_server_without_a_proxy(office: Office) -> None:
    right = {"name": "ada@example.com", "password": "correct horse battery staple"}
    signed_in = await office.ask("POST", "/api/v1/session", right)
    assert signed_in.status == 201
    cookie = signed_in.headers["Set-Cookie"]
    assert "Secure" in cookie and "HttpOnly" in cookie and "SameSite=Strict" in cookie
    assert signed_in.headers.getall("Strict-Transport-Security") == ["max-age=31536000"]
    async with office.http.get(f"{office.url}/") as page:
        assert page.status == 200 and "script-src 'self'" in page.headers["Content-Security-Policy"]
        assert page.headers["Content-Encoding"] == "gzip", "squeezed once, by the server"
    foreign = await office.ask("POST", "/api/v1/session", right, **{"Sec-Fetch-Site": "cross-site"})
    assert foreign.status == 403


async def test_a_host_joins_holds_and_is_woken_at_once(office: Office) -> None:
    node, token = await office.join(), await office.sign_in()
    assert not counted(office, ENROL_ADDRESS, "127.0.0.1")
    assert node.config is not None and node.config.public_url == office.url
    held = await node.hold()
    node.since = 0
    parked = asyncio.create_task(node.poll_for("order"))
    await asyncio.sleep(0.5)
    assert not parked.done()
    begin = time.monotonic()
    released = await office.ask("POST", f"/api/v1/jobs/{held}/release", {"printer": "Foyer"}, token)
    assert released.status == 202
    order, part = node.open(await parked)
    assert time.monotonic() - begin < PROMPT and (order.job, part) == (held, node.parts[held])


async def test_a_signature_covers_what_the_proxy_passes_on(office: Office) -> None:
    node = await office.join()
    path, query = "/node/v1/uploads/a%2Fb", "note=a%26b+c&empty=&%C3%A9"
    answer = await node.send("GET", path, b"", query, node.signed("GET", path, query=query))
    assert answer.code == "not-found", "the signature is good, the upload is none"
    headers = node.signed("GET", "/node/v1/config")
    assert (await node.send("GET", "/node/v1/config", b"", "", headers)).status == 200
    assert (await node.send("GET", "/node/v1/config", b"", "", headers)).status == 401, "once"
    large = node.events(*(node.job_report(title="x" * 255, sentence="y" * 900) for _ in range(450)))
    assert (await node.call("POST", "/node/v1/events", large)).body == {"n": 450}


async def test_events_arrive_at_once(office: Office) -> None:
    node, token = await office.join(), await office.sign_in()
    async with listening(office, token) as events:
        assert (await events.next())[0] == "jobs"
        begin = time.monotonic()
        job = await node.hold()
        assert (await events.state(job, "held"))["title"] == "Payslip"
        assert time.monotonic() - begin < PROMPT


async def test_a_page_that_was_closed_is_noticed_behind_the_proxy(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "STREAMS", 1)
    token = await office.sign_in()
    async with listening(office, token) as events:
        await events.next()
        assert await refused(office, token)
    await until_free(office, token)


async def test_an_upload_streams(office: Office) -> None:
    node, token = await office.join(), await office.sign_in()
    document = secrets.token_bytes(4 << 20)
    offer = await offered(office, token, len(document))
    body = sealed(offer, document, node)
    rest = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield body[: 1 << 20]
        await rest.wait()
        yield body[1 << 20 :]

    length = {"Content-Length": str(len(body))}
    sending = asyncio.create_task(put(office, token, offer["id"], slowly(), **length))
    item = await node.poll_for("upload")
    async with fetching(node, item["upload"]) as response:
        first = await asyncio.wait_for(response.content.readexactly(900 << 10), 5)
        assert first == body[: 900 << 10], "it is there before the browser has sent all"
        rest.set()
        assert first + await response.content.read() == body
    await conclude(node, offer["id"], job=await node.hold())
    assert (await sending).status == 201


async def test_a_large_body_passes(office: Office) -> None:
    node, token = await office.join(), await office.sign_in()
    document = bytes(48 << 20)
    offer = await offered(office, token, len(document))
    sending = asyncio.create_task(put(office, token, offer["id"], sealed(offer, document, node)))
    _, came = await take(node)
    assert came == document
    await conclude(node, offer["id"], job=await node.hold())
    assert (await sending).status == 201


async def test_browsers_get_http_2(office: Office) -> None:
    # Everything that a page asks for then shares one connection, its stream of events included.
    command = ["curl", "--silent", "--http2", "--cacert", office.authority, "--output", "/dev/null"]
    command += ["--write-out", "%{http_version} %{http_code}", office.url]
    shown = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
    assert shown.stdout == "2 200"


@pytest.mark.parametrize("kind", PROXIES)
async def test_a_unix_socket_is_for_its_group_and_works_the_same(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    async with behind(kind, tmp_path, path) as office:
        assert path.stat().st_mode & 0o777 == 0o660
        await office.sign_in()
        assert counted(office, SIGN_IN_ADDRESS, CALLER)
        await (await office.join()).hold()
        with pytest.raises(ConfigError, match="in use"):
            async with app.serving(office.settings, ShiftedClock(), Passwords(CHEAP)):
                pass
        settings = office.settings
    assert path.exists()
    async with app.serving(settings, ShiftedClock(), Passwords(CHEAP)):
        pass  # the one that was left behind was in nobody's way


async def test_without_a_proxy_the_header_is_anybodys_and_is_not_believed(tmp_path: Path) -> None:
    async with open_office(tmp_path) as office:
        await office.ask(
            "POST", "/api/v1/session", {"name": "x", "password": "y"}, **{"X-Forwarded-For": "203.0.113.9"}
        )
        assert counted(office, SIGN_IN_ADDRESS, "127.0.0.1") and not counted(office, SIGN_IN_ADDRESS, "203.0.113.9")


@pytest.mark.parametrize(
    ("sent", "believed"),
    [
        ("198.51.100.7", "198.51.100.7"),
        ("203.0.113.9, 198.51.100.7", "198.51.100.7"),
        ("2001:db8::1", "2001:db8::/64"),
        ("198.51.100.7, unknown", "127.0.0.1"),
        ("198.51.100.7:1234", "127.0.0.1"),
        ("", "127.0.0.1"),
    ],
)
async def test_the_last_address_in_the_header_counts(tmp_path: Path, sent: str, believed: str) -> None:
    settings = dataclasses.replace(make_settings(tmp_path), proxy=True)
    clock = ShiftedClock()
    store = Store(settings.database_url, clock)
    try:
        async with app.serving(settings, clock, Passwords(CHEAP)) as port, aiohttp.ClientSession() as http:
            office = Office(f"http://127.0.0.1:{port}", store, clock, http, settings, tmp_path / "ca.pem")
            await office.ask("POST", "/api/v1/session", {"name": "x", "password": "y"}, **{"X-Forwarded-For": sent})
            assert counted(office, SIGN_IN_ADDRESS, believed)
    finally:
        store.close_now()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"host": "0.0.0.0", "public_url": "https://a.example"}, "loopback"),
        ({"host": "192.0.2.1", "public_url": "https://a.example"}, "loopback"),
        ({"host": "localhost", "public_url": "https://a.example"}, "loopback"),
        ({"host": "127.0.0.1"}, "public_url"),
        ({"proxy": False, "socket": Path("/x"), "public_url": "https://a.example"}, "proxy = true"),
    ],
)
def test_plain_http_is_for_a_proxy_on_this_host_only(changes: dict[str, str], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Settings(**{"proxy": True, **changes})  # type: ignore[arg-type]


class ProxiedCloud(Cloud):
    """A real ``pullprint-cloud serve`` behind a proxy, whose port is the cloud's for everybody else."""

    def __init__(self, root: Path, kind: str) -> None:
        super().__init__(root)
        self._inner = free_port()
        self.config.write_text(
            f'proxy = true\nhost = "127.0.0.1"\nport = {self._inner}\n'
            f'public-url = "{self.url}"\nstate-dir = "{self.state}"\n'
        )
        for name in ("server.pem", "server.key"):
            (self.root / name).write_bytes((self.authority.parent / name).read_bytes())
        self.proxy = PROXIES[kind](self.root, self.port, str(self._inner))

    def start(self, kill_at: str = "") -> None:
        self.process.start(ready=("127.0.0.1", self._inner), timeout=30)
        self.proxy.start(ready=("127.0.0.1", self.port))


@pytest.mark.parametrize("kind", PROXIES)
def test_a_whole_office_prints_through_a_proxy(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clouds: list[ProxiedCloud] = []

    def proxied(root: Path) -> ProxiedCloud:
        clouds.append(ProxiedCloud(root, kind))
        return clouds[0]

    monkeypatch.setattr(rig, "Cloud", proxied)
    try:
        with rig.Office() as office, IppPrinter("Lobby") as printer:
            office.add_printer("Lobby", printer.uri)
            me, document = office.person(), pdf()
            office.cups.lp("pullprint", document, user=office.account, title="minutes.pdf")
            me.release(me.wait_job("minutes.pdf", "held")["id"], "Lobby")
            me.wait_job("minutes.pdf", "done")
            uploaded = me.upload("more.pdf", document)
            me.release(uploaded["id"], "Lobby")
            assert [printed.document for printed in printer.wait_documents(2)] == [document, document]
    finally:
        for cloud in clouds:
            cloud.proxy.stop()
