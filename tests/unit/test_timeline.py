"""The timeline's chain: whatever is done to the entries behind the engine's back shows at its number."""

from datetime import UTC, datetime, timedelta, timezone
from types import SimpleNamespace
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caseward.cases.timeline import chained, first_break, new_entry
from caseward.db.tables import Entry
from caseward.entries import SENTENCES, sentence
from caseward.evidence import GENESIS
from caseward.situation import Actor

NOW = datetime(2026, 5, 4, 9, 30, tzinfo=UTC)
MARA = Actor("mara", frozenset({"clerk"}))


def life(length: int = 5) -> tuple[list[Entry], bytes]:
    """A timeline with its head, as the case row keeps it."""
    case = SimpleNamespace(id=UUID(int=1), timeline_number=0, timeline_head=GENESIS)
    entries = [
        new_entry(
            case,
            "effect.succeeded",
            at=NOW + timedelta(seconds=number),
            actor=MARA,
            role="clerk",
            reason=f"Reason {number}",
            operation_id=UUID(int=number),
            effect_key=f"{number}:book",
            traceparent="00-1-1-01",
            data={"title": "Book", "partner": "calendar", "result": {"number": number}},
        )
        for number in range(length)
    ]
    return entries, case.timeline_head


def forged(entry: Entry, **changes) -> Entry:
    columns = {column.name: getattr(entry, column.name) for column in Entry.__table__.columns}
    return Entry(**(columns | changes))


class TestTheChain:
    @pytest.mark.parametrize("length", [0, 1, 5])
    def test_of_an_untouched_timeline_is_whole(self, length):
        assert first_break(*life(length)) is None

    @pytest.mark.parametrize("number", [1, 3, 5])
    @pytest.mark.parametrize(
        "changes",
        [
            {"type": "effect.skipped"},
            {"at": NOW - timedelta(days=1)},
            {"actor_id": "ned"},
            {"actor_role": None},
            {"actor_via": "system"},
            {"reason": "Another reason"},
            {"reason": None},
            {"operation_id": None},
            {"effect_key": "7:book"},
            {"traceparent": None},
            {"data": {"title": "Book", "partner": "calendar", "result": {"number": 99}}},
            {"case_id": UUID(int=2)},
            {"hash": bytes(32)},
        ],
        ids=lambda changes: " ".join(f"{name}={value}" for name, value in changes.items())[:30],
    )
    def test_shows_an_edited_entry(self, number, changes):
        entries, head = life()
        entries[number - 1] = forged(entries[number - 1], **changes)
        assert first_break(entries, head) == number

    @pytest.mark.parametrize("number", [1, 3])
    def test_shows_an_edited_entry_with_a_hash_that_fits_it(self, number):
        entries, head = life()
        entry = forged(entries[number - 1], actor_id="ned")
        entry.hash = chained(entries[number - 2].hash if number > 1 else GENESIS, entry)
        entries[number - 1] = entry
        assert first_break(entries, head) == number + 1, "the next one was chained to another"

    @pytest.mark.parametrize("number", [1, 2, 5])
    def test_shows_a_removed_entry(self, number):
        entries, head = life()
        del entries[number - 1]
        assert first_break(entries, head) == number

    def test_shows_a_removed_entry_though_the_rest_was_numbered_anew(self):
        entries, head = life()
        del entries[1]
        entries = [forged(entry, number=number) for number, entry in enumerate(entries, start=1)]
        assert first_break(entries, head) == 2

    @pytest.mark.parametrize("number", [1, 3, 6])
    def test_shows_an_inserted_entry(self, number):
        entries, head = life()
        entries.insert(number - 1, forged(entries[0], number=number, reason="Slipped in"))
        assert first_break(entries, head) == number

    def test_shows_reordered_entries(self):
        entries, head = life()
        entries[1], entries[2] = forged(entries[2], number=2), forged(entries[1], number=3)
        assert first_break(entries, head) == 2

    @pytest.mark.parametrize("kept", [0, 1, 4])
    def test_shows_a_cut_tail_behind_the_last_entry(self, kept):
        entries, head = life()
        assert first_break(entries[:kept], head) == kept + 1

    def test_shows_a_tail_that_was_cut_and_grown_again(self):
        entries, head = life()
        case = SimpleNamespace(id=UUID(int=1), timeline_number=4, timeline_head=entries[3].hash)
        again = new_entry(case, "effect.skipped", at=NOW, actor=MARA, data={"title": "Book"})
        assert first_break([*entries[:4], again], head) == 6

    def test_is_the_same_in_every_time_zone(self):
        entries, head = life()
        eastern = [forged(entry, at=entry.at.astimezone(timezone(timedelta(hours=5)))) for entry in entries]
        assert first_break(eastern, head) is None

    @given(
        entries=st.integers(1, 8).map(life),
        where=st.integers(0, 7),
        change=st.sampled_from(("remove", "double", "swap", "cut", "edit")),
    )
    def test_shows_any_of_these_no_later_than_where_it_happened(self, entries, where, change):
        rows, head = list(entries[0]), entries[1]
        where %= len(rows)
        match change:
            case "remove":
                del rows[where]
            case "double":
                rows.insert(where, rows[where])
            case "swap":
                if where + 1 == len(rows):
                    return
                rows[where], rows[where + 1] = rows[where + 1], rows[where]
            case "cut":
                del rows[where:]
            case "edit":
                rows[where] = forged(rows[where], reason="Another")
        assert first_break(rows, head) in {where + 1, where + 2}


class TestVocabulary:
    def test_an_unknown_type_is_refused_when_it_is_written(self):
        case = SimpleNamespace(id=UUID(int=1), timeline_number=0, timeline_head=GENESIS)
        with pytest.raises(ValueError, match=r"case\.exploded"):
            new_entry(case, "case.exploded", at=NOW, actor=MARA, data={})
        assert case.timeline_number == 0

    def test_types_are_past_tense_of_a_subject(self):
        for entry_type in SENTENCES:
            subject, _, event = entry_type.partition(".")
            assert subject in {"case", "deadline", "document", "operation", "override", "attempt", "effect", "message"}
            assert event

    def test_a_missing_fact_is_a_fault_of_the_writer(self):
        with pytest.raises(KeyError):
            sentence("effect.failed", {"title": "Book"})
