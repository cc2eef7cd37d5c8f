"""Kafka transactions under a name: all messages of one or none, and one process at a time that writes under it."""

from __future__ import annotations

import contextlib
import hashlib
import time
from typing import TYPE_CHECKING, TypeAlias

from confluent_kafka import KafkaException

from headrace.schemas.errors import Bug, Unavailable
from headrace.streams.kafka import UP_HINT, Problems, cause_of, open_producer, producer_config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from headrace.schemas.errors import HeadraceError

# Everything that reads one of these topics to its end has to wait for the transactions that are open in it; the
# broker ends those of a publisher that died after this time (and looks for them every 10 s).
TRANSACTION_TIMEOUT_S = 30.0
# A commit is repeated until the broker has answered: asking for the same commit again is what the protocol foresees.
# Long enough for a broker that restarts.
PATIENCE_S = 60.0
_ATTEMPT_S = 10.0
_QUEUE_WAIT_S = 0.1

# Topic, key, value.
Outgoing: TypeAlias = "tuple[str, bytes | None, bytes]"


def transactional_id(kind: str, topic: str, identity: str) -> str:
    """Return Kafka's name of the work that an identity does on a topic; names of any length and letters will do."""
    return f"headrace.{kind}.{topic}.{hashlib.sha256(identity.encode()).hexdigest()[:32]}"


def left_open(topic: str) -> Unavailable:
    """Return the error of who waits for a transaction that is open in a topic for longer than it may be."""
    return Unavailable(
        "a transaction of another publisher does not end",
        where=topic,
        hint="try again in a minute; if it stays so, Kafka lost its end: kafka-transactions.sh find-hanging names it",
    )


class Transactions:
    """Writes messages in transactions, one after another. For one thread at a time.

    Args:
        config: the environment's librdkafka properties.
        name: Kafka's ``transactional.id``: who starts under a name that is in use fences the other.
        where: the product's topic, for errors.
        patience_s: how long a start, a commit or an abort without an answer is repeated, in seconds.
    """

    def __init__(self, config: Mapping[str, str], name: str, *, where: str, patience_s: float = PATIENCE_S) -> None:
        self._where = where
        self._patience_s = patience_s
        self._problems = Problems()
        # A transaction has begun and has no outcome; its commit was asked for.
        self._open = self._asked = False
        timeout_ms = int(TRANSACTION_TIMEOUT_S * 1000)
        self._producer = open_producer(
            producer_config(
                config,
                self._problems,
                transactional_id=name,
                transaction_timeout_ms=timeout_ms,
                delivery_timeout_ms=timeout_ms,  # must not be above the transaction's
                delivery_report_only_error=True,
            )
        )

    def start(self) -> None:
        """Fence every older process of this name; its open transaction is over when this returns."""
        try:
            self._repeat(self._producer.init_transactions)
        except KafkaException as error:
            raise self._error(error) from None

    def write(self, messages: Iterable[Outgoing]) -> None:
        """Write messages, all or none. After an error `settle` tells which, and has to be asked before the next write.

        Raises:
            Unavailable: if they are not committed, or nobody can say.
            UserError: if another process took over, or the broker refuses a message.
        """
        if self._open:
            raise Bug("a transaction was left unsettled", where=self._where)
        try:
            self._producer.begin_transaction()
            self._open = True
            for topic, key, value in messages:
                self._produce(topic, key, value)
            self._asked = True
            self._repeat(self._producer.commit_transaction)
        except KafkaException as error:
            mapped = self._error(error)
            self._try_to_abort()
            raise mapped from None
        except BaseException:
            self._try_to_abort()
            raise
        self._open = self._asked = False

    def settle(self) -> bool:
        """Return whether a `write` that raised was committed after all. Nothing of it is open when this returns.

        Raises:
            Unavailable: if still nobody can say.
            UserError: if another process took over.
        """
        committed = False
        try:
            if self._asked:
                committed = self._committed()
            if self._open and not committed:
                self._repeat(self._producer.abort_transaction)
        except KafkaException as error:
            raise self._error(error) from None
        self._open = self._asked = False
        return committed

    def _committed(self) -> bool:
        """Ask for the commit again; False if it is refused, which leaves the transaction to be aborted."""
        try:
            self._repeat(self._producer.commit_transaction)
        except KafkaException as error:
            if error.args[0].retriable():
                raise
            return False
        return True

    def _produce(self, topic: str, key: bytes | None, value: bytes) -> None:
        deadline = time.monotonic() + TRANSACTION_TIMEOUT_S
        while True:
            try:
                self._producer.produce(topic, value, key)
            except BufferError:
                self._producer.poll(_QUEUE_WAIT_S)
                if time.monotonic() > deadline:
                    raise Unavailable("Kafka takes no more events", where=topic, hint=UP_HINT) from None
            else:
                return

    def _repeat(self, call: Callable[[float], None]) -> None:
        """Call until there is an outcome: librdkafka goes on with the same request where the last call left it."""
        deadline = time.monotonic() + self._patience_s
        while True:
            try:
                call(min(_ATTEMPT_S, self._patience_s))
            except KafkaException as error:
                if not error.args[0].retriable() or time.monotonic() > deadline:
                    raise
            else:
                return

    def _error(self, error: KafkaException) -> HeadraceError:
        return self._problems.error(cause_of(self._producer, error), where=self._where)

    def _try_to_abort(self) -> None:
        # Where the broker does not hear it, it ends the transaction by itself after its time-out, and the next
        # process's start ends it before that. A commit without an answer refuses this.
        with contextlib.suppress(KafkaException):
            self._producer.abort_transaction(min(_ATTEMPT_S, self._patience_s))
            self._open = self._asked = False
