"""A host vanishes: another one gets its copy, its key part and its vote, and the job is printed from there, once."""

import json
from pathlib import Path

from tests.rig.office import CommandFailed, Node, Office
from tests.rig.printers import RawPrinter
from tests.rig.processes import wait_until

REPLACE_AFTER = 30


def holders_of(node: Node, job: str) -> tuple[int, list[str]]:
    """Generation and holders of *job*, as *node* knows them."""
    try:
        said = node.pullprint("mesh", "--json", "--jobs")
    except CommandFailed as error:
        if error.status != 1:
            raise
        said = error.output
    for each in json.loads(said)["jobs"]:
        if each["id"] == job:
            return each["generation"], each["holders"]
    return 0, []


def test_vanished_host_is_replaced_and_what_it_held_is_printed_without_it_and_without_the_origin(
    tmp_path: Path,
) -> None:
    document = tmp_path / "document"
    document.write_bytes(b"a line for the printer\n" * 20_000)
    with Office(nodes=("reception", "workshop", "archive", "cellar")) as office, RawPrinter() as printer:
        office.add_printer("Sink", printer.uri)
        office.cloud.process.stop()
        office.cloud.config.write_text(f"replace_after = {REPLACE_AFTER}\n" + office.cloud.config.read_text())
        office.cloud.start()
        for node in office.nodes:
            node.wait_connected()
        origin = office.node
        origin.submit("Salaries", document)
        job = str(office.wait_copies("Salaries")["id"])
        ids = {node.id: node for node in office.nodes}
        generation, first = holders_of(origin, job)
        assert (generation, len(first)) == (2, 3)
        lost = next(ids[one] for one in first if ids[one] is not origin)
        (spare,) = [node for one, node in ids.items() if one not in first]
        lost.process.stop(grace=0)

        def replaced() -> bool:
            return holders_of(spare, job)[0] == 3

        wait_until("the next generation", replaced, 240, every=1.0)
        _, second = holders_of(spare, job)
        wanted = {one for one, node in ids.items() if node is not lost}
        assert set(second) == wanted
        me = office.person()
        trace = [(step["host"], step["event"]) for step in me.trace(job)]
        assert {("cloud", "replace"), (spare.name, "holders")} <= set(trace), trace
        origin.process.stop(grace=0)
        me.release(job, "Sink")
        wait_until("the document", lambda: len(printer.received) == 1, 60, every=0.2)
        assert printer.received == [document.read_bytes()]
        lost.start()
        copy = lost.state / "jobs" / job
        wait_until("the copy to be shredded", lambda: not copy.exists(), 90, every=0.5)
        assert len(printer.received) == 1
