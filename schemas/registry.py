"""The schema registry, behind one seam: what is registered, by subject and by id, in headrace's own errors.

Any registry with Confluent's API serves (Confluent Schema Registry 7, Apicurio 3, Karapace). They differ in one thing
that matters here: what counts as *the same* schema. Confluent compares everything but white space; Apicurio also leaves
out ``doc`` and ``aliases`` and reads ``{"type": "string"}`` as ``"string"``. So a lookup is always left to the registry
and never made by comparing texts: what it finds has the same fields, types, defaults, logical types and PII tags.
"""

from __future__ import annotations

import re
import ssl
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Self

from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

# The client's own choice between httpx and its successor: its errors are raised as they are, under whichever is there.
from confluent_kafka.schema_registry.common._httpx_compat import httpx
from confluent_kafka.schema_registry.error import OAuthTokenError, SchemaRegistryError

from headrace.schemas.avro import AvroSchema
from headrace.schemas.errors import Refusal, SchemaError, SettingsError, Unavailable, UserError
from headrace.schemas.registered import RegisteredSchema, UnreadableSchema
from headrace.schemas.registry_settings import DEFAULTS, TIMEOUT_S, client_properties

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

__all__ = ["DEFAULTS", "TIMEOUT_S", "RegisteredSchema", "Registry"]

# Error codes of Confluent's API reference, "Errors": unknown subject, version, schema.
_SUBJECT_NOT_FOUND = 40401
_VERSION_NOT_FOUND = 40402
_SCHEMA_NOT_FOUND = 40403
_NOT_FOUND = frozenset({_SUBJECT_NOT_FOUND, _VERSION_NOT_FOUND, _SCHEMA_NOT_FOUND})
_REASON_CHARACTERS = 500
# Apicurio's messages start with the name of an exception's class.
_JAVA_EXCEPTION = re.compile(r"^(?:\w+\.)+\w*Exception: ")


