"""Catalogs as the seam shows them: real pyiceberg over broken settings, damaged files, and servers that misbehave."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from pyiceberg import manifest
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.io import S3_CONNECT_TIMEOUT, S3_REQUEST_TIMEOUT

from headrace.schemas import catalog as seam
from headrace.schemas.avro import AvroSchema
from headrace.schemas.catalog import catalog_errors, load_table, open_catalog
from headrace.schemas.environment import Environment, EnvironmentSettings
from headrace.schemas.errors import NotApplied, ProductStopped, SettingsError, Unavailable
from headrace.schemas.product import Domain
from tests.support.lake import Lake, product_of
from tests.support.meshes import ORDER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pyiceberg.catalog import Catalog

SHOP = Domain("shop", "owner", "description", "shop", {})
ORDERS = AvroSchema.parse(json.dumps(ORDER))
EVENT = pa.struct([("id", pa.string()), ("amount", pa.int64()), ("email", pa.string())])
SETTINGS = {
    "kafka": {"bootstrap.servers": "127.0.0.1:1"},
    "registry": {"url": "http://127.0.0.1:1"},
    "masking": {"hmac_key": "${file:key}"},
}
# What a request may take in these tests, in seconds, and what all requests of one call may take, retries included, on a
# machine that stands still for a while: less than the one request takes that has the time it has in earnest.
TIMEOUT_S = 0.2
BOUND_S = 25.0


def opened(root: Path, **properties: str) -> Catalog:
    """Open the catalog of an environment with these properties."""
    settings = EnvironmentSettings.model_validate({**SETTINGS, "catalog": properties})
    return open_catalog(Environment("production", root, settings), SHOP)


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seam, "REQUEST_TIMEOUT_S", TIMEOUT_S)


@contextmanager
def silent_server() -> Iterator[str]:
    """Accept connections, by the kernel's queue, and never answer."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


class _Rest(ThreadingHTTPServer):
    """A REST catalog that answers every request with the same status and body, or, once told to, never."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.status, self.body = 200, b'{"defaults": {}, "overrides": {}}'
        self.silent = threading.Event()
        self.closing = threading.Event()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Answer(BaseHTTPRequestHandler):
    server: _Rest

    def do_GET(self) -> None:
        if self.server.silent.is_set():
            self.server.closing.wait()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        # A client whose time is out has gone.
        with suppress(ConnectionError):
            self.wfile.write(self.server.body)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def rest() -> Iterator[_Rest]:
    with _Rest() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.closing.set()
        server.shutdown()
        thread.join()


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("credentials", [{}, {"credential": "id:secret"}], ids=["configuration", "token"])
def test_a_rest_catalog_that_is_silent_from_the_start_is_unavailable(
    tmp_path: Path, credentials: dict[str, str]
) -> None:
    began_s = monotonic()
    with silent_server() as uri, pytest.raises(Unavailable, match="ReadTimeout") as error:
        opened(tmp_path, **{"type": "rest", "uri": uri, "oauth2-server-uri": f"{uri}/tokens", **credentials})
    assert monotonic() - began_s < BOUND_S
    assert error.value.where == "catalog of domain shop"


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("properties", [{"type": "rest"}, {}], ids=["named", "inferred"])
def test_a_rest_catalog_that_goes_silent_is_unavailable(
    tmp_path: Path, rest: _Rest, properties: dict[str, str]
) -> None:
    catalog = opened(tmp_path, uri=rest.uri, **properties)
    rest.silent.set()
    began_s = monotonic()
    with pytest.raises(Unavailable, match="ReadTimeout"):
        load_table(catalog, product_of(ORDERS))
    assert monotonic() - began_s < BOUND_S


def test_s3_has_time_outs_that_people_may_set(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/catalog.db"
    properties = opened(tmp_path, type="sql", uri=uri).properties
    assert (properties[S3_CONNECT_TIMEOUT], properties[S3_REQUEST_TIMEOUT]) == ("5.0", "30.0")
    chosen = opened(tmp_path, **{"type": "sql", "uri": uri, S3_REQUEST_TIMEOUT: "90"}).properties
    assert (chosen[S3_CONNECT_TIMEOUT], chosen[S3_REQUEST_TIMEOUT]) == ("5.0", "90")


@pytest.mark.parametrize("status", [401, 403, 419])
def test_credentials_that_are_refused_are_waited_for(tmp_path: Path, rest: _Rest, status: int) -> None:
    catalog = opened(tmp_path, uri=rest.uri)
    rest.status, rest.body = status, b"{}"
    with pytest.raises(Unavailable, match="refuses these credentials") as later:
        load_table(catalog, product_of(ORDERS))
    assert "mesh.yaml" in str(later.value.hint)
    with pytest.raises(Unavailable, match="refuses these credentials"):
        opened(tmp_path, uri=rest.uri)
    with pytest.raises(Unavailable, match="refuses these credentials"):
        opened(tmp_path, **{"uri": rest.uri, "credential": "id:secret", "oauth2-server-uri": f"{rest.uri}/tokens"})


@pytest.mark.parametrize("body", [b"<html>secret</html>", b'{"secret": 1}', b""])
def test_what_is_no_rest_catalog_is_told_without_its_answer(tmp_path: Path, rest: _Rest, body: bytes) -> None:
    catalog = opened(tmp_path, uri=rest.uri)
    rest.body = body
    with pytest.raises(Unavailable, match="no Iceberg REST catalog") as error:
        load_table(catalog, product_of(ORDERS))
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("properties", "text"),
    [
        ({"type": "hive", "uri": "thrift://127.0.0.1:1"}, "a package is missing"),
        ({"type": "glue"}, "a package is missing"),
        ({"type": "sql", "uri": "oracle+cx_oracle://me:hunter2@host/db"}, "a package is missing (No module named"),
        ({"type": "sql", "uri": "nonsense"}, "Could not parse"),
        ({"type": "sql", "uri": "nosuchdialect://me:hunter2@host/db"}, "nosuchdialect"),
        ({"type": "nosuchtype", "uri": "http://127.0.0.1:1"}, "nosuchtype"),
        ({"uri": "mysql://me:hunter2@host/db"}, "Could not infer the catalog type"),
        ({"type": "rest", "uri": "me:hunter2@host"}, "…"),
        ({"type": "sql"}, "URI missing"),
    ],
)
def test_properties_without_sense_are_a_fault_of_the_settings(
    tmp_path: Path, properties: dict[str, str], text: str
) -> None:
    with pytest.raises(SettingsError) as error:
        opened(tmp_path, **properties)
    assert text in error.value.what
    assert "hunter2" not in str(error.value)
    assert error.value.where == "catalog of domain shop"
    assert error.value.hint == "see `catalog` of this environment in mesh.yaml"


@pytest.mark.filterwarnings("ignore:No preferred file implementation")
@pytest.mark.parametrize(
    ("warehouse", "text"), [({"warehouse": "foo://bucket"}, "Unrecognized filesystem"), ({}, "No default path is set")]
)
def test_a_warehouse_that_is_no_place_is_a_fault_of_the_settings(
    tmp_path: Path, warehouse: dict[str, str], text: str
) -> None:
    catalog = opened(tmp_path, type="sql", uri=f"sqlite:///{tmp_path}/catalog.db", **warehouse)
    catalog.create_namespace("shop")
    with pytest.raises(SettingsError, match=text), catalog_errors("table shop.orders"):
        catalog.create_table(("shop", "orders"), pa.schema({"id": pa.string()}))


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path / "lake", ORDERS)
    lake.follow(ORDERS)
    lake.add(pa.array([{"id": "secret", "amount": 1, "email": None}], EVENT))
    return lake


def local(location: str) -> Path:
    return Path(location.removeprefix("file://"))


def metadata_of(lake: Lake, kind: str) -> Path:
    """Return a file of the table's newest metadata."""
    snapshot = lake.reload().current_snapshot()
    assert snapshot is not None
    match kind:
        case "metadata":
            return local(lake.table.metadata_location)
        case "manifest list":
            return local(snapshot.manifest_list)
        case _:
            return local(snapshot.manifests(lake.table.io)[0].manifest_path)


