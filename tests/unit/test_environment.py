"""Environments: what clients are given, where secrets come from, and that no secret is ever shown."""

from __future__ import annotations

import json
import re
import stat
import threading
from typing import TYPE_CHECKING

import pytest
from pydantic import ValidationError

from headrace.schemas.environment import (
    HMAC_KEY_FILE,
    Environment,
    EnvironmentSettings,
    ensure_hmac_key,
    implicit_embedded,
)
from headrace.schemas.errors import SettingsError, Unavailable
from headrace.schemas.product import Domain
from headrace.schemas.secrets import literal_fault, resolve

if TYPE_CHECKING:
    from pathlib import Path

FLEET = Domain("fleet", "owner", "description", "planes/fleet", {})
EXTERNAL = {
    "kafka": {"bootstrap.servers": "kafka:9092", "sasl.password": "${env:KAFKA_PASSWORD}", "enable.idempotence": True},
    "registry": {"url": "http://registry", "basic.auth.user.info": "${file:secrets/registry}"},
    "catalog": {"type": "rest", "warehouse": "{domain}-{storage}", "credential": "id:${env:CATALOG_SECRET}"},
    "topic_prefix": "prod.",
    "masking": {"hmac_key": "${file:key}"},
}


def external(root: Path, **changes: object) -> Environment:
    return Environment("production", root, EnvironmentSettings.model_validate({**EXTERNAL, **changes}))


def embedded(root: Path) -> Environment:
    return Environment("embedded", root, implicit_embedded())


def test_an_external_environment_fills_secrets_in_when_they_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA_PASSWORD", "pa}ss ${env:HOME}")
    monkeypatch.setenv("CATALOG_SECRET", "c4t")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "registry").write_text("me:secret\r\n")
    (tmp_path / "key").write_text("k" * 32 + "\n")
    environment = external(tmp_path)
    assert environment.stack == "external"
    assert environment.topic_prefix == "prod."
    assert environment.commit_interval_s is None
    assert environment.state == tmp_path / ".headrace" / "production"
    assert environment.kafka_config() == {
        "bootstrap.servers": "kafka:9092",
        # What a secret holds is not read again.
        "sasl.password": "pa}ss ${env:HOME}",
        "enable.idempotence": "true",
    }
    assert environment.registry_config() == {"url": "http://registry", "basic.auth.user.info": "me:secret"}
    assert environment.catalog_properties(FLEET) == {
        "type": "rest",
        "warehouse": "fleet-planes/fleet",
        "credential": "id:c4t",
    }
    assert environment.hmac_key() == b"k" * 32


def test_a_missing_secret_names_the_setting_and_the_variable_or_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KAFKA_PASSWORD", raising=False)
    environment = external(tmp_path)
    with pytest.raises(SettingsError) as caught:
        environment.kafka_config()
    assert "KAFKA_PASSWORD" in caught.value.what
    assert caught.value.where == "mesh.yaml: environments.production.kafka.sasl.password"
    assert caught.value.hint is not None
    assert "export KAFKA_PASSWORD" in caught.value.hint
    with pytest.raises(SettingsError, match="secrets/registry does not exist") as caught:
        environment.registry_config()
    assert caught.value.where == "mesh.yaml: environments.production.registry.basic.auth.user.info"


def test_files_that_hold_no_secret(tmp_path: Path) -> None:
    for content, words in ((b"\n", "is empty"), (b"\xff\xfe", "not UTF-8"), (b"x" * 70_000, "too large")):
        (tmp_path / "secret").write_bytes(content)
        with pytest.raises(SettingsError, match=words) as caught:
            resolve("${file:secret}", setting="s", root=tmp_path)
        assert "xxx" not in str(caught.value)
    with pytest.raises(SettingsError, match="cannot be read"):
        resolve("${file:.}", setting="s", root=tmp_path)


