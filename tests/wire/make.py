"""Make the wire fixtures of this version: ``python -m tests.wire.make`` from the project's root.

``tests/wire/VERSION`` has every message as that version writes it, and what it signs. The folder of a released version
is never changed again: after a release this makes the next one's. Keys and statements follow from `SEED`, so that two
runs write the same bytes.
"""

import hashlib
import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import SecretStr

from pullprint import __version__
from pullprint.model.facts import Facts, SheetSize
from pullprint.model.placement import Role
from pullprint.model.ticket import Ticket
from pullprint.wire import api, holders, mesh, node, order, signature, views
from pullprint.wire.types import Message

FOLDER = Path(__file__).parent
SEED = b"pullprint wire fixtures"
NOW = 1_795_219_200
MODULES = ("api", "holders", "mesh", "node", "order", "views")
NEVER_WRITTEN = {node.UnknownItem, node.UnknownReport}
"""What a reader makes of a kind that it does not know."""

JOB = "0123456789abcdef0123456789abcdef"
TICKET = Ticket(2, (("sides", "two-sided-long-edge"), ("x-new", "a b ☃")))
FACTS = Facts(pages=3, color_pages=1, sheets=(SheetSize(210.0, 297.0, 3),))
PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


def secret(name: str) -> bytes:
    """32 bytes that are always the same."""
    return hashlib.sha256(SEED + name.encode()).digest()


ORDER_KEY = Ed25519PrivateKey.from_private_bytes(secret("order key"))
NODE_KEY = Ed25519PrivateKey.from_private_bytes(secret("node"))
IDENTITY = NODE_KEY.public_key().public_bytes_raw()
NODE = signature.node_id(IDENTITY)
PUBLIC = secret("some public half")


