"""The whole way of a job: ``lp``, sealed, held, released on the web or in a terminal, on paper unchanged."""

import json
import time

import pytest
from tests.rig.documents import marker, pdf
from tests.rig.office import Answer, CommandFailed, Office
from tests.rig.printers import IppPrinter, LpdPrinter, RawPrinter
from tests.rig.processes import free_port, wait_until


def test_a_pdf_comes_out_as_it_went_in_and_takes_its_ticket_along(office: Office, ipp_printer: IppPrinter) -> None:
    document = pdf(2)
    before = len(ipp_printer.documents())
    job = office.cups.lp(
        "pullprint", document, "sides=two-sided-long-edge", "print-color-mode=monochrome",
        user=office.account, title="minutes.pdf", copies=2,
    )  # fmt: skip
    assert office.cups.wait_job(job) == "completed"
    me = office.person()
    held = me.wait_job("minutes.pdf", "held")
    assert held["owner"] == office.user
    assert held["ticket"]["copies"] == 2
    assert ["sides", "two-sided-long-edge"] in held["ticket"]["options"]

    released = me.release(held["id"], "Lobby")
    assert released["id"] == held["id"]
    done = me.wait_job("minutes.pdf", "done")

    printed = ipp_printer.wait_documents(before + 1)[before:]
    assert [p.document for p in printed] == [document]
    assert printed[0].attributes["IPP_COPIES"] == "2"
    assert printed[0].attributes["IPP_SIDES"] == "two-sided-long-edge"
    assert printed[0].attributes["IPP_PRINT_COLOR_MODE"] == "monochrome"
    assert "minutes" not in printed[0].job_name, "a printer's panel and log show job names to everybody"
    assert done["sentence"] == "Printed at Lobby."


def test_the_trace_tells_every_step_with_time_and_host(office: Office, ipp_printer: IppPrinter) -> None:
    office.cups.lp("pullprint", pdf(3, color=True), user=office.account, title="traced.pdf")
    me = office.person()
    job = me.wait_job("traced.pdf", "held")
    wait_until("facts", lambda: (me.job("traced.pdf") or {}).get("facts"), 20)
    facts = (me.job("traced.pdf") or {})["facts"]
    assert (facts["pages"], facts["color_pages"]) == (3, 3)
    me.release(job["id"], "Lobby")
    me.wait_job("traced.pdf", "done")
    wait_until("the last step", lambda: "printed" in [s["event"] for s in me.trace(job["id"])])
    steps = me.trace(job["id"])
    events = [step["event"] for step in steps]
    for first, second in [("stored", "held"), ("held", "prepared"), ("prepared", "committed"), ("committed", "sending"),
                          ("sending", "printed")]:  # fmt: skip
        assert events.index(first) < events.index(second), events
    assert "facts" in events
    assert {step["host"] for step in steps} == {"node1", "cloud"}
    assert all(time.time() - 300 < step["at"] <= time.time() + 1 for step in steps)
    told = office.node.pullprint("trace", job["id"][:12])
    assert "Printed at Lobby." in told


def test_a_terminal_lists_releases_and_deletes(office: Office, ipp_printer: IppPrinter) -> None:
    before = len(ipp_printer.documents())
    document = pdf()
    office.cups.lp("pullprint", document, user=office.account, title="from-terminal.pdf")
    office.cups.lp("pullprint", pdf(), user=office.account, title="unwanted.pdf")

    def ids() -> dict[str, str]:
        return {job["title"]: job["id"] for job in json.loads(office.node.pullprint("jobs", "--json"))}

    wait_until("both jobs", lambda: {"from-terminal.pdf", "unwanted.pdf"} <= set(ids()))
    wanted, unwanted = ids()["from-terminal.pdf"], ids()["unwanted.pdf"]
    assert (office.node.state / "jobs" / unwanted).exists()
    office.node.pullprint("cancel", unwanted)
    office.node.pullprint("release", wanted, "--printer", "Lobby")
    assert [p.document for p in ipp_printer.wait_documents(before + 1)[before:]] == [document]
    me = office.person()
    assert me.wait_job("unwanted.pdf", "cancelled")
    assert me.wait_job("from-terminal.pdf", "done")
    assert not (office.node.state / "jobs" / unwanted).exists(), "a deleted job's file is still there"


def test_a_raw_document_reaches_a_socket_printer_byte_for_byte(office: Office, raw_printer: RawPrinter) -> None:
    label = b"^XA^FO50,50^ADN,36,20^FDPullprint \x00\xff^FS^XZ\n" * 40
    office.cups.lp("pullprint", label, "raw", user=office.account, title="label.zpl")
    me = office.person()
    job = me.wait_job("label.zpl", "held")
    assert job["content_type"] == "application/octet-stream"
    me.release(job["id"], "Labels")
    assert raw_printer.wait_received(1)[-1] == label
    me.wait_job("label.zpl", "done")


def test_a_document_reaches_an_lpd_printer(office: Office, lpd_printer: LpdPrinter) -> None:
    document = pdf()
    office.cups.lp("pullprint", document, user=office.account, title="cellar.pdf")
    me = office.person()
    me.release(me.wait_job("cellar.pdf", "held")["id"], "Cellar")
    assert lpd_printer.wait_received(1)[-1] == document
    me.wait_job("cellar.pdf", "done")


