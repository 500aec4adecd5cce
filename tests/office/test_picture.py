"""The small picture of page one, from ``lp`` to a browser's eyes; and what somebody sees who has only one half."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import pikepdf
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from PIL import Image
from tests.rig.documents import marker, pdf
from tests.rig.office import Answer, Office, Person
from tests.rig.processes import wait_until

SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


class View:
    """One view of the page: a key pair of its own, and what it has seen. It uses nothing of Pullprint."""

    def __init__(self, person: Person) -> None:
        self.person = person
        self.private = X25519PrivateKey.generate()
        self.keys: dict[str, bytes] = {}
        self.sealed: dict[str, bytes] = {}

    def look(self, *jobs: str) -> dict[str, bytes]:
        public = base64.b64encode(self.private.public_key().public_bytes_raw()).decode()
        return {
            found["job"]: self.open(found)
            for found in self.person.post("/api/v1/pictures", {"public": public, "jobs": jobs})
        }

    def open(self, found: dict[str, Any]) -> bytes:
        """The WebP file, as `wire.api.Picture` says."""
        job = found["job"].encode("ascii")
        info = b"pullprint/1\0\x07picture" + len(job).to_bytes(2, "big") + job
        key = self.keys[found["job"]] = SUITE.decrypt(base64.b64decode(found["key"]), self.private, info)
        sealed = self.sealed[found["job"]] = base64.b64decode(found["picture"])
        return AESGCM(key).decrypt(sealed[:12], sealed[12:], job)


def two_pages(word: str) -> bytes:
    """A red square low on the left of page one; page two is blue."""
    document = pikepdf.new()
    for content in (f"1 0 0 rg 50 50 200 200 re f % {word}", "0 0 1 rg 0 0 595 842 re f"):
        page = document.add_blank_page(page_size=(595, 842))
        page.Contents = document.make_stream(content.encode())
    out = io.BytesIO()
    document.save(out, compress_streams=False)
    return out.getvalue()


def print_and_wait(office: Office, title: str, document: bytes, state: str = "held") -> dict[str, Any]:
    """The job, once it has its picture."""
    office.cups.lp("pullprint", document, user=office.account, title=title)
    me = office.person()
    me.wait_job(title, state)
    wait_until("the picture", lambda: (me.job(title) or {})["picture"], 30)
    return me.wait_job(title)


def found_in(root: Path, data: bytes) -> list[Path]:
    """Files below *root* with *data* in them, as it is or as JSON would have it."""
    seen = [path for path in root.rglob("*") if path.is_file()]
    assert any(path.suffix == ".sqlite" for path in seen)
    # The middle third of its base64, at each of the three ways to begin.
    texts = [base64.b64encode(data[shift : shift + 3 * (len(data) // 6)]) for shift in range(3)]
    return [path for path in seen if any(form in path.read_bytes() for form in (data, data[:200], *texts))]


def test_the_owner_sees_page_one_as_it_was_drawn(office: Office) -> None:
    job = print_and_wait(office, "drawn.pdf", two_pages("drawn"))
    picture = View(office.person()).look(job["id"])[job["id"]]
    with Image.open(io.BytesIO(picture), formats=["WEBP"]) as image:
        assert image.size == (256, 362)
        pixels = image.convert("RGB")
    scale = 256 / 595
    for x, y, color in [(150, 150, (255, 0, 0)), (400, 150, (255, 255, 255)), (150, 600, (255, 255, 255))]:
        pixel = pixels.getpixel((round(x * scale), round((842 - y) * scale)))
        assert isinstance(pixel, tuple) and all(abs(a - b) < 24 for a, b in zip(pixel, color, strict=True)), (x, y)


def test_neither_host_nor_cloud_has_both_halves_on_its_disk(office: Office) -> None:
    word = marker()
    job = print_and_wait(office, "halves.pdf", two_pages(word))["id"]
    view = View(office.person())
    picture = view.look(job)[job]
    host, cloud = office.node.state, office.cloud.state
    assert found_in(host, view.keys[job]) and found_in(cloud, view.sealed[job]), "the test looks in the wrong place"
    assert found_in(cloud, view.keys[job]) == [], "the cloud has both"
    assert found_in(host, view.sealed[job][28:]) == [], "the host has both"
    for root in office.disks():
        assert [path for path in root.rglob("*") if path.is_file() and picture[12:200] in path.read_bytes()] == []
    for log in (office.node.process.log, office.cloud.process.log):
        text = log.read_bytes()
        assert picture[12:60] not in text and base64.b64encode(view.keys[job]) not in text


def test_a_host_that_has_not_delivered_it_yet_cannot_show_it_either(office: Office) -> None:
    """Its index holds the report and the key; the report is sealed to the cloud."""
    office.cloud.process.stop()
    try:
        office.cups.lp("pullprint", two_pages(marker()), user=office.account, title="later.pdf")

        def reported() -> bool:
            jobs = json.loads(office.node.pullprint("jobs", "--json"))
            named = [f'"kind":"picture","job":"{job["id"]}"'.encode() for job in jobs if job["title"] == "later.pdf"]
            files = [path.read_bytes() for path in office.node.state.glob("index.sqlite*")]
            return any(name in data for name in named for data in files)

        wait_until("the report", reported, 30)
    finally:
        office.cloud.start()
    me = office.person()
    me.wait_job("later.pdf", "held")
    wait_until("the picture", lambda: (me.job("later.pdf") or {})["picture"], 40)
    office.node.wait_connected(40)
    job, view = me.wait_job("later.pdf")["id"], View(me)
    view.look(job)
    assert found_in(office.node.state, view.keys[job])
    assert found_in(office.node.state, view.sealed[job][28:]) == []


def test_a_picture_ends_with_its_job(office: Office) -> None:
    gone, kept = (print_and_wait(office, title, pdf()) for title in ("gone.pdf", "kept.pdf"))
    me = office.person()
    me.delete(f"/api/v1/jobs/{gone['id']}")
    assert me.wait_job("gone.pdf", "cancelled")["picture"] is False
    assert View(me).look(gone["id"], kept["id"]).keys() == {kept["id"]}


def test_another_user_is_shown_nothing_and_a_broken_document_has_nothing(office: Office) -> None:
    job = print_and_wait(office, "private.pdf", pdf())["id"]
    other = office.cloud.person("mallory@example.com", office.add_user("mallory@example.com"))
    assert View(other).look(job) == {}
    office.cups.lp("pullprint", b"no document at all", "raw", user=office.account, title="broken.bin")
    me = office.person()
    wait_until("facts", lambda: (me.job("broken.bin") or {}).get("facts"), 20)
    broken = me.wait_job("broken.bin")
    assert broken["picture"] is False
    assert View(me).look(job, broken["id"]).keys() == {job}
    with pytest.raises(Answer) as refused:
        me.post("/api/v1/pictures", {"public": "AAAA", "jobs": [job]})
    assert refused.value.status == 400


def test_a_view_whose_key_is_none_harms_nobody(office: Office) -> None:
    """The point at infinity: to seal to it would be to seal to everybody."""
    job = print_and_wait(office, "null.pdf", pdf())["id"]
    me = office.person()
    nothing = base64.b64encode(bytes(32)).decode()
    assert me.post("/api/v1/pictures", {"public": nothing, "jobs": [job]}) == []
    assert View(me).look(job).keys() == {job}
    assert "Traceback" not in office.node.process.log.read_text("utf-8", "replace")
