"""What a partner's answer means: the table, and the doubts that it must not hide."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import ClassVar

import httpx2
import pytest

from caseward.errors import LeaseTooShort, PartnerAcknowledged, PartnerAnswer, PartnerFailed, PartnerSilent
from caseward.partner import OFFER, Gateway, Offer, Sending
from partners import Partners
from partners.bank import Bank, PayeeOpened
from partners.hotel import Hotel, RoomHeld
from partners.http import MAX_ANSWER, MAX_RETRY_AFTER, HttpGateway
from partners.mail import Mail
from partners.registry import Registry, TaxIdChecked
from partners.screening import Screening
from tests.unit.nowhere import NOWHERE

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
Handler = Callable[[httpx2.Request], httpx2.Response]


class Wire(httpx2.MockTransport):
    """A transport whose answers still have to be read, as those of a socket."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await super().handle_async_request(request)
        if response.is_stream_consumed:
            stream = httpx2.ByteStream(response.content)
            return httpx2.Response(response.status_code, headers=response.headers, stream=stream)
        return response


def sending(*, deadline: float = 5, lease: float = 60) -> Sending:
    return Sending(
        key="0199-o:open_payee",
        traceparent=TRACE,
        deadline=timedelta(seconds=deadline),
        send_before=time.monotonic() + lease,
    )


def answering(status: int, **content: object) -> httpx2.AsyncBaseTransport:
    return Wire(lambda _: httpx2.Response(status, **content))  # pyright: ignore[reportArgumentType]


def breaking(error: Exception) -> httpx2.AsyncBaseTransport:
    def handle(_: httpx2.Request) -> httpx2.Response:
        raise error

    return Wire(handle)


async def open_payee(transport: httpx2.AsyncBaseTransport, leave: Sending | None = None) -> PayeeOpened:
    bank = Bank("http://partners.example/bank", transport=transport)
    try:
        return await bank.open_payee(leave or sending(), iban="DE89370400440532013000", holder="Acme GmbH")
    finally:
        await bank.aclose()


async def outcome_of(transport: httpx2.AsyncBaseTransport, leave: Sending | None = None) -> PartnerAnswer:
    with pytest.raises(PartnerAnswer) as raised:
        await open_payee(transport, leave)
    return raised.value


class TestRequest:
    async def test_carries_key_trace_and_content_to_the_partners_path(self) -> None:
        seen: list[httpx2.Request] = []

        def handle(request: httpx2.Request) -> httpx2.Response:
            seen.append(request)
            return httpx2.Response(200, json={"payee_id": "PY-1", "new_field": "partners may grow"})

        assert await open_payee(Wire(handle)) == PayeeOpened(payee_id="PY-1")
        [request] = seen
        assert (request.method, str(request.url)) == ("POST", "http://partners.example/bank/payees")
        assert request.headers["idempotency-key"] == "0199-o:open_payee"
        assert request.headers["traceparent"] == TRACE
        assert request.headers["accept-encoding"] == "identity"
        assert request.read() == b'{"iban":"DE89370400440532013000","holder":"Acme GmbH"}'

    async def test_a_reference_stays_one_segment_of_the_path(self) -> None:
        paths: list[bytes] = []

        def handle(request: httpx2.Request) -> httpx2.Response:
            paths.append(request.url.raw_path)
            return httpx2.Response(200, json={"payee_id": "x", "closed": True})

        bank = Bank("http://partners.example/bank", transport=Wire(handle))
        await bank.close_payee(sending(), payee_id="../PY 1?x#/")
        assert paths == [b"/bank/payees/..%2FPY%201%3Fx%23%2F/close"]
        with pytest.raises(PartnerFailed) as raised:
            await bank.close_payee(sending(), payee_id="..")
        assert (raised.value.error_class, len(paths)) == ("invalid", 1)


class TestLease:
    async def test_that_is_too_short_sends_nothing(self) -> None:
        sent: list[httpx2.Request] = []

        def handle(request: httpx2.Request) -> httpx2.Response:
            sent.append(request)
            return httpx2.Response(200, json={"payee_id": "PY-1"})

        with pytest.raises(LeaseTooShort):
            await open_payee(Wire(handle), sending(deadline=5, lease=4.9))
        assert sent == []

    async def test_that_ends_while_connecting_sends_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # A worker frozen between connecting and sending: its clock jumps before httpx2 announces the first byte.
        sent: list[httpx2.Request] = []

        async def handle(request: httpx2.Request) -> httpx2.Response:
            later = time.monotonic() + 5
            monkeypatch.setattr("partners.http.time.monotonic", lambda: later)
            await request.extensions["trace"]("http11.send_request_headers.started", {})
            sent.append(request)
            return httpx2.Response(200, json={"payee_id": "PY-1"})

        with pytest.raises(LeaseTooShort):
            await open_payee(Wire(handle))
        assert sent == []


