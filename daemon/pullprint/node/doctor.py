"""``pullprint doctor``: what could keep this host from printing, or leave a document readable, and what to do."""

import asyncio
import os
import shutil

from pullprint.node.channel import Channel
from pullprint.node.holder import Holder
from pullprint.node.settings import Settings
from pullprint.node.site import Site
from pullprint.printers.cups_check import Finding, Level, check_cups
from pullprint.wire.views import FindingView

MIB = 1 << 20
BACKENDS = ("ipp", "ipps", "socket", "lpd")


async def examine(settings: Settings, holder: Holder, site: Site, channel: Channel | None) -> list[FindingView]:
    """All findings, good ones too; no more than a few seconds."""
    findings = [_membership(site), *_cloud(site, channel)]
    findings += await asyncio.to_thread(_host, settings, holder)
    findings += await check_cups(settings.cups_server or None, settings.cups_port)
    return [FindingView(level=f.level, what=f.what, advice=f.advice) for f in findings]


def _membership(site: Site) -> Finding:
    if site.member:
        member = site.membership
        return Finding(Level.OK, f"This host belongs to {member.organisation}, site {member.site}.")
    return Finding(
        Level.BAD, "This host belongs to no organisation.", "Ask for a join code, then: pullprint join CLOUD CODE"
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
            "Held jobs are safe; check the network.",
        )
    ]


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
    if not settings.facts_program.exists() or not shutil.which("bwrap"):
        advice = "Install bubblewrap and the pullprint filters; documents are held all the same."
        findings.append(Finding(Level.WARN, "Pages cannot be counted: no sandbox or no counting program.", advice))
    else:
        findings.append(Finding(Level.OK, "Pages are counted in a sandbox."))
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
    if not _in_memory(settings):
        what = f"{settings.runtime_dir} is on a disk: the lpd backend would leave documents there."
        findings.append(Finding(Level.WARN, what, "Put runtime_dir on a tmpfs such as /run."))
    return findings


def _in_memory(settings: Settings) -> bool:
    """Whether the runtime directory is on a tmpfs (or nobody can tell, outside Linux)."""
    try:
        mounts = [line.split() for line in open("/proc/self/mounts", encoding="utf-8")]  # noqa: PTH123, SIM115
    except OSError:
        return True
    path = os.path.realpath(settings.runtime_dir)
    inside = [m for m in mounts if path == m[1] or path.startswith(m[1].rstrip("/") + "/")]
    return max(inside, key=lambda m: len(m[1]))[2] in ("tmpfs", "ramfs") if inside else False
