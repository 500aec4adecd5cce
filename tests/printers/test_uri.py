"""Which addresses a document may be sent to."""

import socket
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pullprint.model.uri import DEFAULT_PORTS, BadUri, check_uri
from pullprint.printers.uri import NoSuchHost, resolve

OFFICE = [ip_network("10.1.0.0/16"), ip_network("fd00:1::/32")]
LOOPBACK = [ip_network("127.0.0.0/8"), ip_network("::1/128")]


@pytest.mark.parametrize(
    ("uri", "normal"),
    [
        ("ipp://printer.example/ipp/print", "ipp://printer.example:631/ipp/print"),
        ("ipps://Printer.Example.:8631/ipp/print", "ipps://printer.example:8631/ipp/print"),
        ("IPP://printer/", None),
        ("socket://10.1.2.3", "socket://10.1.2.3:9100/"),
        ("socket://10.1.2.3:9101?waiteof=false", "socket://10.1.2.3:9101/?waiteof=false"),
        ("socket://[FD00:1::0:7]", "socket://[fd00:1::7]:9100/"),
        ("lpd://printer/lp%201?reserve=none&mode=stream", "lpd://printer:515/lp%201?reserve=none&mode=stream"),
        ("ipp://printer/ipp/print?version=1.1", "ipp://printer:631/ipp/print?version=1.1"),
    ],
)
def test_what_is_allowed_has_one_normal_form(uri: str, normal: str | None) -> None:
    if normal is None:
        with pytest.raises(BadUri):
            check_uri(uri)
        return
    assert check_uri(uri).raw == normal
    assert check_uri(normal).raw == normal


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "file:///etc/passwd",
        "http://printer/",
        "https://printer/",
        "usb://HP/LaserJet",
        "pullprint:/",
        "beh:/1/3/5/socket://printer",
        "ipp:printer",
        "ipp:///ipp/print",
        "ipp://anna:secret@printer/ipp/print",
        "ipp://anna@printer/ipp/print",
        "ipp://printer:0/",
        "ipp://printer:65536/",
        "ipp://printer:99999999999/",
        "ipp://printer/ipp/print\n",
        "ipp://printer/ipp\rprint",
        "ipp://printer/%0aSTATE:+x",
        "ipp://printer/%00",
        "ipp://printer/%3fencryption=never",
        "ipp://printer/%253f",
        "ipp://printer/%zz",
        "ipp://printer/a/../b",
        "ipp://printer/#x",
        "ipp://printer/ä",
        "ipp://printer/$(id)",
        "ipp://printer/ipp/print?encryption=never",
        "ipp://printer/ipp/print?waitjob=false",
        "ipp://printer/ipp/print?version=2.0&version=1.0",
        "ipp://printer/ipp/print?version=2.0+contimeout=1",
        "socket://printer/path",
        "socket://printer/?snmp=true",
        "lpd://printer/",
        "lpd://printer",
        "lpd://printer/lp?format=x",
        "socket://127.1",
        "socket://0x7f000001",
        "socket://2130706433",
        "socket://0177.0.0.1",
        "socket://1.2.3.4.5",
        "socket://-printer",
        "socket://pri..nter",
        "socket://[::1",
        "socket://[fe80::1%25eth0]",
        "socket://[v1.fe80::1]",
        "socket://" + "a" * 64,
        "ipp://printer/" + "a" * 1_023,
    ],
)
def test_what_is_not_allowed_is_refused_without_being_repeated_raw(uri: str) -> None:
    with pytest.raises(BadUri) as refused:
        check_uri(uri)
    assert refused.value.sentence.isprintable()


@pytest.mark.parametrize(
    "uri", ["socket://10.2.0.1", "socket://[fd00:2::1]", "socket://[::ffff:192.168.0.1]", "socket://0.0.0.0"]
)
async def test_an_address_outside_the_site_is_refused(uri: str) -> None:
    with pytest.raises(BadUri):
        check_uri(uri, OFFICE)
    with pytest.raises(BadUri):
        await resolve(check_uri(uri), OFFICE)


def test_an_address_inside_the_site_is_taken() -> None:
    assert check_uri("socket://10.1.255.1", OFFICE).host == "10.1.255.1"
    assert check_uri("socket://[::ffff:10.1.0.1]", OFFICE).address is not None


@given(st.one_of(st.text(max_size=80), st.tuples(
    st.sampled_from(["ipp://", "ipps://", "socket://", "lpd://", "file://", ""]),
    st.text("abc.:@[]%0x7f1-_", max_size=20),
    st.sampled_from(["", "/", "/ipp/print", "/%0a", "/%3f", "?version=1.1", "?a=b"]),
    st.text(max_size=10)).map("".join)))  # fmt: skip
def test_no_text_crashes_and_what_passes_is_plain(uri: str) -> None:
    try:
        result = check_uri(uri)
    except BadUri as refused:
        assert refused.sentence.isprintable()
        return
    assert result.scheme in DEFAULT_PORTS
    assert result.raw.isascii()
    assert result.raw.isprintable()
    assert not set(result.raw) & set(" \"'\\<>`{}|^#@$;")
    assert check_uri(result.raw) == result
    assert result.path.isprintable()
    assert not set(result.path) & set("?&=+#%")


@pytest.mark.parametrize("scheme", ["ipp", "socket", "lpd"])
async def test_a_name_is_pinned_to_its_address(scheme: str) -> None:
    pinned = await resolve(check_uri(f"{scheme}://localhost{'' if scheme == 'socket' else '/lp'}"), LOOPBACK)
    assert pinned.address is not None
    assert pinned.raw.startswith(f"{scheme}://127.0.0.1:")


async def test_ipps_keeps_its_name_for_tls() -> None:
    assert (await resolve(check_uri("ipps://localhost/ipp/print"), LOOPBACK)).host == "localhost"


@pytest.mark.parametrize("scheme", ["ipp", "ipps", "socket", "lpd"])
async def test_a_name_with_one_address_outside_is_refused(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 1)) for address in ("10.1.0.9", "127.0.0.1")]

    def answer(*_: Any, **__: Any) -> Any:
        return found

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    with pytest.raises(BadUri):
        await resolve(check_uri(f"{scheme}://rebinding.example{'' if scheme == 'socket' else '/lp'}"), OFFICE)


async def test_an_unknown_name_is_named() -> None:
    with pytest.raises(NoSuchHost, match="no-such-printer"):
        await resolve(check_uri("socket://no-such-printer.invalid"), OFFICE)
