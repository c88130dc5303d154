"""Every table of the engine, on one page.

Lock order of every transaction that writes: case, operation, effect, attempt, pause, timeline entry, outbox message.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

JSON = dict[str, Any]


class Base(DeclarativeBase):
    """Names of constraints are fixed, so that migrations can name them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - read once by SQLAlchemy
        datetime: DateTime(timezone=True),
        JSON: JSONB(none_as_null=True),
        str: Text(),
        bytes: LargeBinary(),
        list[str]: ARRAY(Text()),
    }


class Case(Base):
    """One run of a process. Everything that writes to a case locks this row first."""

    __tablename__ = "cases"
    __table_args__ = (
        Index(
            "uq_cases_open_business_key",
            "process",
            "business_key",
            unique=True,
            postgresql_where=text("NOT final"),
        ),
        Index("ix_cases_changed", "changed_at", "id"),
        Index("ix_cases_business_key", "business_key"),
        Index("ix_cases_condition", "condition", "changed_at"),
        # What the reconciler looks for every few seconds: work that should have gone on by itself.
        Index("ix_cases_in_flight", "changed_at", postgresql_where=text("operation_id IS NOT NULL")),
        Index(
            "ix_cases_deadline",
            "deadline_at",
            postgresql_where=text("deadline_at IS NOT NULL AND operation_id IS NULL"),
        ),
        # Most of all open cases, which are counted by state; a case that is at work has no entry.
        Index(
            "ix_cases_done",
            "process",
            "state",
            "state_since",
            "condition_since",
            postgresql_where=text("condition = 'done' AND NOT final"),
        ),
        Index("ix_cases_assignee", "assignee", "changed_at", "id", postgresql_where=text("assignee IS NOT NULL")),
        Index("ix_cases_proposals", "changed_at", "id", postgresql_where=text("proposals > 0")),
        Index(
            "ix_cases_recovery_owner",
            "recovery_owner",
            "changed_at",
            "id",
            postgresql_where=text("recovery_owner IS NOT NULL"),
        ),
        Index("ix_cases_waiting_on", "waiting_on", "changed_at", "id", postgresql_where=text("waiting_on IS NOT NULL")),
        Index("ix_cases_state", "state", "changed_at", "id"),
        Index("ix_cases_process", "process", "changed_at", "id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    process: Mapped[str]
    business_key: Mapped[str]
    title: Mapped[str]
    state: Mapped[str]
    state_since: Mapped[datetime]
    visit: Mapped[int]
    """The version at which the state was entered."""
    final: Mapped[bool]
    version: Mapped[int]
    fence: Mapped[int]
    subject_revision: Mapped[int]
    operation_id: Mapped[UUID | None]
    """The operation in flight."""
    latest_id: Mapped[UUID | None]
    """The latest operation that took the case over and is over."""
    deadline_at: Mapped[datetime | None]
    escalated_to: Mapped[str | None]
    condition: Mapped[str]
    condition_since: Mapped[datetime]
    recovery_owner: Mapped[str | None]
    waiting_on: Mapped[str | None]
    timeline_number: Mapped[int]
    timeline_head: Mapped[bytes]
    opened_at: Mapped[datetime]
    changed_at: Mapped[datetime]
    paused: Mapped[JSON | None]
    """The case's own pause: since, reason, by, via, owner (who decides), deadlines (`frozen` or `running`)."""
    thawed: Mapped[JSON | None]
    """By the key of a pause: when its resume last gave this case the time back for which its deadlines were frozen."""
    proposals: Mapped[int] = mapped_column(Integer, server_default=text("0"), default=0)
    """How many of its operations are proposed and wait for confirmation."""
    overdue: Mapped[JSON | None]
    """Its state's deadline passed, and somebody has to decide: since when, and who."""
    assignee: Mapped[str | None]
    """Who has claimed it, until it leaves its state."""
    documents: Mapped[str | None]
    """Fingerprint of the documents that count, by which a proposal knows that they are others now."""


class Subject(Base):
    """The business data of a case, in revisions; a revision never changes."""

    __tablename__ = "subjects"

    case_id: Mapped[UUID] = mapped_column(ForeignKey("cases.id"), primary_key=True)
    revision: Mapped[int] = mapped_column(primary_key=True)
    data: Mapped[JSON]


class StoredDocument(Base):
    """What is known of a document; its content lies in the object store under its hash, and is there before the row."""

    __tablename__ = "documents"
    __table_args__ = (
        Index("ix_documents_case", "case_id", "uploaded_at"),
        Index("uq_documents_idempotency", "actor_id", "idempotency_key", unique=True),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    case_id: Mapped[UUID] = mapped_column(ForeignKey("cases.id"))
    kind: Mapped[str]
    name: Mapped[str]
    """As whoever uploaded it calls the file."""
    media_type: Mapped[str]
    """By its content."""
    size: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str]
    replaced_by: Mapped[UUID | None]
    """The one that counts in its place; a document changes in no other way."""
    actor_id: Mapped[str]
    actor_role: Mapped[str | None]
    actor_via: Mapped[str]
    uploaded_at: Mapped[datetime]
    idempotency_key: Mapped[str]
    content_digest: Mapped[bytes]


class Operation(Base):
    """One accepted command, from acceptance to visible outcome; a final one never changes again."""

    __tablename__ = "operations"
    __table_args__ = (
        Index(
            "uq_operations_idempotency",
            "actor_id",
            "idempotency_key",
            unique=True,
            postgresql_where=text("idempotency_key IS NOT NULL"),
        ),
        Index("ix_operations_case", "case_id", "accepted_at"),
        Index("ix_operations_proposed", "expires_at", postgresql_where=text("state = 'proposed'")),
        Index("ix_operations_bulk", "bulk_id", postgresql_where=text("bulk_id IS NOT NULL")),
        Index("ix_operations_blocked", "process", postgresql_where=text("blocked IS NOT NULL")),
        CheckConstraint(
            "(state IN ('completed','undone','superseded','declined','expired')) = (finished_at IS NOT NULL)",
            name="finished",
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    case_id: Mapped[UUID] = mapped_column(ForeignKey("cases.id"))
    process: Mapped[str]
    kind: Mapped[str]
    name: Mapped[str]
    state: Mapped[str]
    actor_id: Mapped[str]
    actor_role: Mapped[str | None]
    actor_via: Mapped[str]
    on_behalf_of: Mapped[str | None]
    """The person for whom the actor stood in."""
    reason: Mapped[str | None]
    input: Mapped[JSON]
    fence: Mapped[int]
    from_state: Mapped[str | None]
    """Where an undo leads back to: the last state at rest."""
    case_state: Mapped[str]
    to_state: Mapped[str | None]
    subject_base: Mapped[int]
    """The revision it began with, and goes back to when undone."""
    subject_revision: Mapped[int]
    """The revision it works on: the one it began with, or its own."""
    offsets: Mapped[list[str]]
    """Keys of the effects to offset, latest first."""
    undoes: Mapped[list[str]] = mapped_column(server_default=text("'{}'"), default=list)
    """Those of them that a story took back although they stood for good, its own or one that it superseded: what led
    back to the state before is gone, so that this operation can't be undone."""
    documents: Mapped[list[str]] = mapped_column(server_default=text("'{}'"), default=list)
    """Ids of the documents that it was accepted over."""
    supersedes: Mapped[UUID | None]
    superseded_by: Mapped[UUID | None]
    acts_on: Mapped[UUID | None]
    step: Mapped[str | None]
    item: Mapped[str | None]
    effect_key: Mapped[str | None]
    """The effect that a per-step override acts on."""
    blocked: Mapped[JSON | None]
    """The story itself can't go on: cause, error, since."""
    idempotency_key: Mapped[str | None]
    content_digest: Mapped[bytes | None]
    traceparent: Mapped[str]
    accepted_at: Mapped[datetime]
    dispatched_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    confirmations: Mapped[int] = mapped_column(server_default=text("0"), default=0)
    """How many people must confirm it before it is accepted."""
    expires_at: Mapped[datetime | None]
    proposal: Mapped[JSON | None]
    """What a proposal is about; confirming is refused once any of it changed."""
    plan: Mapped[JSON | None]
    """Of a replay: per step what is run, reused or offset."""
    bulk_id: Mapped[UUID | None]
    """The bulk run that it belongs to."""


class ProposalAnswer(Base):
    """Somebody's word on a proposal; never changed. Nobody confirms one twice, whatever the code says."""

    __tablename__ = "proposal_answers"
    __table_args__ = (
        Index(
            "uq_proposal_answers_confirmed",
            "operation_id",
            "actor_id",
            unique=True,
            postgresql_where=text("answer = 'confirmed'"),
        ),
        Index(
            "uq_proposal_answers_idempotency",
            "actor_id",
            "idempotency_key",
            unique=True,
            postgresql_where=text("idempotency_key IS NOT NULL"),
        ),
    )

    operation_id: Mapped[UUID] = mapped_column(ForeignKey("operations.id"), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    case_id: Mapped[UUID] = mapped_column(ForeignKey("cases.id"))
    answer: Mapped[str]
    """`confirmed` or `declined`."""
    actor_id: Mapped[str]
    actor_role: Mapped[str | None]
    actor_via: Mapped[str]
    on_behalf_of: Mapped[str | None]
    """The person for whom the actor stood in, whose word it counts as too."""
    reason: Mapped[str | None]
    at: Mapped[datetime]
    idempotency_key: Mapped[str | None]
    content_digest: Mapped[bytes | None]


class Delegation(Base):
    """Somebody stands in for somebody else for a while; what they lend is what they had when they lent it."""

    __tablename__ = "delegations"
    __table_args__ = (
        Index("ix_delegations_to", "to_actor", "until"),
        Index("uq_delegations_idempotency", "from_actor", "idempotency_key", unique=True),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    from_actor: Mapped[str]
    to_actor: Mapped[str]
    roles: Mapped[list[str]]
    from_at: Mapped[datetime]
    until: Mapped[datetime]
    reason: Mapped[str]
    created_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    """When it was ended before its time."""
    ended_by: Mapped[str | None]
    idempotency_key: Mapped[str]
    content_digest: Mapped[bytes]


class Effect(Base):
    """The one outside change that a step intends; its key is the same for every attempt."""

    __tablename__ = "effects"
    __table_args__ = (
        Index("ix_effects_driven_by", "driven_by"),
        Index("ix_effects_operation", "operation_id"),
        Index("ix_effects_standing", "case_id", "settled_at", postgresql_where=text("standing")),
        Index("ix_effects_blocked", "step", "partner", postgresql_where=text("state = 'blocked'")),
        Index("ix_effects_paused", "paused_by", "since", postgresql_where=text("state = 'paused'")),
        Index("ix_effects_waiting", "partner", "since", postgresql_where=text("state = 'waiting'")),
    )

    key: Mapped[str] = mapped_column(primary_key=True)
    case_id: Mapped[UUID] = mapped_column(ForeignKey("cases.id"))
    operation_id: Mapped[UUID] = mapped_column(ForeignKey("operations.id"))
    driven_by: Mapped[UUID] = mapped_column(ForeignKey("operations.id"))
    """The operation that works on it now: its own, or the one that supersedes that."""
    step: Mapped[str]
    item: Mapped[str | None]
    direction: Mapped[str]
    of_effect: Mapped[str | None]
    """For a compensation: the effect that it offsets."""
    partner: Mapped[str]
    recovery_owner: Mapped[str]
    state: Mapped[str]
    outcome: Mapped[str | None]
    decision: Mapped[str | None]
    decided_by: Mapped[UUID | None]
    ruled_out_by: Mapped[UUID | None]
    """The operation in which somebody said that the unknown outcome did not happen."""
    retry_by: Mapped[UUID | None]
    """The `retry` whose attempt has no outcome yet."""
    cause: Mapped[str | None]
    error: Mapped[JSON | None]
    request: Mapped[JSON | None]
    result: Mapped[JSON | None]
    standing: Mapped[bool]
    """It happened, or counts as such, and was not offset."""
    offset_at: Mapped[datetime | None]
    attempt_count: Mapped[int]
    burst: Mapped[int]
    """Failed attempts since it began or somebody said `retry`."""
    next_attempt_at: Mapped[datetime | None]
    maybe_sent_until: Mapped[datetime | None]
    """The last instant at which a request without an answer may have been on its way."""
    answer_by: Mapped[datetime | None]
    since: Mapped[datetime]
    reserved_at: Mapped[datetime]
    settled_at: Mapped[datetime | None]
    paused_by: Mapped[str | None]
    """While it is `paused`: the key of the pause that it waits for."""


class Attempt(Base):
    """One try at an effect, under a lease by the database's clock."""

    __tablename__ = "attempts"
    # Of a table that grows with time this kind of index costs next to nothing, and finds what was lately.
    __table_args__ = (
        Index("ix_attempts_started", "started_at", postgresql_using="brin", postgresql_with={"autosummarize": True}),
    )

    effect_key: Mapped[str] = mapped_column(ForeignKey("effects.key"), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    operation_id: Mapped[UUID]
    lease_until: Mapped[datetime]
    outcome: Mapped[str | None]
    error: Mapped[JSON | None]
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]


class Entry(Base):
    """One line of a case's timeline; a database rule lets nobody change or remove it."""

    __tablename__ = "timeline_entries"

    case_id: Mapped[UUID] = mapped_column(ForeignKey("cases.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    type: Mapped[str]
    at: Mapped[datetime]
    actor_id: Mapped[str]
    actor_role: Mapped[str | None]
    actor_via: Mapped[str]
    reason: Mapped[str | None]
    operation_id: Mapped[UUID | None]
    effect_key: Mapped[str | None]
    traceparent: Mapped[str | None]
    data: Mapped[JSON]
    hash: Mapped[bytes]


class Message(Base):
    """One promise, committed with the change that made it, until it was dispatched."""

    __tablename__ = "outbox_messages"
    __table_args__ = (
        Index("ix_outbox_messages_due", "next_at", "id", postgresql_where=text("dispatched_at IS NULL AND NOT parked")),
        Index("ix_outbox_messages_parked", "id", postgresql_where=text("parked")),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    destination: Mapped[str]
    case_id: Mapped[UUID] = mapped_column(ForeignKey("cases.id"))
    operation_id: Mapped[UUID | None]
    payload: Mapped[JSON]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    next_at: Mapped[datetime] = mapped_column(server_default=func.now())
    tries: Mapped[int] = mapped_column(server_default=text("0"))
    parked: Mapped[bool] = mapped_column(server_default=text("false"))
    error: Mapped[str | None]
    dispatched_at: Mapped[datetime | None]
    begun_at: Mapped[datetime | None]
    """Of a mail: since when it may have gone out. Written before it is sent, cleared where it certainly was not."""


class Pause(Base):
    """The permanent row of a process's or a partner's pause. A case's own pause stands in its case row."""

    __tablename__ = "pauses"

    key: Mapped[str] = mapped_column(primary_key=True)
    """`process:{name}` or `partner:{name}`."""
    id: Mapped[UUID] = mapped_column(unique=True)
    number: Mapped[int]
    """Rises with every change; part of the ETag of the cases it applies to."""
    state: Mapped[str]
    """`open`, `paused`, `probing` (a few cases may try) or `resuming` (its cases are woken at a limited rate)."""
    since: Mapped[datetime]
    reason: Mapped[str | None]
    actor_id: Mapped[str | None]
    actor_via: Mapped[str | None]
    deadlines: Mapped[str]
    """`frozen` or `running`."""
    rate: Mapped[int]
    """Cases a second that a resume wakes."""
    frozen_since: Mapped[datetime | None]
    """Since when deadlines stand still; until its resume has been through every case."""
    failing: Mapped[list[Any]] = mapped_column(JSONB)
    """Of a partner: the effects that failed in a row, with no answer between: key, at."""
    probe_at: Mapped[datetime | None]
    """When the breaker lets a few cases try; while they do, when it gives up waiting for them."""
    probes: Mapped[list[Any]] = mapped_column(JSONB)
    """The effects that may try: key, answered."""
    trips: Mapped[int]
    """How often in a row the breaker tripped; each time it waits longer before it probes."""


class PauseChange(Base):
    """What happened to the pause of a process or partner: by whom, why, when. Rows are only ever added."""

    __tablename__ = "pause_changes"
    __table_args__ = (
        Index(
            "uq_pause_changes_idempotency",
            "actor_id",
            "idempotency_key",
            unique=True,
            postgresql_where=text("idempotency_key IS NOT NULL"),
        ),
    )

    key: Mapped[str] = mapped_column(ForeignKey("pauses.key"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    """The pause's number from this change on."""
    state: Mapped[str]
    """What it became: `paused`, `probing`, `resuming` or `open`."""
    at: Mapped[datetime]
    actor_id: Mapped[str]
    actor_role: Mapped[str | None]
    actor_via: Mapped[str]
    reason: Mapped[str]
    data: Mapped[JSON]
    idempotency_key: Mapped[str | None]
    content_digest: Mapped[bytes | None]
    traceparent: Mapped[str | None]


class Callback(Base):
    """A partner's signed news of work that it acknowledged; stored before it is answered, once per event id."""

    __tablename__ = "callbacks"
    __table_args__ = (
        Index("ix_callbacks_effect", "effect_key"),
        Index("ix_callbacks_parked", "received_at", postgresql_where=text("parked AND dismissed_at IS NULL")),
        Index("ix_callbacks_dismissed", "dismissed_at", postgresql_where=text("dismissed_at IS NOT NULL")),
        Index(
            "uq_callbacks_idempotency",
            "dismissed_by",
            "idempotency_key",
            unique=True,
            postgresql_where=text("idempotency_key IS NOT NULL"),
        ),
    )

    partner: Mapped[str] = mapped_column(primary_key=True)
    event_id: Mapped[str] = mapped_column(primary_key=True)
    effect_key: Mapped[str]
    case_id: Mapped[UUID | None]
    call: Mapped[str | None]
    outcome: Mapped[str]
    """`succeeded` or `failed`."""
    answer: Mapped[JSON | None]
    error: Mapped[JSON | None]
    parked: Mapped[bool]
    """Nothing here knows its key. It stays so when it was dismissed, so that no step takes it for its answer."""
    received_at: Mapped[datetime]
    used_at: Mapped[datetime | None]
    dismissed_at: Mapped[datetime | None]
    dismissed_by: Mapped[str | None]
    dismissed_role: Mapped[str | None]
    dismissed_via: Mapped[str | None]
    dismissed_reason: Mapped[str | None]
    idempotency_key: Mapped[str | None]
    """Of the command that dismissed it; so are the next two."""
    content_digest: Mapped[bytes | None]
    traceparent: Mapped[str | None]


class BulkRun(Base):
    """One override over a frozen list of cases: first a few, then the rest at a limited rate."""

    __tablename__ = "bulk_runs"
    __table_args__ = (Index("uq_bulk_runs_idempotency", "actor_id", "idempotency_key", unique=True),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    state: Mapped[str]
    """`canary`, `looking` (the first few are over), `ramping`, `stopped` or `completed`."""
    override: Mapped[str]
    input: Mapped[JSON]
    reason: Mapped[str]
    actor_id: Mapped[str]
    actor_roles: Mapped[list[str]]
    wanted: Mapped[JSON | None]
    """The group it was made from: process, step, partner, fingerprint, until; `chosen` where it is over some of its
    cases alone: how many were chosen, and how many of them were gone. None where cases were named without a group."""
    named_of: Mapped[list[str]] = mapped_column(server_default=text("'{}'"))
    """Where cases were named: of which processes they are."""
    canary: Mapped[int]
    rate: Mapped[int]
    """Cases a second, at most."""
    stop_after: Mapped[int]
    """Failures at which it stops by itself."""
    look: Mapped[bool]
    """After the first few somebody looks and says whether to go on."""
    partners: Mapped[list[str]]
    """Whom the frozen effects are addressed to; their declared limits bind the run."""
    account: Mapped[list[Any]] = mapped_column(JSONB)
    """What became of the run itself: at, by, what, reason."""
    stopped_because: Mapped[str | None]
    idempotency_key: Mapped[str]
    content_digest: Mapped[bytes]
    traceparent: Mapped[str]
    created_at: Mapped[datetime]
    changed_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]


class BulkItem(Base):
    """One case of a bulk run, with its verified outcome."""

    __tablename__ = "bulk_items"
    __table_args__ = (
        Index("ix_bulk_items_state", "bulk_id", "state", "number"),
        Index("ix_bulk_items_answered", "bulk_id", "answered_at", postgresql_where=text("answered_at IS NOT NULL")),
    )

    bulk_id: Mapped[UUID] = mapped_column(ForeignKey("bulk_runs.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    case_id: Mapped[UUID] = mapped_column(ForeignKey("cases.id"))
    effect_key: Mapped[str | None]
    step: Mapped[str | None]
    """Its address: the step, or `{step}:undo`."""
    item: Mapped[str | None]
    partner: Mapped[str | None]
    fingerprint: Mapped[str | None]
    """What it was blocked for when the list was made; None where nothing was."""
    state: Mapped[str]
    """One of `caseward.bulk.ItemState`."""
    operation_id: Mapped[UUID | None]
    outcome: Mapped[JSON | None]
    begun_at: Mapped[datetime | None]
    answered_at: Mapped[datetime | None]
    """When it was seen that no request of it is on its way to the partner any more."""
    changed_at: Mapped[datetime]


class Known(Base):
    """What the reconciler last knew of the servers below us, to notice when one is not the one it was."""

    __tablename__ = "known"

    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[JSON]
    changed_at: Mapped[datetime]


class SignIn(Base):
    """Somebody signed in to the console: by the hash of what their cookie holds, never by the thing itself."""

    __tablename__ = "sessions"
    __table_args__ = (Index("ix_sessions_expires", "expires_at"),)

    key_hash: Mapped[bytes] = mapped_column(primary_key=True)
    actor_id: Mapped[str]
    roles: Mapped[list[str]]
    created_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    expires_at: Mapped[datetime]


class SavedView(Base):
    """A filter of the work that somebody saved under a name of their own."""

    __tablename__ = "saved_views"

    actor_id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    filter: Mapped[JSON]
    """As it stands in an address; whoever reads it checks whether it still is a filter."""
    saved_at: Mapped[datetime]
