"""Apply that dies, fails or runs twice at once: run again, it makes what the files promise, and nothing twice."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from headrace.schemas.errors import Unavailable
from headrace.schemas.registry import Registry
from headrace.selfserve.apply import apply, apply_each
from headrace.selfserve.drift import drift
from headrace.selfserve.plan import plan
from headrace.streams.admin import Admin
from tests.support.amending import amended, optional, reloaded, with_fields, with_properties
from tests.support.meshes import ORDER, ORDERS, write_mesh, write_product
from tests.support.mortal import AFTER, BEFORE, LOST, make_mortal
from tests.support.servers import kill
from tests.support.topics import table_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.schemas.mesh import Mesh
    from headrace.selfserve.stack.embedded import EmbeddedStack
    from tests.support.meshes import Cluster

# On a busy machine with others' tests beside it.
pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).parents[2]
RETURNS = "shop.returns"
# A domain's namespace (once more when its table is made), the table, its sort order, its place.
TABLE_CHANGES = 5


class Crash(BaseException):
    """The process is gone: nothing of its code may run after this."""


def assert_converges(mesh: Mesh, *allowed: str) -> None:
    """Apply once more: everything is there then, once."""
    applied = apply_each(mesh, lambda _: None, allowed)
    assert applied.complete, applied
    assert plan(mesh).differences == ()
    assert drift(mesh).differences == ()
    with Registry(mesh.environment.registry_config()) as registry:
        for product in mesh.products:
            schemas = [version.schema.text for version in registry.versions(product.subject)]
            assert len(schemas) == len(set(schemas))


def crashing_at(number: int) -> Callable[[str], None]:
    """Return a progress that ends everything after so many changes."""
    seen: list[str] = []

    def tell(thing: str) -> None:
        seen.append(thing)
        if len(seen) == number:
            raise Crash

    return tell


def changed(mesh: Mesh) -> Mesh:
    """Return a mesh that was applied, with all that a contract may change changed."""
    with_properties(
        mesh,
        ORDERS,
        avro_compatibility="FULL",
        kafka_min_insync_replicas=1,
        iceberg_sortOrder=[{"field": "amount", "direction": "desc"}],
    )
    amended(mesh, ORDERS, lambda contract: contract.update(description={"purpose": "another one"}))
    return with_fields(mesh, ORDERS, {"name": "amount", "type": "long", "doc": "in cents"}, optional("gate"))


def test_a_new_mesh_after_each_change(cluster: Cluster, tmp_path: Path, prefix: str) -> None:
    planned = list(map(str, plan(cluster.mesh(tmp_path / "mesh", prefix=prefix)).differences))
    # What comes behind it are headrace's own products, made by the same steps.
    last, total = planned.index(f"table {ORDERS}") + 1, len(planned)
    assert last > 6
    for number in range(1, last + 1):
        mesh = cluster.mesh(tmp_path / f"mesh{number}", prefix=f"{prefix}{number}.")
        with pytest.raises(Crash):
            apply(mesh, crashing_at(number))
        assert len(plan(mesh).differences) == total - number
        assert_converges(mesh)


def test_a_changed_mesh_after_each_change(cluster: Cluster, tmp_path: Path, prefix: str) -> None:
    number = total = 1
    while number <= total:
        mesh = changed(cluster.applied(tmp_path / f"mesh{number}", prefix=f"{prefix}{number}."))
        total = len(plan(mesh).differences)
        with pytest.raises(Crash):
            apply(mesh, crashing_at(number))
        assert_converges(mesh)
        number += 1
    assert total > 5


def test_a_product_that_is_destroyed_after_each_change(cluster: Cluster, tmp_path: Path, prefix: str) -> None:
    for number in range(1, 6):
        root = tmp_path / f"mesh{number}"
        cluster.applied(root, prefix=f"{prefix}{number}.", schemas={ORDERS: ORDER, RETURNS: ORDER})
        shutil.rmtree(root / "domains" / "shop" / "returns")
        mesh = cluster.mesh(root, prefix=f"{prefix}{number}.")
        with pytest.raises(Crash):
            apply(mesh, crashing_at(number), (RETURNS,))
        assert len(plan(mesh).differences) == 5 - number
        assert_converges(mesh, RETURNS)


def applying(mesh: Mesh) -> subprocess.Popen[str]:
    """Start ``headrace apply`` as a process of its own."""
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "headrace.selfserve.main",
            "--mesh",
            str(mesh.root),
            "--environment",
            "cluster",
            "apply",
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("fate", [BEFORE, AFTER])
def test_a_process_that_is_killed_at_each_change_of_a_catalog(
    cluster: Cluster, tmp_path: Path, prefix: str, fate: str
) -> None:
    """A new table is several commits: between them, it is there and not all of what it should be."""
    for number in range(1, TABLE_CHANGES + 1):
        mesh = cluster.mesh(tmp_path / f"mesh{number}", prefix=f"{prefix}{number}.")
        with_properties(mesh, ORDERS, iceberg_sortOrder=[{"field": "amount", "direction": "desc"}])
        make_mortal(mesh.root, number, fate)
        with applying(reloaded(mesh)) as process:
            said = process.communicate(timeout=120)[1]
        assert process.returncode == -signal.SIGKILL, said
        assert f"table {ORDERS}" not in said.splitlines()
        make_mortal(mesh.root, 0, fate)
        assert_converges(reloaded(mesh))


def test_a_reply_that_is_lost_at_each_change_of_a_catalog(cluster: Cluster, tmp_path: Path, prefix: str) -> None:
    """It fails that product, and no other; what had landed is found by the next run."""
    for number in range(1, TABLE_CHANGES):
        mesh = cluster.mesh(tmp_path / f"mesh{number}", prefix=f"{prefix}{number}.")
        make_mortal(mesh.root, number, LOST)
        with applying(reloaded(mesh)) as process:
            said = process.communicate(timeout=120)[1]
        assert process.returncode == 1
        assert "failed:" in said
        assert "table governance.findings" in said
        make_mortal(mesh.root, 0, LOST)
        assert_converges(reloaded(mesh))


@pytest.mark.parametrize("line", [1, 4, 9])
def test_a_process_that_is_killed_from_outside(mesh: Mesh, line: int, tmp_path: Path, cluster: Cluster) -> None:
    again = cluster.mesh(tmp_path / "again", prefix=f"{mesh.environment.topic_prefix}again.")
    with applying(again) as process:
        assert process.stderr is not None
        for _ in range(line):
            assert process.stderr.readline()
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert_converges(again)


@pytest.mark.parametrize("attempt", range(3))
def test_two_at_once(cluster: Cluster, tmp_path: Path, prefix: str, attempt: int) -> None:
    """Both make a new mesh, then both change it: both succeed, or one says what to try again."""
    mesh = cluster.mesh(tmp_path / f"mesh{attempt}", prefix=prefix)
    for _ in range(2):
        with applying(mesh) as one, applying(mesh) as other:
            said = [process.communicate(timeout=120)[1] for process in (one, other)]
        for process, text in zip((one, other), said, strict=True):
            assert "Traceback" not in text
            assert process.returncode == 0 or "next: " in text, text
        assert 0 in (one.returncode, other.returncode), said
        assert_converges(mesh)
        mesh = changed(mesh)


@pytest.mark.xdist_group("own-stack")
def test_a_registry_that_goes_half_way(stack: EmbeddedStack, own: Cluster, tmp_path: Path, prefix: str) -> None:
    mesh = own.mesh(tmp_path / "mesh", prefix=prefix)

    def tell(thing: str) -> None:
        if thing.startswith("subject") and "level" in thing:
            kill(stack, "registry")

    with pytest.raises(Unavailable, match="registry"):
        apply(mesh, tell)
    assert Admin(mesh.environment.kafka_config()).find(mesh.product(ORDERS).topic)
    endpoints = stack.up(die_with_parent=True, progress=lambda _: None)
    write_mesh(mesh.root, endpoints, prefix, {ORDERS: ORDER})
    assert_converges(reloaded(mesh))


def test_a_catalog_that_fails_stops_no_other_domain(cluster: Cluster, tmp_path: Path, prefix: str) -> None:
    mesh = cluster.mesh(tmp_path / "mesh", prefix=prefix, schemas={ORDERS: ORDER, "crew.rosters": ORDER})
    database = mesh.root / "tables" / "crew" / "catalog.db"
    database.mkdir(parents=True)
    applied = apply_each(mesh, lambda _: None)
    assert {name for name, _ in applied.failures} == {"domain crew", "crew.rosters"}
    assert table_of(mesh).schema()
    database.rmdir()
    assert_converges(mesh)


def test_a_product_that_comes_later_is_made_although_another_fails(mesh: Mesh) -> None:
    Path(table_of(mesh).metadata_location.removeprefix("file://")).unlink()
    write_product(mesh.root / "domains" / "shop" / "returns", RETURNS, ORDER)
    applied = apply_each(reloaded(mesh), lambda _: None)
    assert f"table {RETURNS}" in applied.made
    assert [name for name, _ in applied.failures] == [ORDERS]
