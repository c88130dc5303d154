"""SIGKILL at every failpoint between acceptance and outcome, then a restart: nothing lost, nothing twice."""

import asyncio

import pytest

from tests.faults.company import Company

API_POINTS = ("command.before_commit", "command.after_commit")
# Of the three effects of an approval the ERP's is idempotent, the bank's can be asked for, the mail's neither.
EFFECT_POINTS = tuple(
    f"{point}:{nth}" for point in ("effect.reserved", "effect.acted", "effect.settled") for nth in (1, 4, 8)
)
WORKER_POINTS = ("outbox.claimed", "outbox.signalled", *EFFECT_POINTS, "operation.before_finish", "operation.finished")
SAMPLE = {"command.after_commit", "outbox.signalled", "effect.acted:4"}


def points(every: tuple[str, ...]) -> list:
    return [pytest.param(point, marks=() if point in SAMPLE else pytest.mark.full) for point in every]


@pytest.mark.parametrize("point", points(API_POINTS))
async def test_the_api_dies_while_it_accepts(company: Company, point: str, report):
    """The caller got no answer; the same key again finds out, and the command happened once."""
    cases = [await company.in_review() for _ in range(3)]
    await company.stack.restart("api", {"CASEWARD_FAILPOINT": point})
    approvals = [asyncio.create_task(company.approve(case)) for case in cases]
    await company.stack.wait_ended("api")
    await company.stack.start_service("api")
    operations = [await approval for approval in approvals]

    assert len({operation["operation_id"] for operation in operations}) == len(cases)
    for case in cases:
        await company.settled(case, "active")
        accepted = [e for e in await company.operator.timeline(case["case_id"]) if e["type"] == "operation.accepted"]
        assert [entry["data"]["action"] for entry in accepted] == ["Submit", "Approve"]
    await report.of_kill("api", point, company, cases)


@pytest.mark.parametrize("point", points(WORKER_POINTS))
async def test_the_worker_dies_on_the_way(company: Company, point: str, report):
    """The worker is gone in the middle of three approvals; the next one brings each to its end."""
    cases = [await company.in_review() for _ in range(3)]
    await company.stack.restart("worker", {"CASEWARD_FAILPOINT": point})
    for case in cases:
        await company.approve(case)
    await company.stack.wait_ended("worker")
    await company.stack.start_service("worker")

    for case in cases:
        await company.settled(case, "active")
        keys = [e["effect_key"] for e in await company.operator.timeline(case["case_id"]) if e["effect_key"]]
        for key in set(keys):
            assert len(await company.ledger(key=key)) == 1, key
    if point.startswith(("effect.reserved", "effect.acted")):
        entries = [e for case in cases for e in await company.operator.timeline(case["case_id"])]
        assert "lease_lapsed" in {e["data"].get("code") for e in entries}, "the timeline must tell of the crash"
    await report.of_kill("worker", point, company, cases)
