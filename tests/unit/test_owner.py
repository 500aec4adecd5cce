"""Whose job is it: nobody gets another's job by a clever name."""

import pytest

from pullprint.model.owner import CODE, RuleRefused, check_rule, is_account, new_code, owner_of, tidy_code, user_of

USERS = frozenset({"alice@example.com", "bob@example.com", "root", "a@b@example.com", "alice"})
RULE = "{user}@example.com"


def test_an_account_becomes_the_user_of_the_rule() -> None:
    assert owner_of("alice", RULE, USERS) == "alice@example.com"
    assert owner_of("Alice", RULE, USERS) == "alice@example.com"
    assert owner_of("alice", "{user}", USERS) == "alice"


@pytest.mark.parametrize(
    "submitter",
    [
        "",
        "carol",
        "alice ",
        " alice",
        "alice\n",
        "alice\0",
        "../alice",
        "{user}",
        "-alice",
        "älice",
        "alice@evil",
        "a" * 65,
    ],
)
def test_a_name_that_is_no_account_or_no_user_owns_nothing(submitter: str) -> None:
    assert owner_of(submitter, RULE, USERS) == ""


def test_what_a_user_said_of_an_account_comes_before_the_rule() -> None:
    accounts = {"alice": "bob@example.com", "shared": "alice@example.com"}
    assert user_of("alice", accounts, RULE, USERS) == "bob@example.com"
    assert user_of("shared", accounts, "", ()) == "alice@example.com", "also where the rule knows nobody"
    assert user_of("bob", accounts, RULE, USERS) == "bob@example.com"
    assert user_of("Alice", accounts, "", USERS) == "", "accounts are told apart by case"
    for stranger in ("", "carol", "alice ", "alice\0"):
        assert user_of(stranger, accounts, RULE, USERS) == ""
    assert is_account("ada.l-1@corp") and not any(map(is_account, ("", "a b", "a\n", "-a", "ä", "a" * 65)))


def test_without_a_rule_every_job_waits_to_be_claimed() -> None:
    assert owner_of("alice", "", USERS) == ""


@pytest.mark.parametrize(
    "rule", ["", "alice", "{user}{user}", "{user} x", "{user}\n", "{user}" + "x" * 300, "<{user}>"]
)
def test_a_rule_that_is_none_is_refused(rule: str) -> None:
    with pytest.raises(RuleRefused, match="write it like {user}@example.com"):
        check_rule(rule)
    assert check_rule(RULE) == RULE


def test_a_code_is_found_again_however_it_is_typed() -> None:
    for _ in range(200):
        code = new_code()
        assert CODE.fullmatch(code)
        assert tidy_code(code) == code
        assert tidy_code(f" {code.lower().replace('-', ' ')} ") == code
        assert tidy_code(code.replace("0", "O").replace("1", "l")) == code
    for text in ("", "7KQ2-M9X", "7KQ2-M9XDD", "7KQ2-M9XU", "☃☃☃☃-☃☃☃☃", "'; drop table"):
        assert tidy_code(text) == ""