def messages() -> list[Message]:
    """At least one of each type; together they set every field to something else than its default."""
    party = node.PartyKey(key="20261121-0123456789ab", public=PUBLIC, expires=NOW + 86_400)
    printer = node.Printer(id="p-1", name="Foyer", place="Ground floor", uri="ipps://192.0.2.7/ipp/print")
    config = node.SiteConfig(
        revision=7, organisation="acme", site="hq", node=NODE, networks=("192.0.2.0/24", "2001:db8::/32"),
        owner_rule="{user}@example.com", users=("ada@example.com",), printers=(printer,), cloud_key=party, hold=86_400,
        public_url="https://print.example.com", accounts={"guest": "ada@example.com"},
    )  # fmt: skip
    job = node.JobReport(
        job=JOB, job_uuid="0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0", cups_job_id=7, queue="pullprint",
        owner="ada@example.com", submitter="ada", host="localhost", title="Jahresbericht ☃",
        content_type="application/pdf", size=1_000, ticket=TICKET, facts=FACTS, state="held",
        sentence="Release it at a printer.", created=NOW, expires=NOW + 86_400, direct_printer="Foyer",
        claim_code="7KQ2-M9XD", generation=2, ballot=3, cloud_key="cloud-1", cloud_slot=bytes(range(80)), table="a.b.c",
    )  # fmt: skip
    state = node.StateReport(
        job=JOB,
        state="held",
        sentence="The printer is out of paper.",
        order="o-1",
        ballot=3,
        nothing_sent=True,
        pages=2,
        elsewhere=True,
    )
    trace = node.TraceReport(
        job=JOB, seq=4, at=NOW + 0.5, event="stored", text="Received.", detail={"queue": "pullprint"}
    )
    picture = node.PictureReport(job=JOB, cloud_key="cloud-1", picture=b"sealed")
    reports = [node.Event(n=n, report=report) for n, report in enumerate((job, state, trace, picture), 1)]
    holding = node.Holding(job=JOB, state="held", generation=2)
    items: list[Any] = [
        node.OrderItem(seq=1, order="a.b.c", part=b"part", part_key="20261121-0123456789ab"),
        node.CancelItem(seq=2, job=JOB, by="ada@example.com"),
        node.OwnerItem(seq=3, job=JOB, owner="ada@example.com"),
        node.SettleItem(seq=4, job=JOB, by="ada@example.com"),
        node.ConfigItem(seq=5),
        node.PictureItem(seq=6, request="r-1", public=PUBLIC, jobs=(JOB,)),
        node.UploadItem(
            seq=7, upload="u-1", key="20261121-0123456789ab", owner="ada@example.com", title="a.pdf",
            content_type="application/pdf", size=5,
        ),
        node.HoldersItem(seq=8, order="a.b.c", part=b"part", part_key="20261121-0123456789ab"),
    ]  # fmt: skip
    can = views.CapabilitiesView(
        color=True, sides=("one-sided", "two-sided-long-edge"), media=("iso_a4_210x297mm",), page_ranges=True, copies=99
    )
    state_of_printer = node.PrinterState(printer="p-1", ready=True, trouble="The printer is out of paper.", can=can)
    job_view = views.JobView(
        id=JOB, title="a.pdf", owner="ada@example.com", submitter="ada", host="localhost", queue="pullprint",
        node="desk-1", state="uncertain", sentence="Look at the printer.", content_type="application/pdf", size=5,
        ticket=TICKET, facts=FACTS, created=NOW, expires=NOW + 86_400, direct_printer="Foyer", claim_code="7KQ2-M9XD",
        doubtful=(3,), site="hq", trouble=True, printer="Foyer", printed=2, picture=True, ended=NOW + 60,
        copies=3, awake=2, holders=("desk-1", "desk-2", "desk-3"),
    )  # fmt: skip
    return [
        party, printer, config, job, job.model_copy(update={"facts": None, "queue": ""}), state, trace, picture,
        *reports, holding, *items, can, state_of_printer, job_view,
        node.Enrolment(
            version=__version__, code="7KQ2M9XD", name="desk-1", identity=IDENTITY, key=party, csr=PEM
        ),
        node.Welcome(
            node=NODE, organisation="acme", site="hq", order_pin=PUBLIC, certificate=PEM, authority=PEM
        ),
        node.SignedConfig(config="a.b.c", now=NOW + 0.5, roster="a.b.c"),
        *_mesh(party),
        node.Events(epoch="0011223344556677", events=tuple(reports)),
        node.Acknowledged(n=4),
        node.Holdings(
            epoch="0011223344556677", version=__version__, key=party, last_event=4, jobs=(holding,), role="super",
            endpoints=("192.0.2.9:9264",), room=1 << 30,
        ),
        node.Candidates(nodes=(NODE,)),
        node.PartAsk(job=JOB, generation=1),
        node.PartItem(order="placement-1", part=b"sealed", part_key="20261121-0123456789ab"),
        node.CertificateAsk(csr=PEM),
        node.Certificate(certificate=PEM, authority=PEM),
        node.Differences(report=(JOB,), cancelled=(JOB,), restored=True, now=NOW + 0.5, version=__version__),
        node.Ask(job=JOB, printer="p-1", changes={"copies": "2"}, forces=(3,), by="ada@example.com"),
        node.InboxAnswer(items=tuple(items), now=NOW + 0.5),
        node.PictureKeys(request="r-1", keys={JOB: b"sealed"}),
        node.UploadResult(job=JOB),
        node.UploadResult(code="too-large", sentence="It is too large."),
        node.PrinterStates(printers=(state_of_printer,)),
        node.LoginAsk(account="ada"),
        node.LoginOffer(
            device_code="d-1", user_code="WDJB-MJHT", verification_uri="https://print.example.com/login",
            verification_uri_complete="https://print.example.com/login?code=WDJB-MJHT", expires_in=600, interval=5,
        ),
        node.TokenAsk(device_code="d-1"),
        node.Token(access_token="a.b.c", user="ada@example.com"),
        node.AccountStatement(iss="acme", aud=NODE, iat=NOW, account="ada", user="ada@example.com"),
        node.Failure(code="not-found", sentence="There is no such job, or it is not yours."),
        order.Order(
            jti="o-1", iss="acme", aud=NODE, iat=NOW, exp=NOW + 60, job=JOB, printer="p-1", ticket=TICKET, ballot=4,
            forces=(3,), by="ada@example.com",
        ),
        api.SignIn(name="ada", password=SecretStr("correct horse"), organisation="acme", remember=True),
        api.InvitationToken(token=SecretStr("t-1")),
        api.Invitation(user="ada@example.com", organisation="Acme"),
        api.Acceptance(token=SecretStr("t-1"), password=SecretStr("correct horse"), remember=True),
        api.Session(user="ada@example.com", organisation="Acme", token="t-1", expires=NOW),
        api.JobList(version=7, jobs=(job_view,)),
        api.SessionView(id="s-1", kind="page", name="Firefox on Android", created=NOW, used=NOW + 1, current=True),
        api.History(jobs=(job_view,), next="cursor"),
        api.PicturesRequest(public=PUBLIC, jobs=(JOB,)),
        api.Picture(job=JOB, picture=b"sealed", key=b"sealed"),
        api.UploadRequest(title="a.pdf", content_type="application/pdf", size=5, site="hq"),
        api.UploadOffer(id="u-1", public=PUBLIC, limit=1 << 29),
        api.PendingLogin(code="WDJB-MJHT", account="ada", host="desk-1", site="hq", expires=NOW),
        api.LoginAnswer(allow=True),
        views.StepView(at=NOW + 0.5, host="desk-1", event="stored", text="Received.", detail={"queue": "pullprint"}),
        views.PrinterView(
            id="p-1", name="Foyer", place="Ground floor", site="hq", code="7KQ2", ready=False,
            trouble="The printer is out of paper.", can=can,
        ),
        views.ReleaseRequest(printer="Foyer", changes={"sides": "one-sided"}, again=True, doubtful=(3,)),
        views.ClaimRequest(code="7KQ2-M9XD"),
        views.FindingView(level="bad", what="The cloud is away.", advice="Look at the network."),
        views.StatusView(
            version=__version__, joined=True, node=NODE, name="desk-1", organisation="acme", site="hq",
            cloud="https://print.example.com", connected=True, connected_since=NOW + 0.5, sentence="All is well.",
            held=1, unclaimed=2, uncertain=3, stored_bytes=4, unreported=5, cloud_version=__version__,
            config_trouble="The configuration /etc/pullprint/pullprint.toml is good again, and in use after a restart.",
        ),
        *_seen_mesh(),
        *_holders(party),
        views.JoinRequest(cloud="https://print.example.com", code="7KQ2-M9XD", authority=PEM),
        views.LoginRequest(),
        views.LoginView(
            user_code="WDJB-MJHT", verification_uri="https://print.example.com/login",
            verification_uri_complete="https://print.example.com/login?code=WDJB-MJHT", expires_in=600, interval=5,
            state="allowed", user="ada@example.com",
        ),
    ]  # fmt: skip


