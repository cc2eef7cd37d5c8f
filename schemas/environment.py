"""Environments: where a mesh runs. Kafka, registry, a catalog for each domain, and the key of the masks.

``EnvironmentSettings`` is what ``mesh.yaml`` says; ``Environment`` answers what clients ask. Secrets are filled in
when a method needs them, never at load, so that ``check`` runs without any.
"""

from __future__ import annotations

import json
import os
import re
import secrets as random_secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from headrace.schemas.errors import SettingsError, Unavailable
from headrace.schemas.secrets import read_secret, resolve

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from headrace.schemas.product import Domain

DEFAULT_ENVIRONMENT = "embedded"
STATE_FOLDER = ".headrace"
HMAC_KEY_FILE = f"{STATE_FOLDER}/hmac.key"
ENDPOINTS_FILE = "endpoints.json"
# RFC 2104 discourages keys shorter than the hash; 16 bytes is where guessing stops being a way in.
MIN_HMAC_KEY_BYTES = 16
HMAC_KEY_BYTES = 32

Stack: TypeAlias = Literal["embedded", "compose", "external"]
OWN_STACKS = ("embedded", "compose")
Scalar: TypeAlias = bool | int | float | str

BOOTSTRAP = "bootstrap.servers"
# The addresses that a stack of headrace's own writes down when it is up; nobody else may set them.
_OWN_ADDRESSES = (("kafka", BOOTSTRAP), ("registry", "url"))
_CATALOG_FIELDS = ("domain", "storage", "state")
_TEMPLATE_FIELD = re.compile(r"(?<!\$)\{([^{}]*)\}")


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class SinkSettings(_Settings):
    """How sinks commit in this environment, and whether they tell of it."""

    commit_interval_s: float | None = Field(
        default=None, gt=0, le=3600, allow_inf_nan=False, description="seconds between commits, above 0"
    )
    openlineage: bool = Field(default=False, description="true to send OpenLineage events of the sinks' runs")


class MaskingSettings(_Settings):
    """Where the masks' key comes from."""

    hmac_key: str | None = Field(default=None, min_length=1, description="a placeholder such as ${file:PATH}")


class EnvironmentSettings(_Settings):
    """One environment as ``mesh.yaml`` writes it."""

    stack: Stack = "external"
    kafka: dict[str, Scalar] = Field(default_factory=dict)
    registry: dict[str, Scalar] = Field(default_factory=dict)
    catalog: dict[str, Scalar] = Field(default_factory=dict)
    topic_prefix: str = Field(default="", pattern=r"^([a-z0-9][a-z0-9._-]{0,63})?$", description="such as prod.")
    masking: MaskingSettings = Field(default_factory=MaskingSettings)
    sink: SinkSettings = Field(default_factory=SinkSettings)

    @field_validator("catalog")
    @classmethod
    def _known_fields(cls, catalog: dict[str, Scalar]) -> dict[str, Scalar]:
        for key, value in catalog.items():
            if not set(_TEMPLATE_FIELD.findall(str(value))) <= set(_CATALOG_FIELDS):
                raise ValueError(f"{key} may hold {{domain}}, {{storage}} and {{state}}, no other field in {{ }}")
        return catalog

    @model_validator(mode="after")
    def _addresses(self) -> EnvironmentSettings:
        for section, key in _OWN_ADDRESSES:
            given = key in getattr(self, section)
            if self.stack == "external" and not given:
                raise ValueError(f"{section} needs {key}, because this environment has no stack of its own")
            if self.stack != "external" and given:
                raise ValueError(f"{section} must not set {key}: the stack writes it down when it is up")
        if self.stack == "external" and not self.catalog:
            raise ValueError("catalog is missing: pyiceberg's properties, with {domain} where domains differ")
        return self


