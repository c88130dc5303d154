"""A server is away for a while: what can still be promised is promised, and kept when it is back."""

import asyncio

import httpx2
import pytest

from cli.client import Refused
from tests.faults.company import Company


@pytest.mark.parametrize("seconds", [3, pytest.param(20, marks=pytest.mark.full)])
async def test_temporal_is_away_and_commands_are_still_accepted(company: Company, seconds: int, report):
    cases = [await company.in_review() for _ in range(3)]
    await company.stack.stop_service("temporal")
    loop = asyncio.get_running_loop()
    back_at = loop.time() + seconds
    accepted = 0
    while loop.time() < back_at:  # load, as long as Temporal is away
        case = await company.requester.open("vendor_onboarding", f"away-{accepted}-{seconds}", {**_subject()})
        operation = await company.requester.take(case, "submit")
        assert operation["state"] == "accepted"
        cases.append(case)
        accepted += 1
    queued = await company.requester.case(cases[-1]["case_id"])
    assert (queued["state"], queued["condition"]) == ("screening", "queued")
    approvals = [await company.approve(case) for case in cases[:3]]
    assert all(operation["state"] == "accepted" for operation in approvals)
    await company.stack.start_service("temporal")

    for case in cases[:3]:
        await company.settled(case, "active")
    for case in cases[3:]:
        await company.settled(case, "in_review")
    assert accepted > 0
    await report.of_outage("temporal", company, len(cases))


async def test_postgres_is_away_and_says_so(company: Company, report):
    case = await company.in_review()
    await company.stack.stop_service("postgres")
    with pytest.raises(Refused) as refused:
        await company.reviewer.take(case, "approve")
    assert (refused.value.status, refused.value.code) == (503, "database_away")
    async with httpx2.AsyncClient(base_url=company.settings.api_url, trust_env=False, timeout=60) as anybody:
        assert (await anybody.get("/health/ready")).status_code == 503
        assert (await anybody.get("/health/live")).status_code == 200
    await company.stack.start_service("postgres")

    await company.approve(case)
    await company.settled(case, "active")
    await report.of_outage("postgres", company, 1)


def _subject() -> dict:
    from tests.faults.company import EXAMPLE

    return EXAMPLE
