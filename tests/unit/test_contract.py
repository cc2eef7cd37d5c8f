"""Contracts: what headrace reads of the Open Data Contract Standard, and every fault with its place."""

from __future__ import annotations

import json
from importlib import resources
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from open_data_contract_standard import model

from headrace.schemas.contract import OdcsDocument
from headrace.schemas.documents import parse
from headrace.schemas.masks import Mask
from headrace.schemas.names import ProductName
from headrace.schemas.product import Compatibility, Contract, InputContract
from tests.support.contracts import KEY, NAME, POLICY, contract_of, custom, document, faults_of, masked, read, table

if TYPE_CHECKING:
    from pydantic import BaseModel

    from headrace.schemas.errors import Fault


def test_a_short_contract_gets_the_defaults() -> None:
    assert contract_of(document()) == Contract(
        version="1.2.3",
        status="active",
        owner="shop-team",
        purpose="Every order.",
        key=("order_id",),
        partitions=4,
        compatibility=Compatibility.BACKWARD,
        freshness_s=10.0,
        retention_ms=None,
    )


def test_a_full_contract() -> None:
    sla = [{"property": "latency", "value": 1.5, "unit": "min"}, {"property": "retention", "value": 7, "unit": "d"}]
    custom = [
        {"property": "kafka.partitions", "value": 12},
        {"property": "avro.compatibility", "value": "FULL_TRANSITIVE"},
        {"property": "com.example.cost-centre", "value": 4711},
    ]
    keys: list[dict[str, Any]] = [
        {"name": "line", "primaryKey": True, "primaryKeyPosition": 2},
        {"name": "customer", "primaryKey": True, "primaryKeyPosition": 1},
        {
            "name": "ship_to",
            "properties": [{"name": "country", "primaryKey": True, "primaryKeyPosition": 3}],
        },
    ]
    contract = contract_of(document(slaProperties=sla, customProperties=custom, schema=[table(*keys)]))
    assert contract.key == ("customer", "line", "ship_to.country")
    assert contract.freshness_s == 90.0
    assert contract.retention_ms == 7 * 86_400_000
    assert contract.partitions == 12
    assert contract.compatibility is Compatibility.FULL_TRANSITIVE


def test_other_parts_of_the_standard_are_accepted() -> None:
    contract_of(
        document(
            tenant="acme",
            tags=["retail"],
            servers=[{"server": "prod", "type": "kafka", "host": "kafka:9092", "format": "avro"}],
            support=[{"channel": "#shop", "url": "https://chat.example/shop"}],
            roles=[{"role": "reader", "access": "read"}],
            price={"priceAmount": 9.95, "priceCurrency": "EUR", "priceUnit": "month"},
            contractCreatedTs="2026-01-01T00:00:00Z",
            schema=[
                table(
                    KEY,
                    {
                        "name": "total",
                        "description": "EUR",
                        "classification": "internal",
                        "quality": [{"type": "library", "metric": "nullValues", "mustBe": 0}],
                    },
                    quality=[{"type": "sql", "query": "SELECT 1", "mustBe": 1}],
                )
            ],
        )
    )


def test_masks_come_from_the_policy_and_from_the_contract() -> None:
    properties = [
        KEY,
        masked("email", "mask-to-fixed-value"),
        masked("total", "replace-with-null"),
        {"name": "items", "items": {"properties": [masked("sku", "show-first-4")]}},
        {"name": "notes", "map": {"value": {"properties": [masked("text", "mask-alphanum")]}}},
    ]
    found = read(document(schema=[table(*properties)]))
    assert isinstance(found, tuple), found
    contract, masks = found
    assert masks == {
        "email": Mask.MASK_TO_FIXED_VALUE,
        "born": Mask.REPLACE_WITH_NULL,
        "ship_to.street": Mask.REPLACE_WITH_NULL,
        "total": Mask.REPLACE_WITH_NULL,
        "items[].sku": Mask.SHOW_FIRST_4,
        "notes{}.text": Mask.MASK_ALPHANUM,
    }
    assert dict(contract.masks) == {
        "email": Mask.MASK_TO_FIXED_VALUE,
        "total": Mask.REPLACE_WITH_NULL,
        "items[].sku": Mask.SHOW_FIRST_4,
        "notes{}.text": Mask.MASK_ALPHANUM,
    }


