"""Whose job is it? A local account of a managed host becomes a user of the organisation by the admin's rule."""

import re
import secrets
from collections.abc import Collection, Mapping

from pullprint.base.errors import PullprintError

USER_NAME = re.compile(r"[^\s\x00-\x1f\x7f<>\"'`\\]{1,254}")
_ACCOUNT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}")
# No letters that are read as digits, so that a code can be read aloud (Crockford's base 32 without U).
_CODE_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
CODE = re.compile(r"[0-9A-HJKMNP-TV-Z]{4}-[0-9A-HJKMNP-TV-Z]{4}")


class RuleRefused(PullprintError):
    """The owner rule {rule} is not usable: write it like {{user}}@example.com. Nothing was changed."""

    code = "rule-refused"
    http_status = 400


def check_rule(rule: str) -> str:
    """*rule* if it names ``{user}`` exactly once and is a possible user name; raises RuleRefused."""
    if rule.count("{user}") != 1 or not USER_NAME.fullmatch(rule.replace("{user}", "u")):
        raise RuleRefused(rule=rule)
    return rule


def owner_of(submitter: str, rule: str, users: Collection[str]) -> str:
    """The user that *submitter* is by *rule*, or empty: no rule, no such user, or a name that no account can have."""
    if not rule or not is_account(submitter):
        return ""
    name = rule.replace("{user}", submitter).lower()
    return name if name in users else ""


def user_of(account: str, accounts: Mapping[str, str], rule: str, users: Collection[str]) -> str:
    """The user that a local account is: what that user has said of it (*accounts*) comes before the rule."""
    return accounts.get(account, "") or owner_of(account, rule, users)


def is_account(name: str) -> bool:
    """Whether a local account may have this name."""
    return _ACCOUNT.fullmatch(name) is not None


def new_code() -> str:
    """A claim or join code: 40 random bits, like ``7KQ2-M9XD``."""
    letters = [secrets.choice(_CODE_ALPHABET) for _ in range(8)]
    return "".join(letters[:4]) + "-" + "".join(letters[4:])


def new_printer_code() -> str:
    """A short code to type instead of scanning a printer's QR code: 20 bits, like ``7KQ2``; no secret."""
    return "".join(secrets.choice(_CODE_ALPHABET) for _ in range(4))


def tidy_code(text: str) -> str:
    """What a person typed, as the code that was meant; empty when it cannot be one."""
    letters = text.upper().replace("-", "").replace(" ", "").replace("O", "0").replace("I", "1").replace("L", "1")
    code = f"{letters[:4]}-{letters[4:]}"
    return code if CODE.fullmatch(code) else ""
