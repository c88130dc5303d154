"""Claims: who may take a case in hand, and what others may do meanwhile, as a table."""

from dataclasses import replace

import pytest

from caseward.claims import CLAIM_TITLES, CLAIM_WORDS
from caseward.documents.case import CaseFacts, case_document, status_document
from caseward.policy import Action, decide, decide_all
from caseward.process import CLAIMS
from processes.vendor_onboarding import VENDOR_ONBOARDING
from tests.unit.test_policy import NOW, SITUATIONS, person, situation

REVIEWERS = frozenset({"vendor_reviewer", "vendor_lead"})
CLAIMABLE = replace(
    VENDOR_ONBOARDING,
    states=tuple(replace(s, claimable_by=REVIEWERS) if s.name == "in_review" else s for s in VENDOR_ONBOARDING.states),
)
FREE = situation("in_review", CLAIMABLE)
ANNAS = replace(FREE, assignee="anna")
DRAFT = situation("draft", CLAIMABLE)
PEOPLE = {
    "anna": person("vendor_reviewer", name="anna"),
    "bob": person("vendor_reviewer", name="bob"),
    "lead": person("vendor_lead", name="lea"),  # whom the deadline of in_review calls
    "requester": person("vendor_requester", name="rita"),
    "operator": person("operator", name="olga"),
    "auditor": person("auditor", name="abel"),
}

# "ok", or the code of the refusal.
TABLE = """
             anna             bob               lead              requester         operator        auditor
free claim   ok               ok                ok                role_missing      role_missing    role_missing
free unclaim not_claimed      not_claimed       not_claimed       not_claimed       not_claimed     not_claimed
annas claim  claimed_already  claimed_by_other  claimed_by_other  role_missing      role_missing    role_missing
annas unclaim ok              role_missing      ok                role_missing      ok              role_missing
annas approve ok              claimed_by_other  claimed_by_other  role_missing      role_missing    role_missing
annas reject  ok              claimed_by_other  claimed_by_other  role_missing      role_missing    role_missing
free approve  ok              ok                ok                role_missing      role_missing    role_missing
draft claim   not_claimable   not_claimable     not_claimable     not_claimable     not_claimable   not_claimable
draft unclaim not_claimed     not_claimed       not_claimed       not_claimed       not_claimed     not_claimed
"""
WHERE = {"free": FREE, "annas": ANNAS, "draft": DRAFT}
ROWS = [line.split() for line in TABLE.strip().splitlines()[1:]]


@pytest.mark.parametrize("row", ROWS, ids=[" ".join(row[:2]) for row in ROWS])
def test_who_may(row):
    where, name, *expected = row
    action = Action("claim" if name in CLAIMS else "transition", name)
    for (who, actor), code in zip(PEOPLE.items(), expected, strict=True):
        decision = decide(WHERE[where], actor, action)
        said = decision.reasons[0].code if decision.reasons else "ok"
        assert (who, said) == (who, code)


class TestAClaim:
    def test_keeps_others_from_what_the_claimants_may_do_and_from_nothing_else(self):
        lead = person("vendor_lead", "vendor_requester", name="lea")
        assert decide(ANNAS, lead, Action("transition", "approve")).reasons[0].code == "claimed_by_other"
        lonely = replace(
            CLAIMABLE,
            states=tuple(
                replace(s, claimable_by=frozenset({"vendor_reviewer"}) if s.claimable_by else s.claimable_by)
                for s in CLAIMABLE.states
            ),
        )
        cancel = Action("transition", "cancel")  # the requester's and the lead's
        assert decide(replace(ANNAS, process=lonely), lead, cancel).allowed
        assert not decide(ANNAS, lead, cancel).allowed

    def test_keeps_no_operator_from_an_override(self):
        senior = person("senior_operator")
        assert decide(ANNAS, senior, Action("override", "force_cancel")).allowed

    def test_is_offered_where_a_process_has_such_states(self):
        assert {a.name for a, _ in decide_all(DRAFT, PEOPLE["anna"]) if a.kind == "claim"} == CLAIMS
        assert not [a for a, _ in decide_all(SITUATIONS["blocked"], PEOPLE["anna"]) if a.kind == "claim"]

    def test_an_unknown_one_is_refused(self):
        assert decide(FREE, PEOPLE["anna"], Action("claim", "steal")).reasons[0].code == "unknown_action"

    def test_every_one_has_its_title_and_its_words(self):
        assert set(CLAIM_TITLES) == set(CLAIM_WORDS) == CLAIMS

    def test_is_no_matter_for_temporal(self):
        facts = CaseFacts(business_key="K", title="", subject={}, subject_revision=1, opened_at=NOW, changed_at=NOW)
        assert case_document(ANNAS, facts, PEOPLE["bob"], []).assignee == "anna"
        assert "anna" not in str(status_document(ANNAS, facts, []))
