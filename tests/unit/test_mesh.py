"""Loading a mesh folder: everything in one run, every fault with its place, and nothing but our own errors."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.schemas.errors import Fault, MeshError, SettingsError, UserError
from headrace.schemas.mesh import Mesh, load_mesh
from headrace.schemas.names import ProductName
from headrace.schemas.sql_words import RESERVED
from headrace.selfserve.init import init_mesh

ORDERS = "domains/shop/orders"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small mesh without a fault."""
    folder = tmp_path / "mesh"
    init_mesh(folder)
    return folder


def faults_of(root: Path) -> tuple[Fault, ...]:
    with pytest.raises(MeshError) as caught:
        load_mesh(root)
    return caught.value.faults


def only_fault(root: Path) -> Fault:
    (fault,) = faults_of(root)
    return fault


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def add_product(root: Path, domain: str, product: str) -> None:
    """Copy shop.orders to another place and give it that name."""
    folder = root / "domains" / domain / product
    shutil.copytree(root / ORDERS, folder)
    contract = folder / "contract.odcs.yaml"
    edit(contract, "shop.orders", f"{domain}.{product}")
    edit(contract, "name: orders", f"name: {product}")
    edit(contract, "domain: shop", f"domain: {domain}")
    if not (folder.parent / "domain.yaml").exists():
        (folder.parent / "domain.yaml").write_text("owner: o\ndescription: d\n")


def test_a_mesh_loads(root: Path) -> None:
    mesh = load_mesh(root)
    assert mesh.name == "mesh"
    assert mesh.root == root
    assert mesh.environment.name == "embedded"
    (product,) = mesh.products
    assert product.topic == "shop.orders"
    assert mesh.product("shop.orders") is product
    assert mesh.product(ProductName("shop", "orders")) is product
    domain = mesh.domain_of(product)
    assert (domain.name, domain.owner, domain.storage) == ("shop", "shop-team", "shop")


