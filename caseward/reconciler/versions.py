"""Versions: which build of our code Temporal gives its work to, and runs that an older one began.

A run whose history today's stories can't follow fails, is begun anew by Temporal, and reads from Postgres what there is
to do. So no old worker has to live until its cases end; what is here sees to it that this happens at a time of its own,
and not when somebody's override comes.
"""

import asyncio
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog
from temporalio.api.deployment.v1 import WorkerDeploymentInfo
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import (
    DescribeTaskQueueRequest,
    DescribeWorkerDeploymentRequest,
    SetWorkerDeploymentCurrentVersionRequest,
)
from temporalio.client import Client
from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import WorkerDeploymentConfig

from caseward.messages import PERFORM, TASK_QUEUE, Perform

DEPLOYMENT = "caseward"
RPC_TIMEOUT = timedelta(seconds=5)
SETTING_TIMEOUT = timedelta(seconds=20)  # the first one of all makes Temporal's own workflow for it: 2 s seen
TRY_AGAIN = timedelta(seconds=1)
LOOK_EVERY = timedelta(seconds=5)
GONE_AFTER = timedelta(seconds=90)  # a worker without work asks for some every 60 s
SETTLED_AFTER = timedelta(minutes=1)  # by then the search attributes of a new run say who works on it
PAGE, RATE = 50, 10  # runs of one look, and a second: each reads its case anew, and the living come first


def content_of(root: Path, names: Iterable[str]) -> str:
    """What tells this code from any other: a digest of all its modules below `root`, by path and content."""
    digest = hashlib.sha256()
    for name in sorted(names):
        start = root / name
        for path in [start] if start.is_file() else sorted(start.rglob("*.py")):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(root).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]


def deployed_as(build_id: str) -> WorkerDeploymentConfig:
    """How a worker of this build says who it is. Its runs go on wherever the current one is."""
    return WorkerDeploymentConfig(
        version=WorkerDeploymentVersion(DEPLOYMENT, build_id),
        use_worker_versioning=True,
        default_versioning_behavior=VersioningBehavior.AUTO_UPGRADE,
    )


@dataclass(frozen=True)
class Current:
    """The build that is given the work, and since when."""

    build_id: str
    since: datetime


class Versions:
    """One per worker process. Its build becomes the current one at its start, and again when nobody else is."""

    def __init__(self, client: Client, build_id: str) -> None:
        self._client = client
        self._build_id = build_id
        self._log = structlog.get_logger("versions")

    async def become_current(self) -> None:
        """Have Temporal give its work to this build, however long that takes. Who starts last is current."""
        while True:
            try:
                await self._set_current()
            except RPCError as fault:
                self._log.warning("not_current", build=self._build_id, status=fault.status.name, error=fault.message)
                if fault.status is RPCStatusCode.PERMISSION_DENIED:
                    return  # then it is said by whoever deploys
                await asyncio.sleep(TRY_AGAIN.total_seconds())
            else:
                return

    async def stay_available(self) -> None:
        """Until cancelled: take over where no build is current, as after a loss, or where its workers are gone."""
        while True:
            await asyncio.sleep(LOOK_EVERY.total_seconds())
            try:
                current = await self._current()
                if current is None or (current.build_id != self._build_id and await self._abandoned(current)):
                    await self._set_current()
            except RPCError as fault:
                self._log.info("temporal_away", status=fault.status.name, error=fault.message[:200])

    async def roll_over(self) -> bool:
        """Have a page of runs that another build worked on last taken up by the current one; True where more is.

        A signal that only says "read from Postgres": a run that today's code can follow goes on as a new one as soon as
        nothing is under way, the others fail and are begun anew.
        """
        older = await self._older()
        if older is None:
            return False
        found = [run async for run in self._client.list_workflows(older, limit=PAGE, rpc_timeout=RPC_TIMEOUT)]
        for run in found:
            handle = self._client.get_workflow_handle(run.id, run_id=run.run_id)
            try:
                await handle.signal(PERFORM, Perform([], resync=True), rpc_timeout=RPC_TIMEOUT)
            except RPCError as fault:
                if fault.status is not RPCStatusCode.NOT_FOUND:  # it ended meanwhile, or is a new one already
                    raise
            await asyncio.sleep(1 / RATE)
        if found:
            self._log.info("rolled_over", runs=len(found))
        return len(found) == PAGE

    async def _older(self) -> str | None:
        """What lists the open runs that another build than the current one worked on last; None where none is."""
        current = await self._current()
        if current is None:
            return None
        settled = (datetime.now(UTC) - SETTLED_AFTER).strftime("%Y-%m-%dT%H:%M:%SZ")
        attribute = "TemporalWorkerDeploymentVersion"
        return (
            f"TaskQueue = '{TASK_QUEUE}' AND ExecutionStatus = 'Running' AND "
            f"({attribute} != '{DEPLOYMENT}:{current.build_id}' OR ({attribute} IS NULL AND StartTime < '{settled}'))"
        )

    async def _current(self) -> Current | None:
        """The build that is given the work."""
        request = DescribeWorkerDeploymentRequest(namespace=self._client.namespace, deployment_name=DEPLOYMENT)
        try:
            told = await self._client.workflow_service.describe_worker_deployment(request, timeout=RPC_TIMEOUT)
        except RPCError as fault:
            if fault.status is RPCStatusCode.NOT_FOUND:
                return None
            raise
        info: WorkerDeploymentInfo = told.worker_deployment_info
        routing = info.routing_config
        build_id = routing.current_deployment_version.build_id
        return Current(build_id, routing.current_version_changed_time.ToDatetime(UTC)) if build_id else None

    async def _set_current(self) -> None:
        request = SetWorkerDeploymentCurrentVersionRequest(
            namespace=self._client.namespace,
            deployment_name=DEPLOYMENT,
            build_id=self._build_id,
            identity=self._client.identity,
            ignore_missing_task_queues=True,
            allow_no_pollers=True,  # ours are on their way
        )
        await self._client.workflow_service.set_worker_deployment_current_version(request, timeout=SETTING_TIMEOUT)
        self._log.info("current", build=self._build_id)

    async def _abandoned(self, current: Current) -> bool:
        """Whether no worker of this build has asked for work for long; one that has just started may not have yet."""
        request = DescribeTaskQueueRequest(
            namespace=self._client.namespace,
            task_queue=TaskQueue(name=TASK_QUEUE),
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
        )
        told = await self._client.workflow_service.describe_task_queue(request, timeout=RPC_TIMEOUT)
        asked = [
            poller.last_access_time.ToDatetime(UTC)
            for poller in told.pollers
            if poller.deployment_options.build_id == current.build_id
        ]
        return max([current.since, *asked]) < datetime.now(UTC) - GONE_AFTER
