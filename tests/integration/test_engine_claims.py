"""Claims: one person has a case in hand, and everybody sees who."""

from dataclasses import replace

import pytest

from caseward.cases import queries
from caseward.cases.queries import CaseFilter
from caseward.errors import ActionNotAllowed, CaseNotFound, IdempotencyKeyReused, VersionStale
from caseward.process import Confirmation
from caseward.situation import Actor
from tests.integration.desk import Desk, all_at_once
from tests.integration.parcels import CHIEF, CLERK, OPERATOR, parcels, person

CLERKS = frozenset({"clerk", "chief"})
PARCELS = parcels()
CLAIMABLE = replace(
    PARCELS,
    states=tuple(
        replace(state, claimable_by=CLERKS if state.name in {"draft", "stored"} else frozenset())
        for state in PARCELS.states
    ),
)
OTHER = person("clerk", "chief", name="otto-other")


@pytest.fixture
def desk(database) -> Desk:
    return Desk(database, CLAIMABLE)


async def refused(work) -> str:
    with pytest.raises(ActionNotAllowed) as caught:
        await work
    return caught.value.first_code


class TestClaiming:
    async def test_is_one_operation_that_everybody_sees_at_once(self, desk: Desk):
        case = await desk.open()
        before = await case.row()
        accepted = await case.claim()
        row, document = await case.row(), await case.document(OTHER)
        assert (row.assignee, document.assignee, row.version) == (CLERK.id, CLERK.id, before.version + 1)
        assert (row.fence, row.latest_id, row.visit) == (before.fence, before.latest_id, before.visit)
        operation = await case.operation_document(accepted.operation_id)
        assert (operation.kind, operation.name, operation.state) == ("claim", "claim", "completed")
        entry = (await case.entries())[-1]
        assert (entry.type, entry.actor_id, entry.actor_role) == ("case.claimed", CLERK.id, "clerk")
        assert entry.data == {"assignee": CLERK.id}

    async def test_tells_the_workflow_nothing(self, desk: Desk):
        case = await desk.open()
        before = len(await case.messages())
        await case.claim()
        assert len(await case.messages()) == before

    async def test_twice_by_one_key_is_one_claim(self, desk: Desk):
        case = await desk.open()
        first, second = await case.claim(key="k"), await case.claim(key="k")
        assert (second.operation_id, second.repeated) == (first.operation_id, True)
        with pytest.raises(IdempotencyKeyReused):
            await case.claim("unclaim", key="k")

    async def test_of_two_at_once_one_gets_it(self, desk: Desk):
        case = await desk.open()
        people = [person("clerk") for _ in range(5)]
        told = await all_at_once(*(case.claim(actor=each) for each in people))
        codes = sorted(each.first_code for each in told if isinstance(each, ActionNotAllowed))
        assert codes == ["claimed_by_other"] * 4
        assert (await case.timeline()).count("case.claimed") == 1

    async def test_is_refused_with_a_reason(self, desk: Desk):
        case = await desk.open()
        assert await refused(case.claim("unclaim")) == "not_claimed"
        assert await refused(case.claim(actor=OPERATOR)) == "role_missing"
        assert await refused(case.claim(actor=Actor("temporal", CLERKS, "temporal"))) == "not_somebody"
        await case.claim()
        assert await refused(case.claim()) == "claimed_already"
        assert await refused(case.claim(actor=CHIEF)) == "claimed_by_other"
        with pytest.raises(VersionStale):
            await case.claim("unclaim", version=1)
        with pytest.raises(CaseNotFound):
            await case.claim(actor=person("stranger"))

    async def test_is_for_states_that_say_so(self, desk: Desk):
        case = await desk.open()
        await case.take("ship")
        assert await refused(case.claim()) == "not_claimable"


class TestAClaimedCase:
    async def test_is_nobody_elses(self, desk: Desk):
        case = await desk.open()
        await case.claim()
        assert await refused(case.take("ship", CHIEF)) == "claimed_by_other"
        actions = {action.name: action for action in (await case.document(CHIEF)).actions}
        assert [reason.code for reason in actions["ship"].reasons] == ["claimed_by_other"]
        assert actions["claim"].href == f"/v1/cases/{case.id}/claim"
        await case.take("ship", CLERK)

    async def test_is_free_again_once_it_leaves_the_state(self, desk: Desk):
        case = await desk.open()
        await case.claim()
        await case.take("store", CLERK)
        assert (await case.row()).assignee is None
        await case.take("abandon", CHIEF)

    async def test_stays_claimed_where_it_stays(self, desk: Desk):
        case = await desk.open()
        await case.claim()
        await case.take("correct", CLERK, parcel={"to": "Bergen", "weight": 2.0})
        assert (await case.row()).assignee == CLERK.id

    async def test_is_no_matter_to_overrides(self, desk: Desk):
        case = await desk.open()
        await case.claim()
        await case.override("pause", OPERATOR)
        await case.claim("unclaim")
        await case.override("force_cancel")
        assert (await case.row()).state == "cancelled"


class TestUnclaiming:
    async def test_is_the_claimants_and_the_operators(self, desk: Desk):
        case = await desk.open()
        await case.claim()
        assert await refused(case.claim("unclaim", CHIEF)) == "role_missing"
        await case.claim("unclaim", OPERATOR)
        entry = (await case.entries())[-1]
        assert (entry.type, entry.actor_id, entry.data) == ("case.unclaimed", OPERATOR.id, {"assignee": CLERK.id})
        await case.claim(actor=CHIEF)

    async def test_is_whom_the_deadline_calls(self, desk: Desk):
        case = await desk.open()
        await case.take("store")
        await case.claim()
        await case.claim("unclaim", CHIEF)  # whom `stored` escalates to
        assert (await case.row()).assignee is None

    async def test_is_the_claimants_whatever_they_may_no_more(self, desk: Desk):
        case = await desk.open()
        await case.claim()
        await case.claim("unclaim", replace(CLERK, roles=frozenset({"auditor"})))


class TestAListOfCases:
    async def test_is_filtered_by_who_claimed_them(self, desk: Desk, database):
        mine, other = await desk.open(), await desk.open()
        me = person("clerk")
        await mine.claim(actor=me)
        await other.claim(actor=OTHER)
        async with database.transaction() as session:
            wanted = CaseFilter(assignee=me.id)
            listed = await queries.list_cases(session, desk.catalogue, wanted=wanted, actor=OTHER)
        assert [(row.case_id, row.assignee) for row in listed.cases] == [(mine.id, me.id)]


class TestAProposal:
    async def test_of_the_claimant_is_confirmed_by_whoever_looks_at_the_case_next(self, database):
        two = Confirmation(by=1, roles=CLERKS)
        guarded = tuple(replace(t, confirmation=two if t.name == "ship" else None) for t in CLAIMABLE.transitions)
        desk = Desk(database, replace(CLAIMABLE, transitions=guarded))
        case = await desk.open()
        await case.claim()
        await case.take("ship", CLERK)
        await case.claim("unclaim")
        await case.claim(actor=OTHER)
        proposal = (await case.document(OTHER)).proposals[0]
        assert proposal.confirm.allowed
        assert not proposal.stale
