"""At most one outside change per effect key, and none left unaccounted for (G3, G4), whatever happens on the way.

Hypothesis plays a day on a case: partners lose replies, refuse, hang; workers are killed before and after the partner
acted; people take over, help and cancel. They tell the truth about what they see at the partner, as people should. In
the end everything is stopped by force, and the partner's ledger is compared with the engine's.
"""

import os
from collections import Counter
from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from caseward.cases import queries
from caseward.cases.effects import LeaseHeld
from caseward.cases.locked import story_of
from caseward.db.tables import Effect
from caseward.errors import ActionNotAllowed, InputInvalid
from caseward.process import IMPOSSIBLE, NONE_NEEDED
from tests.integration.desk import Desk, Handle
from tests.integration.parcels import (
    AT_ONCE,
    CHIEF,
    CLERK,
    SENIOR,
    LostReply,
    Partner,
    parcels,
    rejected,
    silent,
    step,
    transient,
)

EXAMPLES = int(os.environ.get("CASEWARD_EXAMPLES", "25"))
PROCESS = parcels(
    step("book"),
    step("label", partner="askable", exhausted="undo", retry=AT_ONCE),
    step("pay", partner="stubborn"),
    step("decorate", partner="askable", exhausted="proceed", retry=AT_ONCE),
    step("mail", partner="stubborn", undo=NONE_NEEDED),
    step("seal", partner="both", undo=IMPOSSIBLE),
    name="ledger",
)


class Killed(BaseException):
    """The worker is gone."""


class KilledBefore(Exception):
    """The worker dies before its request is out."""


class KilledAfter(Exception):
    """The worker dies when the partner has acted."""


class Mortal(Partner):
    """A partner whose script may also kill the worker that calls."""

    async def _do(self, sending, content: dict[str, Any], *, idempotent: bool):
        scripted = self.script[0] if self.script else None
        if isinstance(scripted, KilledBefore | KilledAfter):
            self.script.popleft()
            sending.check_lease()
            if isinstance(scripted, KilledAfter):
                self._happen(sending.key, idempotent=idempotent)
            raise Killed
        return await super()._do(sending, content, idempotent=idempotent)


REACTIONS = {
    "does it": lambda: None,
    "loses its reply": LostReply,
    "stays silent": silent,
    "is busy": transient,
    "refuses": rejected,
    "our worker dies before": KilledBefore,
    "our worker dies after": KilledAfter,
}


