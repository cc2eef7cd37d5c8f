"""What a contract says of its table's upkeep, and every fault with its place."""

from __future__ import annotations

import pytest

from headrace.schemas.durations import seconds_of
from headrace.schemas.product import Product
from headrace.schemas.upkeep import Compaction, Tier, Upkeep
from headrace.schemas.upkeep_settings import MAX_SNAPSHOTS
from headrace.selfserve.exports.odcs import odcs_of
from tests.support.contracts import NAME, SCHEMA, contract_of, custom, document, faults_of, read

DAY_S = 86_400.0


def upkeep_of(name: str, value: object) -> Upkeep:
    return contract_of(document(customProperties=custom(name, value))).upkeep


def test_without_settings_the_defaults_hold() -> None:
    assert contract_of(document()).upkeep == Upkeep(
        tiers=(Tier(60.0), Tier(3_600.0, 300.0), Tier(DAY_S, 3_600.0), Tier(7 * DAY_S, DAY_S)),
        compaction=Compaction(target_bytes=128 << 20, small_bytes=32 << 20, min_files=8),
        orphan_after_s=3 * DAY_S,
    )


def test_the_defaults_as_they_are_written() -> None:
    written = [
        *custom("upkeep.snapshots", ["1min", "5min/1h", "1h/1d", "1d/7d"]),
        *custom("upkeep.compaction", {"targetBytes": 134_217_728, "smallBytes": 33_554_432, "minFiles": 8}),
        *custom("upkeep.orphans", "3d"),
    ]
    assert contract_of(document(customProperties=written)).upkeep == Upkeep()


@pytest.mark.parametrize("off", ["off", False])
def test_each_part_can_be_switched_off(off: object) -> None:
    assert upkeep_of("upkeep.snapshots", off).tiers == ()
    assert upkeep_of("upkeep.compaction", off).compaction is None
    assert upkeep_of("upkeep.orphans", off).orphan_after_s is None


@pytest.mark.parametrize("on", ["on", True, {}])
def test_compaction_as_it_is_anyway(on: object) -> None:
    assert upkeep_of("upkeep.compaction", on) == Upkeep()


def test_tiers_of_ones_own() -> None:
    assert upkeep_of("upkeep.snapshots", ["5min/2h", "1 day/30 days"]).tiers == (
        Tier(7_200.0, 300.0),
        Tier(30 * DAY_S, DAY_S),
    )


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("upkeep.snapshots", "1h", "upkeep.snapshots is a list of tiers, or off"),
        ("upkeep.snapshots", [], "upkeep.snapshots is a list of tiers, or off"),
        ("upkeep.snapshots", True, "upkeep.snapshots is a list of tiers, or off"),
        ("upkeep.snapshots", ["1min", 60], "no tier of snapshots"),
        ("upkeep.snapshots", ["1m"], "no tier of snapshots"),
        ("upkeep.snapshots", ["0s"], "no tier of snapshots"),
        ("upkeep.snapshots", ["1h/1h/1h"], "no tier of snapshots"),
        ("upkeep.snapshots", ["1d/1h"], "no tier of snapshots"),
        ("upkeep.snapshots", ["-1h"], "no tier of snapshots"),
        ("upkeep.snapshots", ["999999999y"], "no tier of snapshots"),
        ("upkeep.snapshots", ["1h", "1min/1h"], "for longer than the one before it, and fewer"),
        ("upkeep.snapshots", ["1h/1d", "1min/7d"], "for longer than the one before it, and fewer"),
        ("upkeep.snapshots", ["1min", "2min"], "for longer than the one before it, and fewer"),
        ("upkeep.snapshots", ["1s/10min"], f"these tiers keep 601 snapshots, {MAX_SNAPSHOTS} at most"),
        ("upkeep.compaction", "sometimes", "upkeep.compaction is on, off or a map"),
        ("upkeep.compaction", {"target": 1}, "upkeep.compaction has no such setting"),
        (
            "upkeep.compaction",
            {"targetBytes": "128MB"},
            "targetBytes is a whole number from 1,048,576 to 2,147,483,648",
        ),
        ("upkeep.compaction", {"minFiles": 1}, "minFiles is a whole number from 2 to 1,000"),
        ("upkeep.compaction", {"minFiles": True}, "minFiles is a whole number from 2 to 1,000"),
        ("upkeep.compaction", {"targetBytes": 2 << 20}, "smallBytes"),
        ("upkeep.orphans", "1h", "upkeep.orphans is a time of one day at least, or off"),
        ("upkeep.orphans", 3, "upkeep.orphans is a time of one day at least, or off"),
        ("upkeep.orphan", "3d", "unknown custom property"),
    ],
)
def test_each_fault_is_told_once_with_its_place(name: str, value: object, fault: str) -> None:
    told = faults_of(document(customProperties=custom(name, value)))
    assert fault in told
    assert told.startswith("c.yaml:")
    assert told.count("c.yaml:") == 1


def test_an_exported_contract_says_the_same() -> None:
    settings = [
        *custom("upkeep.snapshots", ["5min/2h"]),
        *custom("upkeep.compaction", {"minFiles": 3}),
        *custom("upkeep.orphans", "off"),
    ]
    written = document(customProperties=settings)
    found = read(written)
    assert isinstance(found, tuple), found
    exported = odcs_of(written, Product(NAME, found[0], SCHEMA, found[1], "shop.orders"), None)
    assert (
        contract_of(exported).upkeep
        == found[0].upkeep
        == Upkeep((Tier(7_200.0, 300.0),), Compaction(min_files=3), None)
    )


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90.0), ("1 min", 60.0), ("500ms", 0.5), ("3d", 3 * DAY_S), ("100y", 100 * 365 * DAY_S)],
)
def test_spans_of_time(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "d", "3", "1m", "1.5h", "3 d d", "1D", "101y"])
def test_what_is_no_span_of_time(text: str) -> None:
    assert seconds_of(text) is None
