"""What is shown of dead letters: counts, places and sizes, and bytes only where they are asked for."""

from __future__ import annotations

import io
import json
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from headrace.selfserve.dead_letters import Followed, State, find_letter, look_at_letters, state_of
from headrace.selfserve.dead_letters_view import (
    show_bytes,
    show_letter,
    show_letters,
    show_tally,
    write_letter,
    write_letters,
)
from headrace.selfserve.init import init_mesh
from headrace.selfserve.main import main
from headrace.sinks.dead_letters.redriving import Tally, Wish
from headrace.sinks.dead_letters.verdict import LetterVerdict
from headrace.sinks.landing import Step
from tests.support.faulty import Crash
from tests.support.redriving import REASON, Bench
from tests.support.workers import At

if TYPE_CHECKING:
    from pathlib import Path


def crash() -> None:
    raise Crash


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Two batches have landed, one letter was put back, and a third batch's letters were sent before it could land."""
    bench = Bench(tmp_path_factory.mktemp("bench"))
    with pytest.raises(Crash):
        bench.worker(At(Step.REGISTER, 2, crash)).run()
    bench.redrive(wish=Wish(partition=0, offset=3))
    return bench


def test_each_letter_is_counted_where_it_is(bench: Bench) -> None:
    repeated = [bench.box.kept, bench.box.kept[:1], [replace(bench.box.kept[0], topic_id="another")]]
    letters = look_at_letters(bench.catalog(), bench.product, repeated, Wish(), 2)
    assert dict(letters.counts) == {(REASON, State.IN_TABLE): 1, (REASON, State.OPEN): 1, (REASON, State.AHEAD): 2}
    assert letters.others == 1
    assert [(facts.place, state) for facts, state in letters.newest] == [((1, 8), State.AHEAD), ((1, 3), State.OPEN)]
    assert look_at_letters(bench.catalog(), bench.product, repeated, Wish("null-value"), 2).counts == {}
    assert [state_of(bench.catalog(), bench.product, kept) for kept in bench.box.kept[:2]] == [
        State.IN_TABLE,
        State.OPEN,
    ]


def test_lists_name_no_bytes(bench: Bench) -> None:
    letters = look_at_letters(bench.catalog(), bench.product, [bench.box.kept], Wish(), 20)
    table, document = io.StringIO(), io.StringIO()
    show_letters(letters, table)
    write_letters(letters, document)
    assert "4 dead letters of shop.orders\n  next: headrace dlq show shop.orders" in table.getvalue()
    found = json.loads(document.getvalue())
    assert (found["open"], found["in_table"], found["ahead"]) == (1, 1, 2)
    assert {each["state"] for each in found["letters"]} == {"open", "in_table", "ahead"}
    assert found["letters"][0]["key_bytes"] == 1
    for text in (table.getvalue(), document.getvalue()):
        assert "example.org" not in text
        assert "o1003" not in text


def test_no_letters_are_said_in_a_sentence(bench: Bench) -> None:
    out = io.StringIO()
    show_letters(look_at_letters(bench.catalog(), bench.product, [], Wish(), 20), out)
    assert out.getvalue() == "shop.orders has no dead letters\n"
    out = io.StringIO()
    show_letters(look_at_letters(bench.catalog(), bench.product, [bench.box.kept], Wish("unkown-schema"), 20), out)
    assert out.getvalue() == "shop.orders has no dead letters of reason unkown-schema\n", "it has others"


def test_of_repeats_the_last_reason_counts_in_any_portions(bench: Bench) -> None:
    kept = bench.box.kept
    later = [replace(each, letter=replace(each.letter, reason="undecodable")) for each in kept[:3]]
    for portions in ([[*kept, *later]], [kept, later], [[each] for each in (*kept, *later)]):
        letters = look_at_letters(bench.catalog(), bench.product, portions, Wish(), 2)
        by_reason: Counter[str] = Counter()
        for (reason, _), count in letters.counts.items():
            by_reason[reason] += count
        assert by_reason == {"undecodable": 3, REASON: len(kept) - 3}


