"""The sandbox's parts without a socket: whom a fault hits, what the ledger remembers, who signed a callback."""

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from dev.sandbox.callbacks import master_secret, partner_secret, signed_headers
from dev.sandbox.faults import PROBE, FaultOrder, Faults
from dev.sandbox.ledger import Done, KeyReused, Ledger, Order, Pending, Promise
from dev.sandbox.partner import Refusal
from dev.sandbox.partners import PARTNERS

BY_NAME = {partner.name: partner for partner in PARTNERS}
ACME = {"iban": "DE89370400440532013000", "holder": "Acme"}


def fault(mode: str = "error", partner: str = "bank", call: str = "*", **more: object) -> FaultOrder:
    order = {"partner": partner, "call": call, "mode": mode, "times": None, **more}
    return FaultOrder.model_validate_json(json.dumps(order))


class TestFaults:
    def test_hits_so_often_and_no_more(self) -> None:
        faults = Faults(BY_NAME)
        faults.add(fault(times=2))
        assert [faults.take("bank", "open_payee", {}) is not None for _ in range(3)] == [True, True, False]
        assert faults.documents() == []

    def test_without_times_hits_until_cleared(self) -> None:
        faults = Faults(BY_NAME)
        faults.add(fault(partner="*"))
        assert all(faults.take("erp", "create_vendor", {}) for _ in range(10))
        faults.clear()
        assert faults.take("erp", "create_vendor", {}) is None

    def test_take_turns_the_older_first(self) -> None:
        faults = Faults(BY_NAME)
        faults.add(fault("error", times=1))
        faults.add(fault("reject", call="open_payee", times=1))
        hits = [faults.take("bank", "open_payee", {}) for _ in range(2)]
        assert [hit.order.mode for hit in hits if hit] == ["error", "reject"]

    def test_leave_others_alone(self) -> None:
        faults = Faults(BY_NAME)
        faults.add(fault(call="open_payee", match='"holder": "Acme'))
        assert faults.take("mail", "send", {}) is None
        assert faults.take("bank", "close_payee", ACME) is None
        assert faults.take("bank", "open_payee", ACME | {"holder": "Other"}) is None
        assert faults.take("bank", "open_payee", ACME) is not None

    @pytest.mark.parametrize(
        ("order", "hit"),
        [
            (fault("down"), True),
            (fault("error"), False),
            (fault("down", call="open_payee"), False),
            (fault("error", call=PROBE), True),
        ],
    )
    def test_a_probe_meets_the_faults_meant_for_it(self, order: FaultOrder, hit: bool) -> None:
        faults = Faults(BY_NAME)
        faults.add(order)
        assert (faults.take("bank", PROBE, None) is not None) is hit

    @pytest.mark.parametrize(
        "wrong",
        [
            {"partner": "nobody"},
            {"call": "create_vendor"},
            {"call": PROBE, "mode": "acknowledge"},
            {"mode": "nonsense"},
            {"times": 0},
            {"times": "3"},
            {"times": True},
            {"seconds": -1},
            {"outcome": "failed"},
            {"extra": 1},
        ],
    )
    def test_that_are_wrong_change_nothing(self, wrong: dict[str, Any]) -> None:
        faults = Faults(BY_NAME)
        with pytest.raises(ValueError):  # noqa: PT011  pydantic's error is one
            faults.add(fault(**({"mode": "error"} | wrong)))
        assert faults.documents() == []

    def test_need_partner_call_and_mode(self) -> None:
        with pytest.raises(ValidationError):
            FaultOrder.model_validate_json('{"partner": "bank", "mode": "error"}')


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path / "ledger.sqlite3", BY_NAME)
    yield ledger
    ledger.close()


def order(partner: str, call: str, key: str = "o:s", **content: Any) -> Order:
    return Order(partner=BY_NAME[partner], call=BY_NAME[partner].call(call), key=key, content=content, traceparent="t")


CHECK = order("registry", "check_tax_id", country="DE", tax_id="DE123", legal_name="Acme")
OPEN = order("bank", "open_payee", iban="DE1", holder="Acme")


def entries(ledger: Ledger, partner: str | None = None, key: str | None = None) -> list[dict[str, Any]]:
    return json.loads(ledger.entries(partner, key))