def read(lake: Lake) -> None:
    """Load the table and read its rows, as a session does."""
    manifest.clear_manifest_cache()
    with catalog_errors("table shop.orders"):
        lake.reload().scan().to_arrow()


KINDS = ("metadata", "manifest list", "manifest")
# Each ends the reading within the file: pyiceberg's decoder of Avro does not check its bounds, so that damage which
# announces more bytes than there are is read on in the process's memory.
DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "cut short": lambda content: content[:3],
    "no text": lambda content: b"\xff\xfe\x80secret" * (len(content) // 8),
    "a page": lambda _: b"<html>\xe9 secret</html>" * 8,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_metadata_stops_the_product_and_shows_no_content(lake: Lake, kind: str, damage: str) -> None:
    file = metadata_of(lake, kind)
    file.write_bytes(DAMAGE[damage](file.read_bytes()))
    with pytest.raises(ProductStopped) as error:
        read(lake)
    assert (error.value.what, error.value.where) == ("the table's metadata file is damaged", "table shop.orders")
    assert error.value.hint
    assert error.value.__suppress_context__


@pytest.mark.parametrize("kind", KINDS)
def test_metadata_that_is_gone_stops_the_product(lake: Lake, kind: str) -> None:
    file = metadata_of(lake, kind)
    file.unlink()
    with pytest.raises(ProductStopped, match="is gone") as error:
        read(lake)
    assert str(file) in error.value.what
    assert error.value.hint == "restore it, or roll the table back"


def test_a_data_file_that_is_gone_is_storage_that_failed(lake: Lake) -> None:
    (task, *_) = lake.reload().scan().plan_files()
    local(task.file.file_path).unlink()
    with pytest.raises(Unavailable, match="storage failed"):
        read(lake)


def test_storage_tells_the_reason_even_without_an_error_number() -> None:
    text = "When reading information for key 'a' in bucket 'b': AWS Error SLOW_DOWN during HeadObject\nmore"
    with pytest.raises(Unavailable) as error, catalog_errors("table shop.orders"):
        raise OSError(text)
    assert error.value.what == f"storage failed: {text.splitlines()[0]}"


@pytest.mark.parametrize(
    "unforeseen", [CommitFailedException("conflict"), ValueError("value"), KeyError("key"), TypeError()]
)
def test_conflicts_and_bugs_pass_through(unforeseen: Exception) -> None:
    with pytest.raises(type(unforeseen)) as error, catalog_errors("table shop.orders"):
        raise unforeseen
    assert error.value is unforeseen


def test_a_table_that_is_not_there_was_never_applied(tmp_path: Path) -> None:
    catalog = opened(tmp_path, type="sql", uri=f"sqlite:///{tmp_path}/catalog.db")
    with pytest.raises(NotApplied):
        load_table(catalog, product_of(ORDERS))
