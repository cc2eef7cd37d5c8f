"""AsyncAPI, Avro and Markdown documents of a product, and the command that writes them."""

from __future__ import annotations

import json
import unicodedata
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from headrace.schemas.mesh import load_mesh
from headrace.selfserve.exports.formats import ExportFormat
from headrace.selfserve.exports.markdown import _text, markdown_of
from headrace.selfserve.exports.product import exported
from headrace.selfserve.main import main
from tests.support.documented import HARD, SCHEMA, SECRETS, WIDE, documented_mesh

if TYPE_CHECKING:
    from pathlib import Path

    from markdown_it.token import Token

    from headrace.schemas.mesh import Mesh

READER = MarkdownIt("commonmark", {"html": True}).enable("table")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("documented") / "mesh"
    documented_mesh(folder)
    return folder


@pytest.fixture(scope="module")
def mesh(root: Path) -> Mesh:
    return load_mesh(root, environment="production")


def asyncapi(mesh: Mesh, name: str = WIDE) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(exported(mesh, mesh.product(name), ExportFormat.ASYNCAPI))
    return document


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for key, inner in value.items() for text in ([inner] if key == "$ref" else references(inner))]
    return [text for inner in value for text in references(inner)] if isinstance(value, list) else []


def test_asyncapi_names_topic_key_and_retention(mesh: Mesh) -> None:
    document = asyncapi(mesh)
    assert (document["asyncapi"], document["info"]["title"], document["info"]["version"]) == ("3.1.0", WIDE, "1.10.0")
    channel = document["channels"]["wide"]
    assert channel["address"] == "prod.shop.wide"
    assert channel["bindings"]["kafka"] == {
        "topic": "prod.shop.wide",
        "partitions": 6,
        "topicConfiguration": {"cleanup.policy": ["compact", "delete"], "retention.ms": 604_800_000},
        "bindingVersion": "0.5.0",
    }
    message = document["components"]["messages"]["Wide"]
    assert message["bindings"]["kafka"]["key"]["description"].startswith("the fields id, line, in this order")
    assert message["payload"] == {
        "schemaFormat": "application/vnd.apache.avro+json;version=1.9.0",
        "schema": mesh.product(WIDE).schema.document,
    }
    assert message["x-pii"]["others[].street"] == "user.contact"
    assert {"name": "status:draft"} in document["info"]["tags"]


def test_every_reference_of_an_asyncapi_document_leads_somewhere(mesh: Mesh) -> None:
    for product in mesh.all_products:
        document = asyncapi(mesh, str(product.name))
        found = references(document)
        assert len(found) >= 3
        for reference in found:
            here: Any = document
            for step in reference.removeprefix("#/").split("/"):
                here = here[step]


def test_asyncapi_servers_hold_addresses_and_no_secret(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    text = exported(mesh, mesh.product(WIDE), ExportFormat.ASYNCAPI)
    assert "hunter2" not in text
    assert all(name not in text for name in SECRETS)
    document = yaml.safe_load(text)
    first, second = document["servers"].values()
    assert (first["host"], first["protocol"]) == ("kafka-1.example:9093", "kafka-secure")
    assert first["bindings"]["kafka"]["schemaRegistryUrl"] == "https://registry.example/api"
    assert (second["host"], list(second["variables"])) == ("{SECOND_BROKER}", ["SECOND_BROKER"])
    assert document["components"]["securitySchemes"] == {"scramSha512": {"type": "scramSha512"}}
    assert document["components"]["messages"]["Wide"]["bindings"]["kafka"]["schemaIdLocation"] == "payload"


def test_without_servers_that_others_reach_nothing_is_said_of_a_registry(root: Path) -> None:
    document = asyncapi(load_mesh(root))
    assert "servers" not in document
    assert "servers" not in document["channels"]["wide"]
    # The bindings allow it only where a server names its registry.
    assert "schemaIdLocation" not in document["components"]["messages"]["Wide"]["bindings"]["kafka"]


def test_avro_is_what_is_registered(mesh: Mesh) -> None:
    for product in mesh.all_products:
        text = exported(mesh, product, ExportFormat.AVRO)
        assert json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":")) == product.schema.text
    assert json.loads(exported(mesh, mesh.product(WIDE), ExportFormat.AVRO)) == SCHEMA


