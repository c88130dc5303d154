"""What Temporal says: its namespace, the workflow of a case, and what that workflow was told."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, cast
from uuid import UUID

from google.protobuf.duration_pb2 import Duration
from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import IndexedValueType, WorkflowTaskFailedCause
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.namespace.v1 import UpdateNamespaceInfo
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.api.workflowservice.v1 import (
    DescribeNamespaceRequest,
    RegisterNamespaceRequest,
    UpdateNamespaceRequest,
)
from temporalio.client import Client, WorkflowExecutionDescription, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from caseward.cases.repair import Finding, Standing
from caseward.messages import PERFORM, SEARCH_ATTRIBUTES, workflow_id
from caseward.workflow.case import CONDITION, RECOVERY_OWNER, STATE

RPC_TIMEOUT = timedelta(seconds=5)
MARK = "caseward_mark"
KEEP_CLOSED_FOR = timedelta(days=7)  # of a namespace that we have to create; long enough to look what became of a run
FAILED_TASKS = 5  # one that fails so often does not get better by itself; a deploy's hiccup does
RUNS_BACK, SHORT = 4, 100  # how far to read back, and the events after which there is no need to

_CLOSED: dict[WorkflowExecutionStatus, Finding] = {
    WorkflowExecutionStatus.TERMINATED: "workflow_terminated",
    WorkflowExecutionStatus.CANCELED: "workflow_cancelled",
    WorkflowExecutionStatus.FAILED: "workflow_failed",
    WorkflowExecutionStatus.TIMED_OUT: "workflow_failed",
    WorkflowExecutionStatus.COMPLETED: "workflow_closed",
}


@dataclass(frozen=True)
class Namespace:
    """Our namespace: another id is another one, though it has the same name."""

    id: str
    mark: int
    """The highest mark that was left in it."""


@dataclass(frozen=True)
class Seen:
    """The workflow of a case, as far as describing it tells."""

    found: Finding | None
    """Why it can't be working for the case; None where it runs."""
    run_id: str | None = None
    failed_tasks: int = 0
    agrees: bool = True
    """What it shows is what the case is."""


@dataclass
class Told:
    """What stands in a run's history of what it was told."""

    operations: set[UUID] = field(default_factory=set[UUID])
    """Operations that it was given or worked on."""
    version: int = 0
    """The highest version that Postgres told it of, by an activity's answer: nobody can signal that."""
    reset: bool = False


