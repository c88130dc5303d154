"""Examining a chain: every kind of tampering is named, at the entry where it happened."""

import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caseward.cases.timeline import canonical_text, new_entry
from caseward.evidence import (
    FORMAT,
    FORMAT_VERSION,
    GENESIS,
    Chain,
    Link,
    NotEvidence,
    canonical,
    checkpoint,
    compare,
    examine,
    linked,
    read_checkpoint,
    read_evidence,
)
from caseward.situation import Actor

CASE = UUID(int=1)
NOW = datetime(2026, 5, 4, 9, 30, tzinfo=UTC)


def life(length: int = 9) -> Chain:
    """A timeline as the engine writes it."""
    case = SimpleNamespace(id=CASE, timeline_number=0, timeline_head=GENESIS)
    entries = [
        new_entry(
            case,
            "effect.skipped",
            at=NOW + timedelta(seconds=number),
            actor=Actor("mara", frozenset({"clerk"})),
            reason=f"Reason {number}",
            data={"title": "Größe", "weight": 1e16, "parts": [0.5, -0.0]},
        )
        for number in range(length)
    ]
    links = tuple(Link(entry.number, canonical_text(entry), entry.hash) for entry in entries)
    return Chain(str(CASE), links, length, case.timeline_head)


def edited(link: Link, **changes) -> Link:
    """With other content, and the hash as it was."""
    content = json.loads(link.canonical) | changes
    return Link(content["number"], canonical(content), link.hash)


def rehashed(link: Link, previous: bytes) -> Link:
    return Link(link.number, link.canonical, linked(previous, link.canonical))


def with_links(chain: Chain, links) -> Chain:
    return Chain(chain.case_id, tuple(links), chain.length, chain.head)


def renumbered(links) -> list[Link]:
    return [edited(link, number=number) for number, link in enumerate(links, start=1)]


def found(chain: Chain) -> list[tuple[int, str]]:
    return [(finding.number, finding.kind) for finding in examine(chain)]


