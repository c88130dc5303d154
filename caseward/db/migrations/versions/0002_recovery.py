"""What recovery needs: pauses, proposals, plans, callbacks, bulk runs, and what the reconciler last knew."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_JSON = postgresql.JSONB(none_as_null=True, astext_type=sa.Text())
_LIST = postgresql.JSONB(astext_type=sa.Text())
_INSTANT = sa.DateTime(timezone=True)
_FINISHED = "(state IN ({})) = (finished_at IS NOT NULL)"


def upgrade() -> None:
    op.add_column("cases", sa.Column("paused", _JSON, nullable=True))
    op.create_index("ix_cases_in_flight", "cases", ["changed_at"], postgresql_where=sa.text("operation_id IS NOT NULL"))
    op.create_index(
        "ix_cases_deadline",
        "cases",
        ["deadline_at"],
        postgresql_where=sa.text("deadline_at IS NOT NULL AND operation_id IS NULL"),
    )
    op.add_column("cases", sa.Column("proposals", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.create_index("ix_cases_proposals", "cases", ["changed_at", "id"], postgresql_where=sa.text("proposals > 0"))
    op.add_column("cases", sa.Column("overdue", _JSON, nullable=True))
    op.add_column("cases", sa.Column("thawed", _JSON, nullable=True))
    op.add_column("operations", sa.Column("confirmations", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.add_column("operations", sa.Column("expires_at", _INSTANT, nullable=True))
    op.add_column("operations", sa.Column("proposal", _JSON, nullable=True))
    op.add_column("operations", sa.Column("plan", _JSON, nullable=True))
    op.add_column("operations", sa.Column("bulk_id", sa.Uuid(), nullable=True))
    op.drop_constraint(op.f("ck_operations_finished"), "operations", type_="check")
    op.create_check_constraint(
        op.f("ck_operations_finished"),
        "operations",
        _FINISHED.format("'completed','undone','superseded','declined','expired'"),
    )
    op.create_index(
        "ix_operations_proposed", "operations", ["expires_at"], postgresql_where=sa.text("state = 'proposed'")
    )
    op.create_index("ix_operations_bulk", "operations", ["bulk_id"], postgresql_where=sa.text("bulk_id IS NOT NULL"))
    op.create_index("ix_operations_blocked", "operations", ["process"], postgresql_where=sa.text("blocked IS NOT NULL"))
    op.create_table(
        "proposal_answers",
        sa.Column("operation_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("case_id", sa.Uuid(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("actor_id", sa.Text(), nullable=False),
        sa.Column("actor_role", sa.Text(), nullable=True),
        sa.Column("actor_via", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("at", _INSTANT, nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("content_digest", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(["operation_id"], ["operations.id"], name=op.f("fk_proposal_answers_operation_id")),
        sa.ForeignKeyConstraint(["case_id"], ["cases.id"], name=op.f("fk_proposal_answers_case_id")),
        sa.PrimaryKeyConstraint("operation_id", "number", name=op.f("pk_proposal_answers")),
    )
    op.create_index(
        "uq_proposal_answers_confirmed",
        "proposal_answers",
        ["operation_id", "actor_id"],
        unique=True,
        postgresql_where=sa.text("answer = 'confirmed'"),
    )
    op.create_index(
        "uq_proposal_answers_idempotency",
        "proposal_answers",
        ["actor_id", "idempotency_key"],
        unique=True,
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )
    op.add_column("effects", sa.Column("paused_by", sa.Text(), nullable=True))
    op.create_index("ix_effects_blocked", "effects", ["step", "partner"], postgresql_where=sa.text("state = 'blocked'"))
    op.create_index(
        "ix_effects_paused", "effects", ["paused_by", "since"], postgresql_where=sa.text("state = 'paused'")
    )
    op.create_index(
        "ix_effects_waiting", "effects", ["partner", "since"], postgresql_where=sa.text("state = 'waiting'")
    )
    op.create_table(
        "pauses",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("since", _INSTANT, nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("actor_id", sa.Text(), nullable=True),
        sa.Column("actor_via", sa.Text(), nullable=True),
        sa.Column("deadlines", sa.Text(), nullable=False),
        sa.Column("rate", sa.Integer(), nullable=False),
        sa.Column("frozen_since", _INSTANT, nullable=True),
        sa.Column("failing", _LIST, nullable=False),
        sa.Column("probe_at", _INSTANT, nullable=True),
        sa.Column("probes", _LIST, nullable=False),
        sa.Column("trips", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_pauses")),
        sa.UniqueConstraint("id", name=op.f("uq_pauses_id")),
    )
    op.create_table(
        "pause_changes",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("at", _INSTANT, nullable=False),
        sa.Column("actor_id", sa.Text(), nullable=False),
        sa.Column("actor_role", sa.Text(), nullable=True),
        sa.Column("actor_via", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("data", _JSON, nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("content_digest", sa.LargeBinary(), nullable=True),
        sa.Column("traceparent", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["key"], ["pauses.key"], name=op.f("fk_pause_changes_key")),
        sa.PrimaryKeyConstraint("key", "number", name=op.f("pk_pause_changes")),
    )
    op.create_index(
        "uq_pause_changes_idempotency",
        "pause_changes",
        ["actor_id", "idempotency_key"],
        unique=True,
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )
    op.create_table(
        "callbacks",
        sa.Column("partner", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("effect_key", sa.Text(), nullable=False),
        sa.Column("case_id", sa.Uuid(), nullable=True),
        sa.Column("call", sa.Text(), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("answer", _JSON, nullable=True),
        sa.Column("error", _JSON, nullable=True),
        sa.Column("parked", sa.Boolean(), nullable=False),
        sa.Column("received_at", _INSTANT, nullable=False),
        sa.Column("used_at", _INSTANT, nullable=True),
        sa.PrimaryKeyConstraint("partner", "event_id", name=op.f("pk_callbacks")),
    )
    op.create_index("ix_callbacks_effect", "callbacks", ["effect_key"])
    op.create_index("ix_callbacks_parked", "callbacks", ["received_at"], postgresql_where=sa.text("parked"))
    op.create_table(
        "bulk_runs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("override", sa.Text(), nullable=False),
        sa.Column("input", _JSON, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("actor_id", sa.Text(), nullable=False),
        sa.Column("actor_roles", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("wanted", _JSON, nullable=True),
        sa.Column("canary", sa.Integer(), nullable=False),
        sa.Column("rate", sa.Integer(), nullable=False),
        sa.Column("stop_after", sa.Integer(), nullable=False),
        sa.Column("look", sa.Boolean(), nullable=False),
        sa.Column("partners", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("account", _LIST, nullable=False),
        sa.Column("stopped_because", sa.Text(), nullable=True),
        sa.Column("idempotency_key", sa.Text(), nullable=False),
        sa.Column("content_digest", sa.LargeBinary(), nullable=False),
        sa.Column("traceparent", sa.Text(), nullable=False),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.Column("changed_at", _INSTANT, nullable=False),
        sa.Column("finished_at", _INSTANT, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_bulk_runs")),
    )
    op.create_index("uq_bulk_runs_idempotency", "bulk_runs", ["actor_id", "idempotency_key"], unique=True)
    op.create_table(
        "bulk_items",
        sa.Column("bulk_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("case_id", sa.Uuid(), nullable=False),
        sa.Column("effect_key", sa.Text(), nullable=True),
        sa.Column("step", sa.Text(), nullable=True),
        sa.Column("item", sa.Text(), nullable=True),
        sa.Column("partner", sa.Text(), nullable=True),
        sa.Column("fingerprint", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("operation_id", sa.Uuid(), nullable=True),
        sa.Column("outcome", _JSON, nullable=True),
        sa.Column("begun_at", _INSTANT, nullable=True),
        sa.Column("answered_at", _INSTANT, nullable=True),
        sa.Column("changed_at", _INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["bulk_id"], ["bulk_runs.id"], name=op.f("fk_bulk_items_bulk_id")),
        sa.ForeignKeyConstraint(["case_id"], ["cases.id"], name=op.f("fk_bulk_items_case_id")),
        sa.PrimaryKeyConstraint("bulk_id", "number", name=op.f("pk_bulk_items")),
    )
    op.create_index("ix_bulk_items_state", "bulk_items", ["bulk_id", "state", "number"])
    op.create_index(
        "ix_bulk_items_answered",
        "bulk_items",
        ["bulk_id", "answered_at"],
        postgresql_where=sa.text("answered_at IS NOT NULL"),
    )
    op.create_table(
        "known",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", _JSON, nullable=False),
        sa.Column("changed_at", _INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_known")),
    )


def downgrade() -> None:
    for table in ("known", "bulk_items", "bulk_runs", "callbacks", "pause_changes", "pauses", "proposal_answers"):
        op.drop_table(table)
    for index in ("ix_effects_waiting", "ix_effects_paused", "ix_effects_blocked"):
        op.drop_index(index, table_name="effects")
    op.drop_column("effects", "paused_by")
    for index in ("ix_operations_blocked", "ix_operations_bulk", "ix_operations_proposed"):
        op.drop_index(index, table_name="operations")
    op.drop_constraint(op.f("ck_operations_finished"), "operations", type_="check")
    op.create_check_constraint(
        op.f("ck_operations_finished"), "operations", _FINISHED.format("'completed','undone','superseded'")
    )
    for column in ("bulk_id", "plan", "proposal", "expires_at", "confirmations"):
        op.drop_column("operations", column)
    for index in ("ix_cases_deadline", "ix_cases_in_flight"):
        op.drop_index(index, table_name="cases")
    op.drop_index("ix_cases_proposals", table_name="cases")
    for column in ("thawed", "proposals", "paused"):
        op.drop_column("cases", column)