@pytest.mark.parametrize(
    ("unit", "milliseconds"),
    [("ms", 2), ("s", 2000), ("minutes", 120_000), ("h", 7_200_000), ("days", 172_800_000), ("y", 63_072_000_000)],
)
def test_units_of_the_sla(unit: str, milliseconds: int) -> None:
    contract = contract_of(document(slaProperties=[{"property": "retention", "value": 2, "unit": unit}]))
    assert contract.retention_ms == milliseconds


def sla(*values: object, unit: str | None = "s") -> list[dict[str, Any]]:
    return [{"property": "latency", "value": value, **({"unit": unit} if unit else {})} for value in values]


def inputs(*entries: object) -> list[dict[str, Any]]:
    return custom("inputContracts", list(entries))


def test_what_a_product_is_made_from_is_read_in_order() -> None:
    found = contract_of(
        document(
            customProperties=inputs(
                {"id": "shop.carts", "version": "1.0.0"}, {"id": "governance.findings", "version": "2.1.0-rc.1"}
            )
        )
    )
    assert found.inputs == (
        InputContract(ProductName("shop", "carts"), "1.0.0"),
        InputContract(ProductName("governance", "findings"), "2.1.0-rc.1"),
    )
    assert contract_of(document()).inputs == ()


def test_an_input_that_the_mesh_does_not_have_is_a_fault_at_its_line() -> None:
    whole = document(
        customProperties=inputs({"id": "shop.cart", "version": "1.0.0"}, {"id": "shop.users", "version": "1.0.0"})
    )
    faults: list[Fault] = []
    text = yaml.safe_dump(whole, sort_keys=False)
    parsed = parse(text.encode(), "c.yaml", faults)
    assert parsed is not None
    odcs = OdcsDocument.parse(parsed, faults)
    assert odcs is not None
    odcs.check_inputs(dict.fromkeys([NAME, ProductName("shop", "carts"), ProductName("shop", "users")]), faults)
    line = next(n for n, line in enumerate(text.splitlines(), 1) if "id: shop.cart" in line)
    (fault,) = faults
    assert str(fault).startswith(f"c.yaml:{line}:")
    assert str(fault).endswith("the mesh has no product shop.cart (did you mean shop.carts?)")


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"apiVersion": "v3.1.0"}, "c.yaml:1:13: apiVersion does not say v3.2.0 (write apiVersion: v3.2.0)"),
        ({"kind": "Contract"}, "c.yaml:2:7: kind does not say DataContract"),
        ({"id": "shop.order"}, "c.yaml:3:5: id does not say shop.orders"),
        ({"id": None}, "c.yaml:1:1: id is missing (write id: shop.orders)"),
        ({"name": "order"}, "c.yaml:4:7: name does not say orders"),
        ({"version": "1.0"}, "c.yaml:5:10: the contract needs a semantic version"),
        ({"version": 1.0}, "c.yaml:5:10: version: a text is wanted here (put it in quotation marks)"),
        ({"status": None}, "c.yaml:1:1: status is missing"),
        ({"domain": "store"}, "c.yaml:7:9: domain does not say shop"),
        ({"description": {"purpose": " "}}, "c.yaml:9:12: description.purpose is missing"),
        ({"team": None}, "c.yaml:1:1: team.name is missing"),
        ({"team": [{"name": "shop-team"}]}, "team.name is missing"),
        ({"statsu": "x"}, "unknown key statsu (did you mean status?)"),
        ({"description": {"purpose": "x", "usages": "y"}}, "unknown key usages (did you mean usage?)"),
        ({"schema": None}, "the contract does not say where its Avro schema is"),
        ({"schema": [{"name": "orders", "properties": [KEY]}]}, "does not say where its Avro schema is"),
        ({"schema": [table(KEY), table(KEY)]}, "a product has one schema"),
        ({"schema": [table(KEY, name="order")]}, "name does not say orders"),
        ({"schema": [table(KEY, physicalName="orders")]}, "physicalName does not say shop.orders"),
        ({"schema": [table(KEY, {"name": "emial"})]}, "the Avro schema has no such field (did you mean email?)"),
        ({"schema": [table(KEY, {"name": "line", "logicalType": "string"})]}, "logicalType is not what the Avro"),
        (
            {"schema": [table(KEY, {"name": "line", "required": True})]},
            "required is not what the Avro schema says (false)",
        ),
        ({"schema": [table(KEY, KEY)]}, "order_id stands twice"),
        ({"schema": [table(KEY, {"primaryKey": False})]}, "name is missing"),
        ({"schema": [table({"name": "order_id"})]}, "no field is the message's key"),
        ({"schema": [table({"name": "total", "primaryKey": True})]}, "this field cannot be a key"),
        ({"schema": [table({"name": "placed_at", "primaryKey": True})]}, "this field cannot be a key"),
        ({"schema": [table({"name": "ship_to", "primaryKey": True})]}, "this field cannot be a key"),
        (
            {"schema": [table({"name": "items", "items": {"properties": [{"name": "sku", "primaryKey": True}]}})]},
            "this field cannot be a key",
        ),
        ({"schema": [table(KEY, {"name": "line", "primaryKey": True})]}, "the key's fields have no order"),
        ({"schema": [table(KEY, masked("email", "none"))]}, "this mask is not known (choose replace-with-null, "),
        ({"schema": [table(KEY, masked("email", None))]}, "this mask is not known"),
        ({"schema": [table(KEY, masked("email", ["hmac-sha-256"]))]}, "this mask is not known"),
        ({"schema": [table(KEY, masked("email", "show-last-4"))]}, "email: the mask show-last-4 is weaker"),
        ({"schema": [table(KEY, masked("total", "truncate-to-year"))]}, "total: the contract's mask truncate-to-year"),
        (
            {"schema": [table(KEY, {"name": "email", "customProperties": custom("masks", "x")})]},
            "unknown custom property (did you mean mask?)",
        ),
        ({"slaProperties": sla(10, unit=None)}, "latency needs a unit"),
        ({"slaProperties": sla(10, unit="m")}, "latency needs a unit"),
        ({"slaProperties": sla(0)}, "latency is a number above 0"),
        ({"slaProperties": sla("ten")}, "latency is a number above 0"),
        ({"slaProperties": sla([1])}, "c.yaml:25:3: another kind of value is wanted here"),
        ({"slaProperties": sla(True)}, "latency is a number above 0"),
        ({"slaProperties": sla(1e300)}, "latency is a number above 0"),
        ({"slaProperties": sla(1, 2)}, "latency stands twice"),
        ({"customProperties": custom("kafka.partitions", 0)}, "kafka.partitions is a whole number from 1 to 1000"),
        ({"customProperties": custom("kafka.partitions", True)}, "kafka.partitions is a whole number"),
        ({"customProperties": custom("kafka.partitions", "4")}, "kafka.partitions is a whole number"),
        ({"customProperties": custom("kafka.partition", 4)}, "did you mean kafka.partitions?"),
        ({"customProperties": custom("avro.compatibility", "SIDEWAYS")}, "choose NONE, BACKWARD"),
        ({"customProperties": custom("avro.compatibility", {"a": 1})}, "choose NONE, BACKWARD"),
        ({"customProperties": custom("inputContract", [])}, "did you mean inputContracts?"),
        ({"customProperties": inputs({"id": "a.b", "version": "1.0.0"}) * 2}, "inputContracts stands twice"),
        ({"customProperties": custom("inputContracts", "shop.carts")}, "inputContracts is a list"),
        ({"customProperties": inputs("shop.carts")}, "an input is an id and a version"),
        ({"customProperties": inputs({"id": "shop.carts"})}, "an input is an id and a version"),
        ({"customProperties": inputs({"id": "shop", "version": "1.0.0"})}, "an input is an id and a version"),
        ({"customProperties": inputs({"id": "shop.carts", "version": 1})}, "an input is an id and a version"),
        (
            {"customProperties": inputs({"id": "shop.carts", "version": "1.0.0", "at": "x"})},
            "an input is an id and a version",
        ),
        ({"customProperties": inputs({"id": "shop.orders", "version": "1.0.0"})}, "a product is not made from itself"),
        (
            {"customProperties": inputs(*[{"id": "shop.carts", "version": v} for v in ("1.0.0", "2.0.0")])},
            "shop.carts stands twice",
        ),
    ],
)
def test_faults(changes: dict[str, Any], fault: str) -> None:
    found = faults_of(document(**changes) if None not in changes.values() else without(changes))
    assert fault in found
    assert "c.yaml:" in found


