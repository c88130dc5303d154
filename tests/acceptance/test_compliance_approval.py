"""Compliance approval on the whole stack: documents over HTTP, looked at in earnest, approved by groups, revoked."""

from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select, text
from temporalio.client import Client as TemporalClient

from caseward.db.tables import Base
from caseward.messages import workflow_id
from caseward.objects import Objects
from cli.client import Client, Refused
from processes.compliance_approval import REVIEWED_AGAIN_AFTER
from tests.faults.company import PATIENCE, Company, Json
from tests.faults.days import time_passes
from tests.pdfs import pdf
from tests.processes.compliance_approval import GROUNDS, PLAYBOOK


@pytest.fixture
def people(company: Company):
    return company.people[PLAYBOOK.name]


async def add(who: Client, case: Json, content: bytes, *, name: str = "report.pdf", **wanted: str) -> Json:
    answer = await who._http.post(
        f"/v1/cases/{case['case_id']}/documents",
        params={"kind": "evidence", "name": name, **wanted},
        content=content,
        headers={"Idempotency-Key": str(uuid4())},
    )
    assert answer.status_code == 201, answer.text
    return answer.json()


async def documents(who: Client, case: Json) -> dict[str, Json]:
    listed = await who.get(f"/v1/cases/{case['case_id']}/documents")
    return {each["name"]: each for each in listed["documents"]}


async def submitted(company: Company, case: Json, lands: str) -> Json:
    await company.take(PLAYBOOK, case, "submit")
    return await company.settled(case, lands)


class TestDocuments:
    async def test_what_can_be_read_comes_into_review(self, company: Company, people):
        case = await company.opened(PLAYBOOK)
        await add(people["applicant"], case, pdf(3), name="audit.pdf")
        await submitted(company, case, "in_review")
        document = (await documents(people["legal"], case))["audit.pdf"]
        assert (document["state"], document["pages"], document["reasons"]) == ("accepted", 3, [])

    async def test_what_can_not_goes_back_with_the_reason_until_it_is_replaced(self, company: Company, people):
        applicant = people["applicant"]
        case = await company.opened(PLAYBOOK)
        await add(applicant, case, pdf(2), name="good.pdf")
        locked = await add(applicant, case, pdf(password="secret"), name="locked.pdf")
        await add(applicant, case, b"%PDF-1.7\nno more than this", name="torn.pdf")
        await submitted(company, case, "changes_requested")
        found = await documents(applicant, case)
        assert {name: each["state"] for name, each in found.items()} == {
            "good.pdf": "accepted",
            "locked.pdf": "refused",
            "torn.pdf": "refused",
        }
        assert [reason["code"] for reason in found["locked.pdf"]["reasons"]] == ["encrypted"]
        assert [reason["code"] for reason in found["torn.pdf"]["reasons"]] == ["unreadable"]
        told = [entry["sentence"] for entry in await company.operator.timeline(case["case_id"])]
        assert "locked.pdf was looked at and is refused: It is encrypted: upload it without a password." in told
        await add(applicant, case, pdf(), name="unlocked.pdf", replaces=locked["document_id"])
        await add(applicant, case, pdf(4), name="whole.pdf", replaces=found["torn.pdf"]["document_id"])
        await submitted(company, case, "in_review")
        states = {name: each["state"] for name, each in (await documents(applicant, case)).items()}
        assert (states["unlocked.pdf"], states["whole.pdf"]) == ("accepted", "accepted")

    async def test_nothing_of_a_content_goes_to_postgres_or_temporal(self, company: Company, people):
        case = await company.opened(PLAYBOOK)
        canary = f"canary{uuid4().hex}"
        content = pdf(title=canary)
        assert canary.encode() in content
        await add(people["applicant"], case, content)
        await submitted(company, case, "in_review")
        temporal = await TemporalClient.connect(company.stack.temporal_address, namespace="caseward")
        history = await temporal.get_workflow_handle(workflow_id(PLAYBOOK.name, case["case_id"])).fetch_history()
        assert canary not in history.to_json()
        async with company.database.transaction() as session:
            for table in Base.metadata.sorted_tables:
                found = select(func.count()).select_from(table).where(text(f"{table.name}::text LIKE :canary"))
                assert await session.scalar(found, {"canary": f"%{canary}%"}) == 0, table.name


