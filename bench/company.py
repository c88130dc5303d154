"""The company that is seeded: model cases of its four businesses, and how many of all cases are like each.

Most are over; some thousand wait for somebody; some hundred are stuck, each for a reason that real ones are stuck for.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

from bench.hand import Answers, Hand
from caseward.activity import NotNeeded
from caseward.errors import PartnerAcknowledged, PartnerFailed, PartnerSilent
from processes import CATALOGUE
from processes.booking import AGENT
from processes.booking import DESK as FRONT_DESK
from processes.compliance_approval import APPLICANT, LEGAL, RISK
from processes.payment_review import DESK as CUSTOMER_DESK
from processes.payment_review import REVIEWER as PAYMENT_REVIEWER
from processes.payment_review import SENIOR, SERVICE
from processes.vendor_onboarding import LEAD, REQUESTER, REVIEWER

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
BUSY = PartnerFailed("transient", "unavailable", "Come back later.")
REFUSED = PartnerFailed("rejected", "account_closed", "Account closed")
LOCKED_OUT = PartnerFailed("unauthorized", "bad_credentials", "These credentials are not known here.")
SILENT = PartnerSilent("timeout", "No answer came.")
PEOPLE_DECIDE = NotNeeded("people decide on it")
TAKEN = PartnerAcknowledged("acknowledged", "Later.")
GROUNDS = {"grounds": "The trade register extract is older than three months."}


@dataclass(frozen=True)
class Model:
    """A case that others are copied from."""

    name: str
    work: Callable[[Hand], Awaitable[None]]
    share: float
    """Of all cases."""
    youngest: timedelta
    oldest: timedelta
    """How long ago its last stretch began."""


# --- vendors ----------------------------------------------------------------------------------------------------------


async def drafted(hand: Hand) -> None:
    await hand.open("vendor_onboarding", REQUESTER)


async def withdrawn(hand: Hand) -> None:
    await drafted(hand)
    await hand.later(DAY)
    await hand.take("cancel", REQUESTER)


async def submitted(hand: Hand, **answers: Answers) -> None:
    await drafted(hand)
    await hand.later(HOUR)
    await hand.take("submit", REQUESTER)
    await hand.work("in_review", answers=answers)


async def changes_requested(hand: Hand) -> None:
    await submitted(hand)
    await hand.later(5 * HOUR)
    await hand.take("request_changes", REVIEWER, **GROUNDS)


async def resubmitted(hand: Hand) -> None:
    await changes_requested(hand)
    await hand.later(DAY)
    vendor = CATALOGUE["vendor_onboarding"].subject.model_json_schema()["examples"][0]
    await hand.take("resubmit", REQUESTER, vendor=vendor)
    await hand.work("in_review")


async def escalated(hand: Hand) -> None:
    await submitted(hand)
    await hand.later(2 * DAY)
    await hand.deadline_passes()


async def refused(hand: Hand) -> None:
    await resubmitted(hand)
    await hand.later(6 * HOUR)
    await hand.take("reject", REVIEWER, **GROUNDS)


async def approved(hand: Hand, **answers: Answers) -> None:
    await resubmitted(hand)
    await hand.later(6 * HOUR)
    await hand.take("approve", REVIEWER)
    await hand.work(answers=answers)


async def approved_after_an_outage(hand: Hand) -> None:
    await approved(hand, create_in_erp=[BUSY, BUSY, None])


async def erp_refuses(hand: Hand) -> None:
    await approved(hand, create_in_erp=[LOCKED_OUT])


async def bank_refuses(hand: Hand) -> None:
    await approved(hand, open_payee=[REFUSED])


async def erp_keeps_failing(hand: Hand) -> None:
    await approved(hand, create_in_erp=[BUSY] * 9)


async def welcome_unknown(hand: Hand) -> None:
    await approved(hand, send_welcome=[SILENT])


async def erp_is_tried_again(hand: Hand) -> None:
    await approved(hand, create_in_erp=[BUSY, BUSY])


async def approval_queued(hand: Hand) -> None:
    await resubmitted(hand)
    await hand.later(HOUR)
    await hand.take("approve", REVIEWER)


async def screening_runs(hand: Hand) -> None:
    await drafted(hand)
    await hand.later(HOUR)
    await hand.take("submit", REQUESTER)
    await hand.work(only=1)


async def screened_by_hand(hand: Hand) -> None:
    await submitted(hand, screen_sanctions=[REFUSED])
    await hand.later(HOUR)
    await hand.override("mark_done", "senior_operator", result={"reference": "By hand", "hits": 0})


async def paused(hand: Hand) -> None:
    await submitted(hand)
    await hand.later(HOUR)
    await hand.override("pause", "operator", deadlines="frozen")


async def suspended(hand: Hand) -> None:
    await approved(hand)
    await hand.later(90 * DAY)
    await hand.take("suspend", REVIEWER, **GROUNDS)
    await hand.work()


async def long_history(hand: Hand) -> None:
    """Years of being suspended and reinstated, and a script that never stopped asking."""
    await approved(hand)
    for _ in range(hand.rounds):
        await hand.later(10 * DAY)
        await hand.take("suspend", REVIEWER, **GROUNDS)
        await hand.work()
        await hand.later(5 * DAY)
        await hand.take("reinstate", LEAD)
        await hand.work()
    await hand.later(DAY)
    await hand.hear_refusals(20 * hand.rounds)


# --- payments ---------------------------------------------------------------------------------------------------------

LARGE = {"amount": {"minor_units": 2_500_000, "currency": "EUR"}}


async def flagged(hand: Hand, **changes: object) -> None:
    await hand.open("payment_review", SERVICE, **changes)
    await hand.work("in_review", answers={"release_harmless": [PEOPLE_DECIDE]})


async def harmless(hand: Hand) -> None:
    await hand.open("payment_review", SERVICE)
    await hand.work("released", answers={"score_payment": [BUSY, None]})


async def claimed(hand: Hand) -> None:
    await flagged(hand)
    await hand.later(HOUR)
    await hand.claim(PAYMENT_REVIEWER)


async def information_requested(hand: Hand) -> None:
    await flagged(hand)
    await hand.later(HOUR)
    await hand.take("request_information", PAYMENT_REVIEWER, question="Which goods is this payment for?")


async def informed(hand: Hand) -> None:
    await information_requested(hand)
    await hand.later(DAY)
    await hand.take("provide_information", CUSTOMER_DESK, information="Two nets and a winch, invoice 417.")
    await hand.later(HOUR)
    await hand.claim(PAYMENT_REVIEWER)


async def released(hand: Hand) -> None:
    await informed(hand)
    await hand.later(HOUR)
    await hand.take("approve", PAYMENT_REVIEWER)
    await hand.work()


async def returned(hand: Hand, **answers: Answers) -> None:
    await informed(hand)
    await hand.later(HOUR)
    await hand.take("reject", PAYMENT_REVIEWER, **GROUNDS)
    await hand.work(answers=answers)


async def return_refused(hand: Hand) -> None:
    await returned(hand, return_funds=[REFUSED])


async def report_unknown(hand: Hand) -> None:
    await returned(hand, tell_sender=[SILENT])


async def release_proposed(hand: Hand) -> None:
    await flagged(hand, **LARGE)
    await hand.later(HOUR)
    await hand.take("approve", PAYMENT_REVIEWER)


async def large_released(hand: Hand) -> None:
    await flagged(hand, **LARGE)
    await hand.later(HOUR)
    proposed = await hand.take("approve", PAYMENT_REVIEWER)
    await hand.later(HOUR)
    await hand.confirm(proposed, PAYMENT_REVIEWER)
    await hand.work()


async def being_recalled(hand: Hand) -> None:
    await released(hand)
    await hand.later(2 * DAY)
    await hand.take("reopen", SENIOR, **GROUNDS)
    await hand.work(answers={"release_funds_undo": [BUSY]})


# --- bookings ---------------------------------------------------------------------------------------------------------


async def requested(hand: Hand, **answers: Answers) -> None:
    await hand.open("booking", AGENT)
    await hand.later(10 * MINUTE)
    await hand.take("request", AGENT)
    await hand.work(answers=answers)


async def hotel_takes_its_time(hand: Hand) -> None:
    await requested(hand, hold_room=[TAKEN])


async def checked_in(hand: Hand) -> None:
    await requested(hand)
    await hand.later(30 * DAY)
    await hand.take("check_in", FRONT_DESK)


async def stayed(hand: Hand) -> None:
    await checked_in(hand)
    await hand.later(4 * DAY)
    await hand.take("complete", FRONT_DESK)


async def cancelled(hand: Hand) -> None:
    await requested(hand)
    await hand.later(5 * DAY)
    await hand.take("cancel", AGENT)
    await hand.work()


async def deposit_refused(hand: Hand) -> None:
    await requested(hand, capture_deposit=[REFUSED])


# --- approvals --------------------------------------------------------------------------------------------------------


async def applied(hand: Hand) -> None:
    await hand.open("compliance_approval", APPLICANT)
    await hand.attach(APPLICANT, "audit-report.pdf", "policy.pdf")
    await hand.later(HOUR)
    await hand.take("submit", APPLICANT)
    await hand.work("in_review")


async def approval_proposed(hand: Hand) -> None:
    await applied(hand)
    await hand.later(DAY)
    await hand.take("approve", LEGAL)


async def certified(hand: Hand) -> None:
    await applied(hand)
    await hand.later(DAY)
    proposed = await hand.take("approve", LEGAL)
    await hand.later(DAY)
    await hand.confirm(proposed, RISK)
    await hand.work("approved")


async def not_approved(hand: Hand) -> None:
    await applied(hand)
    await hand.later(3 * DAY)
    await hand.take("refuse", LEGAL, **GROUNDS)


YEARS = 730 * DAY
NOW = timedelta(0)

REST = Model("payment released", released, 0, HOUR, YEARS)  # whatever is left

MODELS = (
    REST,
    Model("vendor drafted", drafted, 0.0015, NOW, 30 * DAY),
    Model("vendor withdrawn", withdrawn, 0.02, DAY, YEARS),
    Model("vendor in review", submitted, 0.0012, NOW, 40 * HOUR),
    Model("vendor review is late", submitted, 0.0002, 49 * HOUR, 60 * HOUR),
    Model("vendor review escalated", escalated, 0.0003, HOUR, 5 * DAY),
    Model("vendor to be corrected", changes_requested, 0.0006, NOW, 20 * DAY),
    Model("vendor corrected", resubmitted, 0.0004, NOW, 40 * HOUR),
    Model("vendor refused", refused, 0.04, DAY, YEARS),
    Model("vendor active", approved, 0.29, HOUR, YEARS),
    Model("vendor active after an outage", approved_after_an_outage, 0.04, HOUR, YEARS),
    Model("vendor suspended", suspended, 0.005, HOUR, YEARS),
    Model("ERP does not know us", erp_refuses, 0.00008, HOUR, 3 * DAY),
    Model("ERP keeps failing", erp_keeps_failing, 0.00006, HOUR, 3 * DAY),
    Model("bank refuses the payee", bank_refuses, 0.0001, HOUR, 5 * DAY),
    Model("welcome letter unknown", welcome_unknown, 0.00006, HOUR, 3 * DAY),
    Model("ERP is tried again", erp_is_tried_again, 0.00004, NOW, 2 * MINUTE),
    Model("approval queued", approval_queued, 0.00003, NOW, MINUTE),
    Model("screening runs", screening_runs, 0.00003, NOW, MINUTE),
    Model("screened by hand", screened_by_hand, 0.00006, NOW, 20 * HOUR),
    Model("vendor paused", paused, 0.00005, NOW, 3 * DAY),
    Model("payment in review", flagged, 0.002, NOW, 3 * HOUR),
    Model("payment review is late", flagged, 0.0002, 5 * HOUR, 8 * HOUR),
    Model("payment claimed", claimed, 0.0004, NOW, 2 * HOUR),
    Model("payment needs information", information_requested, 0.0006, NOW, 2 * DAY),
    Model("payment harmless", harmless, 0.08, HOUR, YEARS),
    Model("payment returned", returned, 0.05, HOUR, YEARS),
    Model("return refused", return_refused, 0.0001, HOUR, 3 * DAY),
    Model("mail to sender unknown", report_unknown, 0.00005, HOUR, 3 * DAY),
    Model("large payment to be confirmed", release_proposed, 0.0002, NOW, 20 * HOUR),
    Model("large payment released", large_released, 0.02, HOUR, YEARS),
    Model("payment being recalled", being_recalled, 0.00003, NOW, 2 * MINUTE),
    Model("guest expected", requested, 0.003, NOW, 30 * DAY),
    Model("hotel takes its time", hotel_takes_its_time, 0.00005, NOW, 30 * MINUTE),
    Model("guest is here", checked_in, 0.0006, NOW, 4 * DAY),
    Model("guest has left", stayed, 0.14, HOUR, YEARS),
    Model("booking cancelled", cancelled, 0.02, HOUR, YEARS),
    Model("deposit refused", deposit_refused, 0.00008, HOUR, DAY),
    Model("application in review", applied, 0.0008, NOW, 9 * DAY),
    Model("approval to be confirmed", approval_proposed, 0.0004, NOW, 10 * DAY),
    Model("certified", certified, 0.06, HOUR, 180 * DAY),
    Model("application refused", not_approved, 0.01, HOUR, YEARS),
)
LONG = Model("vendor with a long history", long_history, 0, HOUR, 10 * DAY)
LONG_CASES = 3
