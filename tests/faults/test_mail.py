"""What the engine mails, on the whole stack: readable on the page, and once, whoever dies."""

import asyncio
from uuid import UUID

import pytest
from sqlalchemy import select

from caseward.db.tables import Message
from caseward.outbox.store import TO_MAIL
from tests.faults.company import Company


async def mail_of(company: Company, case: dict) -> Message:
    """The one mail about the case, once it is sent or parked."""
    async with asyncio.timeout(120):
        while True:
            async with company.database.transaction() as session:
                wanted = select(Message).where(Message.case_id == UUID(case["case_id"]), Message.destination == TO_MAIL)
                found = list(await session.scalars(wanted))
            if found and (found[0].dispatched_at or found[0].parked):
                [message] = found
                return message
            await asyncio.sleep(0.1)


async def arrived(company: Company, message: Message) -> list[dict]:
    return await company.ledger(key=f"{message.case_id}:mail:{message.id}")


async def blocked(company: Company) -> dict:
    """A vendor whose payee the bank refuses; treasury decides."""
    case = await company.in_review()
    name = case["subject"]["legal_name"]
    await company.fault(partner="bank", call="open_payee", mode="reject", times=1, match=name)
    await company.approve(case)
    return case


async def test_whoever_decides_reads_it_on_the_page(company: Company):
    case = await blocked(company)
    message = await mail_of(company, case)
    [entry] = await arrived(company, message)
    assert entry["request"]["to"] == ["treasury@caseward.test"]
    listed = await company.sandbox.get("/mail")
    assert f"/mail/{entry['number']}" in listed.text
    page = await company.sandbox.get(f"/mail/{entry['number']}")
    assert case["business_key"] in page.text
    assert "Treasury decides" in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert case["subject"]["tax_id"] not in page.text


@pytest.mark.parametrize(("point", "times"), [("mail.begun", 0), ("mail.sent", 1)])
async def test_a_dispatcher_that_dies_sends_nothing_twice(company: Company, point: str, times: int):
    """Nobody knows what became of the mail, so it stands parked; it is not sent again."""
    await company.stack.restart("worker", {"CASEWARD_FAILPOINT": point})
    case = await blocked(company)
    await company.stack.wait_ended("worker")
    await company.stack.start_service("worker")
    message = await mail_of(company, case)
    assert message.parked
    assert message.error == "unknown: it may have gone out when whoever sent it died."
    assert len(await arrived(company, message)) == times
    assert not await company.violations([case["case_id"]])
