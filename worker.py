"""The worker: Temporal worker and dispatcher in one process. What is missing or wrong is a named error at start."""

import asyncio
import importlib.util
import inspect
import os
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog
import uvloop
from prometheus_client import start_http_server
from sqlalchemy.exc import DBAPIError
from temporalio.client import Client
from temporalio.runtime import PrometheusConfig, Runtime, TelemetryConfig
from temporalio.service import RPCError
from temporalio.worker import Worker
from temporalio.workflow import NondeterminismError

from api.logs import set_up_logs
from caseward import failpoints, metrics
from caseward.activity import EffectRunner, engine_activities, has_activities, step_activities
from caseward.cases import resuming
from caseward.cases.bulk_drive import drive
from caseward.cases.confirming import LOOK_FOR_EXPIRED, expire_due
from caseward.cases.parked import note_parked
from caseward.chores import Chore, look_after
from caseward.db.listen import listen
from caseward.db.session import Database
from caseward.errors import DeclarationInvalid
from caseward.hearing import ToActivities
from caseward.memory import collect_seldom
from caseward.messages import TASK_QUEUE
from caseward.objects import Objects
from caseward.outbox.dispatcher import Dispatcher
from caseward.outbox.store import CHANNEL, TO_CALLBACKS, TO_MAIL, TO_TEMPORAL, Claimed
from caseward.outbox.to_mail import ToMail
from caseward.outbox.to_temporal import ToTemporal
from caseward.process import Catalogue
from caseward.reconciler import Pace, Reconciler
from caseward.reconciler.versions import LOOK_EVERY, Versions, content_of, deployed_as
from caseward.workflow.case import CaseWorkflow
from caseward.workflow.sandbox import runner
from caseward.workflow.stories import story_faults
from partners import Partners, SmtpServer
from processes import CATALOGUE
from settings import Settings

CACHED_CASES = 2000  # at 50 KB each; fewer than the active ones halves the throughput
STICKY_FOR = timedelta(seconds=3)  # how long a case waits for the worker that knew it, when that one died
GRACE = timedelta(seconds=8)  # for activities under way at shutdown; every gateway's deadline is shorter
CODE = ("caseward", "processes", "workflows", "activities", "partners", "worker.py", "requirements.lock")
READY = "worker ready"  # the line that whoever starts a worker waits for


def find_workflows(catalogue: Catalogue) -> list[type[CaseWorkflow]]:
    """The class of stories in `workflows/{process}.py`, for every process.

    Raises DeclarationInvalid where one, or a story in it, is missing.
    """
    workflows = [
        _the_class_of("workflows", name, lambda found, process=process: getattr(found, "process", None) is process)
        for name, process in catalogue.items()
    ]
    faults = list(story_faults(catalogue, workflows))
    if faults:
        raise DeclarationInvalid(faults)
    return workflows


def _the_class_of(package: str, process: str, belongs: Callable[[type[Any]], bool]) -> type[Any]:
    """The one class for a process in the module that has its name."""
    path = f"{package}/{process}.py"
    name = f"{package}.{process}"
    if importlib.util.find_spec(name) is None:
        raise DeclarationInvalid([f"{process}: {path} is missing"])
    module = importlib.import_module(name)
    found = [it for it in vars(module).values() if inspect.isclass(it) and it.__module__ == name and belongs(it)]
    if len(found) != 1:
        named = ", ".join(it.__name__ for it in found) or "none"
        raise DeclarationInvalid([f"{process}: {path} must have exactly one class for the process, here: {named}"])
    return found[0]


def build_activities(
    database: Database, catalogue: Catalogue, partners: Partners, settings: Settings, effects: EffectRunner
) -> list[Any]:
    """Every activity that the workflows call by name: the engine's, and those in `activities/{process}.py`.

    Raises DeclarationInvalid where one is missing.
    """
    activities: list[Any] = engine_activities(
        database, catalogue, signal_overrides=frozenset(settings.temporal_overrides)
    )
    for name, process in catalogue.items():
        steps = _the_class_of("activities", name, has_activities)
        activities += step_activities(process, steps(partners), effects)
    return activities


def connect_partners(settings: Settings) -> Partners:
    """A gateway to each partner, where the settings say that they are."""
    smtp = SmtpServer(
        host=settings.smtp_host,
        port=settings.smtp_port,
        username=settings.smtp_username,
        password=settings.smtp_password,
        starttls=settings.smtp_starttls,
        mail_from=settings.mail_from,
    )
    return Partners.connect(settings.sandbox_url, smtp, Objects.connect(settings.documents_url))


def build_reconciler(database: Database, client: Client, catalogue: Catalogue, settings: Settings) -> Reconciler:
    """The reconciler, at the pace that the settings ask for."""
    pace = Pace(
        patience=timedelta(seconds=settings.reconcile_after), round_every=timedelta(seconds=settings.reconcile_round)
    )
    return Reconciler(database, client, catalogue, pace)


def build_chores(database: Database, catalogue: Catalogue, reconciler: Reconciler, versions: Versions) -> list[Chore]:
    """What one worker at a time looks after, beside its activities."""
    return [
        Chore("bulk", timedelta(seconds=1), lambda: drive(database, catalogue)),
        Chore("reconciler", reconciler.pace.look_every, reconciler.look),
        Chore("expire_proposals", LOOK_FOR_EXPIRED, lambda: expire_due(database, catalogue)),
        Chore("versions", LOOK_EVERY, versions.roll_over),
        Chore("pauses", resuming.EVERY, resuming.Resuming(database, catalogue)),
    ]


