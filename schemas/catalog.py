"""A domain's Iceberg catalog, and the one seam where the errors of pyiceberg and of storage enter headrace's tree."""

from __future__ import annotations

import traceback
from contextlib import contextmanager, suppress
from functools import partial
from gzip import BadGzipFile
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError as ModelError
from pyiceberg.catalog import AVAILABLE_CATALOGS, Catalog, CatalogType, load_catalog
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.exceptions import (
    AuthorizationExpiredError,
    BadRequestError,
    ForbiddenError,
    NamespaceAlreadyExistsError,
    NoSuchNamespaceError,
    NoSuchTableError,
    NotInstalledError,
    OAuthError,
    RESTError,
    UnauthorizedError,
    ValidationError,
)
from requests.exceptions import RequestException
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from headrace.schemas.errors import HeadraceError, LostFile, NotApplied, ProductStopped, SettingsError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyiceberg.table import Table
    from pyiceberg.typedef import Properties
    from requests import Session

    from headrace.schemas.environment import Environment
    from headrace.schemas.product import Domain, Product

__all__ = [
    "catalog_errors",
    "drop_table",
    "identifier_of",
    "load_named",
    "load_table",
    "make_namespace",
    "namespace_properties",
    "on_handle",
    "open_catalog",
    "table_names",
]

# How long SQLite waits for another process's write before it says "database is locked", in seconds.
SQLITE_BUSY_TIMEOUT_S = 30
# How long a REST catalog may take to accept a connection, and between two parts of its answer, in seconds.
CONNECT_TIMEOUT_S = 5.0
REQUEST_TIMEOUT_S = 30.0
_SQLITE = "sqlite:///"

# What pyiceberg does, by its functions' names, when an error of any kind tells of a damaged file of metadata …
_READING = frozenset({"FromInputFile.table_metadata", "AvroFile.__enter__", "AvroFile.__next__"})
# … and when one tells of a setting: it chooses a table's place, or opens the storage there.
_PLACING = frozenset({"PyArrowFileIO._initialize_fs", "MetastoreCatalog._resolve_table_location"})
_RESTORE = "restore it, or roll the table back"


def identifier_of(product: Product) -> tuple[str, str]:
    """Return the identifier of a product's table: namespace and name."""
    return product.name.domain, product.name.product


def open_catalog(environment: Environment, domain: Domain) -> Catalog:
    """Open a domain's catalog. Makes the folder of an embedded (SQLite) catalog, nothing else.

    No request to a REST catalog or to S3 waits for ever. The time-outs of S3 may be set in the catalog's properties.

    Raises:
        SettingsError: if the catalog's properties make no sense to pyiceberg, or a package that they need is missing.
        Unavailable: if the catalog does not answer or refuses the credentials.
    """
    given = environment.catalog_properties(domain)
    uri = given.get("uri", "")
    where = f"catalog of domain {domain.name}"
    properties = {"s3.connect-timeout": str(CONNECT_TIMEOUT_S), "s3.request-timeout": str(REQUEST_TIMEOUT_S), **given}
    with catalog_errors(where):
        if uri.startswith(_SQLITE):
            Path(uri.removeprefix(_SQLITE)).parent.mkdir(parents=True, exist_ok=True)
            separator = "&" if "?" in uri else "?"
            properties["uri"] = f"{uri}{separator}timeout={SQLITE_BUSY_TIMEOUT_S}"
        try:
            return load_catalog(domain.name, **properties)
        except ModelError:
            raise
        except NotInstalledError as error:
            raise _unusable(f"a package is missing ({_first_line(error.__cause__ or error)})", where) from None
        except (ValueError, ArgumentError) as error:
            # Their texts repeat the address, which may hold a password.
            text = _first_line(error)
            raise _unusable(text.replace(properties["uri"], "…") if uri else text, where) from None


def load_table(catalog: Catalog, product: Product) -> Table:
    """Load the product's table as it is now.

    Raises:
        NotApplied: if it does not exist.
        Unavailable: if catalog or storage does not answer.
    """
    return load_named(catalog, identifier_of(product))


