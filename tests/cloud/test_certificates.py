"""Certificates on disk: what is taken, what is renewed, and that a running server takes up a new one."""

import asyncio
import logging
import ssl
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from tests.cloud.office import CHEAP, make_settings

from pullprint.base.clock import SystemClock
from pullprint.cloud import app, certificates, tls
from pullprint.cloud.users import Passwords

DAY = 86_400
NOW = SystemClock().now()


@pytest.mark.parametrize(
    ("name", "host", "fits"),
    [
        ("print.example.com", "print.example.com", True),
        ("print.example.com", "PRINT.example.com.", True),
        ("*.example.com", "print.example.com", True),
        ("*.example.com", "a.print.example.com", False),
        ("*.example.com", "example.com", False),
        ("example.com", "print.example.com", False),
        ("192.0.2.7", "192.0.2.7", True),
        ("192.0.2.7", "192.0.2.70", False),
        ("2001:db8::7", "2001:db8::7", True),
    ],
)
def test_a_certificate_is_for_the_names_in_it(name: str, host: str, fits: bool) -> None:
    pair = tls.new_server(tls.new_authority("test", NOW), [name], NOW)
    certificate = x509.load_pem_x509_certificate(pair.certificate.encode())
    assert certificates.fits(certificate, host) is fits


def test_only_what_was_made_here_is_renewed_and_only_in_time(tmp_path: Path) -> None:
    certificates.write(certificates.private(tmp_path, ["print.example.com"], NOW))
    assert certificates.renewal(tmp_path, NOW + (tls.SERVER_DAYS - 31) * DAY) == []
    made = certificates.renewal(tmp_path, NOW + (tls.SERVER_DAYS - 29) * DAY)
    assert [file.path.name for file in made] == ["server.key", "server.pem"], "the CA stays"
    other = tls.new_server(tls.new_authority("Elsewhere", NOW), ["print.example.com"], NOW)
    (tmp_path / "server.pem").write_text(other.certificate)
    assert certificates.renewal(tmp_path, NOW + (tls.SERVER_DAYS - 1) * DAY) == []
    (tmp_path / "server.pem").unlink()
    assert certificates.renewal(tmp_path, NOW) == []
    (tmp_path / "server.pem").write_text("nonsense")
    with pytest.raises(certificates.CertificateRefused, match="not a certificate in PEM"):
        certificates.renewal(tmp_path, NOW)


@pytest.mark.parametrize(("lost", "left"), [("ca.key", "ca.pem"), ("ca.pem", "ca.key")])
def test_half_a_ca_is_not_replaced_by_a_new_one(tmp_path: Path, lost: str, left: str) -> None:
    certificates.write(certificates.private(tmp_path, ["print.example.com"], NOW))
    (tmp_path / lost).rename(tmp_path / "away")
    with pytest.raises(certificates.CertificateRefused, match=rf"{left} is there without {lost}.*Nothing was changed"):
        certificates.private(tmp_path, ["print.example.com"], NOW)
    (tmp_path / "away").rename(tmp_path / lost)
    made = certificates.private(tmp_path, ["print.example.com"], NOW)
    assert [file.path.name for file in made] == ["server.key", "server.pem"]


async def test_a_running_server_takes_up_a_new_certificate_and_never_half_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(certificates, "LOOK_EVERY", 0.05)
    settings = make_settings(tmp_path)
    async with app.serving(settings, SystemClock(), Passwords(CHEAP)) as port, aiohttp.ClientSession() as http:
        first = await served(port)
        async with http.get(f"https://127.0.0.1:{port}/", ssl=False) as response:
            assert response.status == 200
        key = settings.key.read_bytes()
        new = tls.new_server(tls.new_authority("new", NOW), ["localhost"], NOW)
        settings.key.write_text(new.key)
        await until(lambda: "does not fit its key" in caplog.text)
        assert await served(port) == first, "only the key is new yet"
        settings.certificate.write_text(new.certificate)
        expected = ssl.PEM_cert_to_DER_cert(new.certificate)
        async with asyncio.timeout(5):
            while await served(port) != expected:
                await asyncio.sleep(0.05)
        settings.certificate.unlink()
        await until(lambda: "No such file" in caplog.text)
        assert await served(port) == expected and key != settings.key.read_bytes()


@pytest.mark.parametrize(("left", "complains"), [(20, True), (22, False), (-1, True)])
async def test_a_certificate_that_runs_out_is_complained_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, left: int, complains: bool
) -> None:
    settings = make_settings(tmp_path)
    begin = NOW - (tls.SERVER_DAYS - left) * DAY
    pair = tls.new_server(tls.new_authority("old", begin), ["localhost"], begin)
    settings.certificate.write_text(pair.certificate)
    settings.key.write_text(pair.key)
    with caplog.at_level(logging.INFO):
        async with app.serving(settings, SystemClock(), Passwords(CHEAP)) as port:
            await served(port)
            await asyncio.sleep(0.3)
    assert (f"ends in {max(0, left - 1)} days: renew it" in caplog.text) is complains


async def served(port: int) -> bytes:
    """The certificate that a new connection is shown, DER."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    await writer.wait_closed()
    return bytes(shown)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not true():
            await asyncio.sleep(0.02)
