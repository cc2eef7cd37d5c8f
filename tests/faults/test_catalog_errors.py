"""Catalogs that answer with an error of each kind: whatever is said, each event ends in the table exactly once."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from pyiceberg.exceptions import (
    AuthorizationExpiredError,
    BadRequestError,
    CommitFailedException,
    CommitStateUnknownException,
    ForbiddenError,
    NoSuchNamespaceError,
    NoSuchTableError,
    OAuthError,
    RESTError,
    ServerError,
    ServiceUnavailableError,
    TooManyRequestsError,
    UnauthorizedError,
)
from requests.exceptions import ConnectionError as NoConnection
from requests.exceptions import ConnectTimeout, ReadTimeout, SSLError
from sqlalchemy.exc import DatabaseError, OperationalError

from headrace.schemas.errors import HeadraceError, NotApplied, SettingsError
from headrace.sinks.landing import Step
from tests.support.faulty import Moment, RefusingCatalog
from tests.support.meshes import ORDERS, ids, order, send
from tests.support.sinks import assert_exactly_once, caught_up, events, eventually, running
from tests.support.stages import Stage, occurrence_of
from tests.support.workers import At

if TYPE_CHECKING:
    from pathlib import Path

    from headrace.schemas.mesh import Mesh

FIRST, LATER = 1, 2
LOCKED = OperationalError("UPDATE iceberg_tables", {}, Exception("database is locked"))
# What is no more than a moment's trouble: a sink goes on by itself.
PASSING: dict[str, Exception] = {
    "conflict": CommitFailedException("branch main has changed"),
    "state unknown": CommitStateUnknownException("502"),
    "server error": ServerError("500"),
    "unavailable": ServiceUnavailableError("503"),
    "too many": TooManyRequestsError("429"),
    "another status": RESTError("418"),
    "unauthorized": UnauthorizedError("401"),
    "forbidden": ForbiddenError("403"),
    "expired": AuthorizationExpiredError("419"),
    "no token": OAuthError("invalid_client"),
    "time-out": ReadTimeout("no reply"),
    "cannot connect": ConnectTimeout("no connection"),
    "connection refused": NoConnection("connection refused"),
    "bad certificate": SSLError("certificate expired"),
    "locked": LOCKED,
    "damaged database": DatabaseError("UPDATE iceberg_tables", {}, Exception("disk I/O error")),
}
# What an operator has to look at: the product stops and says so, unless the commit has landed.
STOPPING: dict[str, Exception] = {
    "no table": NoSuchTableError("shop.orders"),
    "no namespace": NoSuchNamespaceError("shop"),
    "bad request": BadRequestError("400"),
}
KINDS = {**PASSING, **STOPPING}


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


@pytest.mark.parametrize("batch", [FIRST, LATER])
@pytest.mark.parametrize("moment", [Moment.UNSENT, Moment.LANDED])
@pytest.mark.parametrize("kind", KINDS)
def test_a_commit_that_is_answered_with_an_error_lands_once(
    stage: Stage, kind: str, moment: Moment, batch: int
) -> None:
    catalog = stage.refusing()
    worker = stage.worker(At(Step.COMMIT, batch, lambda: catalog.refuse(moment, KINDS[kind])), catalog)
    if kind in STOPPING and moment is Moment.UNSENT:
        with pytest.raises((NotApplied, SettingsError)):
            worker.run()
        stage.worker().run()
    else:
        worker.run()
        assert worker.stale == []
        # A conflict, and whatever has landed, is nothing to wait for.
        assert len(worker.unknown) == (moment is Moment.UNSENT and kind != "conflict")
    assert catalog.spent
    stage.assert_exactly_once()


@pytest.mark.parametrize("step", [Step.RELOAD, Step.OUTCOME])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "conflict"])
def test_a_look_at_the_table_that_is_answered_with_an_error_decides_nothing(
    stage: Stage, kind: str, step: Step
) -> None:
    catalog = stage.refusing()
    at = At(step, occurrence_of(step, LATER), lambda: catalog.refuse(Moment.LOAD, KINDS[kind]))
    worker = stage.worker(at, catalog)
    if kind in STOPPING:
        with pytest.raises((NotApplied, SettingsError)):
            worker.run()
        stage.worker().run()
    else:
        worker.run()
        assert len(worker.unknown) == 1
    assert catalog.spent
    stage.assert_exactly_once()


@pytest.mark.parametrize("landed", [Moment.UNSENT, Moment.LANDED])
@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_outcome_that_cannot_be_looked_up_for_a_while(stage: Stage, kind: str, landed: Moment) -> None:
    catalog = stage.refusing()

    def arm() -> None:
        catalog.refuse(landed, KINDS[kind])
        catalog.refuse(Moment.LOAD, LOCKED, ReadTimeout("no reply"), UnauthorizedError("401"))

    with suppress(HeadraceError):
        stage.worker(At(Step.COMMIT, FIRST, arm), catalog).run()
    stage.worker().run()
    stage.assert_exactly_once()


def test_a_sink_meets_one_error_after_the_other_and_goes_on(mesh: Mesh) -> None:
    product = mesh.product(ORDERS)
    catalog = RefusingCatalog("shop", **mesh.environment.catalog_properties(mesh.domain_of(product)))
    count = 0
    with running(mesh, catalogs={ORDERS: catalog}) as sink:
        for moment in Moment:
            for kind, error in PASSING.items():
                # By itself a conflict is answered at a commit alone, and each wait is twice as long as the last one.
                if kind not in ("server error", "unauthorized", "time-out", "locked", "conflict") or (
                    kind == "conflict" and moment is Moment.LOAD
                ):
                    continue
                catalog.refuse(moment, error)
                send(mesh, product.topic, events(mesh, product, map(order, range(count, count + 10))))
                count += 10
                assert eventually(lambda: catalog.spent and sink.rows(ORDERS) >= count), sink.logs  # noqa: B023
    assert sink.outcomes == {ORDERS: True}
    assert caught_up(mesh).outcomes == {ORDERS: True}
    assert ids(mesh) == sorted(f"o{number}" for number in range(count))
    assert_exactly_once(mesh)
