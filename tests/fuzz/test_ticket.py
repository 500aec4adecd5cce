"""Option strings: read as libcups reads them, refused with TicketRefused, and nothing in between."""

from hypothesis import given
from hypothesis import strategies as st
from tests.fuzz.mutations import mutated_text
from tests.unit import libcups

from pullprint.model.ticket import TEXT_LIMIT, Ticket, TicketRefused, parse_options

GOOD = (
    "finishings=4 job-uuid=urn:uuid:x media-col={media-size={x-dimension=21000 y-dimension=29700} media-type='a b'} "
    'page-ranges=1-3,7 noCollate sides=two-sided-long-edge title=a\\ b\\"c '
)
LETTERS = " \t={}'\"\\,noab☃"


@given(mutated_text(GOOD, LETTERS) | st.text(LETTERS, max_size=80) | st.text(max_size=80))
def test_any_option_string_is_read_as_libcups_reads_it(text: str) -> None:
    text = text.replace("\0", "").encode("utf-8", "replace").decode()
    ours: dict[str, str] = {}
    for name, value in parse_options(text):
        # cupsAddOption(3): one of these two takes the other away.
        for other in {"print-quality": ["cupsprintquality"], "cupsprintquality": ["print-quality"]}.get(
            lower(name), []
        ):
            ours.pop(other, None)
        ours[lower(name)] = value
    theirs = libcups.parse_options(text)
    assert {lower(name): value for name, value in theirs.items()} == ours


def lower(name: str) -> str:
    """As _cups_strcasecmp does it: ASCII only, and the test's libcups wrapper lowers no more than that either."""
    return "".join(char.lower() if char.isascii() else char for char in name)


@given(st.integers(), st.text(st.characters(exclude_categories=()), max_size=200), st.integers(0, 400))
def test_any_ticket_is_refused_or_within_its_limits(copies: int, text: str, times: int) -> None:
    try:
        ticket = Ticket.from_cups(copies, text * times)
    except TicketRefused as error:
        assert error.sentence.isprintable()
        return
    assert sum(len((name + value).encode()) for name, value in ticket.options) <= TEXT_LIMIT
    for name, _ in ticket.options:
        ticket.get(name)
    ticket.ipp_options()


@given(st.dictionaries(st.text(max_size=20) | st.sampled_from(["copies", "sides", "Duplex"]), st.text(max_size=20)))
def test_any_change_at_release_is_refused_or_made(changes: dict[str, str]) -> None:
    ticket = Ticket.from_cups(1, "Duplex=None x=y media=A4")
    try:
        changed = ticket.changed(changes)
    except TicketRefused as error:
        assert error.sentence.isprintable()
        return
    assert all(dict(changed.options)[name] == value for name, value in changes.items() if name != "copies")
