"""``pullprint doctor``: what could keep this host from printing, or leave a document readable, and what to do."""

import asyncio
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from pullprint.base.clock import SystemClock
from pullprint.base.platform import SANDBOX_ADVICE, TMPFS, in_memory
from pullprint.node.channel import Channel
from pullprint.node.facts import count_facts
from pullprint.node.holder import Holder
from pullprint.node.settings import Settings
from pullprint.node.site import Site
from pullprint.printers.cups_check import Finding, Level, check_cups
from pullprint.wire.signature import WINDOW
from pullprint.wire.views import FindingView

MIB = 1 << 20
BACKENDS = ("ipp", "ipps", "socket", "lpd")
OUR_BACKEND = "pullprint"
UNITS = ("pullprintd.socket", "pullprintd-control.socket", "pullprintd.service")
SYSTEMCTL_SECONDS = 5.0
CLOCK_OFF = 60.0
"""Seconds between our clock and the cloud's that are worth a word."""
# The smallest document that the engine opens and finds a page in.
ONE_PAGE = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
    b"2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
    b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]>>endobj\n"
    b"trailer<</Root 1 0 R>>\n%%EOF\n"
)


async def examine(
    settings: Settings, holder: Holder, site: Site, channel: Channel | None, config_trouble: str = ""
) -> list[FindingView]:
    """All findings, good ones too; no more than a few seconds."""
    findings = [Finding(Level.BAD, config_trouble)] if config_trouble else []
    findings += [_membership(site), *_cloud(site, channel), *_clock(site, channel, holder.now())]
    findings += await asyncio.to_thread(_host, settings, holder)
    findings.append(await _sandbox(settings))
    backend = settings.backend_dir / OUR_BACKEND
    findings += await check_cups(
        settings.cups_server or None, settings.cups_port, backend=backend, configuration=settings.cupsd_conf
    )
    return [FindingView(level=f.level, what=f.what, advice=f.advice) for f in findings]


def _membership(site: Site) -> Finding:
    if site.member:
        member = site.membership
        return Finding(Level.OK, f"This host belongs to {member.organisation}, site {member.site}.")
    return Finding(
        Level.BAD, "This host belongs to no organisation.", "Ask for a join code, then: sudo pullprint join CLOUD CODE"
    )


def _cloud(site: Site, channel: Channel | None) -> list[Finding]:
    if not site.member or channel is None:
        return []
    if channel.connected:
        return [Finding(Level.OK, f"The cloud at {site.membership.cloud} answers.")]
    why = channel.trouble or "it has not answered yet"
    return [
        Finding(
            Level.BAD,
            f"The cloud at {site.membership.cloud} is away: {why}",
            "Held jobs are safe; see `journalctl -u pullprintd -n 20`.",
        )
    ]


def _clock(site: Site, channel: Channel | None, now: float) -> list[Finding]:
    """Whether our clock is near enough to the cloud's, as it last showed; nobody can tell while that is away."""
    if channel is None or not channel.connected:
        return []
    off = abs(site.cloud_now() - now)
    if off < CLOCK_OFF:
        return [Finding(Level.OK, "This host's clock agrees with the cloud's.")]
    what = f"This host's clock is {off:.0f} seconds off the cloud's; from {WINDOW} on, the cloud refuses this host."
    return [Finding(Level.BAD if off >= WINDOW else Level.WARN, what, "Set it with `sudo timedatectl set-ntp true`.")]


