"""What the engine mails: promised with what it tells, sent at most once, parked where nobody can know."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from sqlalchemy import text, update

from caseward.cases.locked import lock_case
from caseward.cases.parked import note_parked, requeue_message
from caseward.db.tables import Message
from caseward.errors import PartnerFailed, PartnerSilent
from caseward.outbox import store
from caseward.outbox.dispatcher import Dispatcher
from caseward.outbox.store import TO_MAIL, Claimed
from caseward.outbox.to_mail import ToMail, mail_key
from caseward.process import Block, Escalate, Retry
from dev.sandbox.process import SandboxProcess
from partners import SmtpServer
from partners.mail import Mail
from tests.integration.desk import Desk
from tests.integration.parcels import OPERATOR, parcels, rejected, step, transient
from tests.integration.test_engine_deadlines import waiting_for_weeks

ADDRESSES = {"*": "{name}@caseward.test", "desk": "desk@example.org"}


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory):
    with SandboxProcess(tmp_path_factory.mktemp("data")) as process:
        yield process


@pytest.fixture
def mail(sandbox) -> Mail:
    sandbox.clear_faults()
    return Mail(SmtpServer(host="127.0.0.1", port=sandbox.smtp_port, mail_from="caseward@caseward.test"))


@pytest.fixture
async def desk(database) -> Desk:
    """With an empty outbox: what other tests left there is not ours to deliver."""
    async with database.transaction() as session:
        await session.execute(
            update(Message).where(Message.dispatched_at.is_(None)).values(dispatched_at=text("now()"))
        )
    return Desk(database, parcels(step("book")))


class Double:
    """A mail server that answers as told."""

    def __init__(self, answer: Callable[[], None] = lambda: None) -> None:
        self.got: list[dict[str, Any]] = []
        self.answer = answer

    async def send(self, sending, /, *, to: Sequence[str], template: str, values) -> object:
        self.got.append({"key": sending.key, "to": list(to), "template": template, **values})
        self.answer()
        return None


def postman(desk: Desk, mailer, addresses=ADDRESSES) -> Dispatcher:
    async def note(message: Claimed, error: str) -> None:
        await note_parked(
            desk.database, desk.catalogue, case_id=message.case_id, destination=message.destination, error=error
        )

    return Dispatcher(desk.database, {TO_MAIL: ToMail(desk.database, mailer, addresses)}, note, mails=True)


async def promised(desk: Desk):
    """A case with one mail that waits."""
    case = await desk.open()
    async with desk.database.transaction() as session:
        work = await lock_case(session, desk.catalogue, case.id)
        work.mail("case_blocked", "desk", "Book: it can't go on (rejected). desk decides.")
    return case


async def the_mail(case) -> Message:
    [message] = [message for message in await case.messages() if message.destination == TO_MAIL]
    return message


async def time_passes(desk: Desk) -> None:
    async with desk.database.transaction() as session:
        await session.execute(text("UPDATE outbox_messages SET next_at = now() WHERE dispatched_at IS NULL"))


def raising(fault: Exception) -> Callable[[], None]:
    def answer() -> None:
        raise fault

    return answer


class TestSending:
    async def test_reaches_whoever_the_settings_name_and_says_nothing_of_the_subject(self, desk, mail, sandbox):
        case = await promised(desk)
        await postman(desk, mail).dispatch_due()
        message = await the_mail(case)
        [entry] = sandbox.ledger(key=f"{case.id}:mail:{message.id}")
        assert message.dispatched_at is not None
        assert entry["request"]["to"] == ["desk@example.org"]
        assert "Book: it can't go on (rejected). desk decides." in entry["request"]["text"]
        assert str(case.id) in entry["request"]["text"]

    async def test_goes_out_once_however_often_the_dispatchers_look(self, desk):
        await promised(desk)
        double = Double()
        many = [postman(desk, double) for _ in range(4)]
        async with asyncio.TaskGroup() as tasks:
            for one in many:
                tasks.create_task(one.dispatch_due())
        await time_passes(desk)
        await many[0].dispatch_due()
        assert len(double.got) == 1

    async def test_to_somebody_without_an_address_is_parked(self, desk):
        case = await promised(desk)
        await postman(desk, Double(), {}).dispatch_due()
        message = await the_mail(case)
        assert (message.parked, message.error) == (True, "CASEWARD_MAIL_TO has no address for desk.")


class TestCertainFailures:
    async def test_a_server_that_is_away_is_asked_again(self, desk, mail, sandbox):
        case = await promised(desk)
        sandbox.fault("mail", "send", "down", 1)
        await postman(desk, mail).dispatch_due()
        message = await the_mail(case)
        assert (message.parked, message.begun_at, message.dispatched_at) == (False, None, None)
        await time_passes(desk)
        await postman(desk, mail).dispatch_due()
        assert (await the_mail(case)).dispatched_at is not None
        assert len(sandbox.ledger(key=f"{case.id}:mail:{message.id}")) == 1

    async def test_a_refusal_for_good_is_parked(self, desk, mail, sandbox):
        case = await promised(desk)
        sandbox.fault("mail", "send", "reject", 1)
        await postman(desk, mail).dispatch_due()
        message = await the_mail(case)
        assert (message.parked, message.begun_at) == (True, None)
        assert "smtp_550" in message.error


class TestUnknown:
    async def test_a_lost_reply_is_parked_and_told_never_repeated(self, desk, mail, sandbox):
        case = await promised(desk)
        sandbox.fault("mail", "send", "lose_reply", 1)
        for _ in range(3):
            await postman(desk, mail).dispatch_due()
            await time_passes(desk)
        message = await the_mail(case)
        assert message.parked
        assert message.error.startswith("unknown: connection_lost")
        assert len(sandbox.ledger(key=f"{case.id}:mail:{message.id}")) == 1
        assert (await case.entries())[-1].type == "message.parked"

    async def test_whoever_finds_it_begun_parks_it(self, desk):
        """As a dispatcher leaves it that died between the record and the reply."""
        case = await promised(desk)
        async with desk.database.transaction() as session:
            [claimed] = await store.claim(session, limit=10, mails=True)
            assert await store.begin(session, claimed)
        await time_passes(desk)
        double = Double()
        await postman(desk, double).dispatch_due()
        message = await the_mail(case)
        assert (message.parked, double.got) == (True, [])
        assert message.error.startswith("unknown")

    async def test_is_released_by_a_person_only(self, desk):
        case = await promised(desk)
        double = Double(raising(PartnerSilent("timeout", "no reply")))
        await postman(desk, double).dispatch_due()
        message = await the_mail(case)
        async with desk.database.transaction() as session:
            await requeue_message(session, desk.catalogue, message_id=message.id, actor=OPERATOR)
        double.answer = lambda: None
        await postman(desk, double).dispatch_due()
        assert (await the_mail(case)).dispatched_at is not None
        assert [one["key"] for one in double.got] == [f"{case.id}:mail:{message.id}"] * 2

    async def test_the_claim_of_another_is_left_alone(self, desk):
        """A dispatcher that was frozen finds that the message is somebody else's by now."""
        case = await promised(desk)
        async with desk.database.transaction() as session:
            [old] = await store.claim(session, limit=10, mails=True)
        await time_passes(desk)
        async with desk.database.transaction() as session:
            [new] = await store.claim(session, limit=10, mails=True)
            assert await store.begin(session, new)
        double = Double()
        await postman(desk, double)._deliver([old])
        message = await the_mail(case)
        assert (double.got, message.parked, message.dispatched_at) == ([], False, None)
        assert mail_key(old) == mail_key(new)

    async def test_a_server_without_rights_for_us_keeps_the_mail_waiting(self, desk):
        case = await promised(desk)
        await postman(desk, Double(raising(PartnerFailed("unauthorized", "smtp_535", "no")))).dispatch_due()
        message = await the_mail(case)
        assert (message.parked, message.begun_at, message.tries) == (False, None, 0)