def _mesh(party: node.PartyKey) -> list[Message]:
    """What nodes say to each other."""
    peer = mesh.Peer(node=NODE, name="desk-1", identity=IDENTITY, role=Role.SUPER, endpoints=("192.0.2.9:9264",))
    slot = mesh.KeySlot(party=NODE, key=party.key, sealed=bytes(96))
    wrap = mesh.KeyWrap(first=0, second=1, sealed=bytes(48))
    attempt = mesh.Attempt(ballot=3, order="o-1", releaser=NODE, nothing_sent=True, carried=True)
    vote = mesh.Vote(promised=3, attempts=(attempt,), lost=True)
    return [
        peer, slot, wrap, attempt, vote,
        mesh.Roster(organisation="acme", site="hq", revision=7, peers=(peer,), revoked=("f" * 32,)),
        mesh.SignedRoster(roster="a.b.c"),
        mesh.Hello(node=NODE, version=__version__, protocol=2, roster=7, role=Role.CLIENT, room=1 << 30, load=5),
        mesh.Offer(size=1_000, digest=PUBLIC, expires=NOW + 60),
        mesh.Accepted(key=party, have=500),
        mesh.Received(size=1_000, digest=PUBLIC),
        mesh.KeyTable(
            job=JOB, generation=2, holders=(NODE,), slots=(slot, slot.model_copy(update={"party": "cloud"})),
            wraps=(wrap,), size=1_000, digest=PUBLIC, author=IDENTITY,
        ),
        mesh.Installation(
            table="a.b.c", expires=NOW + 60, owner="ada@example.com", host="desk-9", cups_job_id=7,
            claim_code="7KQ2-M9XD", picture_key=b"k" * 32, again=True,
        ),
        mesh.Prepare(job=JOB, generation=2, ballot=3, order="a.b.c", key=party),
        mesh.Commit(job=JOB, generation=2, ballot=3, order="a.b.c"),
        mesh.Ballots(vote=vote, refused="outdated", part=b"sealed"),
        mesh.News(job=JOB, generation=2, kind="printed", ballot=3, order="a.b.c"),
    ]  # fmt: skip


