"""Thousands of blocked vendors: one made by the real commands, the others its copies, with hash chains of their own."""

import json
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx2
from sqlalchemy import insert, select
from uuid_utils.compat import uuid7

from activities.vendor_onboarding import VendorOnboardingSteps
from caseward.cases import operations
from caseward.cases.effects import LeaseHeld
from caseward.cases.timeline import GENESIS, chained
from caseward.db.session import Database
from caseward.db.tables import Attempt, Base, Case, Effect, Entry, Operation, Subject
from caseward.messages import FinishCall, StepCall
from caseward.outbox import store
from caseward.process import Catalogue
from partners import Partners
from processes.vendor_onboarding import VENDOR_ONBOARDING, Vendor
from tests.integration.desk import Desk, Handle
from tests.integration.parcels import person

REQUESTER = person("vendor_requester")
EXAMPLE = Vendor.model_validate(Vendor.model_config["json_schema_extra"]["examples"][0])
CHUNK = 500


class Office(Desk):
    """The engine without Temporal: who plays the workflow calls the real activities, which call the real partners."""

    def __init__(self, database: Database, partners: Partners, limits: dict[str, int]) -> None:
        super().__init__(database, VENDOR_ONBOARDING, subject=lambda: EXAMPLE)
        self.catalogue = Catalogue([VENDOR_ONBOARDING], limits=limits)
        self.steps = VendorOnboardingSteps(partners)

    async def run_step(self, case: Case, name: str) -> str:
        key = f"{case.operation_id}:{name}"
        call = StepCall(case.process, str(case.id), str(case.operation_id), case.fence, name, key)
        return (await self.runner.run(self.process, getattr(self.steps, name), call)).state

    async def work_off(self, limit: int) -> int:
        """Take messages from the outbox and do what the workflows of their cases would; says how many."""
        async with self.database.transaction() as session:
            claimed = await store.claim(session, limit=limit)
        for message in claimed:
            with suppress(LeaseHeld):  # its claim lapsed on a slow machine, and somebody else is at it; it comes again
                await self._go_on(message.case_id)
                async with self.database.transaction() as session:
                    await store.mark_dispatched(session, [message])
        return len(claimed)

    async def _go_on(self, case_id: UUID) -> None:
        async with self.database.transaction() as session:
            case = await session.get_one(Case, case_id)
        if case.operation_id is not None and await self.run_step(case, "verify_account") == "settled":
            call = FinishCall(case.process, str(case.id), str(case.operation_id), case.fence, "in_review")
            async with self.database.transaction() as session:
                await operations.finish(session, self.catalogue, call)

    async def blocked_vendor(self, sandbox: httpx2.AsyncClient) -> Handle:
        """A vendor whose account the bank refused to verify."""
        case = await self.open(REQUESTER)
        await case.take("submit", REQUESTER)
        fault = {"partner": "bank", "call": "verify_account", "mode": "reject", "times": 1}
        (await sandbox.post("/_control/faults", json=fault)).raise_for_status()
        row = await case.row()
        states = [await self.run_step(row, name) for name in ("check_tax_id", "screen_sanctions", "verify_account")]
        assert states == ["settled", "settled", "blocked"]
        async with self.database.transaction() as session:
            claimed = await store.claim(session, limit=100)
            await store.mark_dispatched(session, claimed)
        return case


@dataclass
class Copier:
    """Makes copies of a case, row by row, under ids of their own and each a moment younger."""

    database: Database

    async def copy(self, original: UUID, how_many: int) -> None:
        rows = await self._rows(original)
        for first in range(0, how_many, CHUNK):
            batch: dict[Any, list[dict[str, Any]]] = {table: [] for table in rows}
            for number in range(first, min(first + CHUNK, how_many)):
                for table, copies in self._copied(original, rows, number).items():
                    batch[table] += copies
            async with self.database.transaction() as session:
                for table, values in batch.items():
                    if values:
                        await session.execute(insert(table), values)

    async def _rows(self, case_id: UUID) -> dict[Any, list[dict[str, Any]]]:
        of_case = {Case: Case.id == case_id}
        of_case |= {table: table.case_id == case_id for table in (Subject, Operation, Effect, Entry)}
        keys = select(Effect.key).where(Effect.case_id == case_id)
        of_case[Attempt] = Attempt.effect_key.in_(keys)
        rows = {}
        async with self.database.transaction() as session:
            for table, where in of_case.items():
                found = await session.scalars(select(table).where(where))
                rows[table] = [_values(row) for row in found]
        rows[Entry].sort(key=lambda entry: entry["number"])
        return rows

    def _copied(self, original: UUID, rows: dict[Any, list[dict[str, Any]]], number: int) -> dict[Any, list[Any]]:
        ids = {str(original): str(uuid7())} | {str(row["id"]): str(uuid7()) for row in rows[Operation]}

        def renamed(value: Any) -> Any:
            match value:
                case UUID():
                    return UUID(ids.get(str(value), str(value)))
                case str() if ":" in value:
                    head, colon, tail = value.partition(":")
                    return ids.get(head, head) + colon + tail
                case dict():
                    text = json.dumps(value)
                    for old, new in ids.items():
                        text = text.replace(old, new)
                    return json.loads(text)
                case _:
                    return value

        copies = {table: [{k: renamed(v) for k, v in row.items()} for row in found] for table, found in rows.items()}
        case = copies[Case][0]
        case["business_key"] = f"copy-{number}"
        for row in copies[Operation]:
            row["idempotency_key"] = None
        for row in copies[Effect]:
            row["since"] += timedelta(microseconds=number)
        head = GENESIS
        for entry in copies[Entry]:
            entry["hash"] = head = chained(head, Entry(**entry))
        case["timeline_head"] = head
        return copies


def _values(row: Base) -> dict[str, Any]:
    return {column.name: getattr(row, column.name) for column in row.__table__.columns}
