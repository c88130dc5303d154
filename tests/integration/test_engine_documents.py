"""Documents in the engine: a step for each of them, an approval of exactly those, and a replay that keeps to both."""

from dataclasses import replace
from uuid import UUID

import pytest

from caseward.activity import Call, NotNeeded
from caseward.cases.confirming import confirm_proposal
from caseward.cases.documents import Uploaded, add_document, list_documents
from caseward.cases.queries import get_plan
from caseward.documents.attached import AttachedDocument
from caseward.errors import ActionNotAllowed
from caseward.messages import StepAnswer, StepCall
from caseward.process import NONE_NEEDED, Confirmation, DocumentKind, Documents, Finding, Process, Step, Verdict
from tests.integration.desk import Desk, Handle, envelope
from tests.integration.parcels import BOOK, CHIEF, CLERK, SENIOR, Parcel, Receipt, parcels, person

LOOK = Step("look", "Look at it", partner="repeatable", result=Verdict, undo=NONE_NEEDED, each=True)
KINDS = (DocumentKind("customs", "Customs form", roles=frozenset({"clerk"}), states=frozenset({"draft"}), most=3),)
_BASE = parcels(LOOK, BOOK, name="declared", documents=Documents(kinds=KINDS, checked_by=LOOK))
ALL_OF_THEM = Confirmation(by=1, roles=frozenset({"chief"}))


def where_others_confirm(process: Process) -> Process:
    transitions = tuple(replace(t, confirmation=ALL_OF_THEM) if t.name == "ship" else t for t in process.transitions)
    return replace(process, transitions=transitions)


@pytest.fixture
def desk(database) -> Desk:
    return Desk(database, _BASE)


@pytest.fixture
def office(database) -> Desk:
    """Where somebody else confirms that it is shipped."""
    return Desk(database, where_others_confirm(_BASE))


async def add(case: Handle, title: str = "a", *, replaces: UUID | None = None) -> UUID:
    content = Uploaded(name=f"{title}.pdf", media_type="application/pdf", size=4, sha256=title * 64)
    async with case.desk.database.transaction() as session:
        return await add_document(
            session,
            case.desk.catalogue,
            case_id=case.id,
            kind="customs",
            content=content,
            replaces=replaces,
            envelope=envelope(CLERK),
        )


async def documents(case: Handle) -> dict[str, AttachedDocument]:
    async with case.desk.database.sessions() as session:
        listed = await list_documents(session, case.desk.catalogue, case_id=case.id, actor=CLERK)
    return {each.name: each for each in listed.documents}


async def look(case: Handle, document: UUID, verdict: Verdict | None = None) -> StepAnswer:
    """What the workflow does for one of the story's documents."""
    operation, row = await case.operation(), await case.row()
    call = StepCall(
        *(row.process, str(row.id), str(operation.id), row.fence, "look"),
        effect_key=f"{operation.id}:look:{document}",
        item=str(document),
    )

    async def body(call: Call[Parcel]) -> Verdict | NotNeeded:
        receipt = await call.send(case.desk.partner.repeatable, sha256=call.document.sha256)
        assert isinstance(receipt, Receipt)
        return verdict or Verdict(accepted=True, pages=1)

    return await case.desk.runner.run(case.desk.process, body, call)


async def seen(case: Handle, entry_type: str) -> list[str]:
    entry = [each for each in await case.entries() if each.type == entry_type][-1]
    return [each["id"] for each in entry.data.get("documents", [])]


class TestEach:
    async def test_every_document_has_an_effect_of_its_own_over_its_own_content(self, desk: Desk):
        case = await desk.open()
        one, two = await add(case, "a"), await add(case, "b")
        await case.take("ship")
        answers = [await look(case, document) for document in (one, two)]
        assert [answer.state for answer in answers] == ["settled", "settled"]
        assert [sent.content["sha256"] for sent in desk.partner.sent] == ["a" * 64, "b" * 64]
        operation = await case.operation()
        assert [sent.key for sent in desk.partner.sent] == [f"{operation.id}:look:{each}" for each in (one, two)]
        assert (await look(case, one)).result == answers[0].result
        assert len(desk.partner.sent) == 2

    async def test_the_operation_knows_those_it_was_accepted_over(self, desk: Desk):
        case = await desk.open()
        old = await add(case, "a")
        kept, new = await add(case, "b"), await add(case, "c", replaces=old)
        await case.take("ship")
        assert set((await case.operation()).documents) == {str(kept), str(new)}
        assert set(await seen(case, "operation.accepted")) == {str(kept), str(new)}
        answer = await look(case, old)
        assert answer.state == "blocked"  # none of the operation's: our own code is wrong

    async def test_where_there_is_none_the_story_may_end_without(self, desk: Desk):
        case = await desk.open()
        await case.take("ship")
        await case.run("book_carrier")
        assert (await case.finish()).state == "finished"
        assert (await case.row()).documents is None