def _holders(party: node.PartyKey) -> list[Message]:
    """How a job gets other holders."""
    start = mesh.Vote(promised=3, attempts=(mesh.Attempt(ballot=3, order="o-1", releaser=NODE, carried=True),))
    proposal = holders.Proposal(table="a.b.c", start=start)
    accepted = holders.Accepted(number=6, proposal=proposal)
    link = holders.Link(table="a.b.c", acceptances=("a.b.c",))
    return [
        proposal, accepted, link,
        holders.HoldersOrder(
            jti="h-1", iss="acme", aud=NODE, iat=NOW, exp=NOW + 600, job=JOB, base=2, number=7, out=("f" * 32,),
            candidates=("e" * 32,), wanted=1, urgent=True,
        ),
        holders.Close(job=JOB, generation=2, number=7, order="a.b.c"),
        holders.Closed(vote=start, closed=7, accepted=accepted, key=party, refused="outdated"),
        holders.Accept(job=JOB, generation=2, number=7, proposal=proposal, order="a.b.c"),
        holders.AcceptanceAnswer(acceptance="a.b.c", refused="outdated"),
        holders.Acceptance(
            voter=IDENTITY, job=JOB, base=2, base_table=PUBLIC, number=7, table=PUBLIC, start=PUBLIC
        ),
        holders.Opening(
            table="a.b.c", expires=NOW + 60, owner="ada@example.com", host="desk-9", cups_job_id=7,
            claim_code="7KQ2-M9XD", picture_key=b"k" * 32, earlier=(link,), acceptances=("a.b.c",), start=start,
            again=True,
        ),
    ]  # fmt: skip


def _seen_mesh() -> list[Message]:
    """What people are shown of it."""
    seen = views.MeshNodeView(
        node=NODE, name="desk-1", role="super", here=True, awake=True, endpoint="192.0.2.9:9264", version=__version__,
        held=5, room=1 << 30, lag=0.004, owed=1, trouble="It does not answer.",
    )  # fmt: skip
    job = views.MeshJobView(
        id=JOB, state="held", generation=2, holders=(NODE,), promised=3, attempts=("3 by desk-1: nothing sent",)
    )
    return [seen, job, views.MeshView(site="hq", revision=7, nodes=(seen,), jobs=(job,), placed=4, short=1)]


def signed() -> dict[str, Any]:
    """What is signed, with the keys that it is checked with."""
    made = {type(message): message for message in messages()}
    order_key = ORDER_KEY.private_bytes_raw()
    with mock.patch("secrets.token_hex", return_value="00" * 16):
        headers = signature.sign(NODE_KEY, NODE, "POST", "/node/v1/events", "a=b%20c", b"{}", NOW)
    return {
        "now": NOW,
        "node": NODE,
        "identity": IDENTITY.hex(),
        "pin": ORDER_KEY.public_key().public_bytes_raw().hex(),
        "order": order.sign_order(made[order.Order], order_key),  # type: ignore[arg-type]
        "config": node.sign_config(made[node.SiteConfig], order_key),  # type: ignore[arg-type]
        "account": node.sign_account(made[node.AccountStatement], order_key),  # type: ignore[arg-type]
        "request": {"method": "POST", "path": "/node/v1/events", "query": "a=b%20c", "body": "{}", "headers": headers},
    }


def intake_line() -> dict[str, Any]:
    """What the backend sends; tests/test_backend.py sees to it that it does."""
    return {
        "v": 1, "cups_job_id": 7, "copies": 2, "job_uuid": "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0",
        "device_uri": "pullprint:/", "queue": "pullprint", "user": "ada", "title": "Jahresbericht ☃",
        "options": "sides=two-sided-long-edge x-new='a b ☃'", "content_type": "application/pdf", "host": "localhost",
    }  # fmt: skip


def types() -> set[type[Message]]:
    """Every message that a version of ours writes."""
    found = set()
    for name in MODULES:
        module = importlib.import_module(f"pullprint.wire.{name}")
        found |= {
            kind
            for kind in vars(module).values()
            if isinstance(kind, type) and issubclass(kind, Message) and kind.__module__ == module.__name__
        }
    return found - NEVER_WRITTEN


def written(message: Message) -> dict[str, Any]:
    """*message* as it is sent; pydantic itself never writes a secret."""
    values: dict[str, Any] = json.loads(message.model_dump_json())
    for name in type(message).model_fields:
        if isinstance(value := getattr(message, name), SecretStr):
            values[name] = value.get_secret_value()
    return values


def files() -> Iterator[tuple[str, str]]:
    """Name and text of every fixture of this version; the name begins with the message's, ``node.JobReport``."""
    count: dict[str, int] = {}
    for message in messages():
        name = f"{type(message).__module__.rpartition('.')[2]}.{type(message).__name__}"
        count[name] = count.get(name, 0) + 1
        number = f".{count[name]}" if count[name] > 1 else ""
        yield f"{name}{number}.json", _text(written(message))
    yield "intake.line.json", _text(intake_line())
    yield "signed.json", _text(signed())


def _text(values: dict[str, Any]) -> str:
    return json.dumps(values, indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    """Write this version's folder."""
    folder = FOLDER / __version__
    folder.mkdir(exist_ok=True)
    made = dict(files())
    for old in folder.glob("*.json"):
        if old.name not in made:
            old.unlink()
    for name, text in made.items():
        (folder / name).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