def test_a_direct_queue_prints_at_once(office: Office, ipp_printer: IppPrinter) -> None:
    from tests.rig.cups import PPD

    before = len(ipp_printer.documents())
    office.cups.add_queue("direct", "pullprint:/printer/Lobby", PPD)
    document = pdf()
    office.cups.lp("direct", document, user=office.account, title="direct.pdf")
    assert [p.document for p in ipp_printer.wait_documents(before + 1)[before:]] == [document]
    office.person().wait_job("direct.pdf", "done")


def test_a_direct_queue_waits_for_its_printer(office: Office) -> None:
    from tests.rig.cups import PPD

    with IppPrinter("Sleepy") as printer:
        office.add_printer("Sleepy", printer.uri)
        printer.stop()
        office.cups.add_queue("sleepy", "pullprint:/printer/Sleepy", PPD)
        document = pdf()
        office.cups.lp("sleepy", document, user=office.account, title="patient.pdf")
        me = office.person()
        job = me.wait_job("patient.pdf", "held")
        wait_until("a sentence that says why", lambda: "cannot print now" in (me.job("patient.pdf") or {})["sentence"])
        printer.start()
        assert [p.document for p in printer.wait_documents(1, 30)] == [document]
        assert me.wait_job("patient.pdf", "done")["id"] == job["id"]


def test_what_waits_can_be_read_on_no_disk(office: Office) -> None:
    word = marker()
    document = pdf(marker=word)
    assert word.encode() in document
    office.cups.lp("pullprint", document, user=office.account, title="secret.pdf")
    me = office.person()
    job = me.wait_job("secret.pdf", "held")
    wait_until("facts", lambda: (me.job("secret.pdf") or {}).get("facts"), 20)
    sealed = office.node.state / "jobs" / job["id"]
    assert sealed.stat().st_size > len(document)
    seen = [path for root in office.disks() for path in root.rglob("*") if path.is_file()]
    assert sealed in seen and any(path.suffix == ".sqlite" for path in seen)
    found = [path for path in seen if word.encode() in path.read_bytes()]
    assert found == []


def test_a_printer_that_is_off_leaves_the_job_held_and_says_so(office: Office) -> None:
    office.add_printer("Gone", f"ipp://127.0.0.1:{free_port()}/ipp/print")
    office.cups.lp("pullprint", pdf(), user=office.account, title="stays.pdf")
    me = office.person()
    job = me.wait_job("stays.pdf", "held")
    me.release(job["id"], "Gone")
    wait_until("the sentence", lambda: "cannot print now" in (me.job("stays.pdf") or {})["sentence"])
    assert me.job("stays.pdf")["state"] == "held"  # type: ignore[index]
    with pytest.raises(CommandFailed) as failure:
        office.node.pullprint("release", job["id"], "--printer", "Gone")
    assert "still held" in failure.value.output and "Traceback" not in failure.value.output


def test_a_printer_that_answered_a_moment_ago_and_is_off_now_says_so_too(office: Office) -> None:
    me = office.person()
    with IppPrinter("Left") as printer:
        office.add_printer("Left", printer.uri)
        wait_until("the node has asked it", lambda: me.get(f"/api/v1/printers/{me.printer('Left')}")["ready"])
    office.cups.lp("pullprint", pdf(), user=office.account, title="stays-too.pdf")
    job = me.wait_job("stays-too.pdf", "held")
    me.release(job["id"], "Left")
    wait_until("the sentence", lambda: "does not answer" in (me.job("stays-too.pdf") or {})["sentence"], 30)
    stays = me.job("stays-too.pdf") or {}
    assert (stays["state"], stays["trouble"]) == ("held", True)


def test_a_printer_that_does_not_take_the_format_refuses_the_release(office: Office, ipp_printer: IppPrinter) -> None:
    office.cups.lp("pullprint", pdf(), user=office.account, title="scan.pdf")
    with IppPrinter("RasterOnly", formats=("image/pwg-raster",)) as printer:
        office.add_printer("RasterOnly", printer.uri)
        me = office.person()
        job = me.wait_job("scan.pdf", "held")
        me.release(job["id"], "RasterOnly")
        wait_until("the reason", lambda: "does not take documents" in (me.job("scan.pdf") or {})["sentence"])
        assert me.job("scan.pdf")["state"] == "held"  # type: ignore[index]
        assert printer.documents() == []


def test_a_printer_that_breaks_off_leaves_the_job_uncertain_and_its_owner_decides(office: Office) -> None:
    document = b"x" * 3_000_000
    with RawPrinter(mode="resets", limit=100_000) as printer:
        office.add_printer("Breaking", printer.uri)
        me = office.person()
        office.cups.lp("pullprint", document, "raw", user=office.account, title="broken.bin")
        job = me.wait_job("broken.bin", "held")
        me.release(job["id"], "Breaking")
        uncertain = me.wait_job("broken.bin", "uncertain")
        assert "may have been printed" in uncertain["sentence"]
        with pytest.raises(Answer) as refused:
            me.release(job["id"], "Breaking")
        assert refused.value.status == 409
        assert len(printer.received) == 1, "it was sent again by itself"
    with RawPrinter() as printer:
        office.add_printer("Whole", printer.uri)
        me.release(job["id"], "Whole", again=True)
        me.wait_job("broken.bin", "done")
        assert printer.received == [document]


