"""A domain's Iceberg catalog, and the one seam where the errors of pyiceberg and of storage enter headrace's tree."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.exceptions import (
    AuthorizationExpiredError,
    BadRequestError,
    ForbiddenError,
    NoSuchNamespaceError,
    NoSuchTableError,
    OAuthError,
    RESTError,
    UnauthorizedError,
    ValidationError,
)
from requests.exceptions import RequestException
from sqlalchemy.exc import SQLAlchemyError

from headrace.schemas.errors import HeadraceError, NotApplied, ProductStopped, SettingsError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace.schemas.environment import Environment
    from headrace.schemas.product import Domain, Product

__all__ = ["catalog_errors", "identifier_of", "open_catalog"]

# How long SQLite waits for another process's write before it says "database is locked", in seconds.
SQLITE_BUSY_TIMEOUT_S = 30
_SQLITE = "sqlite:///"


def identifier_of(product: Product) -> tuple[str, str]:
    """Return the identifier of a product's table: namespace and name."""
    return product.name.domain, product.name.product


def open_catalog(environment: Environment, domain: Domain) -> Catalog:
    """Open a domain's catalog. Makes the folder of an embedded (SQLite) catalog, nothing else.

    Raises:
        SettingsError: if the catalog's properties make no sense to pyiceberg.
        Unavailable: if the catalog does not answer.
    """
    properties = environment.catalog_properties(domain)
    uri = properties.get("uri", "")
    where = f"catalog of domain {domain.name}"
    with catalog_errors(where):
        if uri.startswith(_SQLITE):
            Path(uri.removeprefix(_SQLITE)).parent.mkdir(parents=True, exist_ok=True)
            separator = "&" if "?" in uri else "?"
            properties = {**properties, "uri": f"{uri}{separator}timeout={SQLITE_BUSY_TIMEOUT_S}"}
        try:
            return load_catalog(domain.name, **properties)
        except ValueError as error:
            raise SettingsError(
                f"the catalog's properties are not complete: {error}",
                where=where,
                hint="see `catalog` of this environment in mesh.yaml",
            ) from None


@contextmanager
def catalog_errors(where: str) -> Iterator[None]:
    """Map what pyiceberg, SQLAlchemy, requests and the file system raise to headrace's tree.

    Conflicts of a commit (``CommitFailedException``) pass through: only the commit seam may judge them.

    Raises:
        NotApplied: the namespace or table is not there.
        SettingsError: the catalog refuses the credentials or the request.
        ProductStopped: the table's metadata is damaged.
        Unavailable: anything that may pass: no answer, an error of the server, a full disk.
    """
    try:
        yield
    except HeadraceError:
        raise
    except (NoSuchTableError, NoSuchNamespaceError):
        raise NotApplied("the table does not exist", where=where, hint="run `headrace apply`") from None
    except ValidationError:
        # pydantic's text would show the file's content.
        raise ProductStopped(
            "the table's metadata file is damaged", where=where, hint="restore it, or roll the table back"
        ) from None
    except (UnauthorizedError, ForbiddenError, OAuthError, AuthorizationExpiredError) as error:
        raise SettingsError(
            f"the catalog refuses these credentials ({type(error).__name__})",
            where=where,
            hint="check `catalog` of this environment in mesh.yaml and the secrets that it names",
        ) from None
    except BadRequestError as error:
        raise SettingsError(f"the catalog refuses the request: {error}", where=where) from None
    except (RESTError, RequestException, SQLAlchemyError) as error:
        raise Unavailable(
            f"the catalog does not answer ({_reason(error)})", where=where, hint="it is asked again"
        ) from error
    except OSError as error:
        raise Unavailable(
            f"storage failed: {error.strerror or type(error).__name__}",
            where=f"{where}, {error.filename}" if error.filename else where,
            hint="free space or mend the storage; it is tried again",
        ) from error


def _reason(error: Exception) -> str:
    # SQLAlchemy's messages carry the statement and its parameters; the first line names the cause.
    return f"{type(error).__name__}: {str(error).splitlines()[0]}" if str(error) else type(error).__name__
