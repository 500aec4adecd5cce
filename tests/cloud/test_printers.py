"""Printers as people see them: what nodes say of them, codes to type, and signs that a camera really reads."""

import asyncio
import base64
import io
import json
import logging
from pathlib import Path
from typing import Any

import pypdfium2
import pytest
import zxingcpp
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.cloud.office import NodeClient, Office
from tests.cloud.test_server import command, write_settings
from tests.rig.browser import chromium

from pullprint.base.text import printable
from pullprint.cloud import organisations, printers, signs, sites
from pullprint.cloud.bus import printers_topic
from pullprint.cloud.signs import FontMissing, Sign
from pullprint.cloud.store import Store
from pullprint.model import owner

CAN = {
    "color": True, "sides": ["one-sided", "two-sided-long-edge"], "media": ["iso_a4_210x297mm"],
    "page_ranges": True, "copies": 99,
}  # fmt: skip
URL = "https://print.example.com/p/0123456789ab"
SIGN = Sign("Foyer", "Ground floor", "Acme", "7KQ2", URL, "print.example.com")


async def tell(node: NodeClient, *states: dict[str, Any]) -> int:
    """A node's word on printers; the cloud's HTTP status."""
    return (await node.call("POST", "/node/v1/printers", {"printers": list(states)})).status


async def shown(office: Office, token: str, which: str = "") -> dict[str, Any]:
    answer = await office.ask("GET", f"/api/v1/printers/{which or office.printer}", token=token)
    assert answer.status == 200, answer
    return dict(answer.body)


async def test_what_a_node_says_of_a_printer_is_shown_for_half_an_hour(office: Office) -> None:
    node, token = await office.join(), await office.sign_in()
    new = await shown(office, token)
    assert (new["ready"], new["trouble"], new["can"], new["site"]) == (None, "", None, "hq")
    assert await tell(node, {"printer": office.printer, "ready": True, "trouble": "Toner is low.", "can": CAN}) == 204
    known = await shown(office, token)
    assert (known["ready"], known["trouble"], known["can"]) == (True, "Toner is low.", CAN)
    assert (await office.ask("GET", "/api/v1/printers", token=token)).body == [known]
    assert await tell(node, {"printer": office.printer, "ready": False, "trouble": "It is off."}) == 204
    off = await shown(office, token)
    assert (off["ready"], off["trouble"]) == (False, "It is off.")
    assert off["can"] == CAN, "what it can do does not end with its power"
    office.clock.shift = printers.FRESH + 5
    token = await office.sign_in()
    old = await shown(office, token)
    assert (old["ready"], old["trouble"], old["can"]) == (None, "", CAN)


async def test_printers_of_other_sites_and_organisations_are_not_the_senders_business(office: Office) -> None:
    office.store.transact(sites.add, "acme", "annex", ["127.0.0.0/8"], "", 86_400)
    annex = office.store.transact(printers.add, "acme", "annex", "Foyer", "socket://127.0.0.1", "")
    node, foreign, token = await office.join(), await office.join("globex"), await office.sign_in()
    lie = {"ready": True, "trouble": "LIE", "can": CAN}
    assert await tell(foreign, {"printer": office.printer, **lie}, {"printer": annex, **lie}) == 204
    assert await tell(node, {"printer": annex, **lie}, {"printer": "none", **lie}) == 204
    for which in (office.printer, annex):
        view = await shown(office, token, which)
        assert (view["ready"], view["trouble"], view["can"]) == (None, "", None)
    gus = await office.sign_in("gus@example.com")
    assert (await office.ask("GET", f"/api/v1/printers/{office.printer}", token=gus)).status == 404
    code = (await shown(office, token))["code"]
    assert (await office.ask("GET", f"/api/v1/printers/{code}", token=gus)).status == 404


