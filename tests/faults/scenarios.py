"""The rows of the kill matrix: one for each command and override, told up to the moment at which something dies.

A new row is a function for what comes before, the command itself, and where it must end.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import uuid4

from temporalio.client import Client as TemporalClient
from temporalio.client import WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

from caseward.messages import workflow_id
from tests.faults.company import PATIENCE, Company, Json, acting

Arrange = Callable[[Company], Awaitable[Json]]
Act = Callable[[Company, Json], Awaitable[Json]]


@dataclass(frozen=True)
class Scenario:
    """One row. `act` answers the operation document, or the case document where it has no operation to show."""

    name: str
    arrange: Arrange
    act: Act
    ends: str
    by_api: bool = True
    """The command under fire is one request to the API."""
    astray: bool = False
    """Its workflow is lost, so that the reconciler must wake it; others it may wake by chance, where all is slow."""


# --- what comes before ------------------------------------------------------------------------------------------------


async def nothing(_company: Company) -> Json:
    """The command opens the case."""
    return {}


async def a_draft(company: Company) -> Json:
    return await company.draft()


async def in_review(company: Company) -> Json:
    return await company.in_review()


async def active(company: Company) -> Json:
    case = await in_review(company)
    await company.approve(case)
    return await company.settled(case, "active")


async def cancelled(company: Company) -> Json:
    case = await in_review(company)
    await company.insist(lambda key: company.requester.take(case, "cancel", key=key))
    return await company.settled(case, "cancelled")


def blocked_at(partner: str, call: str, mode: str) -> Arrange:
    """Approved, and blocked at this call."""

    async def arrange(company: Company) -> Json:
        case = await in_review(company)
        await company.fault(partner=partner, call=call, mode=mode, times=1, match=case["business_key"])
        await company.approve(case)
        return await blocked(company, case)

    return arrange


async def screening_proposed_as_done(company: Company) -> Json:
    """The screening refused, an operator says that it was done by hand, and somebody else has to confirm that."""
    case = await company.draft()
    match = case["business_key"]
    await company.fault(partner="screening", call="screen", mode="reject", times=1, match=match)
    await company.insist(lambda key: company.requester.take(case, "submit", key=key))
    # Screened last or first: what is proposed must be about the case as it stands then.
    await company.operator.until(
        case["case_id"],
        lambda now: sorted(step_states(now).values()) == ["blocked", "succeeded", "succeeded"],
        within=PATIENCE,
    )
    by_hand = {"reference": "SCR-BY-HAND", "hits": 0}
    proposed = await override("mark_done", step="screen_sanctions", result=by_hand)(company, case)
    return {**case, "proposal": proposed["operation_id"]}


async def held_up_before_the_bank(company: Company) -> Json:
    """Approved; an operator paused the case while the ERP was at it, so that the bank hears nothing."""
    case = await in_review(company)
    match = case["business_key"]
    await company.fault(partner="erp", call="create_vendor", mode="slow", times=1, seconds=1.5, match=match)
    await company.approve(case)
    await company.operator.until(case["case_id"], acting("create_in_erp"), within=PATIENCE)
    await override("pause")(company, case)
    # The bank's step is held up, or the ERP's where its answer came too late and it would have to be asked again.
    return await company.operator.until(
        case["case_id"], lambda now: "paused" in step_states(now).values(), within=PATIENCE
    )


async def about_to_try_again(company: Company) -> Json:
    """Approved, and the bank answered with a fault of its own: nothing is under way, a timer is what comes next."""
    case = await in_review(company)
    match = case["business_key"]
    await company.fault(partner="bank", call="open_payee", mode="error", times=2, match=match)
    await company.approve(case)
    return await company.operator.until(
        case["case_id"], lambda now: step_states(now).get("open_payee") == "retrying", within=PATIENCE
    )


def step_states(now: Json) -> dict[str, str]:
    """The steps of the operation in flight."""
    return {step["name"]: step["state"] for step in (now["operation"] or {"steps": []})["steps"]}


async def bank_does_it_later(company: Company) -> Json:
    """About to be approved; the bank will only acknowledge, and call back twice."""
    case = await in_review(company)
    match = case["business_key"]
    await company.fault(partner="bank", call="open_payee", mode="callback_twice", times=1, seconds=1.0, match=match)
    return case


async def opening_the_payee(company: Company) -> Json:
    """Approved, and the bank is at it; however late the command comes, the mail keeps the operation in flight."""
    case = await in_review(company)
    match = case["business_key"]
    await company.fault(partner="bank", call="open_payee", mode="slow", times=1, seconds=1.5, match=match)
    await company.fault(partner="mail", call="send", mode="reject", times=1, match=match)
    await company.approve(case)
    return await company.operator.until(case["case_id"], acting("open_payee"), within=PATIENCE)


async def compensation_blocked(company: Company) -> Json:
    """An undo that the bank refuses."""
    case = await active(company)
    opened = next(e for e in await company.ledger(partner="bank") if is_payee_of(case, e))
    match = opened["answer"]["payee_id"]
    await company.fault(partner="bank", call="close_payee", mode="reject", times=1, match=match)
    await company.insist(lambda key: company.operator.override(case, "undo", reason="Wrong vendor", send={"key": key}))
    return await blocked(company, case)


def is_payee_of(case: Json, entry: Json) -> bool:
    return entry["call"] == "open_payee" and case["business_key"] in entry["request"]["holder"]


async def blocked(company: Company, case: Json) -> Json:
    return await company.operator.until(case["case_id"], lambda now: now["condition"] == "blocked", within=PATIENCE)


# --- the command under fire -------------------------------------------------------------------------------------------


async def open_a_case(company: Company, _nothing: Json) -> Json:
    return await company.draft()


def take(who: str, transition: str, **given: object) -> Act:
    async def act(company: Company, case: Json) -> Json:
        person = getattr(company, who)
        return await company.insist(lambda key: person.take(case, transition, dict(given), key=key))

    return act


def override(name: str, **given: object) -> Act:
    async def act(company: Company, case: Json) -> Json:
        return await company.insist(
            lambda key: company.operator.override(case, name, reason="Agreed by phone", send={"key": key}, **given)
        )

    return act


async def mark_mail_done(company: Company, case: Json) -> Json:
    """The operator looks at the mail system, and finds the letter there."""
    step = next(step for step in case["operation"]["steps"] if step["name"] == "send_welcome")
    sent = await company.ledger(key=step["effect_key"])
    return await override("mark_done", result={"message_id": sent[0]["answer"]["message_id"]})(company, case)


async def retry_by_signal(company: Company, case: Json) -> Json:
    """From Temporal's own command line; whoever types it again after an error types the same key."""
    temporal = await TemporalClient.connect(company.stack.temporal_address, namespace="caseward")
    handle = temporal.get_workflow_handle(workflow_id(case["process"], case["case_id"]))
    payload = {"override": "retry", "reason": "The bank called", "actor": "olga", "key": str(uuid4())}
    await company.insist(lambda _key: handle.signal("override", payload))
    return case


