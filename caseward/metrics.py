"""Metrics: every name that Prometheus sees, with its labels, on one page. docs/metrics.md explains each.

Counters and histograms are counted where something happens, once it is committed (`caseward/db/counting.py`). Gauges
are read from Postgres when somebody asks (`caseward/cases/gauges.py`), so that they are right after any restart. No
label holds what people or partners may choose: every series is one of a number that the declarations bound.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily

from caseward.overrides import OVERRIDES
from caseward.process import Catalogue

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

disable_created_metrics()  # a second series for each, which nobody asks for
REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)  # memory, CPU and open files of the process, by their usual names

# A partner's answer takes tens of milliseconds, an outcome that waits for people days.
_SHORT = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0
_LONG = (0.1, 0.5, 1.0, 5.0, 15.0, _MINUTE, 5 * _MINUTE, 30 * _MINUTE, 2 * _HOUR, 8 * _HOUR, _DAY, 7 * _DAY, 30 * _DAY)

# --- counted where it happens ---------------------------------------------------------------------------------------

OPERATIONS_ACCEPTED = Counter(
    "caseward_operations_accepted",
    "Operations accepted: transitions, overrides (`replay` among them) and claims, by who asked for them.",
    ("process", "kind", "name", "via"),
    registry=REGISTRY,
)
TRANSITIONS_REPEATED = Counter(
    "caseward_transitions_repeated",
    "Transitions accepted that the same case had taken before.",
    ("process", "name"),
    registry=REGISTRY,
)
OPERATION_DISPATCH = Histogram(
    "caseward_operation_dispatch_seconds",
    "From an operation's acceptance to its delivery to the workflow.",
    ("process", "kind"),
    registry=REGISTRY,
    buckets=_SHORT,
)
OPERATION_START = Histogram(
    "caseward_operation_start_seconds",
    "From an operation's acceptance to its start: the first reservation, or its end where nothing had to run.",
    ("process", "kind"),
    registry=REGISTRY,
    buckets=_SHORT,
)
OPERATION_OUTCOME = Histogram(
    "caseward_operation_outcome_seconds",
    "From an operation's acceptance to its outcome: completed, undone or superseded.",
    ("process", "kind", "name", "outcome"),
    registry=REGISTRY,
    buckets=_LONG,
)
STATE_DURATION = Histogram(
    "caseward_state_duration_seconds",
    "How long a case was in a state that it left.",
    ("process", "state"),
    registry=REGISTRY,
    buckets=_LONG,
)
ATTEMPTS = Counter(
    "caseward_attempts",
    "Attempts at effects that got an outcome: succeeded, failed, acknowledged or unknown.",
    ("partner", "outcome"),
    registry=REGISTRY,
)
ATTEMPT_DURATION = Histogram(
    "caseward_attempt_duration_seconds",
    "From an attempt's reservation to its outcome.",
    ("partner",),
    registry=REGISTRY,
    buckets=_SHORT,
)
ENTRIES = Counter(
    "caseward_timeline_entries",
    "Timeline entries written: what happens to cases, by type.",
    ("process", "type"),
    registry=REGISTRY,
)
MESSAGE_DISPATCH = Histogram(
    "caseward_message_dispatch_seconds",
    "From an outbox message's commit to its delivery.",
    ("destination",),
    registry=REGISTRY,
    buckets=_SHORT,
)
MESSAGES_REFUSED = Counter(
    "caseward_messages_refused",
    "Deliveries of outbox messages that their destination refused.",
    ("destination",),
    registry=REGISTRY,
)
MESSAGES_PARKED = Counter(
    "caseward_messages_parked",
    "Outbox messages set aside after the last try.",
    ("destination",),
    registry=REGISTRY,
)
COUNTED: tuple[Counter | Histogram, ...] = (
    OPERATIONS_ACCEPTED,
    TRANSITIONS_REPEATED,
    OPERATION_DISPATCH,
    OPERATION_START,
    OPERATION_OUTCOME,
    STATE_DURATION,
    ATTEMPTS,
    ATTEMPT_DURATION,
    ENTRIES,
    MESSAGE_DISPATCH,
    MESSAGES_REFUSED,
    MESSAGES_PARKED,
)

# --- read from Postgres ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gauge:
    """A number that Postgres knows; every API process answers the same."""

    name: str
    says: str
    labels: tuple[str, ...] = ()


Readings = Mapping[Gauge, Iterable[tuple[tuple[str, ...], float]]]
"""By gauge: the values of its labels, and its own."""

DATABASE_UP = Gauge("caseward_database_up", "1 where Postgres answered in time; where 0, the other gauges are missing.")
GAUGES_UNREAD = Gauge(
    "caseward_gauges_unread", "1 for each gauge that is missing because its query took too long.", ("gauge",)
)
PROCESS_INFO = Gauge("caseward_process_info", "1 for every process, with the team that owns it.", ("process", "owner"))
CASES = Gauge(
    "caseward_cases",
    "Cases to which somebody or something owes a move, by recovery owner. Stuck: condition `blocked`.",
    ("process", "state", "condition", "owner"),
)
CASES_OLDEST = Gauge(
    "caseward_cases_oldest_seconds",
    "For how long the oldest of them has been in its condition.",
    ("process", "state", "condition", "owner"),
)
CASES_OVERDUE = Gauge(
    "caseward_cases_overdue",
    "Cases at rest whose deadline passed and did not act; not those of a pause.",
    ("process", "state"),
)
PROPOSALS = Gauge("caseward_proposals_waiting", "Proposed operations that wait for confirmation.", ("process",))
UNKNOWN = Gauge(
    "caseward_unknown_outcomes",
    "Effects in flight of which nobody knows whether they happened, by recovery owner.",
    ("process", "partner", "owner"),
)
UNKNOWN_OLDEST = Gauge(
    "caseward_unknown_outcomes_oldest_seconds",
    "Since when the oldest of them has been as it is.",
    ("process", "partner", "owner"),
)
OUTBOX_WAITING = Gauge(
    "caseward_outbox_waiting_messages", "Outbox messages committed and not yet delivered.", ("destination",)
)
OUTBOX_OLDEST = Gauge("caseward_outbox_oldest_seconds", "Age of the oldest of them; 0 without any.", ("destination",))
OUTBOX_PARKED = Gauge(
    "caseward_outbox_parked_messages", "Outbox messages that somebody has to look at.", ("destination",)
)
CALLBACKS_PARKED = Gauge("caseward_callbacks_parked", "Partners' callbacks that belong to nothing here.", ("partner",))
PAUSES = Gauge(
    "caseward_pauses",
    "1 for every process and partner that is paused, probing or resuming.",
    ("scope", "name", "state"),
)
GAUGES: tuple[Gauge, ...] = (
    DATABASE_UP,
    GAUGES_UNREAD,
    PROCESS_INFO,
    CASES,
    CASES_OLDEST,
    CASES_OVERDUE,
    PROPOSALS,
    UNKNOWN,
    UNKNOWN_OLDEST,
    OUTBOX_WAITING,
    OUTBOX_OLDEST,
    OUTBOX_PARKED,
    CALLBACKS_PARKED,
    PAUSES,
)


def begin_at_zero(catalogue: Catalogue) -> None:
    """Let the series that alerts watch be there before anything happens, or the first time would show as no rise."""
    for partner in {step.partner for process in catalogue.values() for step in process.steps.values()}:
        for outcome in ("succeeded", "failed", "acknowledged", "unknown"):
            ATTEMPTS.labels(partner, outcome)
    for process in catalogue.values():
        for transition in process.transitions:
            TRANSITIONS_REPEATED.labels(process.name, transition.name)
        for override in OVERRIDES:
            OPERATIONS_ACCEPTED.labels(process.name, "override", override, "api")
        for entry_type in ("effect.blocked", "operation.blocked", "case.overdue", "case.woken", "effect.landed_late"):
            ENTRIES.labels(process.name, entry_type)


def exposed(readings: Readings | None = None) -> bytes:
    """What this process counted, and what was read, in Prometheus' text format."""
    counted = generate_latest(REGISTRY)
    return counted if readings is None else counted + generate_latest(_Read(readings))  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True)
class _Read:
    """Readings as the library's writer wants them."""

    readings: Readings

    def collect(self) -> Iterable[GaugeMetricFamily]:
        for gauge, values in self.readings.items():
            family = GaugeMetricFamily(gauge.name, gauge.says, labels=gauge.labels)
            for labels, value in values:
                family.add_metric(labels, value)
            yield family