def test_an_uncertain_job_ends_when_its_owner_says_that_it_came_out(office: Office) -> None:
    with RawPrinter(mode="resets", limit=100_000) as printer:
        office.add_printer("Jam", printer.uri)
        me = office.person()
        office.cups.lp("pullprint", b"y" * 3_000_000, "raw", user=office.account, title="jam.bin")
        job = me.wait_job("jam.bin", "held")
        me.release(job["id"], "Jam")
        me.wait_job("jam.bin", "uncertain")
        me.post(f"/api/v1/jobs/{job['id']}/settle", {})
        me.wait_job("jam.bin", "done")
        assert len(printer.received) == 1


def test_two_releases_at_once_print_once(office: Office, ipp_printer: IppPrinter) -> None:
    from concurrent.futures import ThreadPoolExecutor

    before = len(ipp_printer.documents())
    office.cups.lp("pullprint", pdf(), user=office.account, title="twice.pdf")
    me, other = office.person(), office.person()
    job = me.wait_job("twice.pdf", "held")

    def press(person: object) -> int:
        try:
            person.release(job["id"], "Lobby")  # type: ignore[attr-defined]
        except Answer as answer:
            return answer.status
        return 202

    with ThreadPoolExecutor() as pool:
        statuses = sorted(pool.map(press, [me, other, me, other]))
    assert statuses[0] == 202 and set(statuses) <= {202, 409}
    me.wait_job("twice.pdf", "done")
    time.sleep(0.5)
    assert len(ipp_printer.documents()) == before + 1


def test_a_job_without_an_owner_is_claimed_with_the_code_that_its_submitter_was_shown(
    office: Office, ipp_printer: IppPrinter
) -> None:
    office.cups.lp("pullprint", pdf(), user="stranger", title="stray.pdf")
    unclaimed = wait_for_title(office, "stray.pdf")
    me = office.person()
    assert me.job("stray.pdf") is None, "a job without an owner is shown to somebody"
    claimed = me.post("/api/v1/claim", {"code": unclaimed["claim_code"].lower()})
    assert claimed["title"] == "stray.pdf"
    me.wait_job("stray.pdf", "held")
    wait_until("the owner at the node", lambda: wait_for_title(office, "stray.pdf")["owner"] == office.user)
    before = len(ipp_printer.documents())
    me.release(claimed["id"], "Lobby")
    ipp_printer.wait_documents(before + 1)


def test_another_user_sees_and_releases_nothing(office: Office, ipp_printer: IppPrinter) -> None:
    office.cups.lp("pullprint", pdf(), user=office.account, title="mine.pdf")
    me = office.person()
    job = me.wait_job("mine.pdf", "held")
    other = office.cloud.person("eve@example.com", office.add_user("eve@example.com"))
    assert other.jobs() == []
    for attempt in (
        lambda: other.get(f"/api/v1/jobs/{job['id']}"),
        lambda: other.trace(job["id"]),
        lambda: other.release(job["id"], "Lobby"),
        lambda: other.delete(f"/api/v1/jobs/{job['id']}"),
    ):
        with pytest.raises(Answer) as refused:
            attempt()
        assert refused.value.status == 404
    assert (me.job("mine.pdf") or {})["state"] == "held"


def test_a_hostile_title_is_held_cleaned_and_reaches_no_log(office: Office) -> None:
    title = "\u202egpj.exe <script>alert(1)</script> %s{0}"
    office.cups.lp("pullprint", pdf(), "x-note=a\\ b", user=office.account, title=title)
    me = office.person()
    wait_until("the job", lambda: any("gpj" in job["title"] for job in me.jobs()))
    job = next(job for job in me.jobs() if "gpj" in job["title"])
    assert job["title"] == title.replace("\u202e", "\ufffd")
    assert ["x-note", "a b"] in job["ticket"]["options"]
    for log in (office.node.process.log, office.cloud.process.log):
        assert "gpj" not in log.read_text("utf-8", "replace")


def test_logs_hold_no_titles_passwords_or_codes(office: Office) -> None:
    office.cups.lp("pullprint", pdf(), user=office.account, title="Kündigung-Schmidt")
    office.person().wait_job("Kündigung-Schmidt", "held")
    for log in (office.node.process.log, office.cloud.process.log):
        text = log.read_text("utf-8", "replace")
        assert "Schmidt" not in text and office.password not in text


def wait_for_title(office: Office, title: str) -> dict[str, str]:
    def find() -> dict[str, str] | None:
        jobs = json.loads(office.node.pullprint("jobs", "--all", "--json"))
        return next((job for job in jobs if job["title"] == title), None)

    wait_until(title, find)
    found = find()
    assert found is not None
    return found
