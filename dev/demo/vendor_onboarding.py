"""Vendors: a plain one, an outage, a refusal, a lost reply, a killed worker, a word that somebody else confirms.

And one that is left blocked, for whoever looks around.
"""

import time

from dev.demo.day import Day, Json, example_of, step_state
from dev.screen import show

REQUESTER, REVIEWER = ("requester-1", ("vendor_requester",)), ("reviewer-1", ("vendor_reviewer",))


async def play(day: Day) -> None:
    """The scenes, one after the other."""
    await a_vendor_becomes_active(day)
    await the_erp_fails_three_times(day)
    await the_bank_refuses_and_an_operator_repairs(day)
    await the_bank_does_it_and_drops_the_reply(day)
    await the_worker_is_killed_in_the_middle(day)
    await a_second_person_confirms_what_was_done_by_hand(day)
    await one_is_left_blocked(day)


async def a_vendor_becomes_active(day: Day) -> None:
    """Nothing goes wrong."""
    day.scene("A vendor is drafted, checked, approved by a second person, and set up at bank and ERP")
    case = await in_review(day, "Northwind Tools GmbH")
    await approve(day, case)
    await day.comes_to(case, "active")
    show(f"           first vendor active {time.monotonic() - day.began_at:.1f} s after the stack was up")


async def the_erp_fails_three_times(day: Day) -> None:
    """An outage that passes: everybody sees `retrying`, nobody has to do anything."""
    day.scene("The ERP is away for three calls, then works")
    case = await in_review(day, "Lakeside Paper AG")
    await day.fault(partner="erp", call="create_vendor", mode="error", times=3)
    await approve(day, case)
    await day.comes_to(case, "active")


async def the_bank_refuses_and_an_operator_repairs(day: Day) -> None:
    """A person has to decide: the step names whose decision it is, an override carries it out."""
    day.scene("The bank refuses the payee; treasury opens it by hand, an operator marks the step as done")
    case = await in_review(day, "Harbour Logistics SE")
    await day.fault(partner="bank", call="open_payee", mode="reject", times=1)
    await approve(day, case)
    blocked = await day.blocks(case)
    step = blocked["condition_info"]["step"]
    day.say(f"operator-1 marks {step} as done: opened by hand at the branch")
    done = await day.operator.override(
        blocked,
        "mark_done",
        reason="Treasury opened the payee at the branch, slip 4711",
        step=step,
        result={"payee_id": "PY-BY-HAND-4711"},
        send={"wait": 10},
    )
    day.say(f"override {done['operation_id']} is {done['state']}")
    await day.comes_to(case, "active")


async def the_bank_does_it_and_drops_the_reply(day: Day) -> None:
    """Nobody knows, so nobody repeats: the bank is asked first."""
    day.scene("The bank opens the payee and drops the reply: unknown, asked for, not done twice")
    case = await in_review(day, "Meadow Foods BV")
    await day.fault(partner="bank", call="open_payee", mode="lose_reply", times=1)
    operation = await approve(day, case)
    await day.comes_to(case, "active")
    await day.show_ledger(operation, "open_payee")


async def the_worker_is_killed_in_the_middle(day: Day) -> None:
    """SIGKILL while the bank is at it; the next worker goes on where this one was."""
    day.scene("The worker is killed while the bank is at it, and starts again")
    case = await in_review(day, "Summit Steel SA")
    await day.fault(partner="bank", call="open_payee", mode="slow", times=1)
    operation = await approve(day, case)
    await day.watch(case, lambda now: step_state(now, "open_payee") == "running")
    day.say("kill -9 worker")
    await day.stack.kill("worker")
    await day.comes_to(case, "active")
    await day.show_ledger(operation, "open_payee")


async def a_second_person_confirms_what_was_done_by_hand(day: Day) -> None:
    """One person's word is not enough for a screening: it is proposed, and waits for somebody else."""
    day.scene("The sanctions list refuses; compliance screened by hand, and a second person must confirm that")
    await day.fault(partner="screening", call="screen", mode="reject", times=1)
    case = await day.open(
        await day.person(REQUESTER[0], *REQUESTER[1]), "vendor_onboarding", **vendor("Orchard Seeds Ltd")
    )
    await day.take(*REQUESTER, case, "submit")
    blocked = await day.blocks(case)
    step = blocked["condition_info"]["step"]
    proposed = await day.operator.override(
        blocked, "mark_done", reason="Screened on paper", step=step, result={"reference": "SCR-PAPER-12", "hits": 0}
    )
    day.say(f"operator-1 marks {step} as done: operation {proposed['operation_id']} is {proposed['state']}")
    lead = await day.person("lead-1", "vendor_lead")
    confirmed = await lead.post(f"/v1/operations/{proposed['operation_id']}/confirm", {"reason": "I saw the paper"})
    day.say(f"lead-1 confirms it: {confirmed['state']}")
    await day.comes_to(case, "in_review")


async def one_is_left_blocked(day: Day) -> None:
    """The bank would take the payee now, but nobody has tried again yet."""
    day.scene("The bank takes an account for closed, and finds its mistake; this vendor is left for you to repair")
    case = await in_review(day, "Quarry Stone Oy")
    await day.fault(partner="bank", call="open_payee", mode="reject", times=1)
    await approve(day, case)
    await day.blocks(case)
    day.say("the bank tells treasury on the phone that the account is open after all")
    day.left_for_you.append(f"{case['title']} ({case['business_key']}) is blocked, and its bank has found its mistake")


async def in_review(day: Day, legal_name: str) -> Json:
    """Draft and submit a vendor; wait until its checks are done."""
    case = await day.open(await day.person(REQUESTER[0], *REQUESTER[1]), "vendor_onboarding", **vendor(legal_name))
    await day.take(*REQUESTER, case, "submit")
    return await day.comes_to(case, "in_review")


async def approve(day: Day, case: Json) -> Json:
    """A second person says yes."""
    return await day.take(*REVIEWER, case, "approve")


def vendor(legal_name: str) -> Json:
    """The example vendor under another name."""
    example: Json = example_of("vendor_onboarding")
    return {**example, "legal_name": legal_name, "bank_account": {**example["bank_account"], "holder": legal_name}}
