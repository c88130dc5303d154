"""Our gateways against the real sandbox: for every fault, what the gateway reports, and what really happened."""

import asyncio
import base64
import hashlib
import hmac
import itertools
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import BaseModel

from caseward.errors import PartnerAcknowledged, PartnerAnswer, PartnerFailed, PartnerSilent
from caseward.partner import Sending
from dev.sandbox.callbacks import partner_secret
from dev.sandbox.process import SandboxProcess
from partners import Partners, SmtpServer

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PATIENCE = 120  # seconds until a condition counts as never coming; a loaded machine is not a failure
SECRET = "the secret of these tests"
IBAN = "DE89370400440532013000"

numbers = itertools.count(1)


@dataclass
class Listener:
    """Stands where the API will: takes callbacks, after refusing as many as it was told to."""

    port: int = 0
    refusals: int = 0
    news: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    came: threading.Condition = field(default_factory=threading.Condition)

    def take(self, path: str, headers: dict[str, str], body: str) -> int:
        with self.came:
            self.news.append({**headers, "path": path, "body": body})
            self.came.notify_all()
            if self.refusals:
                self.refusals -= 1
                return 503
            return 204

    def about(self, key: str) -> list[dict[str, str]]:
        return [news for news in self.news if json.loads(news["body"])["key"] == key]

    async def wait_for(self, key: str, number: int) -> list[dict[str, str]]:
        def wait() -> list[dict[str, str]]:
            with self.came:
                assert self.came.wait_for(lambda: len(self.about(key)) >= number, PATIENCE)
                return self.about(key)

        return await asyncio.to_thread(wait)