def _host(settings: Settings, holder: Holder) -> list[Finding]:
    findings = []
    # To read one is enough: Debian's lpd is root's to run, and is then started through the loader (printers.backend).
    missing = [name for name in BACKENDS if not os.access(settings.backend_dir / name, os.R_OK)]
    if missing:
        what = f"CUPS backends that this account cannot run: {', '.join(missing)}."
        findings.append(
            Finding(Level.BAD, what, "Install the package cups; printers of these kinds cannot be reached.")
        )
    else:
        findings.append(Finding(Level.OK, "CUPS's ipp, ipps, socket and lpd backends are there."))
    findings += [*_intake(settings.intake_socket), *_units()]
    free = shutil.disk_usage(holder.directory).free // MIB
    if free < 4 * settings.disk_reserve_mib:
        findings.append(
            Finding(Level.WARN, f"Only {free} MiB of disk are left.", "Make room; otherwise jobs wait in CUPS.")
        )
    else:
        findings.append(Finding(Level.OK, f"{free:,} MiB of disk are free for held jobs."))
    damaged = list(holder.directory.glob("*.damaged"))
    if damaged:
        what = f"{len(damaged)} sealed files are damaged and were set aside."
        findings.append(Finding(Level.BAD, what, f"See the journal; they lie in {holder.directory}."))
    if not in_memory(settings.runtime_dir):
        what = f"{settings.runtime_dir} is on a disk: the lpd backend would leave documents there."
        findings.append(Finding(Level.WARN, what, f"Put runtime_dir on {TMPFS}."))
    return findings


async def _sandbox(settings: Settings) -> Finding:
    """What becomes of a document that is counted where it can do no harm: a real one, really counted."""
    with await asyncio.to_thread(_one_page) as document:
        counted = await count_facts(
            document.fileno(),
            "application/pdf",
            program=settings.facts_program,
            clock=SystemClock(),
            service=settings.sandbox_socket,
        )
    if counted.facts.pages == 1:
        return Finding(Level.OK, "Pages are counted in a sandbox.")
    if counted.facts.problem == "no-sandbox":
        what = "Pages cannot be counted: there is no sandbox, or no counting program."
        why = "see `journalctl -u 'pullprint-sandbox@*' -n 20`; " if settings.sandbox_socket.exists() else ""
        return Finding(Level.WARN, what, f"{SANDBOX_ADVICE}; {why}documents are held all the same.")
    what = f"Pages are not counted as they should be ({counted.facts.problem or 'a wrong number'})."
    return Finding(
        Level.WARN, what, "Install the package again: `apt install --reinstall pullprint pullprint-runtime`."
    )


def _one_page() -> IO[bytes]:
    document = tempfile.TemporaryFile()  # noqa: SIM115 (the caller closes it)
    document.write(ONE_PAGE)
    document.seek(0)
    return document


def _intake(path: Path) -> Iterator[Finding]:
    """Whether CUPS, as whatever account, may hand documents over."""
    try:
        mode = path.stat().st_mode
    except OSError:
        advice = "Make it anew with `sudo systemctl restart pullprintd.socket pullprintd`."
        yield Finding(Level.BAD, f"The socket {path}, to which CUPS hands documents, is gone.", advice)
        return
    if not stat.S_ISSOCK(mode) or mode & 0o666 != 0o666:
        advice = f"Open it with `sudo chmod 0666 {path}`; who may print, CUPS decides."
        yield Finding(Level.BAD, f"The socket {path} is closed to CUPS.", advice)


def _units(root: Path = Path("/")) -> Iterator[Finding]:
    """Which of our units, as far as they are installed, the next boot leaves out."""
    states = {name: _unit_state(name, root) for name in UNITS}
    off = [name for name, state in states.items() if state in ("disabled", "masked")]
    if off:
        masked = [name for name in off if states[name] == "masked"]
        unmask = f"sudo systemctl unmask {' '.join(masked)}; " if masked else ""
        what = f"After the next start of this host nobody takes documents: {', '.join(off)} not enabled."
        yield Finding(Level.BAD, what, f"Run `{unmask}sudo systemctl enable --now {' '.join(off)}`.")
    elif any(state == "enabled" for state in states.values()):
        yield Finding(Level.OK, "pullprintd is started with this host.")


def _unit_state(name: str, root: Path) -> str:
    """A word of systemctl(1) is-enabled, from the unit files; empty where there is no such unit, or no systemd."""
    argv = ["systemctl", f"--root={root}", "is-enabled", name]
    try:
        ran = subprocess.run(argv, capture_output=True, text=True, timeout=SYSTEMCTL_SECONDS, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return ran.stdout.strip()