def test_a_short_key_and_no_key_are_refused(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("fifteen bytes!!")
    with pytest.raises(SettingsError, match="fewer than 16 bytes") as caught:
        external(tmp_path).hmac_key()
    assert "fifteen" not in str(caught.value)
    with pytest.raises(SettingsError, match="no key"):
        external(tmp_path, masking={}).hmac_key()
    with pytest.raises(SettingsError, match=HMAC_KEY_FILE) as caught:
        embedded(tmp_path).hmac_key()
    assert caught.value.hint is not None
    assert "openssl rand" in caught.value.hint


def test_repr_shows_placeholders_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_PASSWORD", "hunter2")
    environment = external(tmp_path)
    environment.kafka_config()
    assert "hunter2" not in repr(environment)
    assert "${env:KAFKA_PASSWORD}" in repr(environment)


def test_the_embedded_environment_reads_the_addresses_that_its_stack_wrote(tmp_path: Path) -> None:
    environment = embedded(tmp_path)
    for method in (environment.kafka_config, environment.registry_config):
        with pytest.raises(Unavailable) as caught:
            method()
        assert caught.value.hint == "headrace up"
    environment.state.mkdir(parents=True)
    endpoints = environment.state / "endpoints.json"
    for broken in ("", "{", "[]", "{}", '{"bootstrap.servers": 1}', "\ud800".encode("utf-8", "surrogatepass").hex()):
        endpoints.write_text(broken)
        with pytest.raises(Unavailable):
            environment.kafka_config()
    written = {"bootstrap.servers": "127.0.0.1:1", "registry.url": "http://127.0.0.1:2/apis/ccompat/v7"}
    endpoints.write_text(json.dumps({**written, "folder": "/another/mesh/.headrace/embedded"}))
    with pytest.raises(Unavailable):
        environment.kafka_config()
    endpoints.write_text(json.dumps({**written, "folder": str(environment.state.resolve())}))
    assert environment.kafka_config() == {"bootstrap.servers": "127.0.0.1:1"}
    assert environment.registry_config() == {"url": "http://127.0.0.1:2/apis/ccompat/v7"}
    assert environment.commit_interval_s == 1.0


def test_the_embedded_catalog_is_one_file_and_one_warehouse_a_domain(tmp_path: Path) -> None:
    tables = tmp_path / ".headrace" / "embedded" / "tables" / "planes" / "fleet"
    assert embedded(tmp_path).catalog_properties(FLEET) == {
        "type": "sql",
        "uri": f"sqlite:///{tables}/catalog.db",
        "warehouse": f"file://{tables}/warehouse",
    }
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "kafka needs bootstrap.servers"),
        ({**EXTERNAL, "registry": {}}, "registry needs url"),
        ({**EXTERNAL, "catalog": {}}, "catalog is missing"),
        ({**EXTERNAL, "catalog": {"warehouse": "{domian}"}}, "{domain}, {storage} and {state}"),
        ({**EXTERNAL, "catalog": {"warehouse": "{}"}}, "{domain}, {storage} and {state}"),
        ({"stack": "embedded", "kafka": {"bootstrap.servers": "x"}}, "must not set bootstrap.servers"),
        ({"stack": "compose", "registry": {"url": "x"}}, "must not set url"),
        ({"stack": "kubernetes"}, "embedded"),
        ({**EXTERNAL, "topic_prefix": "Prod/"}, "pattern"),
        ({**EXTERNAL, "topic_prefix": "p" * 65}, "pattern"),
        ({"stack": "embedded", "sink": {"commit_interval_s": 0}}, "greater than 0"),
        ({"stack": "embedded", "kafak": {}}, "Extra"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(words)) as caught:
        EnvironmentSettings.model_validate(settings)
    assert "input_value" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sasl.password", "hunter2"),
        ("ssl.key.password", "hunter2"),
        ("ssl.key.pem", "hunter2"),
        ("sasl.oauthbearer.client.secret", "hunter2"),
        ("basic.auth.user.info", "me:hunter2"),
        ("bearer.auth.token", "hunter2"),
        ("credential", "hunter2"),
        ("token", "hunter2"),
        ("s3.secret-access-key", "hunter2"),
        ("s3.access-key-id", "hunter2"),
        ("s3.session-token", "hunter2"),
        ("adls.connection-string", "hunter2"),
        ("adls.account-key", "hunter2"),
        ("hmac_key", "hunter2"),
        ("header.Authorization", "Bearer hunter2"),
        ("Password", "hunter2"),
        ("url", "http://me:hunter2@registry"),
        ("uri", "postgresql+psycopg2://me:hunter2@db/iceberg"),
        ("sasl.password", "${env:hunter2"),
        ("sasl.password", "${hunter2}"),
        ("sasl.password", "${vault:hunter2}"),
        ("sasl.password", "${env:hunter2 x}"),
        ("client.id", "${ENV:hunter2}"),
    ],
)
def test_literal_secrets_and_unknown_placeholders_are_faults(key: str, value: str) -> None:
    found = literal_fault(key, value)
    assert found is not None
    assert "hunter2" not in "".join(found)
    assert "${env:NAME} or ${file:PATH}" in found[1]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sasl.password", "${env:KAFKA_PASSWORD}"),
        ("sasl.password", ""),
        ("basic.auth.user.info", "me:${file:/run/secrets/x}"),
        ("uri", "postgresql+psycopg2://me:${env:DB_PASSWORD}@db/iceberg"),
        ("url", "http://registry:8081"),
        ("ssl.key.location", "/etc/ssl/key.pem"),
        ("ssl.ca.location", "/etc/ssl/ca.pem"),
        ("sasl.username", "me"),
        ("sasl.oauthbearer.token.endpoint.url", "https://login"),
        ("bootstrap.servers", "a:1,b:2"),
        ("gcs.oauth2.token-expires-at", "17"),
        ("warehouse", "{domain}"),
    ],
)
def test_everything_else_may_stand_in_the_file(key: str, value: str) -> None:
    assert literal_fault(key, value) is None


def test_the_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    assert ensure_hmac_key(tmp_path) is True
    path = tmp_path / HMAC_KEY_FILE
    text = path.read_text()
    assert re.fullmatch(r"[0-9a-f]{64}\n", text)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert ensure_hmac_key(tmp_path) is False
    assert path.read_text() == text
    assert [entry.name for entry in path.parent.iterdir()] == ["hmac.key"]
    assert embedded(tmp_path).hmac_key() == text.strip().encode()


def test_of_many_makers_one_wins(tmp_path: Path) -> None:
    start = threading.Barrier(8)
    made: list[bool] = []
    keys: list[bytes] = []

    def make() -> None:
        start.wait()
        made.append(ensure_hmac_key(tmp_path))
        keys.append(embedded(tmp_path).hmac_key())

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made.count(True) == 1
    assert len(set(keys)) == 1
    assert len(list((tmp_path / ".headrace").iterdir())) == 1


def test_a_key_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / ".headrace").write_text("in the way")
    with pytest.raises(SettingsError, match="cannot be written"):
        ensure_hmac_key(tmp_path)
