"""A time-skipping Temporal, a worker and a scripted engine for each test: the server has one clock for all cases."""

import sysconfig
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from caseward.outbox.to_temporal import BUSINESS_KEY
from caseward.workflow.case import CONDITION, RECOVERY_OWNER, STATE
from caseward.workflow.sandbox import runner
from processes.booking import BOOKING
from processes.compliance_approval import COMPLIANCE_APPROVAL
from processes.payment_review import PAYMENT_REVIEW
from tests.unit.test_policy import operation, situation
from tests.workflows.engine import Engine, Engines
from workflows.booking import Bookings
from workflows.compliance_approval import ComplianceApprovals
from workflows.payment_review import PaymentReviews
from workflows.vendor_onboarding import VendorOnboarding

SCRIPTS = Path(sysconfig.get_path("scripts"))
SERVER = SCRIPTS / "temporal-test-server"


@pytest_asyncio.fixture(loop_scope="session")
async def temporal() -> AsyncIterator[WorkflowEnvironment]:
    environment = await WorkflowEnvironment.start_time_skipping(test_server_existing_path=str(SERVER))
    async with environment:
        keys = {key.name: key.indexed_value_type.value for key in (STATE, CONDITION, RECOVERY_OWNER, BUSINESS_KEY)}
        await environment.client.operator_service.add_search_attributes(
            AddSearchAttributesRequest(namespace=environment.client.namespace, search_attributes=keys)
        )
        yield environment


@pytest_asyncio.fixture(loop_scope="session")
async def engines(temporal: WorkflowEnvironment) -> AsyncIterator[Engines]:
    client = await Client.connect(temporal.client.service_client.config.target_host)
    async with _worked(Engines(temporal, client)) as engines:
        yield engines


@pytest_asyncio.fixture(loop_scope="session")
async def real_engines() -> AsyncIterator[Engines]:
    """On the server as it is in production, without skipped time.

    The time-skipping one refuses a workflow task that cancels an activity which ended while the task ran
    (ACTIVITY_UNKNOWN), and waits for it in vain; and it refuses a signal that meets the end of a run (NOT_FOUND). What
    comes in any order or quickly needs one that takes it.
    """
    environment = await WorkflowEnvironment.start_local(
        dev_server_existing_path=str(SCRIPTS / "temporal"),
        dev_server_log_level="error",
        dev_server_extra_args=["--dynamic-config-value", "history.transferProcessorMaxPollRPS=1000"],
        search_attributes=[STATE, CONDITION, RECOVERY_OWNER, BUSINESS_KEY],
    )
    async with environment, _worked(Engines(environment, environment.client)) as engines:
        yield engines


@pytest_asyncio.fixture(loop_scope="session")
async def booking(temporal: WorkflowEnvironment) -> AsyncIterator[Engine]:
    """The engine of a new booking, with its workflow not started yet."""
    client = await Client.connect(temporal.client.service_client.config.target_host)
    running = situation("booking", BOOKING, operation=operation("request"))
    engines = Engines(temporal, client, process=BOOKING, running=running, at_rest=situation("confirmed", BOOKING))
    async with _worked(engines, Bookings):
        engine = engines.new()
        yield engine
        await engine.end()


@pytest_asyncio.fixture(loop_scope="session")
async def review(temporal: WorkflowEnvironment) -> AsyncIterator[Engine]:
    """The engine of a new payment review, with its workflow not started yet."""
    client = await Client.connect(temporal.client.service_client.config.target_host)
    running = situation("returning", PAYMENT_REVIEW, operation=operation("reject"))
    at_rest = situation("in_review", PAYMENT_REVIEW)
    engines = Engines(temporal, client, process=PAYMENT_REVIEW, running=running, at_rest=at_rest)
    async with _worked(engines, PaymentReviews):
        engine = engines.new()
        yield engine
        await engine.end()


@pytest_asyncio.fixture(loop_scope="session")
async def compliance(temporal: WorkflowEnvironment) -> AsyncIterator[Engine]:
    """The engine of a new compliance approval, with its workflow not started yet."""
    client = await Client.connect(temporal.client.service_client.config.target_host)
    running = situation("checking", COMPLIANCE_APPROVAL, operation=operation("submit"))
    at_rest = situation("in_review", COMPLIANCE_APPROVAL)
    engines = Engines(temporal, client, process=COMPLIANCE_APPROVAL, running=running, at_rest=at_rest)
    async with _worked(engines, ComplianceApprovals):
        engine = engines.new()
        yield engine
        await engine.end()


@asynccontextmanager
async def _worked(engines: Engines, stories: type[Any] = VendorOnboarding) -> AsyncIterator[Engines]:
    async with Worker(
        engines.client,
        task_queue=engines.task_queue,
        workflows=[stories],
        activities=engines.activities(),
        workflow_runner=runner(),
    ):
        yield engines


@pytest_asyncio.fixture(loop_scope="session")
async def engine(engines: Engines) -> AsyncIterator[Engine]:
    """The engine of a new case, with the case's workflow not started yet."""
    engine = engines.new()
    yield engine
    await engine.end()


@pytest.fixture
def short_history(monkeypatch) -> None:
    """A run that holds more than a few events goes on as a new one."""
    monkeypatch.setattr("caseward.workflow.case.HISTORY_LIMIT", 20)