class TestStatus:
    @pytest.mark.parametrize(
        ("status", "error_class"),
        [
            (400, "invalid"),
            (401, "unauthorized"),
            (403, "unauthorized"),
            (404, "rejected"),
            (409, "rejected"),
            (413, "invalid"),
            (415, "invalid"),
            (422, "rejected"),
            (408, "transient"),
            (425, "transient"),
            (429, "transient"),
            (500, "transient"),
            (503, "transient"),
        ],
    )
    async def test_that_says_nothing_was_done(self, status: int, error_class: str) -> None:
        outcome = await outcome_of(answering(status))
        assert isinstance(outcome, PartnerFailed)
        assert outcome.error_class == error_class
        assert outcome.code == f"http_{status}"

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 501, 502, 504, 520])
    async def test_that_leaves_it_open(self, status: int) -> None:
        headers = {"location": "http://elsewhere.example/"} if status < 400 else {}
        assert isinstance(await outcome_of(answering(status, headers=headers)), PartnerSilent)

    async def test_500_leaves_it_open_where_the_partner_promises_nothing(self) -> None:
        class Careless(Bank):
            meanings: ClassVar = {**Bank.meanings, "500": "unknown"}

        careless = Careless("http://partners.example/bank", transport=answering(500))
        with pytest.raises(PartnerSilent):
            await careless.open_payee(sending(), iban="DE", holder="Acme")

    async def test_202_is_later(self) -> None:
        assert isinstance(await outcome_of(answering(202, json={"status": "accepted"})), PartnerAcknowledged)


class TestConnection:
    @pytest.mark.parametrize("error", [httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout])
    async def test_that_was_never_made_is_transient(self, error: type[httpx2.TransportError]) -> None:
        outcome = await outcome_of(breaking(error("no")))
        assert isinstance(outcome, PartnerFailed)
        assert (outcome.error_class, outcome.code) == ("transient", "unreachable")

    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (httpx2.ReadTimeout, "timeout"),
            (httpx2.WriteTimeout, "timeout"),
            (httpx2.ReadError, "connection_lost"),
            (httpx2.WriteError, "connection_lost"),
            (httpx2.CloseError, "connection_lost"),
            (httpx2.RemoteProtocolError, "connection_lost"),
        ],
    )
    async def test_that_broke_leaves_it_open(self, error: type[httpx2.TransportError], code: str) -> None:
        outcome = await outcome_of(breaking(error("no")))
        assert isinstance(outcome, PartnerSilent)
        assert outcome.code == code

    async def test_the_whole_call_is_bounded_by_the_deadline(self) -> None:
        async def drip(_: httpx2.Request) -> httpx2.Response:
            await asyncio.Event().wait()
            raise AssertionError

        async with asyncio.timeout(120):
            outcome = await outcome_of(Wire(drip), sending(deadline=0.05))
        assert isinstance(outcome, PartnerSilent)
        assert outcome.code == "timeout"

    async def test_our_own_cancellation_is_no_outcome(self) -> None:
        reached = asyncio.Event()

        async def hang(_: httpx2.Request) -> httpx2.Response:
            reached.set()
            await asyncio.Event().wait()
            raise AssertionError

        task = asyncio.create_task(open_payee(Wire(hang)))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


class TestAnswer:
    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"<html>ok</html>",
            b"[]",
            b"{}",
            b'{"payee_id": 7}',
            b'{"payee_id": ""}',
            b'{"payee_id": "PY\\u0000"}',
            b'{"payee_id": "\\ud800"}',
            b'{"payee_id": "' + b"x" * 201 + b'"}',
            b"[" * 100_000,
        ],
    )
    async def test_that_we_do_not_understand_leaves_it_open(self, body: bytes) -> None:
        outcome = await outcome_of(answering(200, content=body))
        assert isinstance(outcome, PartnerSilent)
        assert outcome.code == "answer_not_understood"
        assert outcome.__cause__ is None

    async def test_that_never_ends_is_cut(self) -> None:
        sent = 0

        async def endless() -> AsyncIterator[bytes]:
            nonlocal sent
            while True:
                sent += 65536
                yield b" " * 65536

        outcome = await outcome_of(Wire(lambda _: httpx2.Response(200, content=endless())))
        assert isinstance(outcome, PartnerSilent)
        assert sent <= MAX_ANSWER + 2 * 65536

    async def test_yes_and_no_are_not_guessed(self) -> None:
        body = {"registered": "yes", "registered_name": None}
        registry = Registry("http://partners.example/registry", transport=answering(200, json=body))
        with pytest.raises(PartnerSilent):
            await registry.check_tax_id(sending(), country="DE", tax_id="1", legal_name="Acme")

    async def test_typed(self) -> None:
        hits = [{"list": "EU-CFSP", "name": "Sanctioned AG"}]
        body = {"reference": "SCR-1", "hits": hits}
        screening = Screening("http://partners.example/screening", transport=answering(200, json=body))
        screened = await screening.screen(sending(), legal_name="Sanctioned AG", country="DE")
        assert screened.model_dump(mode="json") == body


