"""The pages under docs/ say what the code does: each rule, and each setting."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from headrace.schemas.contract_layout import SORT_ORDER
from headrace.schemas.contract_settings import SETTINGS
from headrace.schemas.mesh import load_mesh
from headrace.schemas.product import PartitionField, RefusedVersions
from headrace.selfserve.init import init_mesh
from headrace.selfserve.metrics import Health, new_registry
from headrace.selfserve.sink_metrics import SinkMetrics, StatusMetrics

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
RULE = re.compile(r"[A-Z]+(_[A-Z]+)+")


def rules() -> set[str]:
    """Every text of the code that looks like a rule's name, but for what a module exports."""
    files = [*(ROOT / "schemas" / "compatibility").glob("*.py")]
    files += [ROOT / "schemas" / f"{name}.py" for name in ("evolution", "matching", "types", "verdicts")]
    found = set()
    for file in files:
        tree = ast.parse(file.read_text())
        exported = {
            id(node)
            for statement in tree.body
            if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__all__"
            for node in ast.walk(statement)
        }
        found |= {
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant)
            and id(node) not in exported
            and isinstance(node.value, str)
            and RULE.fullmatch(node.value)
        }
    return found


def test_each_rule_stands_in_the_page_about_changes() -> None:
    documented = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)`", (DOCS / "changes.md").read_text()))
    assert rules() == documented


def test_the_contract_of_the_page_is_one(tmp_path: Path) -> None:
    page = (DOCS / "contract.md").read_text()
    (contract,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    init_mesh(tmp_path / "mesh")
    (tmp_path / "mesh" / "domains" / "shop" / "orders" / "contract.odcs.yaml").write_text(contract)
    read = load_mesh(tmp_path / "mesh").product("shop.orders").contract
    assert read.partition_by == (PartitionField("_kafka_timestamp", "day"), PartitionField("order_id", "bucket[16]"))
    assert [field.path for field in read.sort_by] == ["ordered_at"]
    assert read.refused_versions is RefusedVersions.WAIT


def test_the_contract_of_the_page_has_every_setting() -> None:
    page = (DOCS / "contract.md").read_text()
    assert all(f"property: {name}" in page for name in (*SETTINGS, SORT_ORDER, "iceberg.transform", "inputContracts"))


def test_each_metric_of_a_sink_stands_in_the_page_for_the_person_on_call() -> None:
    registry = new_registry()
    SinkMetrics(registry, Health(), ["shop.orders"])
    StatusMetrics(registry)
    named = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in registry.collect()
        if family.name.startswith("headrace_") and family.type != "info"
    }
    documented = set(re.findall(r"`(headrace_[a-z_]+)", (DOCS / "operating.md").read_text()))
    assert named == documented