class Temporal:
    """Temporal, as the reconciler sees it. Everything raises RPCError when it is away."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._complete: str | None = None
        """The id of the namespace that was seen to have all search attributes."""

    async def namespace(self) -> Namespace:
        """Our namespace, created with its search attributes where it is missing."""
        service, name = self._client.workflow_service, self._client.namespace
        try:
            described = await service.describe_namespace(DescribeNamespaceRequest(namespace=name), timeout=RPC_TIMEOUT)
        except RPCError as fault:
            if fault.status != RPCStatusCode.NOT_FOUND:
                raise
            kept = Duration()
            kept.FromTimedelta(KEEP_CLOSED_FOR)
            wanted = RegisterNamespaceRequest(namespace=name, workflow_execution_retention_period=kept)
            await service.register_namespace(wanted, timeout=RPC_TIMEOUT)
            described = await service.describe_namespace(DescribeNamespaceRequest(namespace=name), timeout=RPC_TIMEOUT)
        info = described.namespace_info
        if self._complete != info.id:
            try:
                await self._ensure_search_attributes()
            except RPCError as fault:
                if fault.status not in {RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNIMPLEMENTED}:
                    raise  # else somebody keeps them for us
            self._complete = info.id
        mark = info.data.get(MARK, "")
        return Namespace(info.id, int(mark) if mark.isdecimal() else 0)

    async def _ensure_search_attributes(self) -> None:
        operator, name = self._client.operator_service, self._client.namespace
        have = await operator.list_search_attributes(ListSearchAttributesRequest(namespace=name), timeout=RPC_TIMEOUT)
        keyword = IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD
        missing = {key: keyword for key in SEARCH_ATTRIBUTES if key not in have.custom_attributes}
        if missing:
            request = AddSearchAttributesRequest(namespace=name, search_attributes=missing)
            await operator.add_search_attributes(request, timeout=RPC_TIMEOUT)

    async def leave_mark(self, mark: int) -> None:
        """Leave a mark in the namespace, to be found there by whoever comes with an older database."""
        info = UpdateNamespaceInfo(data={MARK: str(mark)})
        request = UpdateNamespaceRequest(namespace=self._client.namespace, update_info=info)
        await self._client.workflow_service.update_namespace(request, timeout=RPC_TIMEOUT)

    async def look_at(self, case: Standing) -> Seen:
        """Whether the case has a workflow that can work for it."""
        handle = self._client.get_workflow_handle(workflow_id(case.process, case.case_id))
        try:
            described = await handle.describe(rpc_timeout=RPC_TIMEOUT)
        except RPCError as fault:
            # The same status says that the namespace is not there (yet), of which this case is not guilty.
            if fault.status != RPCStatusCode.NOT_FOUND or "amespace" in fault.message:
                raise
            unknown_order = case.operation_id is not None and not case.begun
            return Seen("order_unknown" if unknown_order else "workflow_missing")
        closed = _CLOSED.get(described.status) if described.status is not None else None
        if closed is not None:
            return Seen(closed, described.run_id)
        pending = described.raw_description.pending_workflow_task
        return Seen(None, described.run_id, failed_tasks=pending.attempt, agrees=_agrees(described, case))

    async def told(self, case: Standing, run_id: str) -> Told:
        """Read a run's history for what it was told; where that is short, also the runs that it continues."""
        told, following = Told(), run_id
        for _ in range(RUNS_BACK):
            events, following = await self._read_run(case, following, told)
            if not following or events > SHORT:
                break
        return told

    async def _read_run(self, case: Standing, run_id: str, told: Told) -> tuple[int, str]:
        events, continued = 0, ""
        handle = self._client.get_workflow_handle(workflow_id(case.process, case.case_id), run_id=run_id)
        try:
            async for event in handle.fetch_history_events(rpc_timeout=RPC_TIMEOUT):
                events += 1
                if event.HasField("workflow_execution_started_event_attributes"):
                    continued = event.workflow_execution_started_event_attributes.continued_execution_run_id
                await self._read(event, told)
        except RPCError as fault:
            if fault.status != RPCStatusCode.NOT_FOUND:  # no longer kept
                raise
        return events, continued

    async def _read(self, event: HistoryEvent, told: Told) -> None:
        signal = event.workflow_execution_signaled_event_attributes
        if event.HasField("workflow_execution_signaled_event_attributes") and signal.signal_name == PERFORM:
            for perform in await self._decoded(signal.input.payloads):
                orders = perform.get("orders")
                for order in cast("list[Any]", orders) if isinstance(orders, list) else []:
                    _name_operation(order, told)
        elif event.HasField("activity_task_scheduled_event_attributes"):
            for call in await self._decoded(event.activity_task_scheduled_event_attributes.input.payloads):
                _name_operation(call, told)
        elif event.HasField("activity_task_completed_event_attributes"):
            for answer in await self._decoded(event.activity_task_completed_event_attributes.result.payloads):
                news = answer.get("news")
                for said in (answer, cast("dict[str, Any]", news) if isinstance(news, dict) else {}):
                    version = said.get("version")
                    told.version = max(told.version, version if isinstance(version, int) else 0)
        elif event.HasField("workflow_task_failed_event_attributes"):
            reset = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_RESET_WORKFLOW
            told.reset = told.reset or event.workflow_task_failed_event_attributes.cause == reset

    async def _decoded(self, payloads: Iterable[Payload]) -> list[dict[str, Any]]:
        """Those of the payloads that are objects; anybody may have signalled anything."""
        found: list[dict[str, Any]] = []
        for payload in payloads:
            try:
                values = await self._client.data_converter.decode([payload])
            except Exception:  # noqa: BLE001, S112 - not ours
                continue
            found += [cast("dict[str, Any]", value) for value in values if isinstance(value, dict)]
        return found


def _name_operation(of: Any, told: Told) -> None:
    named = cast("dict[str, Any]", of).get("operation_id") if isinstance(of, dict) else None
    try:
        told.operations.add(UUID(str(named)))
    except ValueError:
        return


def _agrees(described: WorkflowExecutionDescription, case: Standing) -> bool:
    """Compare by the search attributes: they cost no worker a replay."""
    shown = described.typed_search_attributes
    going_well = case.condition in {"queued", "running"}
    expected = (case.state, "running" if going_well else case.condition, None if going_well else case.recovery_owner)
    return (shown.get(STATE), shown.get(CONDITION), shown.get(RECOVERY_OWNER)) == expected
