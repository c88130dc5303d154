"""What a replay goes on with and what it does anew, on effects that no database holds."""

from dataclasses import replace

import pytest

from caseward.checking.walk import Tried
from caseward.offsets import divide, irrevocable, needs_offset, surely_nothing
from caseward.process import IMPOSSIBLE
from tests.unit.test_exploring import BOOK, LEAVE, TELL, with_transition

APPROVE = next(each for each in LEAVE.transitions if each.name == "approve")
FOR_GOOD = with_transition("approve", steps=(replace(BOOK, undo=IMPOSSIBLE), TELL))
STANDS = Tried("book", "settled", "succeeded", standing=True)
TOLD = Tried("tell", "settled", "succeeded", standing=True)


def divided(from_step: str, *effects: Tried) -> tuple[list[str], list[str]]:
    reuse, again = divide(APPROVE, from_step, {each.step: each for each in effects})
    return list(reuse), [step.name for step in again]


def test_what_comes_before_is_gone_on_with_and_the_rest_is_done_again():
    assert divided("tell", STANDS, TOLD) == (["book"], ["tell"])
    assert divided("book", STANDS, TOLD) == ([], ["book", "tell"])


def test_what_somebody_decided_to_do_without_is_gone_on_with():
    assert divided("tell", Tried("book", "settled", "failed", "skipped"), TOLD)[0] == ["book"]


@pytest.mark.parametrize(
    "book",
    [
        STANDS._replace(decision="voided"),
        STANDS._replace(state="blocked", standing=False),
        STANDS._replace(standing=False, offset_at="then"),
    ],
    ids=["voided", "not settled", "taken back"],
)
def test_what_is_not_settled_for_good_is_done_again_though_it_comes_before(book):
    assert divided("tell", book, TOLD) == ([], ["book", "tell"])


@pytest.mark.parametrize(
    ("book", "stuck"),
    [
        (STANDS, {"Book it"}),
        (Tried("book", "running", None), {"Book it"}),
        (Tried("book", "blocked", "unknown"), {"Book it"}),
        (Tried("book", "blocked", "failed"), set()),
        (Tried("book", "settled", "failed", "skipped"), set()),
    ],
    ids=["stands", "under way", "nobody knows", "refused", "left out"],
)
def test_what_can_not_be_taken_back_and_may_stand_is_not_done_again(book, stuck):
    of_story = {"book": book}
    story = next(each for each in FOR_GOOD.transitions if each.name == "approve")
    assert irrevocable(FOR_GOOD, story.steps, of_story, of_story) == stuck
    assert irrevocable(LEAVE, APPROVE.steps, of_story, of_story) == set()


def test_what_surely_did_not_happen_is_looked_at_by_an_undo_and_named_by_no_plan():
    refused = Tried("book", "blocked", "failed")
    assert needs_offset(LEAVE, refused)
    assert surely_nothing(refused)
    assert not needs_offset(LEAVE, TOLD)  # it was declared to need none