async def test_a_host_that_cannot_reach_a_printer_does_not_speak_for_those_that_can(office: Office) -> None:
    here, elsewhere, token = await office.join(), await office.join(), await office.sign_in()
    laptop = await office.join(managed=False)
    off = {"printer": office.printer, "ready": False, "trouble": "It does not answer."}
    assert await tell(laptop, off) == 204
    assert (await shown(office, token))["ready"] is None, "nobody vouches for that host"
    assert await tell(here, {"printer": office.printer, "ready": True, "can": CAN}) == 204
    assert await tell(elsewhere, off) == 204
    assert (await shown(office, token))["ready"] is True
    assert await tell(elsewhere, {**off, "trouble": "It is out of paper.", "can": CAN}) == 204
    assert (await shown(office, token))["trouble"] == "It is out of paper.", "that it heard from the printer itself"
    assert await tell(here, {"printer": office.printer, "ready": True, "can": CAN}) == 204
    assert await tell(here, off) == 204
    assert (await shown(office, token))["ready"] is False, "whoever reached it last may say that it is gone"


async def test_an_address_that_no_database_takes_is_no_printer(office: Office) -> None:
    token = await office.sign_in()
    for path in ("printers/x%00", "printers/x%00/sign.png", "printers/..%2f", "printers/%ff"):
        assert (await office.ask("GET", f"/api/v1/{path}", token=token)).status == 404, path
    body = b'{"printer": "a\\u0000"}'
    assert (await office.ask("POST", f"/api/v1/jobs/{'0' * 32}/release", body, token)).status == 400


async def test_hostile_values_are_refused_or_made_harmless(office: Office) -> None:
    node, token = await office.join(), await office.sign_in()
    good = {"printer": office.printer, "ready": True}
    for bad in (
        {**good, "ready": None}, {**good, "trouble": "x" * 1_001}, {**good, "can": {"copies": 0}},
        {**good, "can": {"copies": 10_000}}, {**good, "can": {"media": ["x"] * 65}}, {**good, "can": {"sides": [1]}},
        {**good, "printer": "../etc"}, {**good, "can": "all"}, {"printer": office.printer},
    ):  # fmt: skip
        assert await tell(node, bad) == 400, bad
    assert (await node.call("POST", "/node/v1/printers", {"printers": [good] * 1_001})).status == 400
    assert (await shown(office, token))["ready"] is None
    nasty = ["<b>", "iso_a4_210x297mm", "iso_a4_210x297mm", "x" * 300, "a b", "", "Ünicode", "\u202e"]
    trouble = "\u202eoff\x00\n<script>" + "é" * 900
    assert await tell(node, {**good, "trouble": trouble, "can": {"media": nasty, "sides": nasty}}) == 204
    view = await shown(office, token)
    assert view["can"]["media"] == view["can"]["sides"] == ["iso_a4_210x297mm"]
    assert "\u202e" not in view["trouble"] and view["trouble"] == printable(trouble, 1_000)
    assert await tell(node, *[{**good, "trouble": str(n)} for n in range(1_000)]) == 204
    assert (await shown(office, token))["trouble"] == "999", "the last word counts"


async def test_people_are_woken_by_what_is_new_only(office: Office, tmp_path: Path) -> None:
    node = await office.join()
    state = {"printer": office.printer, "ready": True, "can": CAN}
    topics: list[set[str]] = []
    store = Store(office.settings.database_url, office.clock)
    store.on_commit = topics.append
    sender = printers.Node(node.id, "acme", "hq", "desk-1", True)

    def says(**changes: Any) -> list[set[str]]:
        topics.clear()
        store.transact(
            printers.take, sender, printers.PrinterStates.model_validate({"printers": [{**state, **changes}]})
        )
        return list(topics)

    news = [{printers_topic("acme")}]
    try:
        assert says() == news
        assert says() == []
        assert says(can=None) == [], "it did not say; nothing is new"
        assert says(trouble="Paper is jammed in the printer.") == news
        assert says(ready=False) == news
        assert says(ready=False, can={**CAN, "copies": 5}) == news
        office.clock.shift = printers.FRESH + 5
        assert says(ready=False, can={**CAN, "copies": 5}) == news, "nobody knew any more"
        assert says(printer="none") == []
    finally:
        store.close_now()