def test_it_is_found_from_any_folder_below(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_mesh(root / ORDERS).root == root
    monkeypatch.chdir(root / ORDERS)
    assert load_mesh().root == root
    monkeypatch.chdir(root)
    assert load_mesh(Path("domains")).root == root


def test_there_is_no_mesh(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no mesh\.yaml") as caught:
        load_mesh(tmp_path)
    assert caught.value.hint is not None
    assert "headrace init" in caught.value.hint
    for wrong in (tmp_path / "nowhere", Path(__file__)):
        with pytest.raises(UserError, match="is not a folder"):
            load_mesh(wrong)


def test_environments(root: Path) -> None:
    edit(root / "mesh.yaml", "    stack: embedded", "    sink: {commit_interval_s: 2}\n  compose: {topic_prefix: c.}")
    assert load_mesh(root).environment.commit_interval_s == 2
    mesh = load_mesh(root, environment="compose")
    assert mesh.environment.stack == "compose"
    assert mesh.environment.state == root / ".headrace" / "compose"
    assert mesh.product("shop.orders").topic == "c.shop.orders"
    with pytest.raises(SettingsError, match="no environment staging") as caught:
        load_mesh(root, environment="staging")
    assert caught.value.hint == "it has compose, embedded"


def test_without_environments_there_is_the_embedded_one(root: Path) -> None:
    (root / "mesh.yaml").write_text("name: small\n")
    assert load_mesh(root).environment.stack == "embedded"


def test_an_unknown_product_gets_a_hint(root: Path) -> None:
    mesh: Mesh = load_mesh(root)
    with pytest.raises(UserError) as caught:
        mesh.product("shop.order")
    assert caught.value.hint == "did you mean shop.orders?"
    with pytest.raises(UserError) as caught:
        mesh.product("zzz")
    assert caught.value.hint == "the mesh has shop.orders"


def test_all_faults_of_all_files_in_one_run(root: Path) -> None:
    add_product(root, "crm", "customers")
    add_product(root, "crm", "visits")
    edit(root / "mesh.yaml", "name: mesh", "nam: mesh")
    edit(root / "policies/pii.yaml", "default: replace-with-null", "default: nothing")
    (root / "domains/crm/domain.yaml").write_text("owner: [")
    edit(root / ORDERS / "contract.odcs.yaml", "kind: DataContract", "kind: Data")
    edit(root / ORDERS / "contract.odcs.yaml", "name: order_id", "name: order_ids")
    (root / "domains/crm/customers/schema.avsc").unlink()
    (root / "domains/crm/visits/schema.avsc").write_text('{"type": "record"')
    assert [f"{fault.where}: {fault.what}" for fault in faults_of(root)] == [
        "domains/crm/customers/schema.avsc: the file is missing",
        "domains/crm/domain.yaml:1:9: this is not YAML: did not find expected node content",
        "domains/crm/visits/schema.avsc: this is not JSON: line 1 column 18: Expecting ',' delimiter",
        "domains/shop/orders/contract.odcs.yaml:2:7: kind does not say DataContract",
        "domains/shop/orders/contract.odcs.yaml:19:15: the Avro schema has no such field",
        "mesh.yaml:1:1: name is missing",
        "mesh.yaml:1:1: unknown key nam",
        "policies/pii.yaml:5:10: default: this is none of the known words",
    ]


@pytest.mark.parametrize(
    "file", ["policies/pii.yaml", "domains/shop/domain.yaml", f"{ORDERS}/contract.odcs.yaml", f"{ORDERS}/schema.avsc"]
)
def test_missing_files(root: Path, file: str) -> None:
    (root / file).unlink()
    assert str(only_fault(root)) == f"{file}: the file is missing"
    # A pipe would block whoever opens it.
    os.mkfifo(root / file)
    assert str(only_fault(root)) == f"{file}: this is not a file"


def test_a_mesh_without_a_domain(root: Path) -> None:
    shutil.rmtree(root / "domains")
    assert str(only_fault(root)) == "domains: the mesh has no domain (write domains/<domain>/domain.yaml)"


def test_a_domain_without_a_product_is_well(root: Path) -> None:
    shutil.rmtree(root / ORDERS)
    assert load_mesh(root).products == ()


def test_hidden_folders_and_loose_files_do_not_count(root: Path) -> None:
    (root / "domains/.git").mkdir()
    (root / "domains/shop/__pycache__").mkdir()
    (root / "domains/README.md").write_text("x")
    assert len(load_mesh(root).products) == 1


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("mesh.yaml", b"name: x\n" + b"#" * (10 << 20), "larger than 1 MiB"),
        (f"{ORDERS}/contract.odcs.yaml", b"a: " + b"x" * (10 << 20), "larger than 1 MiB"),
        (f"{ORDERS}/schema.avsc", b" " * (10 << 20), "larger than"),
        ("mesh.yaml", b"name: \xff", "not UTF-8"),
        (f"{ORDERS}/schema.avsc", b"\xff", "not UTF-8"),
        ("mesh.yaml", b"a: &a [x,x,x,x]\n" + b"".join(
            b"b%d: &b%d [%s]\n" % (n, n, b",".join([b"*b%d" % (n - 1) if n else b"*a"] * 9)) for n in range(9)
        ), "aliases written out"),
        ("mesh.yaml", b"name: [", "not YAML"),
        ("mesh.yaml", b"", "empty"),
        (f"{ORDERS}/schema.avsc", b"[" * 100_000, "deep"),
        (f"{ORDERS}/schema.avsc", b"[]", "a record"),
        (f"{ORDERS}/schema.avsc", b'{"type": "record", "name": "R", "fields": [{"name": "r", "type": "R"}]}', "itself"),
        (f"{ORDERS}/schema.avsc", b'{"type": "record", "name": "R", "fields": [{"name": "r", "type": "X"}]}', "known"),
        (f"{ORDERS}/schema.avsc", b'{"type": "record", "name": "R", "fields": 1}', "valid Avro"),
    ],
    ids=["10 MB settings", "10 MB contract", "10 MB schema", "latin-1 settings", "latin-1 schema", "bomb", "open list",
         "empty", "deep JSON", "array", "recursive", "unknown type", "fields are no list"],
)  # fmt: skip
def test_files_that_cannot_be_read(root: Path, file: str, content: bytes, words: str) -> None:
    (root / file).write_bytes(content)
    fault = only_fault(root)
    assert fault.where.startswith(file)
    assert words in fault.what
    assert len(str(fault)) < 400


