"""Payments: a harmless one, one that a reviewer claims, a large one that two must reject, and a dispute."""

from dev.demo.day import Day, Json, example_of

SERVICE, REVIEWER = ("payments-1", ("payment_service",)), ("reviewer-2", ("payment_reviewer",))
SENIOR = ("senior-1", ("senior_reviewer",))
GROUNDS = {"grounds": "The sender says that it was not them."}


async def play(day: Day) -> None:
    """The scenes, one after the other."""
    await what_is_harmless_needs_nobody(day)
    await a_reviewer_claims_and_approves(day)
    await two_people_reject_a_large_one(day)
    await a_dispute_gets_the_money_back_first(day)


async def what_is_harmless_needs_nobody(day: Day) -> None:
    """A low score releases the funds at once."""
    day.scene("A flagged payment scores low: it is released without a person")
    case = await flagged(day, payee="Well known Books")
    await day.comes_to(case, "released")


async def a_reviewer_claims_and_approves(day: Day) -> None:
    """Who has claimed a case is the only one who may decide on it."""
    day.scene("A risky one waits in the queue; a reviewer claims it and approves")
    case = await day.comes_to(await flagged(day, payee="Nordlys Trading AS"), "in_review")
    reviewer = await day.person(REVIEWER[0], *REVIEWER[1])
    await reviewer.post(f"/v1/cases/{case['case_id']}/claim", {})
    day.say("reviewer-2 claims it")
    await day.take(*REVIEWER, case, "approve")
    await day.comes_to(case, "released")


async def two_people_reject_a_large_one(day: Day) -> None:
    """Above the limit one person only proposes; the bank is down meanwhile, and nothing is done twice."""
    day.scene("A large one needs two reviewers; while the bank is away, the rejection is tried again and again")
    case = await day.comes_to(await flagged(day, payee="Quick Profit Ltd", minor_units=2_500_000), "in_review")
    await day.fault(partner="bank", call="return_funds", mode="down", times=3)
    proposed = await day.take(*REVIEWER, case, "reject", **GROUNDS)
    senior = await day.person(SENIOR[0], *SENIOR[1])
    confirmed = await senior.post(f"/v1/operations/{proposed['operation_id']}/confirm", {"reason": "So do I"})
    day.say(f"senior-1 confirms it: {confirmed['state']}")
    await day.comes_to(case, "returned")
    await day.show_ledger(proposed, "return_funds")


async def a_dispute_gets_the_money_back_first(day: Day) -> None:
    """Whoever decides anew decides over money that is with us."""
    day.scene("A released payment is disputed: it is recalled before anybody decides anew")
    case = await day.comes_to(await flagged(day, payee="Well known Garage"), "released")
    await day.take(*SENIOR, case, "reopen", **GROUNDS)
    await day.comes_to(case, "in_review")


async def flagged(day: Day, *, payee: str, minor_units: int = 480000) -> Json:
    """A payment that the service holds."""
    example = example_of("payment_review")
    changes = {
        "payee": {**example["payee"], "name": payee},
        "amount": {"minor_units": minor_units, "currency": "EUR"},
    }
    return await day.open(await day.person(SERVICE[0], *SERVICE[1]), "payment_review", **changes)
