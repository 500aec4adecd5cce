"""``pullprint doctor --repair``: the settings of cupsd that leave documents readable or lose jobs, put right in place.

cupsctl(8) could do it, but writes the whole file anew, and so that only root and lp may read it.
"""

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from pullprint.base.files import sync_directory
from pullprint.base.platform import sync
from pullprint.cli.errors import CommandError, Exit, Usage
from pullprint.cli.queues import PATH, Cups, CupsAway
from pullprint.cli.terminal import Terminal
from pullprint.printers.cups_settings import CONFIGURATION, FILE_LIMIT, Rule, repaired, wrong

SECONDS = 60.0
"""For cupsd's look at the file, and for its restart."""
BACKUP = ".before-pullprint"
BOOTED = Path("/run/systemd/system")
"""There where systemd runs (sd_booted(3))."""
LOCAL = Path("/run/cups/cups.sock")
"""The cupsd of `CONFIGURATION`, whatever $CUPS_SERVER says."""
IDLE_SECONDS = 60.0
"""How long a document that is being printed is waited for."""


class CannotRepair(CommandError):
    """{path} was left as it is: {reason}. To change it by hand: {lines}; then restart cupsd."""

    code = "cannot-repair"


class RootRepairs(CommandError):
    """Only root may change {path}. Try again with sudo. Nothing was changed."""

    code = "root-repairs"


class RestartFailed(CommandError):
    """cupsd did not start with its new settings: {reason}. It has its old ones back; `systemctl status cups` says more.
    Jobs in its queues are safe.
    """

    code = "restart-failed"


def needed(configuration: Path) -> list[Rule]:
    """The rules that a configuration breaks; none where that cannot be known."""
    try:
        return wrong(_read(configuration))
    except OSError:
        return []


def repair(terminal: Terminal, configuration: Path, *, yes: bool) -> Exit:
    """Put cupsd's settings right, if whoever is asked says so. Raises CannotRepair, RootRepairs, RestartFailed."""
    try:
        text = _read(configuration)
        writable = os.access(configuration.resolve().parent, os.W_OK)
    except OSError as error:
        raise CannotRepair(path=configuration, reason=error.strerror, lines="see docs/admin.md") from None
    rules = wrong(text)
    if not rules:
        terminal.say(f"The settings in {configuration} are right already.")
        return Exit.DONE
    if not writable and os.geteuid():
        raise RootRepairs(path=configuration)
    lines = ", ".join(f"`{rule.line}`" for rule in rules)
    if not yes:
        if not terminal.asks:
            raise Usage(reason=f"To set {lines} in {configuration}, say so with --yes. Nothing was changed.")
        if not terminal.confirm(f"Set {lines} in {configuration} and restart cupsd?", default=True):
            terminal.say("Nothing was changed.")
            return Exit.DONE
    try:
        backup = _change(configuration.resolve(), configuration.parent, repaired(_read(configuration)))
    except OSError as error:
        raise CannotRepair(path=configuration, reason=error.strerror or "unknown reason", lines=lines) from None
    except _Unfit as error:
        raise CannotRepair(path=configuration, reason=error, lines=lines) from None
    if configuration != CONFIGURATION or not BOOTED.is_dir():
        terminal.say(f"{lines} set in {configuration}; restart its cupsd. The file as it was: {backup}", "green")
        return Exit.DONE
    if not _idle(terminal, Cups(str(LOCAL) if LOCAL.exists() else "localhost")):
        terminal.say(f"{lines} set in {configuration}, but cupsd does not know it yet: what it may be printing "
                     "would begin again. Later, when `lpstat -p` shows no queue that is printing, run "
                     f"`sudo systemctl restart cups`. The file as it was: {backup}", "yellow")  # fmt: skip
        return Exit.DONE
    _restart(configuration.resolve(), backup)
    terminal.say(f"{lines} set in {configuration}, and cupsd restarted. The file as it was: {backup}", "green")
    return Exit.DONE


class _Unfit(Exception):
    """cupsd would not start with it."""


def _read(path: Path) -> str:
    with path.open("rb") as file:
        # Surrogates bring bytes that are not UTF-8 back as they were.
        return file.read(FILE_LIMIT).decode("utf-8", "surrogateescape")


def _change(path: Path, folder: Path, text: str) -> Path:
    """Put *text* in the place of what is in *path*, whose mode, owner and label it gets; returns where the old is kept.

    *folder* has cups-files.conf. Raises _Unfit, OSError; then everything is as it was.
    """
    if path.stat().st_size > FILE_LIMIT:
        raise _Unfit("it is larger than 1 MiB")
    if wrong(text):
        raise _Unfit("it ends within a section, where no setting counts")
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".new")
    new, backup = Path(name), path.with_name(path.name + BACKUP)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(text.encode("utf-8", "surrogateescape"))
            file.flush()
            sync(file.fileno())
        _dress(new, path)
        _try(new, folder / "cups-files.conf")
        shutil.copy2(path, backup)
        shutil.chown(backup, path.stat().st_uid, path.stat().st_gid)
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)
    return backup


def _dress(new: Path, old: Path) -> None:
    """Owner, mode and extended attributes (SELinux's label) of *old* for *new*, but not its times."""
    status = old.stat()
    os.chown(new, status.st_uid, status.st_gid)
    shutil.copystat(old, new)
    os.utime(new)


def _try(new: Path, files: Path) -> None:
    cupsd = shutil.which("cupsd", path=PATH)
    if cupsd is None:
        raise _Unfit("there is no cupsd that could test it")
    more = ["-s", str(files)] if files.exists() else []
    try:
        ran = subprocess.run([cupsd, "-t", "-c", str(new), *more], capture_output=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise _Unfit("`cupsd -t` did not end") from None
    if ran.returncode:
        said = (ran.stderr + ran.stdout).decode("utf-8", "replace").strip().splitlines() or ["it does not say why"]
        raise _Unfit(f"`cupsd -t` refuses it: {said[0]}")


def _idle(terminal: Terminal, cups: Cups) -> bool:
    """Wait until no queue of *cups* prints: what cupsd prints when it ends, it later prints again, from the start."""
    until = time.monotonic() + IDLE_SECONDS
    try:
        with terminal.progress() as tell:
            while printing := cups.printing():
                if time.monotonic() >= until:
                    return False
                tell(f"Waiting for what is being printed: {', '.join(printing)}")
                time.sleep(0.5)
    except CupsAway:  # and a restart is what helps
        return True
    except CommandError:  # it cannot be known
        return False
    return True


def _restart(path: Path, backup: Path) -> None:
    if why := _restarted():
        backup.replace(path)
        _restarted()
        raise RestartFailed(reason=why)


def _restarted() -> str:
    """Why cupsd did not start anew; empty if it did."""
    try:
        argv = ["systemctl", "restart", "cups.service"]
        ran = subprocess.run(argv, capture_output=True, text=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    said = ran.stderr.splitlines() or ["systemctl does not say why"]
    return said[0].rstrip(".") if ran.returncode else ""