async def test_a_code_is_found_however_it_is_typed(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(printers, "new_printer_code", lambda: "0A1K")
    printer, token = office.add_printer("acme", "Attic"), await office.sign_in()
    for typed in ("0A1K", "0a1k", "OAIK", "oalk", "oa-ik", "0a%201k", "OaLk"):
        assert (await shown(office, token, typed))["id"] == printer, typed
    assert (await shown(office, token, printer.upper()))["id"] == printer
    for typed in ("0A1", "0A1KK", "%00", "..", "x" * 5_000, "Attic", "%F0%9F%98%80"):
        answer = await office.ask("GET", f"/api/v1/printers/{typed}", token=token)
        assert answer.status == 404 and answer.body["sentence"], typed


async def test_codes_are_unique_in_an_organisation_and_grow_when_they_run_out(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    letters = iter("AAAAAB")
    monkeypatch.setattr(printers, "new_printer_code", lambda: next(letters, "Z") * 4)
    office.add_printer("acme", "One")
    office.add_printer("acme", "Two")
    office.add_printer("globex", "One")
    codes = {line.name: line.code for line in office.store.transact(printers.lines, "acme")}
    assert codes["One"] == "AAAA" and codes["Two"] == "BBBB"
    assert [line.code for line in office.store.transact(printers.lines, "globex")] == ["ZZZZ"]
    office.add_printer("acme", "Three")
    office.add_printer("acme", "Four")
    codes = {line.name: line.code for line in office.store.transact(printers.lines, "acme")}
    assert (codes["Three"], codes["Four"]) == ("ZZZZ", "ZZZZZ")
    monkeypatch.setattr(printers, "new_printer_code", owner.new_printer_code)
    for n in range(50):
        office.add_printer("acme", f"P{n}")
    codes = {line.name: line.code for line in office.store.transact(printers.lines, "acme")}
    assert len(set(codes.values())) == len(codes) == 55


def read_code(image: Image.Image) -> list[str]:
    """What a camera finds in *image*."""
    return [found.text for found in zxingcpp.read_barcodes(image)]


def sheet(made: bytes) -> tuple[Image.Image, str]:
    """The only page of a sheet at 150 dots per inch, and its text."""
    document = pypdfium2.PdfDocument(made)
    try:
        assert len(document) == 1
        page = document[0]
        assert [round(length * 25.4 / 72) for length in page.get_size()] == [148, 210]
        return page.render(scale=150 / 72).to_pil(), page.get_textpage().get_text_bounded()
    finally:
        document.close()


async def fetch(office: Office, path: str, token: str) -> tuple[int, bytes, Any]:
    async with office.http.get(office.url + path, headers={"Authorization": f"Bearer {token}"}) as response:
        return response.status, await response.read(), response.headers


async def test_signs_lead_a_camera_to_the_printer(office: Office) -> None:
    token, path = await office.sign_in(), f"/api/v1/printers/{office.printer}"
    url, code = f"https://print.example.com/p/{office.printer}", (await shown(office, token))["code"]
    kinds = {"pdf": "application/pdf", "png": "image/png", "svg": "image/svg+xml"}
    for kind, content_type in kinds.items():
        status, made, headers = await fetch(office, f"{path}/sign.{kind}", token)
        assert (status, headers["Content-Type"], headers["Cache-Control"]) == (200, content_type, "no-store")
        assert headers["Content-Disposition"] == f'attachment; filename="Foyer-{code}.{kind}"'
        match kind:
            case "png":
                assert read_code(Image.open(io.BytesIO(made))) == [url]
            case "svg":
                assert made.startswith(b"<svg") and b"<script" not in made
            case "pdf":
                image, text = sheet(made)
                assert read_code(image) == [url]
                for word in ("Foyer", code, "Acme", "print.example.com", "Scan, choose, print.", "auswählen"):
                    assert word in text, text
    assert (await fetch(office, f"{path}/sign.exe", token))[0] == 404
    assert (await fetch(office, "/api/v1/printers/none/sign.pdf", token))[0] == 404
    gus = await office.sign_in("gus@example.com")
    for kind in kinds:
        status, made, _ = await fetch(office, f"{path}/sign.{kind}", gus)
        assert status == 404 and b"Foyer" not in made


def test_the_svg_is_read_from_a_dark_page_at_any_size() -> None:
    drawn = base64.b64encode(signs.svg(SIGN)).decode()
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 500, "height": 500})
        for width in (130, 333):
            page.set_content(
                f'<body style="background:#000"><img style="width:{width}px" src="data:image/svg+xml;base64,{drawn}">'
            )
            page.wait_for_function("document.images[0].complete && document.images[0].naturalWidth > 0")
            assert page.locator("img").bounding_box()["height"] == width  # type: ignore[index]
            assert read_code(Image.open(io.BytesIO(page.screenshot()))) == [URL]