class TestLedger:
    def test_an_idempotent_partner_does_it_once_and_answers_the_same(self, ledger: Ledger) -> None:
        assert ledger.perform(CHECK) == ledger.perform(CHECK)
        [entry] = entries(ledger)
        assert {name: entry[name] for name in ("partner", "call", "key", "request", "answer", "traceparent")} == {
            "partner": "registry",
            "call": "check_tax_id",
            "key": "o:s",
            "request": {"country": "DE", "tax_id": "DE123", "legal_name": "Acme"},
            "answer": {"registered": True, "registered_name": "Acme"},
            "traceparent": "t",
        }

    def test_other_content_under_the_same_key_is_refused(self, ledger: Ledger) -> None:
        ledger.perform(CHECK)
        with pytest.raises(KeyReused):
            ledger.perform(order("registry", "check_tax_id", country="FR", tax_id="DE123", legal_name="Acme"))
        assert len(entries(ledger)) == 1

    def test_the_bank_does_it_again_and_tells_of_the_first(self, ledger: Ledger) -> None:
        first, second = ledger.perform(OPEN), ledger.perform(OPEN)
        assert first != second
        assert ledger.known(BY_NAME["bank"], "o:s") == first
        assert len(entries(ledger, "bank", "o:s")) == 2
        assert entries(ledger, "mail") == entries(ledger, None, "other") == []

    def test_a_promise_is_kept_once(self, ledger: Ledger) -> None:
        promise = ledger.promise(OPEN, due_at=0, callbacks=1, outcome="succeeded")
        assert isinstance(promise, Promise)
        assert (ledger.known(BY_NAME["bank"], "o:s"), entries(ledger)) == (Pending(), [])
        event = ledger.keep(promise.seq)
        assert event is not None
        assert ledger.keep(promise.seq) is None
        [entry] = entries(ledger)
        assert json.loads(event.body) == {
            "event_id": event.event_id,
            "partner": "bank",
            "call": "open_payee",
            "key": "o:s",
            "outcome": "succeeded",
            "answer": entry["answer"],
            "error": None,
        }
        assert ledger.known(BY_NAME["bank"], "o:s") == Done(json.dumps(entry["answer"]))

    def test_a_promise_can_end_in_a_refusal(self, ledger: Ledger) -> None:
        promise = ledger.promise(OPEN, due_at=0, callbacks=1, outcome="failed")
        assert isinstance(promise, Promise)
        event = ledger.keep(promise.seq)
        assert event is not None
        assert json.loads(event.body)["error"] == {"code": "account_closed", "message": "Account closed"}
        assert entries(ledger) == []
        with pytest.raises(Refusal, match="Account closed"):
            ledger.known(BY_NAME["bank"], "o:s")

    def test_an_idempotent_partner_promises_once(self, ledger: Ledger) -> None:
        promise = ledger.promise(CHECK, due_at=0, callbacks=1, outcome="succeeded")
        assert isinstance(promise, Promise)
        assert ledger.promise(CHECK, due_at=0, callbacks=1, outcome="succeeded") == Pending()
        assert ledger.perform(CHECK) == Pending()
        ledger.keep(promise.seq)
        assert isinstance(ledger.perform(CHECK), Done)
        assert len(entries(ledger)) == 1

    def test_what_is_owed_is_on_disk(self, ledger: Ledger, tmp_path: Path) -> None:
        kept = ledger.promise(OPEN, due_at=0, callbacks=2, outcome="succeeded")
        still = ledger.promise(CHECK, due_at=5, callbacks=1, outcome="succeeded")
        assert isinstance(kept, Promise)
        event = ledger.keep(kept.seq)
        assert event is not None
        ledger.note_delivery(event.event_id, delivered=True)

        again = Ledger(tmp_path / "ledger.sqlite3", BY_NAME)
        assert again.open_promises() == [still]
        [owed] = again.owed_events()
        assert (owed.event_id, owed.owed) == (event.event_id, 1)
        again.note_delivery(event.event_id, delivered=True)
        assert again.owed_events() == []
        again.close()


class TestSignature:
    def test_follows_standard_webhooks(self) -> None:
        headers = signed_headers(b"secret", "evt_1", b"{}", now=1_700_000_000.9)
        assert (headers["webhook-id"], headers["webhook-timestamp"]) == ("evt_1", "1700000000")
        expected = hmac.new(b"secret", b"evt_1.1700000000.{}", hashlib.sha256).digest()
        assert headers["webhook-signature"] == f"v1,{base64.b64encode(expected).decode()}"

    def test_every_partner_has_its_own_secret(self) -> None:
        assert len({partner_secret(b"master", partner.name) for partner in PARTNERS}) == len(PARTNERS)

    def test_the_master_secret_is_made_once_and_kept_private(self, tmp_path: Path) -> None:
        made = master_secret(tmp_path, None)
        assert len(made) >= 32
        assert master_secret(tmp_path, "") == made
        assert (tmp_path / "callback-secret").stat().st_mode & 0o777 == 0o600
        assert master_secret(tmp_path, "from the settings") == b"from the settings"
