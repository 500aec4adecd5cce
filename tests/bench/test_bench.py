"""Each benchmark in its quick form: figures and baselines come out, and are of this world."""

import json
import math
from pathlib import Path

import pytest
from tests.bench import copies, first_byte, idle, memory, order, report, sealing, throughput
from tests.bench.figures import Figure, Target, percentile
from tests.rig.namespaces import cannot_make_networks

pytestmark = pytest.mark.slow


def check(figures: list[Figure], unit: str, low: float, high: float) -> None:
    """No threshold that a busy machine breaks: only what would be a fault of the measurement."""
    for figure in figures:
        assert figure.unit == unit
        assert low < figure.value < high, figure
        assert low < figure.baseline < high, figure
        assert math.isclose(figure.ratio, figure.value / figure.baseline)


def test_first_byte_is_measured_on_both_sides_and_explained() -> None:
    alone, alone_p99, three, three_p99 = list(first_byte.run(quick=True))
    assert "3 nodes" in three.what and "nodes" not in alone.what
    for p50, p99 in ((alone, alone_p99), (three, three_p99)):
        check([p50, p99], "ms", 1.0, 10_000.0)
        assert p50.value <= p99.value and p50.baseline <= p99.baseline
        assert set(first_byte.SPANS) == p50.detail.keys()
        assert all(isinstance(span, float) and 0 <= span < p99.value for span in p50.detail.values())


def test_an_order_is_timed_to_the_node_while_others_wait() -> None:
    p50, p99 = list(order.run(quick=True))
    check([p50, p99], "ms", 0.3, 10_000.0)
    assert p50.value <= p99.value
    assert p50.detail["idle polls"] == p50.detail["idle polls of the baseline"] == order.QUICK


def test_copies_are_timed_on_loopback_and_over_a_link() -> None:
    figures = list(copies.run(quick=True))
    check(figures, "MB/s", 0.1, 10_000.0)
    assert [figure.what.rpartition(", ")[2] for figure in figures] == (
        ["loopback"] if cannot_make_networks() else ["loopback", "1 Gbit/s"]
    )
    # Two copies leave by one link: half of 125 MB/s for each, and what the first burst lets through.
    assert all(figure.baseline < 80 for figure in figures[1:])


def test_idle_nodes_are_counted_woken_and_back_after_a_restart() -> None:
    memory_each, busy, wake, back = list(idle.run(quick=True))
    check([memory_each], "KiB", 1.0, 10_000.0)
    check([wake, back], "s", 0.001, 300.0)
    assert 0 <= busy.value < 100
    assert back.detail["not back at all"] == back.detail["not back, baseline"] == 0


def test_throughput_is_measured_on_one_queue_and_on_eight() -> None:
    figures = list(throughput.run(quick=True))
    check(figures, "jobs/s", 0.5, 5_000.0)
    assert [figure.what.rpartition(", ")[2] for figure in figures] == ["1 queue", "8 queues"]


def test_sealing_is_measured_on_tmpfs_and_on_disk() -> None:
    figures = list(sealing.run(quick=True))
    check(figures, "MB/s", 1.0, 1e6)
    counts = [figure for figure in figures if figure.target]
    assert [figure.what for figure in counts] == ["seal 8 MiB on tmpfs", "verify 8 MiB on tmpfs"]


def test_memory_is_seen_of_every_process() -> None:
    figures = list(memory.run(quick=True))
    check(figures, "MiB", 0.1, 4_096.0)
    assert len(figures) == len(memory.WHO)
    python = {figure.what.split()[2].rstrip(","): figure.value for figure in figures}
    assert all(python[who] > 5 for who in ("pullprintd", "cloud", "backend", "facts")), python


def test_a_sparse_pdf_is_a_pdf(tmp_path: Path) -> None:
    import pypdfium2

    path = tmp_path / "large.pdf"
    memory.write_sparse_pdf(path, 64 << 20)
    assert path.stat().st_size > 64 << 20
    assert path.stat().st_blocks * 512 < 1 << 20
    with pypdfium2.PdfDocument(path) as document:
        assert len(document) == 1


def test_a_missed_target_is_told_and_written_down(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    most = Figure("B0", "slow thing", "ms", 20.0, 10.0, "a quick thing", Target("ratio", "most", 1.0), {"n": 3})
    least = Figure("B0", "fast thing", "MB/s", 20.0, 10.0, "a slow thing", Target("value", "least", 20.0))
    assert (most.met, least.met) == (False, True)
    report.show([most, least])
    shown = capsys.readouterr().out
    assert "missed" in shown and "2.00 ×" in shown and "≤ 1 ×" in shown and "≥ 20 MB/s" in shown
    report.write_json(tmp_path / "figures.json", [most, least], quick=True)
    written = json.loads((tmp_path / "figures.json").read_text())
    assert written["machine"]["quick"] is True
    assert [figure["met"] for figure in written["figures"]] == [False, True]


@pytest.mark.parametrize(("percent", "expected"), [(50, 50), (99, 99), (100, 100), (0, 1)])
def test_percentiles_are_values_that_were_measured(percent: float, expected: float) -> None:
    assert percentile([float(value) for value in range(100, 0, -1)], percent) == expected
