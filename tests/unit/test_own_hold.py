"""A command's own hold: it ends with the command, however that ends, and leaves others' holds alone."""

from __future__ import annotations

import signal
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from headrace.schemas.errors import Unavailable
from headrace.selfserve.own_hold import own_hold
from headrace.sinks.hold import Hold, hold, hold_of
from tests.support.faulty import CommitFault
from tests.support.rewinding import Shop

if TYPE_CHECKING:
    from pathlib import Path

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop.at(tmp_path)


def held(shop: Shop) -> Hold | None:
    return hold_of(shop.table())


@pytest.mark.parametrize("failure", [KeyboardInterrupt, Unavailable])
def test_it_ends_however_the_command_ends(shop: Shop, failure: type[BaseException]) -> None:
    def command() -> None:
        with own_hold(shop.catalog, shop.product, "headrace rollback"):
            found = held(shop)
            assert found is not None
            assert found.reason == "headrace rollback is under way"
            raise failure("now")

    with pytest.raises(failure):
        command()
    assert held(shop) is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_it_ends_when_the_command_is_told_to_end(shop: Shop, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), own_hold(shop.catalog, shop.product, "headrace rollback"):
        signal.raise_signal(number)
    assert held(shop) is None
    assert signal.getsignal(number) is before


def test_a_signal_that_is_ignored_ends_nothing(shop: Shop) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with own_hold(shop.catalog, shop.product, "headrace rollback") as own:
            signal.raise_signal(signal.SIGHUP)
            assert own
    finally:
        signal.signal(signal.SIGHUP, before)
    assert held(shop) is None


def test_a_hold_that_was_there_stays(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    hold(shop.catalog, shop.product, "we look into it", NOON)
    with own_hold(shop.catalog, shop.product, "headrace rollback"):
        assert held(shop) == Hold("we look into it", NOON)
    assert held(shop) == Hold("we look into it", NOON)
    assert "it stays so" in capsys.readouterr().err


def test_one_that_the_same_command_left_behind_is_its_own(shop: Shop) -> None:
    hold(shop.catalog, shop.product, "headrace replay is under way", NOON)
    with own_hold(shop.catalog, shop.product, "headrace rollback"):
        pass
    assert held(shop) is not None
    with own_hold(shop.catalog, shop.product, "headrace replay"):
        pass
    assert held(shop) is None


def test_what_may_be_held_still_is_told(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    shop.catalog.fault = CommitFault.REFUSED
    with pytest.raises(Unavailable), own_hold(shop.catalog, shop.product, "headrace replay"):
        raise AssertionError("it is not held")
    assert "may be held now; next: headrace release shop.orders" in capsys.readouterr().err
    with pytest.raises(Unavailable), own_hold(shop.catalog, shop.product, "headrace replay"):
        shop.catalog.fault = CommitFault.REFUSED
    assert "is still held; next: headrace release shop.orders" in capsys.readouterr().err
