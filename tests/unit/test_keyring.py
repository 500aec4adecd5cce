"""A node's keys: one for each day, gone when nothing needs them, never sooner."""

from pathlib import Path

import pytest

from pullprint.vault.keyring import DAY, Keyring
from pullprint.vault.parts import PartRefused, public_half

NOON = 20_000 * DAY + DAY // 2


def test_an_identity_is_made_once_and_read_by_its_owner_only(tmp_path: Path) -> None:
    first, again = Keyring(tmp_path / "keys").identity(), Keyring(tmp_path / "keys").identity()
    assert first.node == again.node
    assert first.public == again.public
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "keys" / "identity").stat().st_mode & 0o777 == 0o600


def test_a_day_has_one_key_and_the_next_day_another(tmp_path: Path) -> None:
    keyring = Keyring(tmp_path)
    morning, evening = keyring.current(NOON - DAY // 2), keyring.current(NOON + DAY // 2 - 1)
    tomorrow = keyring.current(NOON + DAY // 2)
    assert morning == evening
    assert morning.public == public_half(keyring.private(morning.key))
    assert tomorrow.key > morning.key
    assert tomorrow.public != morning.public
    assert keyring.names() == [morning.key, tomorrow.key]


def test_a_key_lives_as_long_as_it_may_be_sealed_to_and_as_a_job_needs_it(tmp_path: Path) -> None:
    keyring = Keyring(tmp_path)
    used, unused = keyring.current(NOON), keyring.current(NOON + DAY)
    for now in (NOON, used.expires - 1):
        assert keyring.destroy_unused(set(), now) == []
    assert keyring.destroy_unused({used.key}, NOON + 30 * DAY) == [unused.key]
    assert keyring.names() == [used.key]
    keyring.private(used.key)
    with pytest.raises(PartRefused, match="destroyed"):
        keyring.private(unused.key)
    assert keyring.destroy_unused(set(), NOON + 30 * DAY) == [used.key]


def test_a_clock_that_goes_back_destroys_nothing(tmp_path: Path) -> None:
    keyring = Keyring(tmp_path)
    key = keyring.current(NOON)
    assert keyring.destroy_unused(set(), NOON - 400 * DAY) == []
    assert keyring.current(NOON) == key


@pytest.mark.parametrize("name", ["identity", "../identity", "20241001-", "", "20241001-0123456789ab/../identity"])
def test_no_name_from_a_header_reaches_a_file_that_is_no_day_key(tmp_path: Path, name: str) -> None:
    keyring = Keyring(tmp_path)
    keyring.identity()
    with pytest.raises(PartRefused):
        keyring.private(name)
    keyring.destroy_unused(set(), NOON)
    assert (tmp_path / "identity").exists()