class TestPartnersWords:
    async def test_are_taken_over(self) -> None:
        said = {"error": {"code": "account_closed", "message": "Account closed"}}
        outcome = await outcome_of(answering(422, json=said))
        assert (outcome.code, outcome.message) == ("account_closed", "Account closed")

    async def test_are_cleaned_and_cut(self) -> None:
        said = {"error": {"code": "a\x00b\n" + "c" * 100, "message": "\x1b[31m" + "m\u202e" * 5000}}
        outcome = await outcome_of(answering(422, json=said))
        assert outcome.code == "ab" + "c" * 62
        assert outcome.message.startswith("[31mmmm")
        assert len(outcome.message) == 500

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"nonsense",
            b"[]",
            b'"x"',
            b'{"error": "x"}',
            b'{"error": {"code": 7, "message": []}}',
            b"\xff",
            b"[" * 100_000,
        ],
    )
    async def test_of_any_shape_do_no_harm(self, body: bytes) -> None:
        outcome = await outcome_of(answering(409, content=body))
        assert (outcome.code, outcome.message) == ("http_409", "The bank answered 409.")


class TestRetryAfter:
    @pytest.mark.parametrize(
        ("header", "seconds"),
        [("7", 7), ("0", 0), ("-5", None), ("soon", None), ("", None), ("9" * 30, MAX_RETRY_AFTER.total_seconds())],
    )
    async def test_in_seconds(self, header: str, seconds: float | None) -> None:
        outcome = await outcome_of(answering(503, headers={"retry-after": header}))
        assert isinstance(outcome, PartnerFailed)
        assert outcome.retry_after == (None if seconds is None else timedelta(seconds=seconds))

    async def test_as_a_date(self) -> None:
        until = datetime.now(UTC) + timedelta(seconds=90)
        outcome = await outcome_of(answering(429, headers={"retry-after": format_datetime(until, usegmt=True)}))
        assert isinstance(outcome, PartnerFailed)
        assert outcome.retry_after is not None
        assert timedelta(seconds=60) < outcome.retry_after <= timedelta(seconds=90)

    async def test_is_no_matter_of_a_refusal(self) -> None:
        outcome = await outcome_of(answering(422, headers={"retry-after": "7"}))
        assert isinstance(outcome, PartnerFailed)
        assert outcome.retry_after is None


class TestProbe:
    async def probe(self, transport: httpx2.AsyncBaseTransport) -> object:
        return await Bank("http://partners.example/bank", transport=transport).probe(sending(), "open_payee")

    async def test_tells_the_answer(self) -> None:
        assert await self.probe(answering(200, json={"payee_id": "PY-1"})) == {"payee_id": "PY-1"}

    async def test_asks_by_key(self) -> None:
        def handle(request: httpx2.Request) -> httpx2.Response:
            assert (request.method, request.url.raw_path) == ("GET", b"/bank/effects/0199-o%3Aopen_payee")
            return httpx2.Response(200, json={"payee_id": "PY-1"})

        await self.probe(Wire(handle))

    async def test_knows_nothing_when_the_bank_says_so(self) -> None:
        said = {"error": {"code": "effect_unknown", "message": "Nothing happened under this key"}}
        assert await self.probe(answering(404, json=said)) is None

    @pytest.mark.parametrize("body", [b"", b"<h1>Not Found</h1>", b'{"error": {"code": "no_such_path"}}'])
    async def test_does_not_take_any_404_for_an_answer(self, body: bytes) -> None:
        with pytest.raises(PartnerSilent):
            await self.probe(answering(404, content=body))

    async def test_of_another_calls_answer_is_not_understood(self) -> None:
        with pytest.raises(PartnerSilent):
            await self.probe(answering(200, json={"reference": "VOP-1", "match": "full"}))

    async def test_while_the_bank_is_at_it(self) -> None:
        with pytest.raises(PartnerAcknowledged):
            await self.probe(answering(202))

    async def test_is_under_the_lease_too(self) -> None:
        bank = Bank("http://partners.example/bank", transport=answering(200, json={"payee_id": "PY-1"}))
        with pytest.raises(LeaseTooShort):
            await bank.probe(sending(lease=1), "open_payee")

    async def test_of_a_partner_that_can_not_be_asked_knows_nothing(self) -> None:
        with pytest.raises(PartnerSilent) as raised:
            await Mail(NOWHERE).probe(sending(), "send")
        assert raised.value.code == "probe_not_offered"