class Registry:
    """A schema registry. Safe to use from several threads; close it, or use it as a context manager.

    Every method raises `Unavailable`, which names the registry's address, if the registry does not answer, fails
    (5xx), does not know the credentials (401, 403) or is no registry at all. Nothing was decided then, and the same
    call may be made again. Only an id's schema is cached, because nothing else is for ever.

    Args:
        config: properties of ``SchemaRegistryClient``; numbers may be given as text.

    Raises:
        SettingsError: if the properties are refused.
    """

    def __init__(self, config: Mapping[str, str]) -> None:
        properties, self.address = client_properties(config)
        self._schemas: dict[int, AvroSchema] = {}
        try:
            self._client = SchemaRegistryClient(properties)
        except (ValueError, TypeError, OSError, ssl.SSLError) as error:
            raise SettingsError(
                f"the schema registry's settings are refused: {error}",
                where=self.address,
                hint="correct the environment's registry part in mesh.yaml",
            ) from None

    def close(self) -> None:
        """Close the connections. May be called more than once."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def register(self, subject: str, schema: AvroSchema) -> RegisteredSchema:
        """Make the schema a version of the subject, if it is none yet.

        Idempotent: the same schema gives the same id and version.

        Raises:
            UserError: if the subject's compatibility level refuses the schema (with the registry's reason), or the
                registry cannot read it.
        """
        self._forget()
        try:
            self._ask(lambda: self._client.register_schema(subject, Schema(schema.text, "AVRO")))
        except SchemaRegistryError as error:
            raise _registration_error(subject, error) from None
        registered = self.lookup(subject, schema)
        if registered is None:
            raise Unavailable(
                f"the registry took the schema of {subject} and does not find it",
                where=self.address,
                hint="the registry may run as several servers of which one lags behind: try again",
            )
        return registered

    def lookup(self, subject: str, schema: AvroSchema) -> RegisteredSchema | None:
        """Find the version of the subject that is this schema; None if there is none. Registers nothing.

        The schema that comes back is as the registry holds it, which may have rewritten its text.
        """
        self._forget()
        try:
            found = self._ask(lambda: self._client.lookup_schema(subject, Schema(schema.text, "AVRO")))
            held = self.schema(found.schema_id)
        except (SchemaRegistryError, Refusal):
            return None
        return RegisteredSchema(found.schema_id, found.version, subject, held)

    def schema(self, schema_id: int) -> AvroSchema:
        """Return the schema behind an id that stands in a message.

        An id is the registry's, not a subject's: whether it is a version of the expected subject, `versions` tells.

        Raises:
            Refusal: ``unknown-schema``, only if the registry itself says that the id is unknown.
            SchemaError: if it is no Avro, or Avro that headrace cannot carry (a recursive record …).
        """
        if schema_id not in self._schemas:
            try:
                found = self._ask(lambda: self._client.get_schema(schema_id))
            except SchemaRegistryError:
                raise Refusal(
                    "unknown-schema", f"the schema registry does not know the schema id {schema_id}"
                ) from None
            self._schemas[schema_id] = _parse(schema_id, found)
        return self._schemas[schema_id]

    def versions(self, subject: str) -> tuple[RegisteredSchema, ...]:
        """Return the subject's versions in order; empty if the subject is unknown.

        Versions that were deleted softly are among them, since their messages are still in the topic.

        Raises:
            SchemaError: if a version is no Avro, or Avro that headrace cannot carry.
            Unavailable: as ever, and if the subject changes while it is read: part of it must not pass for all.
        """
        found = self.all_versions(subject)
        for each in found:
            if isinstance(each, UnreadableSchema):
                raise SchemaError(each.what, where=f"schema id {each.id}", hint=each.hint or None)
        return tuple(each for each in found if isinstance(each, RegisteredSchema))

    def all_versions(self, subject: str) -> tuple[RegisteredSchema | UnreadableSchema, ...]:
        """Return what `versions` does, with those that cannot be read among them.

        Raises:
            Unavailable: as `versions`.
        """
        known = False
        try:
            numbers = self._ask(lambda: self._client.get_versions(subject, deleted=True))
            known = True
            return tuple(self._version(subject, number) for number in sorted(numbers))
        except SchemaRegistryError as error:
            # Apicurio lists the versions of a subject that was deleted as a whole, and shows none of them.
            if error.error_code == _SUBJECT_NOT_FOUND and not (known and self.live(subject)):
                return ()
            raise Unavailable(
                f"the registry's versions of {subject} cannot be read: {_reason(error)}",
                where=self.address,
                hint="it is asked again; versions that were just deleted are gone then",
            ) from None

    def compatibility(self, subject: str) -> str:
        """Return the level that holds for the subject: its own, else the registry's."""
        return self.own_compatibility(subject) or str(self._ask(self._client.get_compatibility))

    def live(self, subject: str) -> frozenset[int]:
        """Return the numbers of the versions that are not deleted, which alone a new one is compared with."""
        try:
            return frozenset(self._ask(lambda: self._client.get_versions(subject)))
        except SchemaRegistryError:
            return frozenset()

    def own_compatibility(self, subject: str) -> str | None:
        """Return the level that was set for the subject itself; None: the registry's holds."""
        try:
            return str(self._ask(lambda: self._client.get_compatibility(subject)))
        except SchemaRegistryError:
            return None

    def check_answers(self) -> None:
        """Return if the registry answers.

        Raises:
            Unavailable: if it does not.
        """
        self._ask(self._client.get_compatibility)

    def subjects(self) -> tuple[str, ...]:
        """Return the subjects that have a version which is not deleted, sorted."""
        return tuple(sorted(self._ask(self._client.get_subjects)))

    def delete(self, subject: str) -> bool:
        """Delete a subject softly, so that the ids in messages still lead to schemas; False if there is none."""
        self._forget()
        try:
            self._ask(lambda: self._client.delete_subject(subject))
        except SchemaRegistryError as error:
            if error.error_code in _NOT_FOUND:
                return False
            raise UserError(f"the registry refuses to delete the subject: {_reason(error)}", where=subject) from None
        return True

    def set_compatibility(self, subject: str, level: str) -> None:
        """Set the subject's own level. The subject need not have a version yet.

        Raises:
            UserError: if the registry does not know the level.
            Unavailable: as ever, and if somebody else sets another one at the same moment.
        """
        try:
            self._ask(lambda: self._client.set_compatibility(subject, level))
        except SchemaRegistryError as error:
            # Of two that set it at once, Apicurio refuses one.
            if self.own_compatibility(subject) == level:
                return
            if error.http_status_code == HTTPStatus.CONFLICT:
                raise Unavailable(
                    f"somebody else sets the level of {subject} at this moment", where=subject, hint="try again"
                ) from None
            raise UserError(f"the registry refuses the level {level}: {_reason(error)}", where=subject) from None

    def _version(self, subject: str, number: int) -> RegisteredSchema | UnreadableSchema:
        # With deleted=True the client asks the registry each time instead of its own cache: what a number stands for
        # changes when a subject is deleted and made anew.
        found = self._ask(lambda: self._client.get_version(subject, number, deleted=True))
        if found.schema_id not in self._schemas:
            try:
                self._schemas[found.schema_id] = _parse(found.schema_id, found.schema)
            except SchemaError as error:
                return UnreadableSchema(found.schema_id, number, subject, error.what, error.hint or "")
        return RegisteredSchema(found.schema_id, number, subject, self._schemas[found.schema_id])

    def _forget(self) -> None:
        # The client caches what it registered and looked up, which ends when somebody deletes a subject.
        self._client.clear_caches()  # type: ignore[no-untyped-call]  # the client's method has no annotations

    def _ask(self, request: Callable[[], Any]) -> Any:
        """Make a request. A ``SchemaRegistryError`` that leaves is the registry's verdict on what was asked for."""
        try:
            return request()
        except SchemaRegistryError as error:
            if _is_verdict(error):
                raise
            raise self._failed(error) from None
        except (httpx.HTTPError, httpx.InvalidURL, OAuthTokenError) as error:
            raise Unavailable(
                f"the schema registry does not answer ({type(error).__name__})",
                where=self.address,
                hint="start it (embedded: headrace up) or correct its address in mesh.yaml",
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError):
            # An answer that is no JSON, or other JSON than the API's: a proxy's page, a wrong address.
            raise self._no_registry() from None

    def _failed(self, error: SchemaRegistryError) -> Unavailable:
        status = error.http_status_code
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return Unavailable(
                f"the schema registry refuses the credentials ({status})",
                where=self.address,
                hint="correct the registry's credentials of this environment, or ask for the right to this subject",
            )
        if status < HTTPStatus.INTERNAL_SERVER_ERROR and status != HTTPStatus.TOO_MANY_REQUESTS:
            return self._no_registry()
        return Unavailable(f"the schema registry fails ({status})", where=self.address, hint="see its log")

    def _no_registry(self) -> Unavailable:
        return Unavailable(
            "what answers here is no schema registry",
            where=self.address,
            hint="the address needs the path of Confluent's API, which is /apis/ccompat/v7 for Apicurio",
        )


def _is_verdict(error: SchemaRegistryError) -> bool:
    status = error.http_status_code
    if status == HTTPStatus.NOT_FOUND:
        # A 404 without the registry's code comes from something else, and would have every message refused.
        return error.error_code in _NOT_FOUND
    return status in (HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY)


def _reason(error: SchemaRegistryError) -> str:
    text = " ".join(str(error.error_message).split())
    return _JAVA_EXCEPTION.sub("", text)[:_REASON_CHARACTERS]


def _registration_error(subject: str, error: SchemaRegistryError) -> UserError:
    if error.http_status_code == HTTPStatus.CONFLICT:
        return UserError(
            f"the schema is not compatible with the versions before it: {_reason(error)}",
            where=subject,
            hint="keep the fields there are and give new ones a default, or publish a product of a new name",
        )
    return UserError(f"the registry refuses the schema: {_reason(error)}", where=subject)


def _parse(schema_id: int, found: Schema) -> AvroSchema:
    where = f"schema id {schema_id}"
    if found.schema_type not in (None, "AVRO"):
        raise SchemaError(f"this is a {found.schema_type} schema", where=where, hint="headrace's events are Avro")
    return AvroSchema.parse(str(found.schema_str), where=where)