class TestApproval:
    async def in_review(self, company: Company, people) -> Json:
        case = await company.opened(PLAYBOOK)
        await add(people["applicant"], case, pdf(3), name="audit.pdf")
        return await submitted(company, case, "in_review")

    async def test_two_groups_make_a_certificate_of_the_very_documents(self, company: Company, people):
        case = await self.in_review(company, people)
        proposed = await people["risk"].take(case, "approve")
        assert proposed["state"] == "proposed"
        with pytest.raises(Refused, match="legal"):  # two groups are not enough without it
            await people["security"].post(f"/v1/operations/{proposed['operation_id']}/confirm", {})
        told = await people["legal"].post(f"/v1/operations/{proposed['operation_id']}/confirm", {"reason": "Read it"})
        await company.settled(case, "approved")
        operation = await company.operator.operation(told["operation_id"])
        certificate = next(step["result"] for step in operation["steps"] if step["name"] == "make_certificate")
        content = await Objects.connect(company.settings.documents_url).content(certificate["sha256"])
        assert content.startswith(b"%PDF")
        document = (await documents(people["legal"], case))["audit.pdf"]
        accepted = next(
            entry
            for entry in await company.operator.timeline(case["case_id"])
            if entry["type"] == "operation.accepted" and entry["operation_id"] == told["operation_id"]
        )
        assert accepted["data"]["documents"] == [{"id": document["document_id"], "sha256": document["sha256"]}]
        assert accepted["data"]["subject_revision"] == 1

    async def test_it_is_bound_to_what_was_seen(self, company: Company, people):
        case = await self.in_review(company, people)
        proposed = await people["legal"].take(case, "approve")
        old = (await documents(people["legal"], case))["audit.pdf"]
        await add(people["applicant"], case, pdf(5), name="other.pdf", replaces=old["document_id"])
        with pytest.raises(Refused, match="moved on"):
            await people["risk"].post(f"/v1/operations/{proposed['operation_id']}/confirm", {})
        await company.take(PLAYBOOK, await people["legal"].case(case["case_id"]), "approve")
        await company.settled(case, "approved")
        assert (await documents(people["legal"], case))["other.pdf"]["state"] == "accepted"

    async def test_what_came_last_and_can_not_be_read_is_not_certified(self, company: Company, people):
        case = await self.in_review(company, people)
        await add(people["applicant"], case, pdf(password="secret"), name="late.pdf")
        await company.take(PLAYBOOK, case, "approve")
        await company.settled(case, "changes_requested")
        assert (await documents(people["legal"], case))["late.pdf"]["state"] == "refused"

    async def test_after_half_a_year_somebody_looks_again(self, company: Company, people):
        case = await company.brought_to(PLAYBOOK, "approved")
        await time_passes(company.database, UUID(case["case_id"]), REVIEWED_AGAIN_AFTER)
        await company.operator.until(case["case_id"], lambda now: now["state"] == "under_review", within=PATIENCE)
        await company.take(PLAYBOOK, await company.operator.case(case["case_id"]), "renew")
        renewed = await company.settled(case, "approved")
        assert renewed["state_info"]["deadline_at"] is not None

    async def test_a_revoked_one_is_struck_and_its_certificate_withdrawn(self, company: Company, people):
        case = await company.brought_to(PLAYBOOK, "approved")
        done = await people["officer"].take(case, "revoke", GROUNDS)
        await company.settled(case, "revoked")
        steps = (await company.operator.operation(done["operation_id"]))["steps"]
        keys = {step["name"]: step["effect_key"] for step in steps}
        calls = {name: [each["call"] for each in await company.ledger(key=key)] for name, key in keys.items()}
        assert calls["make_certificate:undo"] == ["withdraw"]
        assert calls["enter_in_register:undo"] == ["strike"]
        await company.take(PLAYBOOK, await company.operator.case(case["case_id"]), "reopen")
        await company.settled(case, "draft")