class PortTaken(Exception):
    """Somebody else listens where we are to serve our metrics."""

    def __init__(self, setting: str, port: int) -> None:
        super().__init__(f"CASEWARD_{setting.upper()}: port {port} is taken")


def serve_metrics(settings: Settings) -> None:
    """Serve what this process counts, from a thread of its own: a busy loop is what somebody may want to see.

    Raises PortTaken, where somebody chose the port: a second worker on a machine goes on without.
    """
    metrics.begin_at_zero(CATALOGUE)
    if settings.metrics_port:
        try:
            start_http_server(settings.metrics_port, settings.metrics_host, metrics.REGISTRY)
        except OSError as fault:
            if "metrics_port" in settings.model_fields_set:
                raise PortTaken("metrics_port", settings.metrics_port) from fault
            structlog.get_logger("worker").warning("metrics_unserved", port=settings.metrics_port, error=str(fault))


def runtime(settings: Settings) -> Runtime | None:
    """What the SDK runs in: one that serves its own metrics, or None for the default. Raises PortTaken."""
    if not settings.temporal_metrics_port:
        return None
    at = f"{settings.metrics_host}:{settings.temporal_metrics_port}"
    config = PrometheusConfig(bind_address=at, durations_as_seconds=True, counters_total_suffix=True)
    try:
        return Runtime(telemetry=TelemetryConfig(metrics=config))
    except ValueError as fault:
        raise PortTaken("temporal_metrics_port", settings.temporal_metrics_port) from fault


async def connect(settings: Settings) -> Client:
    """A client of Temporal, however long that takes to come up. Raises PortTaken."""
    log = structlog.get_logger("worker")
    measured = runtime(settings)
    address = settings.temporal_address or f"127.0.0.1:{settings.temporal_port}"
    while True:
        try:
            return await Client.connect(address, namespace=settings.temporal_namespace, runtime=measured)
        except (RPCError, RuntimeError) as fault:
            log.warning("temporal_away", address=address, error=str(fault)[:200])
            await asyncio.sleep(1)


async def prepare(reconciler: Reconciler) -> None:
    """Know Postgres and Temporal before anything is dispatched, however long that takes to come up."""
    log = structlog.get_logger("worker")
    while True:
        try:
            if await reconciler.prepare():
                return
        except (DBAPIError, OSError) as fault:
            log.warning("database_away", error=type(fault).__name__)
        await asyncio.sleep(1)


async def serve(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT."""
    if settings.database_url is None:
        sys.exit("CASEWARD_DATABASE_URL: say which database to work on")
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    database = Database.connect(settings.database_url, pre_ping=False)
    partners = connect_partners(settings)
    effects = EffectRunner(database, CATALOGUE)
    workflows = find_workflows(CATALOGUE)
    activities = build_activities(database, CATALOGUE, partners, settings, effects)
    serve_metrics(settings)
    client = await connect(settings)
    build_id = settings.build_id or content_of(Path(__file__).parent, CODE)
    versions = Versions(client, build_id)
    reconciler = build_reconciler(database, client, CATALOGUE, settings)
    await prepare(reconciler)

    async def note(message: Claimed, error: str) -> None:
        await note_parked(database, CATALOGUE, case_id=message.case_id, destination=message.destination, error=error)

    dispatcher = Dispatcher(
        database, {TO_TEMPORAL: ToTemporal(client, CATALOGUE), TO_CALLBACKS: ToActivities(effects)}, note
    )
    # One of its own: a mail server that takes its time must hold up no workflow.
    postman = Dispatcher(database, {TO_MAIL: ToMail(database, partners.mail, settings.mail_to)}, note, mails=True)

    def wake(payload: str) -> None:
        dispatcher.wake(payload)
        postman.wake(payload)

    worker = Worker(
        client,
        task_queue=TASK_QUEUE,
        workflows=workflows,
        activities=activities,
        workflow_runner=runner(),
        max_cached_workflows=CACHED_CASES,
        sticky_queue_schedule_to_start_timeout=STICKY_FOR,
        graceful_shutdown_timeout=GRACE,
        deployment_config=deployed_as(build_id),
        # Else its task would fail for ever. Temporal begins a failed run anew, and it reads from Postgres.
        workflow_failure_exception_types=[NondeterminismError],
    )
    async with worker:
        await versions.become_current()
        beside = [
            asyncio.create_task(dispatcher.run()),
            asyncio.create_task(postman.run()),
            asyncio.create_task(versions.stay_available()),
            asyncio.create_task(listen(settings.database_url, {CHANNEL: wake})),
            asyncio.create_task(
                look_after(settings.database_url, build_chores(database, CATALOGUE, reconciler, versions))
            ),
        ]
        print(READY, flush=True)  # noqa: T201 - the promise to whoever started us
        stopped = asyncio.create_task(stopping.wait())
        await asyncio.wait([stopped, *beside], return_when=asyncio.FIRST_COMPLETED)
        for task in beside:
            if task.done():
                task.result()  # it only ends by a fault of ours: let that be seen
            task.cancel()
    await partners.aclose()
    await database.close()


def main() -> int:
    """Run the worker; the exit code says whether it ended as asked."""
    settings = Settings.read()
    collect_seldom()
    set_up_logs()
    if settings.env == "test" and settings.failpoint:
        failpoints.arm(settings.failpoint)
    try:
        uvloop.run(serve(settings))
    except DeclarationInvalid as fault:
        for line in fault.faults:
            print(line, file=sys.stderr)  # noqa: T201 - for the person who starts it
        return 1
    except PortTaken as fault:
        print(fault, file=sys.stderr)  # noqa: T201 - as above
        return 1
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # Temporal's client may abort an ordinary interpreter exit
