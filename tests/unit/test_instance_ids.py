"""Instance ids: what Kafka does not take is refused before anything starts."""

from __future__ import annotations

import pytest

from headrace.schemas.errors import UserError
from headrace.sinks.setting import check_instance_id


@pytest.mark.parametrize("instance_id", ["", "a b", "é", ".", "..", "a" * 250, "a\n"])
def test_an_instance_id_that_kafka_does_not_take_is_refused(instance_id: str) -> None:
    with pytest.raises(UserError, match="instance id"):
        check_instance_id(instance_id)


@pytest.mark.parametrize("instance_id", [None, "sink-0", "a.b_C-1", "...", "a" * 249])
def test_others_are_taken(instance_id: str | None) -> None:
    check_instance_id(instance_id)