def test_a_letter_is_shown_with_its_bytes_only_if_asked(bench: Bench) -> None:
    followed = Followed.by(bench.catalog(), bench.product)
    kept = find_letter(followed, [bench.box.kept], (1, 3))
    assert kept is not None
    assert find_letter(followed, [bench.box.kept], (1, 4)) is None
    verdict = LetterVerdict("undecodable", "its bytes do not fit version 2: at field a.b", "a.b")
    out, document, unmasked = io.StringIO(), io.StringIO(), io.StringIO()
    show_letter(kept, State.OPEN, verdict, bench.product, out)
    write_letter(kept, State.OPEN, verdict, unmasked=False, out=document)
    write_letter(kept, State.OPEN, verdict, unmasked=True, out=unmasked)
    assert "now        undecodable: its bytes do not fit version 2: at field a.b\n" in out.getvalue()
    assert "headers    h3\n" in out.getvalue()
    assert "o1003" not in out.getvalue()
    assert json.loads(document.getvalue())["now"]["path"] == "a.b"
    assert "value" not in json.loads(document.getvalue())
    assert bytes.fromhex(json.loads(unmasked.getvalue())["value"]) == kept.letter.value


def test_letters_of_a_topic_that_was_made_anew_since_are_told_apart(tmp_path: Path) -> None:
    bench = Bench(tmp_path, events=8)
    bench.worker().run()
    bench.redrive(wish=Wish(partition=0, offset=3))
    bench.make_anew("a-new-topic")
    ahead = replace(bench.box.kept[1], topic_id="a-new-topic", generation=2)
    kept = [*bench.box.kept, ahead, replace(ahead, topic_id="never-followed"), replace(ahead, topic_id="a-topic")]
    letters = look_at_letters(bench.catalog(), bench.product, [kept], Wish(), 20)
    assert dict(letters.counts) == {(REASON, State.IN_TABLE): 1, (REASON, State.OPEN): 1, (REASON, State.AHEAD): 1}
    assert letters.others == 2
    assert {(facts.generation, facts.place): state for facts, state in letters.newest} == {
        (1, (0, 3)): State.IN_TABLE,
        (1, (1, 3)): State.OPEN,
        (2, (1, 3)): State.AHEAD,
    }
    followed = Followed.by(bench.catalog(), bench.product)
    assert find_letter(followed, [kept], (1, 3)) == ahead, "the newest"
    found = find_letter(followed, [kept], (0, 3))
    assert found is not None
    assert state_of(bench.catalog(), bench.product, found) is State.IN_TABLE


def test_bytes_are_dumped_sixteen_a_line() -> None:
    out = io.StringIO()
    show_bytes("key", None, out)
    show_bytes("value", bytes(range(0x3A, 0x4C)), out)
    assert out.getvalue().splitlines() == [
        "key: none",
        "value, 18 bytes:",
        "  00000000  3a 3b 3c 3d 3e 3f 40 41 42 43 44 45 46 47 48 49  :;<=>?@ABCDEFGHI",
        "  00000010  4a 4b                                            JK",
    ]


def test_a_tally_says_what_to_do_next(bench: Bench) -> None:
    tally = Tally(put_back=2, held=1, ahead=3, untimed=1, others=4, hints={"refused-version": "do this"})
    tally.refused.update({"null-value": 1, "refused-version": 2})
    out = io.StringIO()
    show_tally(tally, bench.product, out)
    assert out.getvalue().splitlines() == [
        "2 put back into shop.orders",
        "1 was in the table already",
        "3 are not yet passed by the sink, which reads them itself",
        "1 is still refused: null-value",
        "  next: it stays a letter: a tombstone is no event",
        "2 are still refused: refused-version",
        "  next: do this",
        "1 do not say their timestamp: an earlier headrace wrote them; publish them anew",
        "4 came from an earlier topic of this name",
    ]


def test_wrong_places_are_refused_with_an_example(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    init_mesh(tmp_path / "mesh")
    for words in (["show", "shop.orders", "0-17"], ["redrive", "shop.orders", "--offset", "3"]):
        assert main(["--mesh", str(tmp_path / "mesh"), "dlq", *words]) == 2
        assert "  next: " in capsys.readouterr().err