class Day:
    def __init__(self, desk: Desk, data: st.DataObject) -> None:
        self.desk, self.data = desk, data

    async def play(self) -> None:
        self.case = await self.desk.open()
        await self.case.take("ship")
        for _ in range(self.data.draw(st.integers(0, 16))):
            await self.data.draw(st.sampled_from(EVENTS))(self)
        self.desk.partner.script.clear()
        await self.until_at_rest()
        if not (await self.case.row()).final:
            await self.case.override("force_cancel", SENIOR)
            await self.until_at_rest()

    async def next_step(self) -> tuple[str, bool, str | None]:
        """What the workflow would do next: find out, take back, or the first step that is not settled."""
        operation, effects = await self.case.operation(), await self.effects()
        for key in operation.offsets:
            name, done = key.split(":")[1], effects[key]
            if done.state != "settled":
                return name, True, key
            undo = effects.get(f"{key}:undo")
            if done.standing and (undo is None or undo.state != "settled"):
                return f"{name}:undo", False, key
        if (story := story_of(PROCESS, operation)) is not None:
            reused = (operation.plan or {}).get("reuse", {})
            for each in story.steps:
                mine = effects.get(f"{operation.id}:{each.name}")
                if each.name not in reused and (mine is None or mine.state != "settled"):
                    return each.name, False, f"{operation.id}:{each.name}"
        return "", False, None

    async def effects(self) -> dict[str, Effect]:
        async with self.desk.database.transaction() as session:
            rows = await session.scalars(select(Effect).where(Effect.case_id == self.case.id))
            return {row.key: row for row in rows}

    async def goes_on(self) -> None:
        """One activity of the workflow."""
        if (await self.case.row()).operation_id is None:
            return
        address, settle_only, key = await self.next_step()
        try:
            if address:
                await self.case.run(address, settle_only=settle_only, effect_key=key)
            else:
                await self.case.finish("shipped")
        except (LeaseHeld, Killed):
            pass

    # events

    async def the_partner(self) -> None:
        # Mostly well, or no day gets beyond the first step.
        reaction = self.data.draw(st.sampled_from([*["does it"] * 6, *sorted(REACTIONS)]))
        self.desk.partner.next(REACTIONS[reaction]())
        await self.goes_on()

    async def time_passes(self) -> None:
        await self.case.time_passes(self.data.draw(st.sampled_from((timedelta(seconds=1), timedelta(hours=2)))))

    async def somebody_takes_over(self) -> None:
        try:
            moves = ("cancel", "undo", "replay", "force_cancel", "ship", "reopen", "take_back")
            match self.data.draw(st.sampled_from(moves)):
                case "replay":
                    step_name = self.data.draw(st.sampled_from(sorted(PROCESS.steps)))
                    async with self.desk.database.sessions() as session:
                        planned = await queries.get_plan(
                            session, self.desk.catalogue, case_id=self.case.id, step=step_name, actor=SENIOR
                        )
                    await self.case.override("replay", SENIOR, step=step_name, plan_hash=planned.plan_hash)
                case "undo" | "force_cancel" as override:
                    await self.case.override(override, SENIOR)
                case transition:
                    await self.case.take(transition, CHIEF if transition == "cancel" else CLERK)
        except (ActionNotAllowed, InputInvalid):
            pass

    async def somebody_helps(self) -> None:
        """With the truth: what the partner did is done, what it did not is tried again or left out."""
        for effect in sorted((await self.effects()).values(), key=lambda each: each.state != "blocked"):
            if effect.state in {"settled", "running"} or str(effect.driven_by) != str(
                (await self.case.row()).operation_id
            ):
                continue
            address = f"{effect.step}:undo" if effect.direction == "undo" else effect.step
            answer = self.desk.partner.answers.get(effect.key)
            try:
                if answer is not None:
                    result = answer.model_dump() if effect.direction == "do" else {}
                    await self.case.override("mark_done", SENIOR, step=address, result=result)
                elif PROCESS.steps[effect.step].undo is IMPOSSIBLE and effect.direction == "undo":
                    await self.case.override("skip", SENIOR, step=address)
                else:
                    await self.case.override("retry", SENIOR, step=address, happened=False)
            except (ActionNotAllowed, InputInvalid):
                pass
            return

    async def until_at_rest(self) -> None:
        for _ in range(60):
            if (await self.case.row()).operation_id is None:
                return
            await self.case.time_passes(timedelta(hours=2))
            await self.goes_on()
            if (await self.case.row()).operation_id and (await self.case.document()).condition == "blocked":
                await self.somebody_helps()
        document = await self.case.document()
        raise AssertionError(f"never at rest: {document.condition_info}")


EVENTS = (
    *[Day.the_partner] * 6,
    Day.goes_on,
    *[Day.time_passes] * 2,
    Day.somebody_helps,
    Day.somebody_takes_over,
)


@given(data=st.data())
@settings(max_examples=EXAMPLES)
async def test_every_outside_change_happened_once_and_is_accounted_for(database, data):
    desk = Desk(database, PROCESS, Mortal())
    day = Day(desk, data)
    await day.play()
    await check(day.case, Counter(desk.partner.happened))
    await check_record(day)


async def check(case: Handle, ledger: Counter[str]) -> None:
    """The partner's side: nothing twice, and nothing left standing that could be taken back."""
    assert not [key for key, times in ledger.items() if times > 1], "happened twice"
    for key in ledger:
        if key.endswith(":undo"):
            assert key.removesuffix(":undo") in ledger, "took back what never happened"
        elif PROCESS.steps[key.split(":")[1]].compensable:
            assert f"{key}:undo" in ledger, f"{key} was left standing: {await case.timeline()}"


async def check_record(day: Day) -> None:
    """Our side: what we call done was done, and what was done we don't call failed."""
    happened = set(day.desk.partner.happened)
    for effect in (await day.effects()).values():
        assert effect.state == "settled"
        if effect.outcome == "succeeded" or effect.decision == "marked_done":
            assert effect.key in happened, f"{effect.step} is called done"
        if effect.outcome == "failed":
            assert effect.key not in happened or effect.decision == "marked_done", f"{effect.step} is called failed"
    assert await day.case.chain_break() is None
    row = await day.case.row()
    assert (row.final, row.condition) == (True, "done")