class TestState:
    async def test_is_what_looking_at_it_came_to(self, desk: Desk):
        case = await desk.open()
        good, bad = await add(case, "a"), await add(case, "b")
        assert {each.state for each in (await documents(case)).values()} == {"uploaded"}
        await case.take("ship")
        await look(case, good)
        finding = Finding(code="encrypted", message="It is encrypted.")
        await look(case, bad, Verdict(accepted=False, findings=(finding,)))
        found = await documents(case)
        assert (found["a.pdf"].state, found["a.pdf"].pages) == ("accepted", 1)
        assert (found["b.pdf"].state, found["b.pdf"].reasons[0].code) == ("refused", "encrypted")
        told = {entry.type: entry.data for entry in await case.entries()}
        assert told["document.refused"]["findings"] == "It is encrypted."
        assert told["document.accepted"]["sha256"] == "a" * 64

    async def test_is_validating_while_nobody_knows(self, desk: Desk):
        case = await desk.open()
        document = await add(case)
        await case.take("ship")
        desk.partner.next(ConnectionError("a fault of ours"))
        assert (await look(case, document)).state == "blocked"
        assert (await documents(case))["a.pdf"].state == "validating"


class TestApproval:
    async def proposed(self, office: Desk) -> tuple[Handle, UUID, UUID]:
        case = await office.open()
        document = await add(case)
        return case, document, (await case.take("ship", person("clerk"))).operation_id

    async def confirm(self, case: Handle, operation_id: UUID) -> None:
        async with case.desk.database.transaction() as session:
            await confirm_proposal(
                session, case.desk.catalogue, operation_id=operation_id, reason=None, envelope=envelope(CHIEF)
            )

    async def test_names_what_was_seen(self, office: Desk):
        case, document, operation_id = await self.proposed(office)
        await self.confirm(case, operation_id)
        for entry in ("operation.proposed", "operation.confirmed", "operation.accepted"):
            assert await seen(case, entry) == [str(document)]

    @pytest.mark.parametrize("how", ["another", "replaced"])
    async def test_is_of_nothing_else(self, office: Desk, how: str):
        case, document, operation_id = await self.proposed(office)
        await add(case, "b", replaces=document if how == "replaced" else None)
        with pytest.raises(ActionNotAllowed) as refused:
            await self.confirm(case, operation_id)
        assert refused.value.first_code == "proposal_stale"
        assert (await case.document()).proposals[0].stale

    async def test_what_is_under_way_is_not_changed(self, desk: Desk):
        case = await desk.open()
        await add(case)
        await case.take("ship")
        with pytest.raises(ActionNotAllowed) as refused:
            await add(case, "b")
        assert refused.value.first_code == "operation_in_flight"


class TestReplay:
    async def test_goes_on_with_what_was_looked_at(self, desk: Desk):
        case = await desk.open()
        documents = [await add(case, "a"), await add(case, "b")]
        await case.take("ship")
        for document in documents:
            await look(case, document)
        await case.run("book_carrier")
        assert (await case.finish()).state == "finished"
        async with desk.database.sessions() as session:
            plan = await get_plan(session, desk.catalogue, case_id=case.id, step="book_carrier", actor=SENIOR)
        assert [(each.action, each.step, each.item) for each in plan.steps] == [
            ("offset", "book_carrier:undo", None),
            ("reuse", "look", str(documents[0])),
            ("reuse", "look", str(documents[1])),
            ("run", "book_carrier", None),
        ]
        await case.override("replay", SENIOR, step="book_carrier", plan_hash=plan.plan_hash)
        assert (await case.operation()).documents == [str(document) for document in documents]
        sent = len(desk.partner.sent)
        assert [(await look(case, document)).state for document in documents] == ["settled", "settled"]
        assert len(desk.partner.sent) == sent

    async def test_a_story_that_never_came_to_one_can_be_done_again_all_the_same(self, desk: Desk):
        case = await desk.open()
        await case.take("ship")
        await case.run("book_carrier")
        await case.finish()
        async with desk.database.sessions() as session:
            plan = await get_plan(session, desk.catalogue, case_id=case.id, step="book_carrier", actor=SENIOR)
        assert [(each.action, each.step) for each in plan.steps] == [
            ("offset", "book_carrier:undo"),
            ("run", "look"),
            ("run", "book_carrier"),
        ]
        await case.override("replay", SENIOR, step="book_carrier", plan_hash=plan.plan_hash)
        await case.take_back_one((await case.finish()).offsets[0])
        await case.run("book_carrier", effect_key=f"{(await case.operation()).id}:book_carrier")
        assert (await case.finish()).state == "finished"
