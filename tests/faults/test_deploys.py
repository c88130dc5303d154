"""A newer version is deployed under open cases of every process: first beside the older one, then alone.

The stories change so that no recorded history fits them any more, and the declaration with them. Every case comes to
its end by the newer one, and nothing is done twice.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

import pytest_asyncio
from temporalio.api.workflowservice.v1 import DescribeWorkerDeploymentRequest
from temporalio.client import Client as TemporalClient

from caseward.reconciler.versions import DEPLOYMENT
from cli.client import Refused
from tests.faults.company import Company, Json, acting, company_on
from tests.faults.newer import MARK, STEP, TRANSITION, newer_tree, python_of
from tests.faults.scenarios import Before, step_states
from tests.playbook import Playbook
from tests.processes import PLAYBOOKS

Then = Callable[[Company, Json], Awaitable[Json]]
WITH_BOTH = ("acting", "retrying")  # those that go on while both versions work


@dataclass(frozen=True)
class Open:
    """A case that the older version began."""

    playbook: Playbook
    how: str
    case: Json
    then: Then
    """What people do for it to go on."""
    ends: str


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def older(settings_for, tmp_path_factory) -> AsyncIterator[Company]:
    """A company on a stack of its own, which it will not leave as it was."""
    async with company_on(settings_for(tmp_path_factory.mktemp("deploys") / "data")) as company:
        yield company


# --- where cases stand when it is deployed, and what comes after -----------------------------------------------------


async def goes_on_by_itself(_company: Company, case: Json) -> Json:
    return case


async def partner_is_back(company: Company, case: Json) -> Json:
    """Its faults are cleared; nobody wants to wait for the next attempt."""
    with suppress(Refused):  # it is at it already
        await company.operator.override(case, "retry", reason="It is back")
    return case


def partner_keeps_its_promise(step: str) -> Then:
    async def then(company: Company, case: Json) -> Json:
        await company.keep_promise(next(s["effect_key"] for s in case["operation"]["steps"] if s["name"] == step))
        return case

    return then


def takes(playbook: Playbook, transition: str) -> Then:
    async def then(company: Company, case: Json) -> Json:
        await company.take(playbook, await company.operator.case(case["case_id"]), transition)
        return case

    return then


def takes_what_is_new(playbook: Playbook) -> Then:
    async def then(company: Company, case: Json) -> Json:
        opener = company.people[playbook.name][playbook.takes[playbook.process.opening.name]]
        offered = await opener.case(case["case_id"])
        await company.insist(lambda key: opener.take(offered, TRANSITION, key=key))
        return case

    return then


async def in_every_situation(company: Company, playbook: Playbook) -> list[Open]:
    """One case in each, side by side."""
    before, main, middle = Before(playbook), playbook.main, playbook.middle
    ends, opened = playbook.ends(main), playbook.ends(playbook.process.opening.name)

    def stands(state: str) -> Callable[[Json], bool]:
        return lambda now: step_states(now).get(middle) == state

    wanted = [
        ("at rest", before.at(playbook.start(main)), takes(playbook, main), ends),
        ("retrying", before.under_main(middle, "error", stands("retrying"), times=None), partner_is_back, ends),
        ("blocked", before.blocked_at(playbook.last, "reject"), partner_is_back, ends),
        ("at rest too", before.at(opened), takes_what_is_new(playbook), TRANSITION),
    ]
    if playbook.partner_of(middle) in playbook.answers_later:
        acknowledged = before.under_main(middle, "acknowledge", stands("waiting"), seconds=3600)
        wanted.append(("waiting", acknowledged, partner_keeps_its_promise(middle), ends))
    async with asyncio.TaskGroup() as tasks:
        arranged = [tasks.create_task(arrange(company)) for _, arrange, _, _ in wanted]
    return [
        Open(playbook, how, case.result(), then, ends)
        for (how, _, then, ends), case in zip(wanted, arranged, strict=True)
    ]


async def at_a_partner(company: Company, playbook: Playbook) -> Open:
    """Its step is at a partner that takes longer than a worker's start."""
    arrange = Before(playbook).under_main(playbook.middle, "slow", acting(playbook.middle), seconds=4)
    return Open(playbook, "acting", await arrange(company), goes_on_by_itself, playbook.ends(playbook.main))


async def comes_to_its_end(company: Company, opened: Open) -> None:
    told = await opened.then(company, await company.operator.case(opened.case["case_id"]))
    ended = await company.settled(told, opened.ends)
    assert ended["state_info"]["title"].endswith(MARK), f"{opened.how}: shown by an older declaration"
    done = await company.operator.timeline(ended["case_id"])
    mains = {e["operation_id"] for e in done if e["type"] == "operation.completed"}
    noted = [key for key in mains if await company.ledger(key=f"{key}:{STEP}")]
    # What was at a partner may have ended while the newer version started.
    assert noted or opened.how in {"acting", "at rest too"}, f"{opened.how}: ended by an older story"
    assert not [e for e in done if e["data"].get("cause") == "workflow_task_failing"]


# --- the deploy -------------------------------------------------------------------------------------------------------


async def test_a_newer_version_takes_every_open_case_to_its_end(older: Company, tmp_path_factory):
    company, stack = older, older.stack
    newer = python_of(newer_tree(tmp_path_factory.mktemp("newer")))
    playbooks = PLAYBOOKS.values()
    async with asyncio.TaskGroup() as tasks:
        opening = [tasks.create_task(in_every_situation(company, playbook)) for playbook in playbooks]
    opened = [each for task in opening for each in task.result()]

    stack.add_worker("newer")
    await stack.launch_service("newer", newer)
    async with asyncio.TaskGroup() as tasks:
        acts = [tasks.create_task(at_a_partner(company, playbook)) for playbook in playbooks]
    await stack.wait_ready("newer")
    await stack.restart("api", newer)
    await company.clear_faults()
    opened += [act.result() for act in acts]

    together = [each for each in opened if each.how in WITH_BOTH]
    await all_of(company, together)
    await stack.stop_service("worker")
    await all_of(company, [each for each in opened if each not in together])

    assert await company.violations() == []
    temporal = await TemporalClient.connect(stack.temporal_address, namespace="caseward")
    request = DescribeWorkerDeploymentRequest(namespace="caseward", deployment_name=DEPLOYMENT)
    told = (await temporal.workflow_service.describe_worker_deployment(request)).worker_deployment_info
    assert len(told.version_summaries) == 2


async def all_of(company: Company, opened: list[Open]) -> None:
    async with asyncio.TaskGroup() as tasks:
        for each in opened:
            tasks.create_task(comes_to_its_end(company, each))
