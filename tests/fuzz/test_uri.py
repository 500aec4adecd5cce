"""Printer addresses: BadUri, or a URI that means one thing to us, to Python and to CUPS's backends."""

from ipaddress import ip_network
from urllib.parse import unquote, urlsplit

from hypothesis import example, given
from hypothesis import strategies as st
from tests.fuzz.mutations import mutated_text

from pullprint.model.uri import ALLOWED_QUERY, URI_LIMIT, BadUri, PrinterUri, check_uri, within

GOOD = [
    "ipp://printer.example/ipp/print", "ipps://10.1.2.3:443/ipp/print?version=2.0", "socket://[fd00::5]:9101",
    "lpd://printer/queue?banner=on&mode=stream", "ipp://printer.example./a%20b",
]  # fmt: skip
NETWORKS = [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]
LETTERS = "ip:/?#[]@%&=.0159afx-_~\\ \n\0"
_PIECES = st.sampled_from(
    ["ipp", "ipps", "socket", "lpd", "http", "file", "pullprint", ":", "//", "/", "@", "user:pw@", "[", "]", "::1", "fd00::1",
     "127.0.0.1", "0x7f.1", "printer.example", ".", "..", "%2e%2e", "%3F", "%0A", "%00", "%", "?", "&", "=", "version=1.1",
     "waiteof=false", "#", "\n", "\0", " ", "é", "K", ":9100", ":0", ":99999", "10.0.0.1", "a" * 300]
)  # fmt: skip


def check(text: str) -> None:
    for networks in (None, NETWORKS):
        try:
            uri = check_uri(text, networks)
        except BadUri as error:
            assert error.sentence.isprintable()
            continue
        means_one_thing(uri)
        if networks and uri.address:
            assert within(uri.address, networks)


def means_one_thing(uri: PrinterUri) -> None:
    assert check_uri(str(uri)) == uri, "the normal form is its own normal form"
    assert len(str(uri)) <= URI_LIMIT
    assert str(uri).isascii()
    assert str(uri).isprintable()
    split = urlsplit(str(uri))
    assert split.scheme == uri.scheme in ALLOWED_QUERY
    assert (split.hostname, split.port, unquote(split.path)) == (uri.host, uri.port, uri.path)
    assert (split.username, split.password, split.fragment) == (None, None, "")
    assert not {"?", "#", "\n", "%", "\\"} & set(uri.path)
    assert ".." not in uri.path.split("/")
    assert all(value in ALLOWED_QUERY[uri.scheme][name] for name, value in uri.query)


@given(st.text(max_size=100))
def test_random_text_is_no_address(text: str) -> None:
    check(text)


@given(st.one_of([mutated_text(good, LETTERS) for good in GOOD]))
@example("ipp://printer.example/%3Fencryption=never")
@example("lpd://printer/%0AHroot")
@example("ipp://[::ffff:127.0.0.1]/")
@example("ipp://\u212aprinter/")
def test_a_broken_address_is_refused_or_means_one_thing(text: str) -> None:
    check(text)


@given(st.lists(_PIECES, max_size=10).map("".join))
def test_any_arrangement_of_an_addresss_pieces_is_refused_or_means_one_thing(text: str) -> None:
    check(text)


def test_the_good_ones_are_good() -> None:
    for text in GOOD:
        means_one_thing(check_uri(text))