@dataclass(frozen=True, slots=True)
class Environment:
    """One environment of a mesh. Its ``repr`` shows placeholders, never secrets.

    Attributes:
        name: the environment's name in ``mesh.yaml``.
        root: the mesh's folder.
        settings: what ``mesh.yaml`` says.
    """

    name: str
    root: Path
    settings: EnvironmentSettings

    @property
    def stack(self) -> Stack:
        """Who runs the servers: headrace itself (``embedded``), Docker Compose, or somebody else (``external``)."""
        return self.settings.stack

    @property
    def topic_prefix(self) -> str:
        """What stands before every topic's name, often nothing."""
        return self.settings.topic_prefix

    @property
    def commit_interval_s(self) -> float | None:
        """Seconds between a sink's commits; None: as the product's SLA asks. The embedded stack commits each second."""
        configured = self.settings.sink.commit_interval_s
        return 1.0 if configured is None and self.stack == "embedded" else configured

    @property
    def openlineage(self) -> bool:
        """Whether sinks send OpenLineage events."""
        return self.settings.sink.openlineage

    @property
    def state(self) -> Path:
        """The environment's folder inside the mesh: servers' data, addresses, embedded tables. Git ignores it."""
        return self.root / STATE_FOLDER / self.name

    def kafka_config(self) -> dict[str, str]:
        """Return librdkafka's properties, secrets filled in.

        Raises:
            SettingsError: if a secret is missing.
            Unavailable: if the environment's own stack is not up.
        """
        config = self._resolved("kafka")
        if self.stack != "external":
            config[BOOTSTRAP] = self._endpoint(BOOTSTRAP)
        return config

    def registry_config(self) -> dict[str, str]:
        """Return the conf of confluent_kafka's ``SchemaRegistryClient``, secrets filled in.

        Raises:
            SettingsError: if a secret is missing.
            Unavailable: if the environment's own stack is not up.
        """
        config = self._resolved("registry")
        if self.stack != "external":
            config["url"] = self._endpoint("registry.url")
        return config

    def catalog_properties(self, domain: Domain) -> dict[str, str]:
        """Return pyiceberg's properties of a domain's catalog, secrets filled in. Makes no folder.

        Raises:
            SettingsError: if a secret is missing.
        """
        if not self.settings.catalog:
            tables = self.state / "tables" / domain.storage
            return {
                "type": "sql",
                "uri": f"sqlite:///{tables / 'catalog.db'}",
                "warehouse": f"file://{tables / 'warehouse'}",
            }
        names = {"domain": domain.name, "storage": domain.storage, "state": str(self.state)}
        return {
            key: resolve(_filled(_text(value), names), setting=self._where("catalog", key), root=self.root)
            for key, value in self.settings.catalog.items()
        }

    def hmac_key(self) -> bytes:
        """Return the key of ``hmac-sha-256``: the UTF-8 bytes of the secret, at least 16.

        Raises:
            SettingsError: if it is missing or too short. A sink must not start without it.
        """
        where = self._where("masking", "hmac_key")
        text = self.settings.masking.hmac_key
        if text is not None:
            key = resolve(text, setting=where, root=self.root)
        elif self.stack == "external":
            raise SettingsError(
                "no key for the masks", where=where, hint="write hmac_key: ${file:PATH} and put a random key there"
            )
        else:
            key = read_secret(
                self.root / HMAC_KEY_FILE,
                setting=where,
                shown=HMAC_KEY_FILE,
                hint=f"restore it from where you keep secrets, or, if nothing was masked with it yet, make one: "
                f"mkdir -p {STATE_FOLDER} && (umask 077 && openssl rand -hex {HMAC_KEY_BYTES} > {HMAC_KEY_FILE})",
            )
        data = key.encode()
        if len(data) < MIN_HMAC_KEY_BYTES:
            raise SettingsError(
                f"the masks' key has fewer than {MIN_HMAC_KEY_BYTES} bytes",
                where=where,
                hint=f"use {HMAC_KEY_BYTES} random bytes in hexadecimal",
            )
        return data

    def _resolved(self, section: str) -> dict[str, str]:
        values: Mapping[str, Scalar] = getattr(self.settings, section)
        return {
            key: resolve(_text(value), setting=self._where(section, key), root=self.root)
            for key, value in values.items()
        }

    def _endpoint(self, key: str) -> str:
        """Read one address that the environment's stack wrote down when it came up."""
        try:
            endpoints: Any = json.loads((self.state / ENDPOINTS_FILE).read_bytes())
            # In a copied mesh the file still names the original's servers, which are not this mesh's to use.
            address = endpoints[key] if endpoints["folder"] == str(self.state.resolve()) else None
        except (OSError, ValueError, KeyError, TypeError):
            address = None
        if not isinstance(address, str):
            raise Unavailable(
                f"the {self.stack} stack of this mesh is not up", where=f"environment {self.name}", hint="headrace up"
            )
        return address

    def _where(self, section: str, key: str) -> str:
        return f"mesh.yaml: environments.{self.name}.{section}.{key}"


def implicit_embedded() -> EnvironmentSettings:
    """Return the settings of the embedded environment where ``mesh.yaml`` says nothing about it."""
    return EnvironmentSettings(stack="embedded")


def ensure_hmac_key(mesh_root: Path) -> bool:
    """Make the mesh's own key file if there is none: 32 random bytes in hexadecimal, readable for its owner alone.

    An existing file is never changed: values masked with another key no longer join. Two processes may call this at
    once; both then see the same whole key.

    Returns:
        Whether this call made it.

    Raises:
        SettingsError: if the file cannot be written.
    """
    path = mesh_root / HMAC_KEY_FILE
    draft = path.with_name(f"{path.name}.{random_secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(random_secrets.token_hex(HMAC_KEY_BYTES) + "\n")
                file.flush()
                os.fsync(file.fileno())
            # A link, unlike a rename, refuses to replace a key that is there.
            path.hardlink_to(draft)
        except FileExistsError:
            return False
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise SettingsError(
            f"the masks' key cannot be written: {error.strerror}",
            where=HMAC_KEY_FILE,
            hint="make the mesh's folder writable",
        ) from None
    return True


def _filled(text: str, names: Mapping[str, str]) -> str:
    """Fill in ``{domain}``, ``{storage}`` and ``{state}``; the braces of placeholders stay."""
    for name, value in names.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def _text(value: Scalar) -> str:
    """Write a YAML scalar as the clients' properties want it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