@pytest.mark.parametrize(
    "name",
    ["W" * 255, "Ein sehr langer Druckername " * 9, "מדפסת קומה 3 ליד הכניסה", "طابعة الطابق الأول", "一階の受付プリンター" * 20,
     "\U0001f5a8 \U0001f468‍\U0001f469‍\U0001f467 Z̸̢a̷l̶g̸o̷", "<b>&amp; **bold** \\ {x} %s", "a\u00adb\u200bc\ufeff", "…", "\u0301"],
    ids=["wide", "long", "hebrew", "arabic", "cjk", "emoji", "markup", "invisible", "dots", "mark"],
)  # fmt: skip
def test_any_name_gets_a_sheet_whose_code_can_be_read(name: str) -> None:
    long = f"https://{'print.' * 12}example.com:8443"
    for url in ("https://print.example.com", long):
        of = Sign(name, name, name, "7KQ2Z", f"{url}/p/0123456789ab", url.removeprefix("https://"))
        image, text = sheet(signs.pdf(of))
        assert read_code(image) == [of.url]
        assert "7KQ2Z" in text
        margin = image.crop((0, 0, 50, image.height)), image.crop((image.width - 50, 0, image.width, image.height))
        assert all(side.convert("L").getextrema() == (255, 255) for side in margin), "something stands in the margin"


@settings(max_examples=25, deadline=None)
@given(st.text(min_size=1, max_size=255), st.text(max_size=255))
def test_no_name_breaks_a_sheet(name: str, place: str) -> None:
    made = signs.pdf(Sign(printable(name, 255), printable(place, 255), "Acme", "7KQ2", URL, "print.example.com"))
    assert made.startswith(b"%PDF-")


def test_a_short_name_stands_large_and_whole_on_the_sheet() -> None:
    image, text = sheet(signs.pdf(SIGN))
    assert text.split("\r\n")[:3] == ["Acme", "Foyer", "Ground floor"]
    [found] = zxingcpp.read_barcodes(image)
    corners = found.position
    millimetres = (corners.top_right.x - corners.top_left.x) * 25.4 / 150
    assert millimetres >= 60, millimetres


@pytest.mark.parametrize(
    ("name", "file"),
    [("Foyer", "Foyer-7KQ2.pdf"), ("Büro / 3. Stock\"; x=\r\nEvil", "Buro-3-Stock-x-Evil-7KQ2.pdf"), ("一階", "printer-7KQ2.pdf"),
     ("../../etc/passwd", "etc-passwd-7KQ2.pdf"), ("x" * 255, "x" * 60 + "-7KQ2.pdf")],
)  # fmt: skip
def test_file_names_are_plain(name: str, file: str) -> None:
    assert signs.file_name(Sign(name, "", "", "7KQ2", "", ""), "pdf") == file