@pytest.fixture(scope="module")
def listener() -> Iterator[Listener]:
    listener = Listener()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            self.send_response(listener.take(self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the parent's name
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        listener.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield listener
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def shared_sandbox(tmp_path_factory: pytest.TempPathFactory, listener: Listener) -> Iterator[SandboxProcess]:
    environment = {"CASEWARD_API_URL": f"http://127.0.0.1:{listener.port}", "CASEWARD_CALLBACK_SECRET": SECRET}
    with SandboxProcess(tmp_path_factory.mktemp("data"), environment=environment) as process:
        yield process


@pytest.fixture
def sandbox(shared_sandbox: SandboxProcess) -> SandboxProcess:
    shared_sandbox.clear_faults()
    return shared_sandbox


def connected(sandbox: SandboxProcess) -> Partners:
    smtp = SmtpServer(host="127.0.0.1", port=sandbox.smtp_port, mail_from="caseward@caseward.test")
    return Partners.connect(sandbox.url, smtp)


@pytest.fixture
async def partners(sandbox: SandboxProcess) -> AsyncIterator[Partners]:
    partners = connected(sandbox)
    yield partners
    await partners.aclose()


@pytest.fixture
def key() -> str:
    return f"0199-o:step-{next(numbers)}"


def sending(key: str, *, deadline: float = 60) -> Sending:
    return Sending(
        key=key, traceparent=TRACE, deadline=timedelta(seconds=deadline), send_before=time.monotonic() + PATIENCE
    )


async def check_tax_id(partners: Partners, leave: Sending, *, tax_id: str = "DE123456789") -> BaseModel:
    return await partners.registry.check_tax_id(leave, country="DE", tax_id=tax_id, legal_name="Acme GmbH")


async def open_payee(partners: Partners, leave: Sending) -> BaseModel:
    return await partners.bank.open_payee(leave, iban=IBAN, holder="Acme GmbH")


async def send_mail(partners: Partners, leave: Sending) -> BaseModel:
    values = {"legal_name": "Acme", "vendor_number": "V-1"}
    return await partners.mail.send(leave, to=["a@example.org"], template="vendor_welcome", values=values)


CallOf = Callable[[Partners, Sending], Awaitable[BaseModel]]

# One partner of each kind: repeats safely, can be asked, neither.
KINDS = pytest.mark.parametrize(
    ("partner", "call"),
    [("registry", check_tax_id), ("bank", open_payee), ("mail", send_mail)],
    ids=["idempotent", "probe", "neither"],
)


async def outcome_of(call: Awaitable[object]) -> PartnerAnswer:
    with pytest.raises(PartnerAnswer) as raised:
        await call
    return raised.value


async def eventually(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await asyncio.to_thread(true):
            await asyncio.sleep(0.02)


class TestWithoutFaults:
    async def test_every_call_does_what_it_says_and_is_in_the_ledger(
        self, sandbox: SandboxProcess, partners: Partners
    ) -> None:
        run = f"all-{next(numbers)}"
        leaves = (sending(f"{run}:{number}") for number in itertools.count())
        bank, erp = partners.bank, partners.erp

        checked = await partners.registry.check_tax_id(next(leaves), country="DE", tax_id="DE1", legal_name="Acme")
        assert (checked.registered, checked.registered_name) == (True, "Acme")
        screened = await partners.screening.screen(next(leaves), legal_name="Acme", country="DE")
        assert screened.hits == ()
        assert (await bank.verify_account(next(leaves), iban=IBAN, holder="Acme")).match == "full"
        payee = (await bank.open_payee(next(leaves), iban=IBAN, holder="Acme")).payee_id
        assert (await bank.suspend_payee(next(leaves), payee_id=payee)).suspended
        assert not (await bank.resume_payee(next(leaves), payee_id=payee)).suspended
        assert (await bank.close_payee(next(leaves), payee_id=payee)).closed
        vendor = await erp.create_vendor(next(leaves), legal_name="Acme", country="DE", tax_id="DE1", iban=IBAN)
        number = vendor.vendor_number
        assert (await erp.block_vendor(next(leaves), vendor_number=number)).blocked
        assert not (await erp.unblock_vendor(next(leaves), vendor_number=number)).blocked
        assert not (await erp.deactivate_vendor(next(leaves), vendor_number=number)).active
        assert (await send_mail(partners, next(leaves))).message_id

        happened = [entry for entry in sandbox.ledger() if entry["key"].startswith(run)]
        assert [f"{entry['partner']}.{entry['call']}" for entry in happened] == [
            "registry.check_tax_id",
            "screening.screen",
            "bank.verify_account",
            "bank.open_payee",
            "bank.suspend_payee",
            "bank.resume_payee",
            "bank.close_payee",
            "erp.create_vendor",
            "erp.block_vendor",
            "erp.unblock_vendor",
            "erp.deactivate_vendor",
            "mail.send",
        ]
        assert [entry["key"] for entry in happened] == [f"{run}:{number}" for number in range(12)]
        assert {entry["traceparent"] for entry in happened} == {TRACE}
        assert happened[6]["request"] == {"payee_id": payee}
        assert happened[6]["answer"] == {"payee_id": payee, "closed": True}

    async def test_some_companies_are_not_what_they_say(self, partners: Partners, key: str) -> None:
        tax = await partners.registry.check_tax_id(sending(key), country="DE", tax_id="DE000000", legal_name="Ghost")
        assert (tax.registered, tax.registered_name) == (False, None)
        screened = await partners.screening.screen(sending(key), legal_name="Sanctioned AG", country="DE")
        assert [hit.name for hit in screened.hits] == ["Sanctioned AG"]
        account = await partners.bank.verify_account(sending(key), iban=IBAN, holder="Mismatch Ltd")
        assert account.match == "none"


class TestFaults:
    @KINDS
    async def test_error_does_nothing_and_may_be_tried_again(
        self, sandbox: SandboxProcess, partners: Partners, key: str, partner: str, call: CallOf
    ) -> None:
        sandbox.fault(partner, "*", "error", 1)
        outcome = await outcome_of(call(partners, sending(key)))
        assert isinstance(outcome, PartnerFailed)
        code = "smtp_451" if partner == "mail" else "internal_error"
        assert (outcome.error_class, outcome.code) == ("transient", code)
        assert sandbox.ledger(key=key) == []
        await call(partners, sending(key))
        assert len(sandbox.ledger(key=key)) == 1

    @KINDS
    async def test_reject_does_nothing_for_good(
        self, sandbox: SandboxProcess, partners: Partners, key: str, partner: str, call: CallOf
    ) -> None:
        sandbox.fault(partner, "*", "reject", 1)
        outcome = await outcome_of(call(partners, sending(key)))
        assert isinstance(outcome, PartnerFailed)
        codes = {"registry": "country_not_served", "bank": "account_closed", "mail": "smtp_550"}
        assert (outcome.error_class, outcome.code) == ("rejected", codes[partner])
        assert sandbox.ledger(key=key) == []

    @KINDS
    async def test_slow_is_done_at_once_and_answered_late(
        self, sandbox: SandboxProcess, partners: Partners, key: str, partner: str, call: CallOf
    ) -> None:
        sandbox.fault(partner, "*", "slow", 1, seconds=0.2)
        begun = time.monotonic()
        answer = await call(partners, sending(key))
        assert time.monotonic() - begun >= 0.2
        [entry] = sandbox.ledger(key=key)
        assert entry["answer"] == answer.model_dump(mode="json")

    @KINDS
    async def test_slower_than_our_deadline_is_unknown_though_done(
        self, sandbox: SandboxProcess, partners: Partners, key: str, partner: str, call: CallOf
    ) -> None:
        sandbox.fault(partner, "*", "slow", 1, seconds=60)
        outcome = await outcome_of(call(partners, sending(key, deadline=5)))
        assert isinstance(outcome, PartnerSilent)
        assert outcome.code == "timeout"
        await eventually(lambda: len(sandbox.ledger(key=key)) == 1)

    @KINDS
    async def test_a_lost_reply_is_unknown_though_done(
        self, sandbox: SandboxProcess, partners: Partners, key: str, partner: str, call: CallOf
    ) -> None:
        sandbox.fault(partner, "*", "lose_reply", 1)
        outcome = await outcome_of(call(partners, sending(key)))
        assert isinstance(outcome, PartnerSilent)
        assert outcome.code == "connection_lost"
        assert len(sandbox.ledger(key=key)) == 1

    @KINDS
    async def test_a_lost_request_is_unknown_though_not_done(
        self, sandbox: SandboxProcess, partners: Partners, key: str, partner: str, call: CallOf
    ) -> None:
        sandbox.fault(partner, "*", "lose_request", 1)
        assert isinstance(await outcome_of(call(partners, sending(key))), PartnerSilent)
        assert sandbox.ledger(key=key) == []

    @KINDS
    async def test_down_does_nothing(  # who only speaks first hears that nobody is there, before there is any doubt
        self, sandbox: SandboxProcess, partners: Partners, key: str, partner: str, call: CallOf
    ) -> None:
        sandbox.fault(partner, "*", "down")
        for _ in range(3):
            certain = PartnerFailed if partner == "mail" else PartnerSilent
            assert isinstance(await outcome_of(call(partners, sending(key))), certain)
        assert sandbox.ledger(key=key) == []
        sandbox.clear_faults()
        await call(partners, sending(key))

    async def test_down_takes_the_probe_with_it_and_spares_the_others(
        self, sandbox: SandboxProcess, partners: Partners, key: str
    ) -> None:
        sandbox.fault("bank", "*", "down")
        assert isinstance(await outcome_of(partners.bank.probe(sending(key), "open_payee")), PartnerSilent)
        await check_tax_id(partners, sending(key))

    async def test_aim_at_one_case(self, sandbox: SandboxProcess, partners: Partners, key: str) -> None:
        sandbox.fault("bank", "open_payee", "reject", match="Unlucky")
        await partners.bank.open_payee(sending(key), iban=IBAN, holder="Lucky")
        rejected = await outcome_of(partners.bank.open_payee(sending(key), iban=IBAN, holder="Unlucky"))
        assert rejected.code == "account_closed"

    async def test_are_listed_counted_down_and_cleared(
        self, sandbox: SandboxProcess, partners: Partners, key: str
    ) -> None:
        sandbox.fault("*", "*", "error", 2)
        await outcome_of(send_mail(partners, sending(key)))
        [listed] = sandbox.control.get("/_control/faults").json()
        assert (listed["mode"], listed["times"]) == ("error", 1)
        sandbox.clear_faults()
        assert sandbox.control.get("/_control/faults").json() == []

    @pytest.mark.parametrize(
        "body", ["", "[]", "{", '{"partner": "bank"}', '{"partner":"bank","call":"*","mode":"odd","times":1}']
    )
    def test_that_are_malformed_are_refused(self, sandbox: SandboxProcess, body: str) -> None:
        answer = sandbox.control.post("/_control/faults", content=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "fault_invalid")
        assert sandbox.control.get("/_control/faults").json() == []


class TestUnknown:
    async def test_an_idempotent_partner_answers_the_same_again(
        self, sandbox: SandboxProcess, partners: Partners, key: str
    ) -> None:
        sandbox.fault("registry", "check_tax_id", "lose_reply", 1)
        await outcome_of(check_tax_id(partners, sending(key)))
        answer = await check_tax_id(partners, sending(key))
        [entry] = sandbox.ledger(partner="registry", key=key)
        assert entry["answer"] == answer.model_dump(mode="json")

    async def test_other_content_under_a_key_is_refused(
        self, sandbox: SandboxProcess, partners: Partners, key: str
    ) -> None:
        await check_tax_id(partners, sending(key))
        outcome = await outcome_of(check_tax_id(partners, sending(key), tax_id="DE987654321"))
        assert isinstance(outcome, PartnerFailed)
        assert (outcome.error_class, outcome.code) == ("rejected", "key_reused")
        assert len(sandbox.ledger(key=key)) == 1

    async def test_the_bank_can_be_asked(self, sandbox: SandboxProcess, partners: Partners, key: str) -> None:
        assert await partners.bank.probe(sending(key), "open_payee") is None
        sandbox.fault("bank", "open_payee", "lose_reply", 1)
        await outcome_of(open_payee(partners, sending(key)))
        [entry] = sandbox.ledger(key=key)
        assert await partners.bank.probe(sending(key), "open_payee") == entry["answer"]

    async def test_the_bank_repeats_what_it_is_told_twice(
        self, sandbox: SandboxProcess, partners: Partners, key: str
    ) -> None:
        first = await open_payee(partners, sending(key))
        assert await open_payee(partners, sending(key)) != first
        assert len(sandbox.ledger(partner="bank", key=key)) == 2
        assert await partners.bank.probe(sending(key), "open_payee") == first.model_dump(mode="json")

    async def test_concurrent_twins_are_one_effect_at_an_idempotent_partner(
        self, sandbox: SandboxProcess, partners: Partners, key: str
    ) -> None:
        vendors = await asyncio.gather(
            *(
                partners.erp.create_vendor(sending(key), legal_name="Acme", country="DE", tax_id="DE1", iban=IBAN)
                for _ in range(50)
            )
        )
        assert len({vendor.vendor_number for vendor in vendors}) == 1
        assert len(sandbox.ledger(key=key)) == 1


class TestLater:
    async def test_acknowledged_work_is_done_and_called_back_signed(
        self, sandbox: SandboxProcess, partners: Partners, listener: Listener, key: str
    ) -> None:
        sandbox.fault("bank", "open_payee", "acknowledge", 1, seconds=0.1)
        assert isinstance(await outcome_of(open_payee(partners, sending(key))), PartnerAcknowledged)
        [news] = await listener.wait_for(key, 1)
        [entry] = sandbox.ledger(key=key)
        body = json.loads(news["body"])
        assert news["path"] == "/v1/partners/bank/callbacks"
        assert body == {
            "event_id": news["webhook-id"],
            "partner": "bank",
            "call": "open_payee",
            "key": key,
            "outcome": "succeeded",
            "answer": entry["answer"],
            "error": None,
        }
        signed = f"{news['webhook-id']}.{news['webhook-timestamp']}.{news['body']}".encode()
        expected = hmac.new(partner_secret(SECRET.encode(), "bank"), signed, hashlib.sha256).digest()
        assert news["webhook-signature"] == f"v1,{base64.b64encode(expected).decode()}"
        assert abs(time.time() - int(news["webhook-timestamp"])) < PATIENCE

    async def test_meanwhile_the_bank_says_that_it_is_at_it(
        self, sandbox: SandboxProcess, partners: Partners, key: str
    ) -> None:
        sandbox.fault("bank", "open_payee", "acknowledge", 1, seconds=3600)
        await outcome_of(open_payee(partners, sending(key)))
        assert isinstance(await outcome_of(partners.bank.probe(sending(key), "open_payee")), PartnerAcknowledged)
        assert sandbox.ledger(key=key) == []

    async def test_meanwhile_an_idempotent_partner_acknowledges_again(
        self, sandbox: SandboxProcess, partners: Partners, key: str
    ) -> None:
        sandbox.fault("registry", "check_tax_id", "acknowledge", 1, seconds=3600)
        assert isinstance(await outcome_of(check_tax_id(partners, sending(key))), PartnerAcknowledged)
        assert isinstance(await outcome_of(check_tax_id(partners, sending(key))), PartnerAcknowledged)
        assert sandbox.ledger(key=key) == []

    async def test_afterwards_an_idempotent_partner_answers(
        self, sandbox: SandboxProcess, partners: Partners, key: str
    ) -> None:
        sandbox.fault("registry", "check_tax_id", "acknowledge", 1, seconds=0)
        await outcome_of(check_tax_id(partners, sending(key)))
        await eventually(lambda: len(sandbox.ledger(key=key)) > 0)
        await check_tax_id(partners, sending(key))
        assert len(sandbox.ledger(key=key)) == 1

    async def test_the_same_news_may_come_twice(
        self, sandbox: SandboxProcess, partners: Partners, listener: Listener, key: str
    ) -> None:
        sandbox.fault("bank", "open_payee", "callback_twice", 1, seconds=0)
        assert isinstance(await outcome_of(open_payee(partners, sending(key))), PartnerAcknowledged)
        news = await listener.wait_for(key, 2)
        assert len({one["webhook-id"] for one in news}) == 1
        await eventually(lambda: sandbox.callbacks(key=key)[0]["state"] == "delivered")
        assert len(listener.about(key)) == 2
        assert len(sandbox.ledger(key=key)) == 1

    async def test_news_may_never_come(self, sandbox: SandboxProcess, partners: Partners, key: str) -> None:
        sandbox.fault("bank", "open_payee", "callback_never", 1, seconds=0)
        assert isinstance(await outcome_of(open_payee(partners, sending(key))), PartnerAcknowledged)
        await eventually(lambda: len(sandbox.ledger(key=key)) == 1)
        # News is written in the transaction of the effect: none now means none ever.
        assert sandbox.callbacks(key=key) == []
        assert await partners.bank.probe(sending(key), "open_payee") == sandbox.ledger(key=key)[0]["answer"]

    async def test_news_may_be_bad(
        self, sandbox: SandboxProcess, partners: Partners, listener: Listener, key: str
    ) -> None:
        sandbox.fault("bank", "open_payee", "acknowledge", 1, seconds=0, outcome="failed")
        await outcome_of(open_payee(partners, sending(key)))
        [news] = await listener.wait_for(key, 1)
        body = json.loads(news["body"])
        assert (body["outcome"], body["answer"], body["error"]["code"]) == ("failed", None, "account_closed")
        assert sandbox.ledger(key=key) == []
        told = await outcome_of(partners.bank.probe(sending(key), "open_payee"))
        assert isinstance(told, PartnerFailed)
        assert told.error_class == "rejected"

    async def test_news_is_repeated_until_somebody_takes_it(
        self, sandbox: SandboxProcess, partners: Partners, listener: Listener, key: str
    ) -> None:
        listener.refusals = 2
        sandbox.fault("bank", "open_payee", "acknowledge", 1, seconds=0)
        await outcome_of(open_payee(partners, sending(key)))
        news = await listener.wait_for(key, 3)
        assert len({one["webhook-id"] for one in news}) == 1
        await eventually(lambda: sandbox.callbacks(key=key)[0]["state"] == "delivered")


class TestKill:
    async def test_nothing_that_was_answered_is_lost(self, tmp_path: Path) -> None:
        answered: dict[str, Any] = {}

        async def keep_calling(partners: Partners, worker: int) -> None:
            for number in itertools.count():
                key = f"{worker}-{number}"
                try:
                    answer = await open_payee(partners, sending(key))
                except PartnerAnswer:
                    return
                answered[key] = answer.model_dump(mode="json")

        with SandboxProcess(tmp_path) as sandbox:
            partners = connected(sandbox)
            workers = [asyncio.create_task(keep_calling(partners, worker)) for worker in range(8)]
            await eventually(lambda: len(answered) > 100)
            sandbox.kill()
            await asyncio.gather(*workers)

            outcome = await outcome_of(open_payee(partners, sending("nobody there")))
            assert isinstance(outcome, PartnerFailed)
            assert (outcome.error_class, outcome.code) == ("transient", "unreachable")

            sandbox.start()
            happened = {entry["key"]: entry["answer"] for entry in sandbox.ledger()}
            assert answered.items() <= happened.items()
            assert len(happened) <= len(answered) + len(workers)
            await open_payee(partners, sending("back again"))
            await partners.aclose()

    async def test_a_restarted_partner_remembers_keys_and_promises(self, tmp_path: Path, listener: Listener) -> None:
        environment = {"CASEWARD_API_URL": f"http://127.0.0.1:{listener.port}"}
        with SandboxProcess(tmp_path, environment=environment) as sandbox:
            partners = connected(sandbox)
            first = await check_tax_id(partners, sending("remembered"))
            sandbox.fault("bank", "open_payee", "callback_twice", 1, seconds=2)
            assert isinstance(await outcome_of(open_payee(partners, sending("promised"))), PartnerAcknowledged)
            secret = (tmp_path / "sandbox" / "callback-secret").read_text()
            sandbox.kill()
            sandbox.start()

            assert await check_tax_id(partners, sending("remembered")) == first
            news = await listener.wait_for("promised", 2)
            assert len({one["webhook-id"] for one in news}) == 1
            assert [entry["key"] for entry in sandbox.ledger()] == ["remembered", "promised"]
            assert (tmp_path / "sandbox" / "callback-secret").read_text() == secret
            await partners.aclose()

    async def test_news_that_found_nobody_is_delivered_after_a_restart(
        self, tmp_path: Path, listener: Listener
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as nobody:
            closed_port = nobody.getsockname()[1]
        with SandboxProcess(tmp_path, environment={"CASEWARD_API_URL": f"http://127.0.0.1:{closed_port}"}) as sandbox:
            partners = connected(sandbox)
            sandbox.fault("bank", "open_payee", "acknowledge", 1, seconds=0)
            await outcome_of(open_payee(partners, sending("unheard")))
            await partners.aclose()
            await eventually(lambda: [event["attempts"] > 0 for event in sandbox.callbacks(key="unheard")] == [True])
        environment = {"CASEWARD_API_URL": f"http://127.0.0.1:{listener.port}"}
        with SandboxProcess(tmp_path, environment=environment) as sandbox:
            await listener.wait_for("unheard", 1)
            await eventually(lambda: sandbox.callbacks(key="unheard")[0]["state"] == "delivered")


class TestServer:
    def test_is_alive(self, sandbox: SandboxProcess) -> None:
        assert sandbox.control.get("/health/live").status_code == 200

    def test_calls_need_a_key(self, sandbox: SandboxProcess) -> None:
        answer = sandbox.control.post("/bank/payees", json={"iban": IBAN, "holder": "Acme"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "idempotency_key_missing")

    @pytest.mark.parametrize("body", ["", "[]", "{", '{"iban": 7, "holder": "x"}', '{"iban":"x","holder":"y","z":1}'])
    def test_malformed_calls_do_nothing(self, sandbox: SandboxProcess, key: str, body: str) -> None:
        answer = sandbox.control.post("/bank/payees", content=body, headers={"idempotency-key": key})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")
        assert sandbox.ledger(key=key) == []

    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [("GET", "/nowhere", 404), ("GET", "/bank/payees", 405), ("GET", "/mail/effects/x", 404)],
    )
    def test_unknown_paths_answer_in_the_same_form(
        self, sandbox: SandboxProcess, method: str, path: str, status: int
    ) -> None:
        answer = sandbox.control.request(method, path)
        assert answer.status_code == status
        assert set(answer.json()["error"]) == {"code", "message"}

    def test_ends_politely(self, tmp_path: Path) -> None:
        with SandboxProcess(tmp_path) as sandbox, httpx2.Client(base_url=sandbox.url) as client:
            client.get("/health/live").raise_for_status()
            assert sandbox.stop() == 0

    def test_a_taken_port_is_an_error_that_names_the_setting(
        self, sandbox: SandboxProcess, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        taken = sandbox.url.rsplit(":", 1)[1]
        second = SandboxProcess(tmp_path, environment={"CASEWARD_SANDBOX_PORT": taken})
        with pytest.raises(RuntimeError, match="did not start"), second:
            pass
        assert "CASEWARD_SANDBOX_PORT" in capfd.readouterr().err

    def test_one_folder_has_one_referee(self, sandbox: SandboxProcess, capfd: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(RuntimeError, match="did not start"), SandboxProcess(sandbox.data_dir):
            pass
        assert "Another sandbox uses" in capfd.readouterr().err
