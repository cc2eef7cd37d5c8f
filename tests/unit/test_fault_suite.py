"""Which test covers which fault: the list that the fault suite is to be complete by."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

# What may go wrong, and the tests that let it happen. After each, the proof holds and DuckDB counts every event once.
FAULTS: dict[str, tuple[str, ...]] = {
    "each step of a landing, dying before it and after it": (
        "faults/test_landing_matrix.py::test_a_worker_that_dies_at_a_step_is_followed_by_one_that_completes",
        "faults/test_landing_matrix.py::test_a_worker_that_dies_at_any_look_at_the_table",
        "faults/test_sigkill.py::test_workers_killed_at_every_step_lose_nothing_and_double_nothing",
    ),
    "each step of a landing, its outcome unknown": (
        "faults/test_landing_matrix.py::test_a_commit_that_fails_in_any_way_lands_once",
        "faults/test_landing_matrix.py::test_a_worker_that_dies_before_it_learns_a_failed_commit_s_outcome",
        "faults/test_storage_matrix.py::test_a_file_that_cannot_be_written_delays_a_batch",
        "faults/test_catalog_errors.py::test_an_unknown_outcome_that_cannot_be_looked_up_for_a_while",
    ),
    "each step of following a version": (
        "unit/test_follow.py::test_whoever_is_killed_while_it_follows_leaves_a_table_that_the_next_one_completes",
        "faults/test_orders_matrix.py::test_a_table_follows_each_version_once",
        "faults/test_versions_mixed.py::test_workers_killed_while_the_table_follows_lose_nothing_and_show_nothing",
    ),
    "each order of an operator": (
        "faults/test_orders_matrix.py::test_a_hold_and_a_release_between_two_batches",
        "faults/test_gap.py::test_an_acceptance_lands_once_whatever_happens_to_its_request",
        "faults/test_ledger_repair.py::test_a_repair_lands_once_whatever_happens_to_its_request",
        "faults/test_apply_killed.py::test_a_process_that_is_killed_at_each_change_of_a_catalog",
    ),
    "kill -9 at random": (
        "faults/test_storms.py::test_thirty_workers_killed_at_random_moments",
        "soak/test_soak.py::test_a_hundred_workers_killed_at_random",
    ),
    "rebalance storms": (
        "faults/test_storms.py::test_four_workers_that_join_leave_sleep_and_die_all_the_time",
        "faults/test_rebalance.py::test_processes_join_leave_and_die_in_mid_stream",
        "soak/test_soak.py::test_workers_join_leave_sleep_and_die_for_ten_minutes",
    ),
    "a stale worker that wakes up": (
        "faults/test_fencing.py::test_a_worker_that_wakes_up_after_another_took_over_is_refused",
        "faults/test_stale_workers.py::test_workers_that_fall_asleep_at_each_step_of_a_landing",
        "soak/test_soak.py::test_a_worker_that_wakes_up_after_minutes",
    ),
    "the broker restarts": (
        "outages/test_broker_restart.py::test_a_broker_killed_in_mid_stream_loses_nothing",
        "outages/test_broker_restart.py::test_a_sink_that_starts_without_a_broker_waits_for_it",
        "soak/test_soak.py::test_a_broker_that_is_killed_five_times",
    ),
    "the network fails": (
        "faults/test_network.py::test_a_sink_behind_a_network_that_fails",
        "faults/test_network.py::test_one_of_two_sinks_is_cut_off_and_comes_back",
    ),
    "the registry is away": (
        "faults/test_registry_away.py::test_a_registry_that_is_away_for_a_while",
        "outages/test_broker_restart.py::test_a_registry_killed_before_an_unseen_schema_arrives_is_waited_for",
        "soak/test_soak.py::test_a_registry_that_is_away_for_more_than_a_minute",
    ),
    "the disk is full": (
        "faults/test_storage.py::test_a_full_disk_delays_a_batch_and_loses_nothing",
        "faults/test_file_limit.py::test_a_worker_whose_files_may_not_grow_waits_and_another_lands_its_batch",
    ),
    "storage answers late, or not at all": (
        "faults/test_storage_matrix.py::test_a_rival_that_lands_while_a_file_is_being_written",
        "faults/test_storage_matrix.py::test_a_file_that_cannot_be_read_for_a_while_delays_a_batch",
        "faults/test_storage_matrix.py::test_a_rival_that_lands_while_the_table_s_metadata_is_being_read",
    ),
    "catalog errors of each kind": (
        "faults/test_catalog_errors.py::test_a_commit_that_is_answered_with_an_error_lands_once",
        "faults/test_catalog_errors.py::test_a_look_at_the_table_that_is_answered_with_an_error_decides_nothing",
        "faults/test_catalog_errors.py::test_a_sink_meets_one_error_after_the_other_and_goes_on",
    ),
    "the topic is deleted and made anew": (
        "faults/test_topic.py::test_a_topic_made_anew_stops_its_product_and_no_other",
        "faults/test_topic.py::test_a_topic_made_anew_under_a_running_sink_stops_it",
        "faults/test_topic.py::test_a_topic_made_anew_between_reading_and_committing_is_noticed",
    ),
    "the table is rolled back": (
        "faults/test_rollback.py::test_what_was_rolled_back_is_read_again_and_nothing_else",
        "faults/test_rollback.py::test_rolled_back_while_the_sink_runs",
        "faults/test_other_engines.py::test_another_engine_on_the_table_of_a_running_sink",
        "faults/test_landing_matrix.py::test_a_table_that_loses_what_it_held_under_a_worker_gets_it_again",
    ),
    "the table is dropped": ("faults/test_rollback.py::test_a_dropped_table_stops_its_product_and_no_other",),
    "others expire its snapshots, or compact it": (
        "faults/test_other_engines.py::test_another_engine_on_the_table_of_a_running_sink",
        "faults/test_landing_matrix.py::test_another_engine_that_commits_at_a_step_is_no_reason_to_drop_a_batch",
        "faults/test_rollback.py::test_a_table_whose_history_others_expired_goes_on_from_its_property",
    ),
    "producers abort transactions": ("faults/test_storms.py::test_thirty_workers_killed_at_random_moments",),
    "poison": (
        "faults/test_storms.py::test_thirty_workers_killed_at_random_moments",
        "faults/test_poison.py::test_each_kind_of_poison_becomes_one_dead_letter",
        "faults/test_poison.py::test_one_poison_message_among_many",
    ),
}


@pytest.mark.parametrize("named", sorted(set(chain.from_iterable(FAULTS.values()))))
def test_a_test_that_covers_a_fault_is_there(named: str) -> None:
    path, _, function = named.partition("::")
    assert f"def {function}(" in (TESTS / path).read_text(encoding="utf-8")