async def test_without_the_font_a_sentence_says_what_to_install(
    office: Office, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    signs.pdf.cache_clear()
    monkeypatch.setattr(signs, "FONTS", (tmp_path,))
    token, path = await office.sign_in(), f"/api/v1/printers/{office.printer}/sign"
    status, made, _ = await fetch(office, f"{path}.pdf", token)
    assert status == FontMissing.http_status and "fonts-dejavu-core" in json.loads(made)["sentence"]
    assert (await fetch(office, f"{path}.png", token))[0] == 200


async def test_the_name_of_a_printer_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    signs.pdf(Sign("一階\ue000", "二階", "三", "7KQ2", URL, "print.example.com"))
    assert caplog.text == ""


async def test_the_server_answers_while_sheets_are_made(office: Office) -> None:
    signs.pdf.cache_clear()
    for n in range(6):
        office.add_printer("acme", f"{n} " + "W" * 250)
    token = await office.sign_in()
    ids = [view["id"] for view in (await office.ask("GET", "/api/v1/printers", token=token)).body]
    made = await asyncio.gather(*(fetch(office, f"/api/v1/printers/{which}/sign.pdf", token) for which in ids))
    assert [status for status, _, _ in made] == [200] * 7
    assert len({body for _, body, _ in made}) == 7


def test_an_admin_makes_signs_by_command(tmp_path: Path) -> None:
    write_settings(tmp_path)
    command(tmp_path, "organisation", "add", "acme", "Acme")
    command(tmp_path, "site", "add", "acme", "hq", "--network", "127.0.0.0/8")
    command(tmp_path, "printer", "add", "acme", "hq", "Foyer", "socket://127.0.0.1")
    [line] = json.loads(command(tmp_path, "printer", "list", "acme", "--json").stdout)
    refused = command(tmp_path, "printer", "sign", "acme", "Foyer", "--out", str(tmp_path / "s.pdf"), check=False)
    assert refused.returncode != 0 and "public_url" in refused.stderr and "Traceback" not in refused.stderr
    with (tmp_path / "cloud.toml").open("a") as file:
        file.write('public-url = "https://print.example.com/"\n')
    for which in ("foyer", line["id"], line["code"].lower()):
        command(tmp_path, "printer", "sign", "acme", which, "--out", str(tmp_path / "s.pdf"))
        image, text = sheet((tmp_path / "s.pdf").read_bytes())
        assert read_code(image) == [f"https://print.example.com/p/{line['id']}"] and line["code"] in text
    command(tmp_path, "printer", "sign", "acme", line["id"], "--out", str(tmp_path / "s.PNG"))
    assert read_code(Image.open(tmp_path / "s.PNG")) == [f"https://print.example.com/p/{line['id']}"]
    for words in (
        ("acme", "Foyer", "s.exe"),
        ("acme", "Cellar", "s.pdf"),
        ("none", "Foyer", "s.pdf"),
        ("acme", "Foyer", "no/s.pdf"),
    ):
        refused = command(tmp_path, "printer", "sign", *words[:2], "--out", str(tmp_path / words[2]), check=False)
        assert refused.returncode != 0 and refused.stderr and "Traceback" not in refused.stderr, words


def test_a_name_that_two_printers_have_is_no_answer_to_which(tmp_path: Path) -> None:
    from pullprint.base.clock import SystemClock
    from pullprint.base.errors import NotFound
    from pullprint.cloud.store import opened

    with opened(f"sqlite:///{tmp_path / 'cloud.sqlite'}", SystemClock()) as store:
        store.transact(organisations.add, "acme", "Acme")
        ids = []
        for site in ("hq", "annex"):
            store.transact(sites.add, "acme", site, ["127.0.0.0/8"], "", 86_400)
            ids.append(store.transact(printers.add, "acme", site, "Foyer", "socket://127.0.0.1", ""))
        with pytest.raises(NotFound, match="single printer"):
            store.transact(printers.meant, "acme", "Foyer")
        assert store.transact(printers.meant, "acme", ids[1]) == ids[1]