def load_named(catalog: Catalog, identifier: tuple[str, str]) -> Table:
    """Load a table, of a product or not, as it is now. Raises as `load_table`."""
    where = f"table {'.'.join(identifier)}"
    try:
        with catalog_errors(where):
            return catalog.load_table(identifier)
    except LostFile:
        # Others may have committed so often since the catalog named it that it was too old to be kept: the next one is
        # named now.
        with catalog_errors(where):
            return catalog.load_table(identifier)


def namespace_properties(catalog: Catalog, domain: Domain) -> Properties | None:
    """Return the properties of a domain's namespace; None: there is none.

    Raises:
        Unavailable: if the catalog does not answer.
    """
    with catalog_errors(f"namespace {domain.name}"):
        try:
            return catalog.load_namespace_properties(domain.name)
        except NoSuchNamespaceError:
            return None


def make_namespace(catalog: Catalog, domain: Domain, location: str | None) -> None:
    """Make a domain's namespace, if there is none.

    Args:
        catalog: the domain's catalog.
        domain: the domain.
        location: where its tables lie; None: where the catalog puts them.

    Raises:
        Unavailable: if the catalog does not answer.
    """
    with catalog_errors(f"namespace {domain.name}"):
        try:
            catalog.create_namespace(domain.name, {"location": location} if location else {})
        except NamespaceAlreadyExistsError:
            return
        except SQLAlchemyError:
            # Of two that make it at once, a database refuses one.
            if not catalog.namespace_exists(domain.name):
                raise


def table_names(catalog: Catalog, domain: Domain) -> tuple[str, ...]:
    """Return the names of the tables in a domain's namespace, sorted; none, where there is no namespace.

    Raises:
        Unavailable: if the catalog does not answer.
    """
    with catalog_errors(f"namespace {domain.name}"):
        try:
            return tuple(sorted(identifier[-1] for identifier in catalog.list_tables(domain.name)))
        except NoSuchNamespaceError:
            return ()


def drop_table(catalog: Catalog, identifier: tuple[str, str]) -> None:
    """Take a table out of its catalog, if it is there; its files stay where they are.

    Raises:
        Unavailable: if the catalog does not answer.
    """
    with catalog_errors(f"table {'.'.join(identifier)}"), suppress(NoSuchTableError):
        catalog.drop_table(identifier)


@contextmanager
def catalog_errors(where: str) -> Iterator[None]:
    """Map what pyiceberg, SQLAlchemy, requests and the file system raise to headrace's tree.

    Conflicts of a commit (``CommitFailedException``) pass through: only the commit seam may judge them. So does what
    nobody foresaw: it is a bug.

    Raises:
        NotApplied: the namespace or table is not there.
        SettingsError: the catalog refuses the request, or no storage can be opened with these properties.
        ProductStopped: the table's metadata is damaged, or gone (`LostFile`).
        Unavailable: anything that may pass: no answer, an error of the server, a full disk. Refused credentials too:
            servers refuse good ones while they start or change keys, and a sink opens its catalog anew in mid-run.
    """
    try:
        yield
    except Exception as error:
        mapped = _mapped(error, where)
        if mapped is None:
            raise
        # pydantic's texts show a file's content and SQLAlchemy's a statement's parameters: the chain ends here.
        raise mapped from None


@contextmanager
def on_handle(catalog: Catalog, product: Product, table: Table) -> Iterator[None]:
    """Map errors like `catalog_errors`; of a file that is gone, the table as it is now tells what that means.

    Raises:
        Unavailable: others have moved the table on since this handle was loaded, expired what it stands on and deleted
            the files: the same is to be done on a new handle.
        LostFile: the table still is as in this handle: it is damaged.
    """
    try:
        with catalog_errors(f"table {product.name}"):
            yield
    except LostFile as error:
        if load_table(catalog, product).metadata.refs == table.metadata.refs:
            raise
        raise Unavailable(
            "others have moved the table on, and deleted files that only its former state needs",
            where=error.where,
            hint="the table is loaded anew",
        ) from None