def shown(token: Token) -> str:
    """The text of an inline token as a reader of the page sees it; markup in it fails the test."""
    kinds = {child.type for child in token.children or ()}
    assert kinds <= {"text", "text_special", "code_inline"}, kinds
    return "".join(child.content for child in token.children or ())


def tables(page: str) -> list[list[list[str]]]:
    """The rows of every table of a page, the head's among them."""
    found: list[list[list[str]]] = []
    for token in READER.parse(page):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type == "inline" and found and token.level >= 4:
            found[-1][-1].append(shown(token))
    return found


def plain(text: str) -> str:
    """The text in one line, without what drives a terminal or turns the direction of the text."""
    unshown = {"Cc", "Zl", "Zp"}
    turning = [*range(0x202A, 0x202F), *range(0x2066, 0x206A)]
    kept = (" " if unicodedata.category(each) in unshown or ord(each) in turning else each for each in text)
    return " ".join("".join(kept).split())


def test_markdown_tells_people_what_they_need(mesh: Mesh) -> None:
    page = markdown_of(mesh.product(WIDE))
    facts, fields, inputs = tables(page)
    assert ["owner", "shop-team"] in facts
    assert ["key", "id, line"] in facts
    assert ["Kafka keeps an event", "for 7 days, and while it is the newest of its key"] in facts
    rows = {row[0]: row[1:] for row in fields[1:]}
    assert rows["price"] == ["decimal(9,2)", "yes", "", ""]
    assert rows["size"][:2] == ["long", ""]
    assert rows["grid"][0] == "array<array<int>>"
    assert rows["email"][3] == "user.contact.email, table: replace-with-null"
    assert rows["others[].country"][0] == "enum: DE, IT"
    assert rows["payer.Firm.vat"][2] == "the firm's number"
    assert inputs[1] == ["shop.orders", "1.0.0"]
    assert "Draft" in page
    assert "Draft" not in markdown_of(mesh.product("shop.orders"))


def test_markdown_shows_what_people_wrote_and_obeys_none_of_it(mesh: Mesh) -> None:
    page = markdown_of(mesh.product(WIDE))
    _, fields, _ = tables(page)
    assert fields[1][3] == plain(HARD)
    purpose = [token for token in READER.parse(page) if token.type == "inline"][1]
    assert shown(purpose) == plain(HARD)
    assert "\u202e" not in page


@given(st.text())
def test_any_text_is_one_cell_and_one_paragraph(text: str) -> None:
    escaped = _text(text)
    (table,) = tables(f"| a | b |\n| --- | --- |\n| {escaped} | end |\n")
    assert table[1][1:] == ["end"]
    inline = READER.parse(f"before\n\n{escaped}\n\nafter\n")
    assert {token.type for token in inline} == {"paragraph_open", "inline", "paragraph_close"}
    if escaped:
        assert shown(inline[4]) == table[1][0] == plain(text)


def test_every_format_of_every_product_is_written(
    root: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for form in ExportFormat:
        for name in ("shop.a_event", "shop.a_change_stream", "shop.a_derived", "governance.findings"):
            assert main(["--mesh", str(root), "export", name, "--format", form]) == 0
            printed = capsys.readouterr()
            assert (printed.err, printed.out[-1:]) == ("", "\n")
            file = tmp_path / f"{name}.{form}"
            assert main(["--mesh", str(root), "export", name, "--format", form, "--output", str(file)]) == 0
            assert file.read_text(encoding="utf-8") == printed.out
            assert f"wrote {name} as {form} to {file}" in capsys.readouterr().err


def test_a_product_that_is_not_there_and_a_file_that_cannot_be_written(
    root: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["--mesh", str(root), "export", "shop.order"]) == 1
    assert "did you mean shop.orders" in capsys.readouterr().err
    for wrong in (tmp_path, tmp_path / "nowhere" / "x.yaml"):
        assert main(["--mesh", str(root), "export", "shop.orders", "--output", str(wrong)]) == 1
        shown_error = capsys.readouterr().err
        assert shown_error.startswith("error: ")
        assert str(wrong) in shown_error
        assert "Traceback" not in shown_error
    assert main(["--mesh", str(root), "export", "shop.orders", "--format", "xml"]) == 2
