"""Every table of the engine, on one page.

Lock order of every transaction that writes: case, operation, effect, attempt, timeline entry, outbox message.
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


class Subject(Base):
    """The business data of a case, in revisions; a revision never changes."""

    __tablename__ = "subjects"

    case_id: Mapped[UUID] = mapped_column(ForeignKey("cases.id"), primary_key=True)
    revision: Mapped[int] = mapped_column(primary_key=True)
    data: Mapped[JSON]


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
        CheckConstraint("(state IN ('completed','undone','superseded')) = (finished_at IS NOT NULL)", name="finished"),
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


class Effect(Base):
    """The one outside change that a step intends; its key is the same for every attempt."""

    __tablename__ = "effects"
    __table_args__ = (
        Index("ix_effects_driven_by", "driven_by"),
        Index("ix_effects_operation", "operation_id"),
        Index("ix_effects_standing", "case_id", "settled_at", postgresql_where=text("standing")),
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


class Attempt(Base):
    """One try at an effect, under a lease by the database's clock."""

    __tablename__ = "attempts"

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