def _mapped(error: Exception, where: str) -> HeadraceError | None:
    match error:
        case HeadraceError() | MemoryError():
            return None
        case NoSuchTableError() | NoSuchNamespaceError():
            return NotApplied("the table does not exist", where=where, hint="run `headrace apply`")
        case NotImplementedError() | ValueError() if "equality deletes" in str(error):
            what = "another engine has deleted rows by their values, which headrace cannot read"
            return ProductStopped(what, where=where, hint="let that engine rewrite the table's files without deletes")
        case BadRequestError() | NotImplementedError():
            return SettingsError(f"the catalog refuses the request: {_first_line(error)}", where=where)
        case RESTError() | RequestException() | SQLAlchemyError():
            return _no_answer(error, where)
        case ModelError() if error.title.endswith("Response"):
            hint = "check `uri` in `catalog` of this environment in mesh.yaml; it is asked again"
            return Unavailable("what answers here is no Iceberg REST catalog", where=where, hint=hint)
        case _:
            return _storage_error(error, where)


def _storage_error(error: Exception, where: str) -> HeadraceError | None:
    reading = _was(_READING, error)
    if isinstance(error, FileNotFoundError) and reading:
        what = f"a file of the table's metadata is gone: {error.filename or _first_line(error)}"
        return LostFile(what, where=where, hint=_RESTORE)
    if isinstance(error, OSError) and not isinstance(error, BadGzipFile):
        return Unavailable(
            f"storage failed: {error.strerror or _first_line(error)}",
            where=f"{where}, {error.filename}" if error.filename else where,
            hint="free space or mend the storage; a sink tries it again by itself",
        )
    if isinstance(error, ValueError | ImportError) and _was(_PLACING, error):
        return _unusable(_first_line(error), where)
    if isinstance(error, ValidationError) or reading:
        return ProductStopped("the table's metadata file is damaged", where=where, hint=_RESTORE)
    return None


def _no_answer(error: Exception, where: str) -> Unavailable:
    if isinstance(error, UnauthorizedError | ForbiddenError | OAuthError | AuthorizationExpiredError):
        return Unavailable(
            f"the catalog refuses these credentials ({type(error).__name__})",
            where=where,
            hint="check `catalog` of this environment in mesh.yaml and the secrets that it names; it is asked again",
        )
    reason = f"{type(error).__name__}: {_first_line(error)}" if str(error) else type(error).__name__
    return Unavailable(
        f"the catalog does not answer ({reason})",
        where=where,
        hint="see that it runs, and check `catalog` of this environment in mesh.yaml; sinks ask it again by themselves",
    )


def _unusable(what: str, where: str) -> SettingsError:
    return SettingsError(
        f"the catalog cannot be used: {what}", where=where, hint="see `catalog` of this environment in mesh.yaml"
    )


def _first_line(error: BaseException) -> str:
    # The first line names the cause; further ones carry statements and parameters.
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _was(doing: frozenset[str], error: Exception) -> bool:
    """Tell whether pyiceberg was in one of these functions when the error was raised."""
    return any(
        frame.f_code.co_qualname in doing and frame.f_globals.get("__name__", "").startswith("pyiceberg.")
        for frame, _ in traceback.walk_tb(error.__traceback__)
    )


class _RestCatalog(RestCatalog):
    """pyiceberg's REST catalog, with time-outs: without, it waits for ever for a server that went silent."""

    def _config_headers(self, session: Session) -> None:
        # The first thing that pyiceberg does with a session: the next ones are requests already, for the credentials'
        # token and the catalog's configuration. An adapter would not do, because signing (SigV4) mounts its own.
        super()._config_headers(session)
        timeouts_s = (CONNECT_TIMEOUT_S, REQUEST_TIMEOUT_S)
        session.request = partial(session.request, timeout=timeouts_s)  # type: ignore[method-assign]  # of this one


def _load_rest(name: str, properties: Properties) -> Catalog:
    return _RestCatalog(name, **properties)


# pyiceberg's own way to choose a catalog's class merges its configuration files first, so it is kept.
AVAILABLE_CATALOGS[CatalogType.REST] = _load_rest
