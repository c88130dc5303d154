"""The tables of the engine, the rule that a timeline only grows, and what commits announce."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


TRIGGERS = """
CREATE FUNCTION timeline_only_grows() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'timeline entries are never changed or removed' USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER timeline_only_grows BEFORE UPDATE OR DELETE ON timeline_entries
  FOR EACH ROW EXECUTE FUNCTION timeline_only_grows();
CREATE TRIGGER timeline_is_not_truncated BEFORE TRUNCATE ON timeline_entries
  FOR EACH STATEMENT EXECUTE FUNCTION timeline_only_grows();

CREATE FUNCTION announce_case() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_notify('caseward_case', concat_ws(' ', NEW.id, NEW.condition, NEW.operation_id));
  RETURN NULL;
END $$;
CREATE TRIGGER announce_case AFTER INSERT OR UPDATE ON cases FOR EACH ROW EXECUTE FUNCTION announce_case();

CREATE FUNCTION announce_outbox() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_notify('caseward_outbox', '');
  RETURN NULL;
END $$;
CREATE TRIGGER announce_outbox AFTER INSERT ON outbox_messages FOR EACH STATEMENT EXECUTE FUNCTION announce_outbox();
"""

FUNCTIONS = ("timeline_only_grows", "announce_case", "announce_outbox")


def upgrade() -> None:
    op.create_table(
        "cases",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("process", sa.Text(), nullable=False),
        sa.Column("business_key", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("state_since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("visit", sa.Integer(), nullable=False),
        sa.Column("final", sa.Boolean(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("subject_revision", sa.Integer(), nullable=False),
        sa.Column("operation_id", sa.Uuid(), nullable=True),
        sa.Column("latest_id", sa.Uuid(), nullable=True),
        sa.Column("deadline_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("escalated_to", sa.Text(), nullable=True),
        sa.Column("condition", sa.Text(), nullable=False),
        sa.Column("condition_since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("recovery_owner", sa.Text(), nullable=True),
        sa.Column("waiting_on", sa.Text(), nullable=True),
        sa.Column("timeline_number", sa.Integer(), nullable=False),
        sa.Column("timeline_head", sa.LargeBinary(), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_cases")),
    )
    op.create_index("ix_cases_business_key", "cases", ["business_key"], unique=False)
    op.create_index("ix_cases_changed", "cases", ["changed_at", "id"], unique=False)
    op.create_index("ix_cases_condition", "cases", ["condition", "changed_at"], unique=False)
    op.create_index(
        "uq_cases_open_business_key",
        "cases",
        ["process", "business_key"],
        unique=True,
        postgresql_where=sa.text("NOT final"),
    )
    op.create_table(
        "operations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("case_id", sa.Uuid(), nullable=False),
        sa.Column("process", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("actor_id", sa.Text(), nullable=False),
        sa.Column("actor_role", sa.Text(), nullable=True),
        sa.Column("actor_via", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("input", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("from_state", sa.Text(), nullable=True),
        sa.Column("case_state", sa.Text(), nullable=False),
        sa.Column("to_state", sa.Text(), nullable=True),
        sa.Column("subject_base", sa.Integer(), nullable=False),
        sa.Column("subject_revision", sa.Integer(), nullable=False),
        sa.Column("offsets", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("supersedes", sa.Uuid(), nullable=True),
        sa.Column("superseded_by", sa.Uuid(), nullable=True),
        sa.Column("acts_on", sa.Uuid(), nullable=True),
        sa.Column("step", sa.Text(), nullable=True),
        sa.Column("item", sa.Text(), nullable=True),
        sa.Column("effect_key", sa.Text(), nullable=True),
        sa.Column("blocked", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("content_digest", sa.LargeBinary(), nullable=True),
        sa.Column("traceparent", sa.Text(), nullable=False),
        sa.Column("accepted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("dispatched_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(state IN ('completed','undone','superseded')) = (finished_at IS NOT NULL)",
            name=op.f("ck_operations_finished"),
        ),
        sa.ForeignKeyConstraint(["case_id"], ["cases.id"], name=op.f("fk_operations_case_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_operations")),
    )
    op.create_index("ix_operations_case", "operations", ["case_id", "accepted_at"], unique=False)
    op.create_index(
        "uq_operations_idempotency",
        "operations",
        ["actor_id", "idempotency_key"],
        unique=True,
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )
    op.create_table(
        "outbox_messages",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("case_id", sa.Uuid(), nullable=False),
        sa.Column("operation_id", sa.Uuid(), nullable=True),
        sa.Column("payload", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("tries", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("parked", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("dispatched_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["case_id"], ["cases.id"], name=op.f("fk_outbox_messages_case_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox_messages")),
    )
    op.create_index(
        "ix_outbox_messages_due",
        "outbox_messages",
        ["next_at", "id"],
        unique=False,
        postgresql_where=sa.text("dispatched_at IS NULL AND NOT parked"),
    )
    op.create_index(
        "ix_outbox_messages_parked", "outbox_messages", ["id"], unique=False, postgresql_where=sa.text("parked")
    )
    op.create_table(
        "subjects",
        sa.Column("case_id", sa.Uuid(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("data", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.ForeignKeyConstraint(["case_id"], ["cases.id"], name=op.f("fk_subjects_case_id")),
        sa.PrimaryKeyConstraint("case_id", "revision", name=op.f("pk_subjects")),
    )
    op.create_table(
        "timeline_entries",
        sa.Column("case_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor_id", sa.Text(), nullable=False),
        sa.Column("actor_role", sa.Text(), nullable=True),
        sa.Column("actor_via", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("operation_id", sa.Uuid(), nullable=True),
        sa.Column("effect_key", sa.Text(), nullable=True),
        sa.Column("traceparent", sa.Text(), nullable=True),
        sa.Column("data", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["case_id"], ["cases.id"], name=op.f("fk_timeline_entries_case_id")),
        sa.PrimaryKeyConstraint("case_id", "number", name=op.f("pk_timeline_entries")),
    )
    op.create_table(
        "effects",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("case_id", sa.Uuid(), nullable=False),
        sa.Column("operation_id", sa.Uuid(), nullable=False),
        sa.Column("driven_by", sa.Uuid(), nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("item", sa.Text(), nullable=True),
        sa.Column("direction", sa.Text(), nullable=False),
        sa.Column("of_effect", sa.Text(), nullable=True),
        sa.Column("partner", sa.Text(), nullable=False),
        sa.Column("recovery_owner", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("decision", sa.Text(), nullable=True),
        sa.Column("decided_by", sa.Uuid(), nullable=True),
        sa.Column("ruled_out_by", sa.Uuid(), nullable=True),
        sa.Column("retry_by", sa.Uuid(), nullable=True),
        sa.Column("cause", sa.Text(), nullable=True),
        sa.Column("error", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("request", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("result", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("standing", sa.Boolean(), nullable=False),
        sa.Column("offset_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempt_count", sa.Integer(), nullable=False),
        sa.Column("burst", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("maybe_sent_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("answer_by", sa.DateTime(timezone=True), nullable=True),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reserved_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["case_id"], ["cases.id"], name=op.f("fk_effects_case_id")),
        sa.ForeignKeyConstraint(["driven_by"], ["operations.id"], name=op.f("fk_effects_driven_by")),
        sa.ForeignKeyConstraint(["operation_id"], ["operations.id"], name=op.f("fk_effects_operation_id")),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_effects")),
    )
    op.create_index("ix_effects_driven_by", "effects", ["driven_by"], unique=False)
    op.create_index("ix_effects_operation", "effects", ["operation_id"], unique=False)
    op.create_index(
        "ix_effects_standing", "effects", ["case_id", "settled_at"], unique=False, postgresql_where=sa.text("standing")
    )
    op.create_table(
        "attempts",
        sa.Column("effect_key", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("operation_id", sa.Uuid(), nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("error", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["effect_key"], ["effects.key"], name=op.f("fk_attempts_effect_key")),
        sa.PrimaryKeyConstraint("effect_key", "number", name=op.f("pk_attempts")),
    )
    op.execute(TRIGGERS)


def downgrade() -> None:
    op.drop_table("attempts")
    op.drop_index("ix_effects_standing", table_name="effects", postgresql_where=sa.text("standing"))
    op.drop_index("ix_effects_operation", table_name="effects")
    op.drop_index("ix_effects_driven_by", table_name="effects")
    op.drop_table("effects")
    op.drop_table("timeline_entries")
    op.drop_table("subjects")
    op.drop_index("ix_outbox_messages_parked", table_name="outbox_messages", postgresql_where=sa.text("parked"))
    op.drop_index(
        "ix_outbox_messages_due",
        table_name="outbox_messages",
        postgresql_where=sa.text("dispatched_at IS NULL AND NOT parked"),
    )
    op.drop_table("outbox_messages")
    op.drop_index(
        "uq_operations_idempotency", table_name="operations", postgresql_where=sa.text("idempotency_key IS NOT NULL")
    )
    op.drop_index("ix_operations_case", table_name="operations")
    op.drop_table("operations")
    op.drop_index("uq_cases_open_business_key", table_name="cases", postgresql_where=sa.text("NOT final"))
    op.drop_index("ix_cases_condition", table_name="cases")
    op.drop_index("ix_cases_changed", table_name="cases")
    op.drop_index("ix_cases_business_key", table_name="cases")
    op.drop_table("cases")
    for name in FUNCTIONS:
        op.execute(f"DROP FUNCTION {name}")