def without(changes: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document().items() if key not in changes}


def test_faults_stand_at_the_line_of_what_is_wrong() -> None:
    found = faults_of(document(schema=[table(KEY, masked("email", "show-last-4"))]))
    text = yaml.safe_dump(document(schema=[table(KEY, masked("email", "show-last-4"))]), sort_keys=False)
    line = text.splitlines().index("  - name: email") + 1
    assert found.startswith(f"c.yaml:{line}:5: email")


def test_all_faults_of_a_contract_in_one_run() -> None:
    found = faults_of(
        document(
            kind="x",
            version="1",
            slaProperties=sla(-1),
            customProperties=custom("kafka.partitions", -1),
            schema=[table(masked("email", "x"), {"name": "nothing"})],
        )
    )
    assert found.count("\n") == 6, found


def test_without_a_schema_the_rest_is_still_checked() -> None:
    faults: list[Fault] = []
    parsed = parse(yaml.safe_dump(document(kind="x")).encode(), "c.yaml", faults)
    assert parsed is not None
    odcs = OdcsDocument.parse(parsed, faults)
    assert odcs is not None
    assert odcs.read(NAME, None, POLICY, faults) is None
    assert [fault.what for fault in faults] == ["kind does not say DataContract"]


def test_the_package_s_models_know_every_key_of_the_standard_s_json_schema() -> None:
    """Unknown keys are found with the package's models: what they lack would be refused wrongly."""
    text = resources.files("open_data_contract_standard").joinpath("schema.json").read_text(encoding="utf-8")
    standard = json.loads(text)

    def keys(node: dict[str, Any]) -> set[str]:
        found = set(node.get("properties", ()))
        if "$ref" in node:
            found |= keys(standard["$defs"][node["$ref"].rpartition("/")[2]])
        for word in ("allOf", "anyOf", "oneOf"):
            found = found.union(*(keys(part) for part in node.get(word, ())))
        return found

    pairs: dict[str, type[BaseModel]] = {
        "SchemaObject": model.SchemaObject,
        "SchemaProperty": model.SchemaProperty,
        "SchemaItemProperty": model.SchemaProperty,
        "DataQuality": model.DataQuality,
        "SupportItem": model.Support,
        "Pricing": model.Pricing,
        "Team": model.Team,
        "TeamMember": model.TeamMember,
        "Role": model.Role,
        "ServiceLevelAgreementProperty": model.ServiceLevelAgreementProperty,
        "CustomProperty": model.CustomProperty,
    }
    pairs_of_keys = [(keys(standard["$defs"][name]), known) for name, known in pairs.items()]
    whole: type[BaseModel] = model.OpenDataContractStandard
    for wanted, known in [(keys(standard), whole), *pairs_of_keys]:
        assert wanted <= {field.alias or name for name, field in known.model_fields.items()}
