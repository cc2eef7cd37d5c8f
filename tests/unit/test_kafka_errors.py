"""Every error of confluent-kafka has its place in the tree, and its text holds no value of a setting."""

from __future__ import annotations

import logging

import pytest
from confluent_kafka import KafkaError, KafkaException

from headrace.schemas.errors import Bug, HeadraceError, NotApplied, SettingsError, Unavailable, UserError
from headrace.streams import kafka
from headrace.streams.admin import Admin
from headrace.streams.kafka import Problems, client_config, kafka_error, open_consumer, open_producer, producer_config

CODES = {name: code for name in dir(KafkaError) if isinstance(code := getattr(KafkaError, name), int)}
CLASSES: dict[type[HeadraceError], frozenset[str]] = {
    SettingsError: kafka._CREDENTIALS,
    UserError: kafka._RIGHTS | kafka._FENCED | kafka._REFUSED,
    NotApplied: kafka.UNKNOWN_TOPIC,
    Bug: kafka._OURS,
}


def test_the_names_are_librdkafkas() -> None:
    named = frozenset().union(*CLASSES.values())
    assert named <= CODES.keys()
    assert len(named) == sum(map(len, CLASSES.values()))


@pytest.mark.parametrize("name", sorted(CODES))
def test_each_code_has_one_class(name: str) -> None:
    expected = next((kind for kind, names in CLASSES.items() if name in names), Unavailable)
    error = kafka_error(KafkaException(KafkaError(CODES[name])), where="shop.orders")
    assert type(error) is expected
    assert error.where == "shop.orders"


def test_a_time_out_is_told_by_what_was_reported_on_the_side() -> None:
    problems = Problems()
    timed_out = KafkaError(KafkaError._TIMED_OUT)
    assert type(problems.error(timed_out, where="x")) is Unavailable
    problems(KafkaError(KafkaError._AUTHENTICATION, "wrong password"))
    problems(KafkaError(KafkaError._ALL_BROKERS_DOWN))
    assert type(problems.error(timed_out, where="x")) is SettingsError
    # Only a time-out is explained in this way: what the broker said itself stands.
    assert type(problems.error(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART), where="x")) is NotApplied


def test_settings_that_librdkafka_refuses_are_named_without_their_value() -> None:
    base = {"bootstrap.servers": "127.0.0.1:1", "sasl.passwort": "hunter2"}
    for opened in (
        lambda: open_producer(producer_config(base, Problems())),
        lambda: open_consumer(client_config(base, Problems(), group_id="g")),
        lambda: Admin(base),
    ):
        with pytest.raises(SettingsError, match=r"sasl\.passwort") as caught:
            opened()
        assert "hunter2" not in str(caught.value)


def test_a_cluster_that_does_not_answer_is_unavailable_and_silent(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "headrace.librdkafka"), pytest.raises(Unavailable) as caught:
        Admin({"bootstrap.servers": "127.0.0.1:1"}, request_timeout_s=1.0).topic("shop.orders")
    assert caught.value.where == "127.0.0.1:1"
    assert "headrace up" in str(caught.value)
    assert "Connection refused" in caplog.text
    assert capfd.readouterr() == ("", "")