async def mails(case) -> list[tuple[str, str, str]]:
    return [
        (message.payload["template"], message.payload["to"], message.payload["values"]["sentence"])
        for message in await case.messages()
        if message.destination == TO_MAIL
    ]


class TestWhatIsMailed:
    async def test_a_step_that_blocks_tells_its_owner_once(self, database):
        case = await Desk(database, parcels(step("book", owner="logistics"))).open()
        await case.take("ship")
        case.desk.partner.next(rejected())
        assert (await case.run("book")).state == "blocked"
        assert (await case.run("book")).state == "blocked"
        [(template, to, words)] = await mails(case)
        assert (template, to) == ("case_blocked", "logistics")
        assert words.endswith("it can't go on (rejected). Logistics decides.")

    async def test_a_step_after_which_all_is_undone_asks_nobody(self, database):
        once = step("book", exhausted="undo", undo="Take it back", retry=Retry(waits=()))
        case = await Desk(database, parcels(once)).open()
        await case.take("ship")
        case.desk.partner.next(transient())
        await case.run("book")
        assert (await case.row()).state == "draft"
        assert await mails(case) == []

    async def test_a_story_that_fails_tells_engineering_but_not_what_it_said(self, database):
        case = await Desk(database, parcels(step("book"))).open()
        await case.take("ship")
        await case.block_story("KeyError: 'somebody@example.com'")
        [(template, to, words)] = await mails(case)
        assert (template, to) == ("case_blocked", "engineering")
        assert "somebody" not in words

    @pytest.mark.parametrize(
        ("then", "mailed"),
        [(Escalate("chief"), ("case_escalated", "chief")), (Block("logistics"), ("case_blocked", "logistics"))],
    )
    async def test_a_deadline_tells_whom_it_calls(self, database, then, mailed):
        case = await waiting_for_weeks(database, then)
        before = len(await mails(case))
        await case.pass_deadline()
        await case.pass_deadline()
        [(template, to, _)] = (await mails(case))[before:]
        assert (template, to) == mailed