class TestHotel:
    """It takes a hold, and confirms it later."""

    STAY: ClassVar = {
        "room": "Double",
        "guest": "Ada Berg",
        "arrival": "2031-05-03",
        "departure": "2031-05-07",
        "until": "2031-01-01T12:00:00Z",
    }

    async def hold(self, transport: httpx2.AsyncBaseTransport) -> RoomHeld:
        return await Hotel("http://partners.example/hotel", transport=transport).hold(sending(), **self.STAY)

    async def test_a_hold_that_is_taken_is_acknowledged(self) -> None:
        with pytest.raises(PartnerAcknowledged):
            await self.hold(answering(202, json={"status": "accepted"}))

    async def test_a_hold_that_is_confirmed_at_once_is_done(self) -> None:
        assert await self.hold(answering(200, json={"hold": "RM-1"})) == RoomHeld(hold="RM-1")

    async def test_a_room_that_is_sold_out_is_a_refusal(self) -> None:
        said = {"error": {"code": "sold_out", "message": "There is no such room on these days"}}
        with pytest.raises(PartnerFailed) as raised:
            await self.hold(answering(422, json=said))
        assert (raised.value.error_class, raised.value.code) == ("rejected", "sold_out")

    async def test_a_hold_without_a_number_is_not_understood(self) -> None:
        with pytest.raises(PartnerSilent):
            await self.hold(answering(200, json={"hold": ""}))


class TestOffers:
    async def test_say_what_each_partner_promises(self) -> None:
        partners = Partners.connect("http://partners.example/", NOWHERE)
        gateways: list[Gateway] = [
            partners.registry,
            partners.screening,
            partners.bank,
            partners.erp,
            partners.mail,
            partners.hotel,
            partners.car_rental,
            partners.vouchers,
            partners.scoring,
            partners.reporting,
        ]
        promised = {
            (gateway.name, offer.call): (offer.idempotent, offer.probe)
            for gateway in gateways
            for offer in _offers(gateway)
        }
        await partners.aclose()
        again, ask, neither = (True, False), (False, True), (False, False)
        assert promised == {
            ("registry", "check_tax_id"): again,
            ("screening", "screen"): again,
            ("bank", "verify_account"): ask,
            ("bank", "open_payee"): ask,
            ("bank", "close_payee"): ask,
            ("bank", "suspend_payee"): ask,
            ("bank", "resume_payee"): ask,
            ("bank", "authorise"): ask,
            ("bank", "void"): ask,
            ("bank", "capture"): ask,
            ("bank", "refund"): ask,
            ("bank", "release_funds"): ask,
            ("bank", "return_funds"): ask,
            ("bank", "recall"): ask,
            ("erp", "create_vendor"): again,
            ("erp", "deactivate_vendor"): again,
            ("erp", "block_vendor"): again,
            ("erp", "unblock_vendor"): again,
            ("mail", "send"): neither,
            ("hotel", "hold_room"): ask,
            ("hotel", "release_room"): ask,
            ("car_rental", "hold_car"): again,
            ("car_rental", "release_car"): again,
            ("vouchers", "issue"): neither,
            ("vouchers", "withdraw"): neither,
            ("scoring", "score"): again,
            ("reporting", "file"): again,
            ("reporting", "withdraw"): again,
        }

    @pytest.mark.parametrize("gateway", [Bank, Hotel])
    def test_every_call_that_can_be_asked_for_has_an_answer(self, gateway: type[HttpGateway]) -> None:
        asked = {offer.call for offer in _offers(gateway("http://partners.example/")) if offer.probe}
        assert asked == set(gateway.answers)

    async def test_answers_can_be_stored_and_read_again(self) -> None:
        checked = TaxIdChecked(registered=True, registered_name="Acme")
        assert TaxIdChecked.model_validate(checked.model_dump(mode="json")) == checked


def _offers(gateway: object) -> list[Offer]:
    return [offer for name in dir(gateway) if (offer := getattr(getattr(gateway, name), OFFER, None))]