async def confirm(company: Company, case: Json) -> Json:
    """By the lead, without whom the operator's word is nothing; answers the operation that was proposed."""
    href = f"/v1/operations/{case['proposal']}/confirm"
    return await company.insist(lambda key: company.lead.post(href, {"reason": "I have seen the report"}, key=key))


async def lose_the_workflow(company: Company, case: Json) -> Json:
    """Somebody terminates it in Temporal; the reconciler finds out that nobody works for the case."""
    temporal = await TemporalClient.connect(company.stack.temporal_address, namespace="caseward")
    handle = temporal.get_workflow_handle(workflow_id(case["process"], case["case_id"]))
    await company.insist(lambda _key: terminated(handle))
    return case


async def terminated(handle: WorkflowHandle[object, object]) -> Json:
    """Terminate it, unless an earlier try did."""
    try:
        await handle.terminate("by mistake")
    except RPCError as fault:
        if fault.status is not RPCStatusCode.NOT_FOUND:
            raise
    return {}


async def retry_in_bulk(company: Company, case: Json) -> Json:
    """The same override, over a list of one."""
    order = {"override": "retry", "reason": "The bank mended it", "case_ids": [case["case_id"]], "canary": 1}
    await company.insist(lambda key: company.operator.post("/v1/bulk", order, key=key))
    return case


async def replay_from_the_bank(company: Company, case: Json) -> Json:
    """The ERP's vendor is kept, the payee closed and opened anew. The plan is asked for once, and then kept to."""
    plan = await company.insist(
        lambda key: company.operator.post(f"/v1/cases/{case['case_id']}/plan", {"step": "open_payee"}, key=key)
    )
    return await override("replay", step="open_payee", plan_hash=plan["plan_hash"])(company, case)


SCENARIOS = (
    Scenario("open", nothing, open_a_case, "draft"),
    Scenario("submit: steps side by side", a_draft, take("requester", "submit"), "in_review"),
    Scenario("approve: steps in turn", in_review, take("reviewer", "approve"), "active"),
    Scenario("callback, twice", bank_does_it_later, take("reviewer", "approve"), "active"),
    Scenario(
        "request_changes: no step", in_review, take("reviewer", "request_changes", grounds="Old."), "changes_requested"
    ),
    Scenario("reopen: a new run", cancelled, take("requester", "reopen"), "draft"),
    Scenario("suspend: on what stands", active, take("reviewer", "suspend", grounds="A dispute."), "suspended"),
    Scenario("retry", blocked_at("bank", "open_payee", "reject"), override("retry"), "active"),
    Scenario("retry by signal", blocked_at("bank", "open_payee", "reject"), retry_by_signal, "active", by_api=False),
    Scenario("bulk: retry", blocked_at("bank", "open_payee", "reject"), retry_in_bulk, "active"),
    Scenario("skip", blocked_at("mail", "send", "reject"), override("skip"), "active"),
    Scenario("mark_done over an unknown", blocked_at("mail", "send", "lose_reply"), mark_mail_done, "active"),
    Scenario("undo of what is blocked", blocked_at("mail", "send", "reject"), override("undo"), "in_review"),
    Scenario("undo of what is done", active, override("undo"), "in_review"),
    Scenario("replay of what is blocked", blocked_at("mail", "send", "reject"), replay_from_the_bank, "active"),
    Scenario("replay of what is done", active, replay_from_the_bank, "active"),
    Scenario("force_cancel", blocked_at("mail", "send", "reject"), override("force_cancel"), "cancelled"),
    Scenario("superseding: cancel over a running step", opening_the_payee, take("requester", "cancel"), "cancelled"),
    Scenario("confirm: by hand, said two", screening_proposed_as_done, confirm, "in_review"),
    Scenario("pause: at rest", in_review, override("pause"), "in_review"),
    Scenario("resume: held up before a step", held_up_before_the_bank, override("resume"), "active"),
    Scenario("workflow terminated", about_to_try_again, lose_the_workflow, "active", by_api=False, astray=True),
    Scenario("compensation, retried", compensation_blocked, override("retry"), "in_review"),
)
