"""What is uploaded on the page is a held job, and comes out of a printer like any other."""

import io
import secrets
import threading
from pathlib import Path

import pypdfium2
import pytest
from PIL import Image
from tests.rig.documents import marker, pdf
from tests.rig.office import Answer, Office
from tests.rig.printers import IppPrinter
from tests.rig.processes import wait_until


def printed(printer: IppPrinter, before: int) -> bytes:
    return printer.wait_documents(before + 1)[before].document


def pages(document: bytes) -> list[str]:
    with pypdfium2.PdfDocument(document) as opened:
        return [page.get_textpage().get_text_range() for page in opened]


def peak(pid: int) -> int:
    """The most memory that a process ever had, in MiB."""
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) >> 10


def reset_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def test_an_uploaded_pdf_comes_out_as_it_went_in(office: Office, ipp_printer: IppPrinter) -> None:
    me, document, before = office.person(), pdf(2), len(ipp_printer.documents())
    job = me.upload("minutes.pdf", document)
    assert (job["state"], job["owner"], job["title"], job["node"]) == ("held", office.user, "minutes.pdf", "node1")
    assert job["size"] == len(document) and job["claim_code"] == ""
    assert [held["id"] for held in me.jobs()].count(job["id"]) == 1
    wait_until("facts", lambda: (me.job("minutes.pdf") or {}).get("facts"), 20)
    assert (me.job("minutes.pdf") or {})["facts"]["pages"] == 2
    me.release(job["id"], "Lobby")
    assert printed(ipp_printer, before) == document
    me.wait_job("minutes.pdf", "done")
    assert "stored" in [step["event"] for step in me.trace(job["id"])]


def test_a_picture_and_a_text_come_out_as_pages(office: Office, ipp_printer: IppPrinter) -> None:
    me, buffer = office.person(), io.BytesIO()
    Image.new("RGB", (800, 600), "navy").save(buffer, "PNG")
    for title, document, count in (("p.png", buffer.getvalue(), 1), ("t.txt", "Grüße\n".encode() * 100, 2)):
        before = len(ipp_printer.documents())
        job = me.upload(title, document, "application/octet-stream")
        assert job["content_type"] == "application/pdf"
        me.release(job["id"], "Lobby")
        assert len(pages(printed(ipp_printer, before))) == count
        me.wait_job(title, "done")


def test_what_cannot_be_printed_is_answered_with_a_sentence_and_no_job(office: Office) -> None:
    me, before = office.person(), len(office.person().jobs())
    for document in (b"PK\x03\x04" + secrets.token_bytes(4 << 20), b"%PDF-1.4\nbroken", b"\x7fELF" + bytes(100)):
        with pytest.raises(Answer) as caught:
            me.upload("x.pdf", document)
        assert caught.value.status == 422 and "Nothing was stored" in caught.value.sentence
    assert len(me.jobs()) == before


def test_an_upload_can_be_read_on_no_disk_and_in_no_log(office: Office) -> None:
    me, word = office.person(), marker()
    job = me.upload("secret.pdf", pdf(marker=word))
    wait_until("facts", lambda: (me.job("secret.pdf") or {}).get("facts"), 20)
    me.upload("secret.txt", word.encode())
    with pytest.raises(Answer):
        me.upload("secret.zip", b"PK\x03\x04" + word.encode())
    kept = [path for disk in [*office.disks(), office.cloud.root, office.node.root] for path in disk.rglob("*")]
    files = [path for path in kept if path.is_file()]
    assert any(path.name == job["id"] for path in files), "it looked in the wrong place"
    for path in files:
        assert word.encode() not in path.read_bytes(), path


def test_a_large_upload_passes_through_little_memory(office: Office) -> None:
    me, document = office.person(), pdf() + secrets.token_bytes(1 << 20) * 300
    cloud, node = office.cloud.process.pid, office.node.process.pid
    me.upload("warm.pdf", pdf())
    for pid in (cloud, node):
        reset_peak(pid)
    before = {pid: peak(pid) for pid in (cloud, node)}
    job = me.upload("large.pdf", document)
    assert job["size"] == len(document)
    grown = {pid: peak(pid) - before[pid] for pid in (cloud, node)}
    print(f"peak: cloud {peak(cloud)} MiB (+{grown[cloud]}), node {peak(node)} MiB (+{grown[node]})")
    assert peak(cloud) < 150 and grown[cloud] < 32
    assert peak(node) < 150 and grown[node] < 64
    me.delete(f"/api/v1/jobs/{job['id']}")


def test_two_uploads_at_once_become_two_jobs(office: Office) -> None:
    me, documents = office.person(), [pdf(1) + secrets.token_bytes(3 << 20), pdf(2) + secrets.token_bytes(2 << 20)]
    jobs = {}

    def upload(number: int) -> None:
        jobs[number] = me.upload(f"{number}.pdf", documents[number])

    threads = [threading.Thread(target=upload, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [jobs[number]["size"] for number in range(2)] == [len(document) for document in documents]
    assert jobs[0]["id"] != jobs[1]["id"]


def test_a_node_that_sleeps_is_said_and_an_upload_after_it_woke_succeeds(office: Office) -> None:
    me = office.person()
    office.node.process.kill()
    try:
        with pytest.raises(Answer) as caught:
            me.upload("asleep.pdf", pdf())
        assert caught.value.code in ("node-silent", "no-node-awake")
        assert "Nothing was stored" in caught.value.sentence
    finally:
        office.node.start()
        office.node.wait_connected()
    assert me.upload("awake.pdf", pdf())["state"] == "held"
    assert me.job("asleep.pdf") is None
