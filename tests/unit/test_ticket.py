"""The ticket: what the user chose arrives unchanged, read exactly as CUPS reads it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit import libcups

from pullprint.model.ticket import COPIES_LIMIT, OPTIONS_LIMIT, TEXT_LIMIT, Ticket, TicketRefused, parse_options

QUIRKS = [
    "", " ", "a", "noa", "no", "NOa", "normal", "a=b", "a=b c=d", "a = b", "a =b", "a= b", "a=", "=b", "a =", "=",
    "a=b a=c", "A=b a=c", "a='b c'", 'a="b c"', 'a=b"c d"', "a='b", 'a="b\\"c"', "a=b\\ c", "a=b\\", "a=\\", "\\a=b",
    "a='b'c", "a='b''c d'", "a=b,'c d',e", "a=b,c", "a={b c}", "a={b={c d} e}", "a={b {c d", "a={b} c", "a={b\\} c} d",
    "a={'b c'}", "a=b{c d}", "a=,{b c}", "{a=b c=d}", "{a=b", "a=b}", "{", "}", "{}", "{a={b c}}", "a\tb\nc=d\ve\ff",
    "a=b\u00a0c d=é", "a\u00a0b=c", "a=\x1cb \x85c", "a=b =c d=e", "a=☃ nob=🖨", "a='☃ 🖨'", "a=b'c'd e", "a=''", "a='' b",
    "media-col={media-size={x-dimension=21000 y-dimension=29700} media-type=stationery} sides=one-sided",
    "job-uuid=urn:uuid:1 Resolution=600x600dpi,color page-ranges=1-3,7 number-up=2", "a='b\\'c d' e",
]  # fmt: skip


def last_of_each(text: str) -> dict[str, str]:
    """What libcups keeps: the last value of each name, in any case of letters."""
    return {name.lower(): value for name, value in parse_options(text)}


@pytest.mark.parametrize("text", QUIRKS)
def test_a_quirk_of_libcups_is_read_as_libcups_reads_it(text: str) -> None:
    assert last_of_each(text) == libcups.parse_options(text)


# Without print-quality and cupsPrintQuality, one of which takes the other away when libcups adds it.
_PIECES = st.sampled_from(
    ["a", "no", "N", "=", " ", "\t", "\v", ",", "'", '"', "\\", "{", "}", "é", "\u00a0", "🖨", "x=y "]
)


@given(st.lists(_PIECES, max_size=24).map("".join))
def test_any_option_string_is_read_as_libcups_reads_it(text: str) -> None:
    assert last_of_each(text) == libcups.parse_options(text)


def test_every_option_arrives_in_its_order_and_what_cupsd_added_does_not() -> None:
    ticket = Ticket.from_cups(
        3,
        "finishings=4 job-uuid=urn:uuid:x sides=two-sided-short-edge time-at-creation=5 x-unheard-of='a b' "
        "copies=3 job-originating-host-name=localhost noCollate media-col={media-size={x-dimension=1}}",
    )
    assert ticket.copies == 3
    assert ticket.options == (
        ("finishings", "4"),
        ("sides", "two-sided-short-edge"),
        ("x-unheard-of", "a b"),
        ("Collate", "false"),
        ("media-col", "{media-size={x-dimension=1}}"),
    )


def test_a_ppds_words_are_understood_and_the_last_word_counts() -> None:
    ticket = Ticket.from_cups(
        1, "sides=one-sided Duplex=DuplexNoTumble PageSize=A4 ColorModel=Gray PageSize=Custom.9x9"
    )
    assert ticket.get("sides") == "two-sided-long-edge"
    assert ticket.get("print-color-mode") == "monochrome"
    assert ticket.get("media") == "Custom.9x9"
    assert ticket.get("finishings", "none") == "none"
    assert ticket.ipp_options() == {
        "sides": "two-sided-long-edge",
        "media": "Custom.9x9",
        "print-color-mode": "monochrome",
    }


def test_changes_at_release_replace_what_they_mean_and_nothing_else() -> None:
    ticket = Ticket(1, (("Duplex", "None"), ("x", "y"), ("media", "A4")))
    changed = ticket.changed({"sides": "two-sided-long-edge", "copies": "2"})
    assert changed == Ticket(2, (("x", "y"), ("media", "A4"), ("sides", "two-sided-long-edge")))
    for copies in ("", "0", "-1", "1.5", "²", "٣", "999999", str(COPIES_LIMIT + 1)):
        with pytest.raises(TicketRefused):
            ticket.changed({"copies": copies})


@pytest.mark.parametrize(
    ("copies", "options"),
    [
        (0, ()),
        (COPIES_LIMIT + 1, ()),
        (1, (("", "x"),)),
        (1, (("x" * 256, ""),)),
        (1, (("x", "a\nb"),)),
        (1, (("x", "a\0b"),)),
        (1, (("x\x7f", ""),)),
        (1, (("x", "\ud800"),)),
        (1, (("x", "y"),) * (OPTIONS_LIMIT + 1)),
        (1, (("x", "y" * TEXT_LIMIT),)),
        (1, (("x", "é" * (TEXT_LIMIT // 2)),)),
        (1, (("x", "🖨" * (TEXT_LIMIT // 4)),)),
    ],
)
def test_a_ticket_beyond_its_limits_is_refused(copies: int, options: tuple[tuple[str, str], ...]) -> None:
    with pytest.raises(TicketRefused):
        Ticket(copies, options)


def test_the_limits_themselves_are_allowed() -> None:
    Ticket(COPIES_LIMIT, (("x", "y"),) * OPTIONS_LIMIT)
    Ticket(1, (("x" * 255, "🖨" * ((TEXT_LIMIT - 255) // 4)),))


def test_64_kib_of_anything_in_the_options_is_read_in_a_moment_or_refused() -> None:
    for text in (
        "a" * 65_536,
        "{" * 131_072,
        "a=" + "'" * 131_000,
        "\\" * 131_072,
        "a=" + ",{" * 60_000,
        " " * 131_072,
    ):
        try:
            Ticket.from_cups(1, text)
        except TicketRefused as error:
            assert len(error.sentence) < 500
    with pytest.raises(TicketRefused):
        Ticket.from_cups(1, "a" * (2 * TEXT_LIMIT + 1))