def test_a_type_that_no_table_can_hold(root: Path) -> None:
    edit(root / ORDERS / "schema.avsc", '{"type": "long", "logicalType": "timestamp-millis"}', '"null"')
    fault = only_fault(root)
    assert fault.where == f"{ORDERS}/schema.avsc"
    assert fault.what.startswith("ordered_at: ")
    assert fault.hint


def test_a_mask_that_does_not_fit_its_field(root: Path) -> None:
    edit(root / ORDERS / "schema.avsc", '"scale": 2}', '"scale": 2}, "confluent:tags": ["PII", "user.contact.email"]')
    fault = only_fault(root)
    assert fault.where.startswith(f"{ORDERS}/contract.odcs.yaml:19:")
    assert fault.what == "total: the policy's mask hmac-sha-256 does not fit decimal(9, 2)"


def test_links_and_paths_that_leave_the_mesh(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    shutil.copytree(root / "domains", outside)
    (root / "domains/partner").symlink_to(outside / "shop")
    assert str(only_fault(root)).startswith("domains/partner: this link leads out of the mesh")
    (root / "domains/partner").unlink()
    schema = root / ORDERS / "schema.avsc"
    schema.unlink()
    schema.symlink_to(outside / "shop/orders/schema.avsc")
    assert "leaves the mesh" in only_fault(root).what
    for url in ("../../../../outside/shop/orders/schema.avsc", str(outside), "http://example.org/schema.avsc"):
        shutil.copy(outside / "shop/orders/contract.odcs.yaml", root / ORDERS / "contract.odcs.yaml")
        edit(root / ORDERS / "contract.odcs.yaml", "schema.avsc", url)
        fault = only_fault(root)
        assert fault.where.startswith(f"{ORDERS}/contract.odcs.yaml:16:")
        assert "leaves the mesh" in fault.what


def test_a_link_to_itself(root: Path) -> None:
    schema = root / ORDERS / "schema.avsc"
    schema.unlink()
    schema.symlink_to(schema)
    # Python 3.13 resolves such a link to itself; before, resolving it fails.
    assert any(words in only_fault(root).what for words in ("leaves the mesh", "symbolic links"))


@pytest.mark.parametrize("storage", ["../elsewhere", "/etc", "a/../b", "A", "", "a//b", "s3://bucket"])
def test_storage_stays_inside_the_warehouse(root: Path, storage: str) -> None:
    with (root / "domains/shop/domain.yaml").open("a") as file:
        file.write(f'storage: "{storage}"\n')
    assert only_fault(root).where == "domains/shop/domain.yaml:3:10"


@pytest.mark.parametrize("storage", ["shop", "shop/inner"])
def test_no_domain_s_storage_lies_inside_another_s(root: Path, storage: str) -> None:
    add_product(root, "crm", "customers")
    (root / "domains/crm/domain.yaml").write_text(f"owner: o\ndescription: d\nstorage: {storage}\n")
    assert any("storage lies inside" in fault.what for fault in faults_of(root))


@pytest.mark.parametrize(
    ("domain", "words"),
    [
        ("Sales", "no name of a domain"),
        ("_sales", "no name of a domain"),
        ("sales-eu", "no name of a domain"),
        ("1st", "no name of a domain"),
        ("s" * 64, "no name of a domain"),
        ("order", "reserved word"),
        ("user", "reserved word"),
        ("main", "SQL engines keep"),
        ("headrace", "headrace keeps"),
    ],
)
def test_names_of_domains_that_would_be_confused(root: Path, domain: str, words: str) -> None:
    add_product(root, domain, "things")
    fault = only_fault(root)
    assert fault.where == f"domains/{domain}"
    assert words in fault.what


def test_names_of_products_that_would_be_confused(root: Path) -> None:
    add_product(root, "shop", "select")
    add_product(root, "shop", "Returns")
    assert [fault.what.split()[-3:] for fault in faults_of(root)] == [["of", "a", "product"], ["word", "of", "SQL"]]


def test_topics_that_kafka_s_metrics_cannot_tell_apart(root: Path) -> None:
    add_product(root, "shop_eu", "orders")
    add_product(root, "shop", "eu_orders")
    fault = only_fault(root)
    assert fault.where == "domains/shop_eu/orders"
    assert "shop.eu_orders" in fault.what


def test_a_product_that_looks_like_a_dead_letter_topic(root: Path) -> None:
    add_product(root, "shop", "orders_dlq")
    assert "shop.orders" in only_fault(root).what


def test_a_product_that_is_called_as_tables_of_dead_letters_are(root: Path) -> None:
    add_product(root, "shop", "returns__dlq")
    assert "returns__dlq ends as tables of dead letters do" in only_fault(root).what


def test_an_odd_folder_name_does_not_break_the_message(root: Path) -> None:
    (Path(os.fsdecode(os.fsencode(root / "domains") + b"/a\xff\nb"))).mkdir()
    text = "\n".join(map(str, faults_of(root)))
    text.encode("utf-8")
    assert "domains/a\\udcff?b" in text


@pytest.mark.parametrize("character", "#?%")
def test_a_path_that_is_no_address(tmp_path: Path, character: str) -> None:
    folder = tmp_path / f"a{character}b"
    init_mesh(folder)
    assert "path of the mesh's folder" in only_fault(folder).what


SECRETS = """\
name: mesh
environments:
  production:
    kafka: {bootstrap.servers: "k:1", sasl.password: hunter2, nested: {password: hunter2}, sasl.username: [hunter2]}
    registry: {url: "http://me:hunter2@r", basic.auth.user.info: "me:hunter2"}
    catalog: {type: rest, token: hunter2, s3.secret-access-key: hunter2}
    masking: {hmac_key: hunter2, key: hunter2}
    password: hunter2
    stack: hunter2
    topic_prefix: hunter2/
  hunter2 password: {}
"""


def test_secrets_in_the_file_are_faults_that_do_not_show_them(root: Path) -> None:
    (root / "mesh.yaml").write_text(SECRETS)
    faults = faults_of(root)
    assert "hunter2" not in "\n".join(map(str, faults))
    lines = [int(fault.where.split(":")[1]) for fault in faults if "a secret must not stand" in fault.what]
    assert sorted(lines) == [4, 4, 5, 5, 6, 6, 7, 8]


def test_reserved_words_cover_those_of_the_installed_duckdb() -> None:
    found = duckdb.sql("SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category = 'reserved'").fetchall()
    assert {word for (word,) in found} <= RESERVED


ODD = st.sampled_from(
    ["", "null", "true", "[]", "{}", "[[]]", "{a: 1}", "1", "-1", "1e400", "9" * 30, '"\\u0001"', "*a", "&a b", "!x y",
     "'", "x: y", "- a", "|", "\t", "\x00", "é", "{}: []", "[null]", "[1, {}]", "{name: {}}", "? a"]
)  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, text: str) -> bytes:
    """A file's text with one or two of its values, lines or characters changed."""
    lines = text.splitlines()
    for _ in range(draw(st.integers(1, 2))):
        index = draw(st.integers(0, len(lines) - 1))
        match draw(st.integers(0, 3)):
            case 0:
                lines[index] = lines[index].partition(":")[0] + ": " + draw(ODD)
            case 1:
                lines[index] = draw(ODD)
            case 2:
                cut = draw(st.integers(0, len(lines[index])))
                lines[index] = lines[index][:cut] + draw(st.text(max_size=3)) + lines[index][cut:]
            case _:
                lines.insert(index, draw(st.sampled_from(lines)))
    return "\n".join(lines).encode("utf-8", "surrogatepass")


@pytest.mark.parametrize(
    "file",
    [
        "mesh.yaml",
        "policies/pii.yaml",
        "domains/shop/domain.yaml",
        f"{ORDERS}/contract.odcs.yaml",
        f"{ORDERS}/schema.avsc",
    ],
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_a_file_holds_only_our_errors_escape(root: Path, file: str, data: st.DataObject) -> None:
    path = root / file
    whole = path.read_bytes()
    try:
        path.write_bytes(data.draw(damaged(whole.decode()) | st.binary(max_size=200)))
        load_mesh(root)
    except UserError as error:
        str(error).encode("utf-8")
    finally:
        path.write_bytes(whole)