class TestExamine:
    @pytest.mark.parametrize("length", [0, 1, 2, 9, 3000])
    def test_an_untouched_chain_is_whole(self, length):
        assert examine(life(length)) == []

    @pytest.mark.parametrize("number", [1, 2, 5, 8, 9])
    def test_an_edited_entry_is_named(self, number):
        links = list(life().links)
        links[number - 1] = edited(links[number - 1], reason="Another")
        assert found(with_links(life(), links)) == [(number, "edited")]

    def test_several_edited_entries_are_all_named(self):
        links = list(life().links)
        for number in (2, 6, 9):
            links[number - 1] = edited(links[number - 1], reason="Another")
        assert found(with_links(life(), links)) == [(2, "edited"), (6, "edited"), (9, "edited")]

    @pytest.mark.parametrize("number", [1, 4, 8])
    def test_one_edited_with_its_hash_shows_at_the_next_and_is_named_there(self, number):
        links = list(life().links)
        previous = links[number - 2].hash if number > 1 else GENESIS
        links[number - 1] = rehashed(edited(links[number - 1], reason="Another"), previous)
        (finding,) = examine(with_links(life(), links))
        assert finding.number == number + 1
        assert f"entry {number} was replaced" in finding.sentence

    def test_the_last_one_edited_with_its_hash_shows_by_the_head(self):
        links = list(life().links)
        links[-1] = rehashed(edited(links[-1], reason="Another"), links[-2].hash)
        assert found(with_links(life(), links)) == [(9, "head")]

    @pytest.mark.parametrize("number", [1, 2, 5, 8])
    def test_a_removed_entry_is_missing(self, number):
        links = [link for link in life().links if link.number != number]
        (finding,) = examine(with_links(life(), links))
        assert (finding.kind, finding.sentence) == ("missing", f"entry {number} is missing")

    def test_several_removed_ones_are_missing(self):
        links = [link for link in life().links if link.number not in {3, 4, 7}]
        sentences = [finding.sentence for finding in examine(with_links(life(), links))]
        assert sentences == ["entries 3 to 4 are missing", "entry 7 is missing"]

    @pytest.mark.parametrize("number", [2, 5, 7])
    def test_a_removed_entry_is_missing_though_the_rest_was_renumbered(self, number):
        links = renumbered([link for link in life().links if link.number != number])
        findings = examine(Chain(str(CASE), tuple(links), 8, life().head))
        assert findings[0].kind == "missing"
        assert findings[0].sentence == f"entry {number} is missing, and the rest was renumbered"

    @pytest.mark.parametrize("kept", [0, 1, 6, 8])
    def test_a_cut_tail_is_missing(self, kept):
        (finding,) = examine(with_links(life(), life().links[:kept]))
        assert (finding.number, finding.kind) == (kept + 1, "missing")
        assert finding.sentence.endswith("the end was cut off")

    @pytest.mark.parametrize("number", [2, 5, 8])
    @pytest.mark.parametrize("fitting", [False, True], ids=["hash made up", "hash fits"])
    def test_an_inserted_entry_is_told_from_an_edited_one(self, number, fitting):
        links = list(life().links)
        slipped_in = edited(links[0], reason="Slipped in", number=number)
        if fitting:
            slipped_in = rehashed(slipped_in, links[number - 2].hash)
        links = renumbered([*links[: number - 1], slipped_in, *links[number - 1 :]])
        if fitting:
            links[number - 1] = rehashed(links[number - 1], links[number - 2].hash)
        chain = Chain(str(CASE), tuple(links), 10, life().head)
        assert (number, "inserted") in found(chain)
        assert {kind for _, kind in found(chain)} <= {"inserted", "head", "missing"}

    @pytest.mark.parametrize("number", [10, 0, -3])
    def test_one_outside_of_the_numbers_was_inserted(self, number):
        extra = edited(life().links[0], number=number, reason="Slipped in")
        assert found(with_links(life(), [*life().links, extra])) == [(number, "inserted")]

    def test_a_tail_that_goes_on_behind_the_head_was_inserted(self):
        extra = edited(life().links[0], number=10, reason="Slipped in")
        extra = rehashed(extra, life().head)
        assert found(with_links(life(), [*life().links, extra])) == [(10, "inserted")]

    def test_swapped_entries_were_moved(self):
        links = list(life().links)
        links[2], links[3] = edited(links[3], number=3), edited(links[2], number=4)
        kinds = [kind for _, kind in found(with_links(life(), links))]
        assert "reordered" in kinds
        assert set(kinds) <= {"reordered", "renumbered"}

    def test_an_entry_of_another_case_does_not_belong(self):
        links = list(life().links)
        links[4] = edited(links[4], case_id=str(UUID(int=2)))
        assert found(with_links(life(), links)) == [(5, "edited")]

    def test_a_chain_made_anew_is_whole_and_only_an_older_head_shows_it(self):
        kept, links = life(), list(life().links)
        links[3] = edited(links[3], reason="Another")
        previous = links[2].hash
        for at in range(3, 9):
            links[at] = rehashed(links[at], previous)
            previous = links[at].hash
        anew = Chain(str(CASE), tuple(links), 9, previous)
        assert examine(anew) == []
        assert [f.kind for f in compare(anew, length=kept.length, head=kept.head)] == ["rewritten"]
        assert compare(anew, length=3, head=kept.links[2].hash) == [], "up to there it is what it was"

    def test_a_chain_that_only_grew_is_the_one_it_was(self):
        assert compare(life(9), length=5, head=life(5).head) == []
        assert [f.number for f in compare(life(4), length=5, head=life(5).head)] == [5]

    @given(
        length=st.integers(1, 12),
        where=st.integers(0, 11),
        change=st.sampled_from(("remove", "double", "swap", "cut", "edit", "edit with hash", "remove and renumber")),
    )
    def test_no_change_goes_unseen_and_none_stops_the_examination(self, length, where, change):
        chain = life(length)
        links, where = list(chain.links), where % length
        match change:
            case "remove":
                del links[where]
            case "double":
                links.insert(where, links[where])
            case "swap":
                other = (where + 1) % length
                if other == where:
                    return
                links[where], links[other] = (
                    edited(links[other], number=where + 1),
                    edited(links[where], number=other + 1),
                )
            case "cut":
                del links[where:]
            case "edit":
                links[where] = edited(links[where], reason="Another")
            case "edit with hash":
                links[where] = rehashed(
                    edited(links[where], reason="Another"), links[where - 1].hash if where else GENESIS
                )
            case "remove and renumber":
                links = renumbered([*links[:where], *links[where + 1 :]])
        assert examine(with_links(chain, links))


class TestFiles:
    def document(self, of: Chain, **changes):
        timeline = [{"number": e.number, "canonical": e.canonical, "hash": e.hash.hex()} for e in of.links]
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "case": {"case_id": of.case_id},
            "timeline": timeline,
            "chain": {"entries": of.length, "head": of.head.hex()},
        } | changes

    def test_are_read_back_as_they_were(self):
        assert read_evidence(json.loads(json.dumps(self.document(life())))) == life()

    @pytest.mark.parametrize(
        "changes",
        [
            {"format": "other"},
            {"format_version": 2},
            {"timeline": [{"number": 1}]},
            {"chain": {}},
            {"case": {"case_id": str(UUID(int=2))}},
            {"timeline": [{"number": 2, "canonical": life().links[0].canonical, "hash": "00"}]},
        ],
        ids=str,
    )
    def test_what_is_none_is_said_to_be_none(self, changes):
        with pytest.raises(NotEvidence):
            read_evidence(self.document(life(), **changes))

    @pytest.mark.parametrize("document", [None, [], {}, "text", {"format": FORMAT}], ids=str)
    def test_nor_does_anything_else_pass(self, document):
        with pytest.raises(NotEvidence):
            read_evidence(document)
        with pytest.raises(NotEvidence):
            read_checkpoint(document)

    def test_a_checkpoint_keeps_length_and_head(self):
        kept = read_checkpoint(json.loads(json.dumps(checkpoint([life()], made_at="now"))))
        assert kept == {str(CASE): (9, life().head)}
