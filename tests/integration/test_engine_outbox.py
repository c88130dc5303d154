"""The outbox: promises are kept at least once, in order, and a message that can't be delivered stops nobody else."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import pytest
from sqlalchemy import text, update

from caseward import metrics
from caseward.cases.locked import lock_case
from caseward.cases.parked import dismiss_message, note_parked, requeue_message
from caseward.db.session import database_now
from caseward.db.tables import Message
from caseward.errors import MessageNeeded, MessageNotFound
from caseward.messages import News
from caseward.outbox import store
from caseward.outbox.dispatcher import AWAY, MAX_TRIES, DestinationAway, Dispatcher, NeverAgain
from caseward.outbox.store import TO_TEMPORAL, Claimed
from caseward.outbox.to_temporal import together
from tests.integration.desk import Desk
from tests.integration.parcels import OPERATOR, parcels, step


class Destination:
    """Takes what it is given, unless it is away or finds fault with an operation."""

    def __init__(self) -> None:
        self.got: list[list[Claimed]] = []
        self.away = False
        self.poison: set[UUID | None] = set()
        self.arrived = asyncio.Event()

    async def __call__(self, messages: Sequence[Claimed]) -> None:
        if self.away:
            raise DestinationAway("Temporal: UNAVAILABLE")
        if {message.operation_id for message in messages} & self.poison:
            raise ValueError("malformed")
        self.got.append(list(messages))
        self.arrived.set()

    @property
    def operations(self) -> list[UUID | None]:
        return [message.operation_id for group in self.got for message in group]


@pytest.fixture
async def desk(database) -> Desk:
    """With an empty outbox: what other tests left there is not ours to deliver."""
    async with database.transaction() as session:
        await session.execute(
            update(Message).where(Message.dispatched_at.is_(None)).values(dispatched_at=text("now()"))
        )
    return Desk(database, parcels(step("book")))


@pytest.fixture
def destination() -> Destination:
    return Destination()


@pytest.fixture
def dispatcher(desk, destination) -> Dispatcher:
    return dispatcher_for(desk, destination)


def dispatcher_for(desk: Desk, destination) -> Dispatcher:
    async def note(message: Claimed, error: str) -> None:
        await note_parked(
            desk.database, desk.catalogue, case_id=message.case_id, destination=message.destination, error=error
        )

    return Dispatcher(desk.database, {TO_TEMPORAL: destination}, note)


async def time_passes(desk: Desk) -> None:
    """Everything that waits in the outbox is due."""
    async with desk.database.transaction() as session:
        await session.execute(
            text("UPDATE outbox_messages SET next_at = now() - interval '1 s' WHERE dispatched_at IS NULL")
        )


async def now(desk: Desk) -> datetime:
    async with desk.database.transaction() as session:
        return await database_now(session)


async def waiting(desk: Desk) -> list[Message]:
    async with desk.database.transaction() as session:
        rows = await session.scalars(
            text("SELECT id FROM outbox_messages WHERE dispatched_at IS NULL AND NOT parked ORDER BY id")
        )
        return list(rows)


async def touch(session, operation_id: UUID) -> None:
    await session.execute(text("UPDATE operations SET reason = 'changed' WHERE id = :id"), {"id": operation_id})


async def somebody_waits(desk: Desk) -> bool:
    """Some transaction waits for another's row."""
    async with desk.database.transaction() as session:
        return bool(await session.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")))


class TestDispatch:
    async def test_all_of_one_case_travel_together_in_their_order(self, desk, dispatcher, destination):
        case, other = await desk.open(), await desk.open()
        ship = await case.take("ship")
        cancel = await case.take("cancel")
        await dispatcher.dispatch_due()
        by_case = {group[0].case_id: [message.operation_id for message in group] for group in destination.got}
        assert len(destination.got) == 2
        assert by_case[case.id][1:] == [ship.operation_id, cancel.operation_id]
        assert len(by_case[other.id]) == 1
        assert await waiting(desk) == []

    async def test_is_on_record_at_the_operation(self, desk, dispatcher):
        case = await desk.open()
        ship = await case.take("ship")
        assert (await case.operation(ship.operation_id)).dispatched_at is None
        await dispatcher.dispatch_due()
        assert (await case.operation(ship.operation_id)).dispatched_at is not None

    async def test_waits_for_its_turn_at_the_case_like_everybody(self, desk, dispatcher):
        """Whoever changes two operations of a case holds the case; or each would wait for what the other has."""
        case = await desk.open()
        first = await case.take("ship")
        second = await case.take("cancel")
        async with desk.database.transaction() as session, asyncio.TaskGroup() as group:
            await lock_case(session, desk.catalogue, case.id)
            await touch(session, second.operation_id)
            marking = group.create_task(dispatcher.dispatch_due())
            async with asyncio.timeout(60):
                while not await somebody_waits(desk):
                    await asyncio.sleep(0)
            await touch(session, first.operation_id)
            await session.commit()
            await marking
        assert await waiting(desk) == []

    async def test_nothing_due_is_no_work(self, desk, dispatcher, destination):
        assert not await dispatcher.dispatch_due()
        assert destination.got == []

    async def test_what_was_rolled_back_was_never_promised(self, desk, dispatcher, destination):
        case = await desk.open()
        await dispatcher.dispatch_due()
        with pytest.raises(MessageNotFound):  # noqa: PT012 - what is tested is the rolling back
            async with desk.database.transaction() as session:
                session.add(Message(destination=TO_TEMPORAL, case_id=case.id, operation_id=None, payload={}))
                await session.flush()
                raise MessageNotFound
        assert not await dispatcher.dispatch_due()
        assert len(destination.got) == 1

    async def test_many_dispatchers_share_the_work(self, desk):
        cases = [await desk.open() for _ in range(12)]
        destinations = [Destination() for _ in range(4)]
        async with asyncio.TaskGroup() as group:
            for each in destinations:
                group.create_task(dispatcher_for(desk, each).dispatch_due())
        delivered = sorted(message.case_id for each in destinations for got in each.got for message in got)
        assert delivered == sorted(case.id for case in cases)

    async def test_a_claim_is_nobody_elses_until_it_lapses(self, desk):
        await desk.open()
        async with desk.database.transaction() as session:
            first = await store.claim(session, limit=10)
        async with desk.database.transaction() as session:
            assert await store.claim(session, limit=10) == []
        await time_passes(desk)
        async with desk.database.transaction() as session:
            again = await store.claim(session, limit=10)
        assert [message.id for message in again] == [message.id for message in first]
        assert ([message.again for message in first], [message.again for message in again]) == ([False], [True])

    async def test_a_claim_takes_no_more_than_it_may_and_the_oldest_first(self, desk):
        cases = [await desk.open() for _ in range(5)]
        async with desk.database.transaction() as session:
            claimed = await store.claim(session, limit=3)
        assert [message.case_id for message in claimed] == [case.id for case in cases[:3]]

    async def test_a_dispatcher_that_died_after_delivering_delivers_again(
        self, desk, dispatcher, destination, monkeypatch
    ):
        case = await desk.open()

        class Died(BaseException):
            pass

        async def die(*_):
            raise Died

        with monkeypatch.context() as patched:
            patched.setattr(store, "mark_dispatched", die)
            with pytest.raises(BaseExceptionGroup):
                await dispatcher.dispatch_due()
        await time_passes(desk)
        await dispatcher.dispatch_due()
        assert [group[0].case_id for group in destination.got] == [case.id, case.id]
        assert await waiting(desk) == []

    async def test_runs_until_cancelled_and_is_woken_by_a_commit(self, desk, dispatcher, destination):
        running = asyncio.create_task(dispatcher.run())
        case = await desk.open()
        dispatcher.wake()
        await asyncio.wait_for(destination.arrived.wait(), 60)
        assert destination.got[0][0].case_id == case.id
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    async def test_survives_that_the_database_goes_away(self, desk, destination, monkeypatch):
        from sqlalchemy.exc import OperationalError

        dispatcher, broken = dispatcher_for(desk, destination), True
        mark = store.mark_dispatched

        async def sometimes(session, messages):
            if broken:
                raise OperationalError("UPDATE", {}, Exception("server closed the connection"))
            await mark(session, messages)

        monkeypatch.setattr(store, "mark_dispatched", sometimes)
        await desk.open()
        running = asyncio.create_task(dispatcher.run())
        await asyncio.wait_for(destination.arrived.wait(), 60)
        destination.arrived.clear()
        broken = False
        await time_passes(desk)
        dispatcher.wake()
        await asyncio.wait_for(destination.arrived.wait(), 60)
        assert not running.done()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


class TestAway:
    async def test_is_no_fault_of_the_message(self, desk, dispatcher, destination):
        case = await desk.open()
        destination.away = True
        for _ in range(MAX_TRIES * 2):
            await dispatcher.dispatch_due()
            await time_passes(desk)
        message = (await case.messages())[0]
        assert (message.parked, message.tries, message.error) == (False, 0, "Temporal: UNAVAILABLE")
        destination.away = False
        await dispatcher.dispatch_due()
        assert (await case.messages())[0].error is None

    async def test_is_tried_again_after_a_moment(self, desk, dispatcher, destination):
        case = await desk.open()
        destination.away = True
        before = await now(desk)
        await dispatcher.dispatch_due()
        message = (await case.messages())[0]
        assert before + AWAY <= message.next_at <= await now(desk) + AWAY

    async def test_commands_are_accepted_all_the_while(self, desk, dispatcher, destination):
        destination.away = True
        case = await desk.open()
        await dispatcher.dispatch_due()
        await case.take("ship")
        assert (await case.document()).condition == "queued"


class TestPoison:
    async def poisoned(self, desk, dispatcher, destination):
        case = await desk.open()
        await dispatcher.dispatch_due()
        poison = await case.take("ship")
        destination.poison = {poison.operation_id}
        return case, poison

    async def test_is_tried_some_times_then_parked_and_told(self, desk, dispatcher, destination):
        case, _ = await self.poisoned(desk, dispatcher, destination)
        for tries in range(1, MAX_TRIES + 1):
            await dispatcher.dispatch_due()
            message = (await case.messages())[-1]
            assert (message.tries, message.parked) == (tries, tries == MAX_TRIES)
            await time_passes(desk)
        entry = (await case.entries())[-1]
        assert (entry.type, entry.data["destination"], entry.data["message"]) == (
            "message.parked",
            "temporal",
            "ValueError: malformed",
        )
        await dispatcher.dispatch_due()
        assert (await case.messages())[-1].tries == MAX_TRIES, "nobody tries it any more"

    async def test_does_not_stop_other_cases(self, desk, dispatcher, destination):
        await self.poisoned(desk, dispatcher, destination)
        others = [await desk.open() for _ in range(3)]
        await dispatcher.dispatch_due()
        assert {group[0].case_id for group in destination.got} >= {case.id for case in others}

    async def test_does_not_take_other_messages_of_its_case_along(self, desk, dispatcher, destination):
        case, poison = await self.poisoned(desk, dispatcher, destination)
        cancel = await case.take("cancel")
        for _ in range(MAX_TRIES):
            await dispatcher.dispatch_due()
            await time_passes(desk)
        parked = {message.operation_id: message.parked for message in await case.messages()}
        assert (parked[poison.operation_id], parked[cancel.operation_id]) == (True, False)
        assert cancel.operation_id in destination.operations

    async def test_of_a_process_that_is_gone_does_not_stop_the_dispatcher(self, desk, dispatcher, destination):
        foreign = await Desk(desk.database, parcels(step("book"), name="letter")).open()
        message = (await foreign.messages())[0]
        destination.poison = {message.operation_id}
        for _ in range(MAX_TRIES):
            await dispatcher.dispatch_due()
            await time_passes(desk)
        assert (await foreign.messages())[0].parked

    async def test_of_an_unknown_destination_is_parked(self, desk, dispatcher):
        case = await desk.open()
        async with desk.database.transaction() as session:
            session.add(Message(destination="pigeon", case_id=case.id, operation_id=None, payload={}))
        for _ in range(MAX_TRIES):
            await dispatcher.dispatch_due()
            await time_passes(desk)
        assert (await case.messages())[-1].parked

    async def test_is_released_by_an_operator_and_delivered(self, desk, dispatcher, destination):
        case, poison = await self.poisoned(desk, dispatcher, destination)
        for _ in range(MAX_TRIES):
            await dispatcher.dispatch_due()
            await time_passes(desk)
        parked, version = (await case.messages())[-1], (await case.row()).version
        destination.poison = set()
        async with desk.database.transaction() as session:
            await requeue_message(session, desk.catalogue, message_id=parked.id, actor=OPERATOR)
        assert (await case.entries())[-1].actor_id == OPERATOR.id
        assert (await case.row()).version > version
        await dispatcher.dispatch_due()
        assert destination.operations[-1] == poison.operation_id

    async def test_is_dismissed_for_good_with_a_reason(self, desk, dispatcher):
        case = await desk.open()
        async with desk.database.transaction() as session:
            session.add(Message(destination="mail", case_id=case.id, operation_id=None, payload={}, parked=True))
        message = (await case.messages())[-1]
        async with desk.database.transaction() as session:
            await dismiss_message(
                session, desk.catalogue, message_id=message.id, actor=OPERATOR, reason="It did arrive"
            )
        entry = (await case.entries())[-1]
        assert (entry.type, entry.actor_id, entry.reason) == ("message.dismissed", OPERATOR.id, "It did arrive")
        dismissed = (await case.messages())[-1]
        assert (dismissed.parked, dismissed.error) == (False, "dismissed: It did arrive")
        assert dismissed.dispatched_at is not None
        with pytest.raises(MessageNotFound):
            async with desk.database.transaction() as session:
                await dismiss_message(session, desk.catalogue, message_id=message.id, actor=OPERATOR, reason="Again")

    async def test_what_is_delivered_or_parked_too_late_changes_and_tells_nothing(self, desk):
        case = await desk.open()
        async with desk.database.transaction() as session:
            session.add(Message(destination="mail", case_id=case.id, operation_id=None, payload={}))
        told: list[str] = []

        def parked() -> float | None:
            return metrics.REGISTRY.get_sample_value("caseward_messages_parked_total", {"destination": "mail"})

        async def tell(_: Claimed, error: str) -> None:
            told.append(error)

        async def refuse(messages: Sequence[Claimed]) -> None:
            """While somebody parks it, and somebody else gives it up."""
            async with desk.database.transaction() as session:
                assert await store.park(session, messages[0], error="Refused")
            async with desk.database.transaction() as session:
                assert not await store.park(session, messages[0], error="Refused again")
            async with desk.database.transaction() as session:
                await dismiss_message(
                    session, desk.catalogue, message_id=messages[0].id, actor=OPERATOR, reason="It did arrive"
                )
            async with desk.database.transaction() as session:
                await store.mark_dispatched(session, messages)
            raise NeverAgain

        metrics.MESSAGES_PARKED.labels("mail")
        before = parked()
        await Dispatcher(desk.database, {"mail": refuse}, tell, mails=True).dispatch_due()
        message = (await case.messages())[-1]
        assert (message.parked, message.error) == (False, "dismissed: It did arrive")
        assert told == []
        assert parked() == before + 1

    async def test_is_not_dismissed_while_its_operation_waits_for_it(self, desk, dispatcher, destination):
        case, poison = await self.poisoned(desk, dispatcher, destination)
        for _ in range(MAX_TRIES):
            await dispatcher.dispatch_due()
            await time_passes(desk)
        message = (await case.messages())[-1]
        with pytest.raises(MessageNeeded):
            async with desk.database.transaction() as session:
                await dismiss_message(
                    session, desk.catalogue, message_id=message.id, actor=OPERATOR, reason="Let it be"
                )
        assert (await case.messages())[-1].parked
        assert poison.operation_id == message.operation_id

    async def test_only_what_is_parked_can_be_released(self, desk, dispatcher):
        case = await desk.open()
        for message_id in ((await case.messages())[0].id, 10**12):
            with pytest.raises(MessageNotFound):
                async with desk.database.transaction() as session:
                    await requeue_message(session, desk.catalogue, message_id=message_id, actor=OPERATOR)


class TestOneSignal:
    """What the case's workflow is told."""

    async def test_carries_every_order_and_the_newest_news(self, desk):
        case = await desk.open()
        await case.take("ship")
        await case.take("cancel")
        async with desk.database.transaction() as session:
            claimed = await store.claim(session, limit=10)
        signal = together(list(reversed(claimed)))
        assert sorted(order.name for order in signal.orders) == ["cancel", "open", "ship"]
        assert signal.news.version == (await case.row()).version
        fences = defaultdict(list)
        for order in signal.orders:
            fences[order.name].append(order.fence)
        assert fences == {"open": [1], "ship": [2], "cancel": [3]}

    async def test_of_wakes_only_carries_no_order(self):
        payload = {"order": None, "news": {"version": 3, "status": {}}}
        signal = together([Claimed(1, TO_TEMPORAL, UUID(int=1), None, payload, 1)])
        assert (signal.orders, signal.news) == ([], News(3, {}))

    async def test_says_whether_it_may_have_been_delivered_before(self):
        payload = {"order": None, "news": {"version": 3, "status": {}}}
        first, again = (Claimed(n, TO_TEMPORAL, UUID(int=1), None, payload, 1, again=n == 2) for n in (1, 2))
        assert (together([first]).again, together([first, again]).again) == (False, True)

    @pytest.mark.parametrize(
        "payload", [{}, {"order": None}, {"order": {"fence": 1}, "news": {"version": 1, "status": {}}}]
    )
    async def test_a_malformed_one_is_a_fault_of_the_message(self, payload):
        with pytest.raises((KeyError, TypeError)):
            together([Claimed(1, TO_TEMPORAL, UUID(int=1), None, payload, 1)])
