"""How such systems usually fail, played before two windows: what the user and the operator see is what is so.

The stale button and the offered action that is refused stand in `test_console.py`.
"""

from playwright.async_api import expect

from tests.acceptance.console.test_console import at, blocked
from tests.acceptance.console.window import Sit, Window
from tests.faults.company import PATIENCE, Company, Json, acting


async def calls(company: Company, operation: Json, step: str) -> list[str]:
    """What the partners' ledger has of a step and of its compensation."""
    key = f"{operation['operation_id']}:{step}"
    return [entry["call"] for each in (key, f"{key}:undo") for entry in await company.ledger(key=each)]


def state(window: Window):
    return expect(window.page.locator("#case .badge.state").first)


class TestAWorkerThatGoesOnAfterAnOverride:
    async def test_stops_and_both_windows_say_so(self, company: Company, sit: Sit):
        case = await company.in_review()
        match = case["business_key"]
        await company.fault(partner="erp", call="create_vendor", mode="slow", times=1, seconds=4, match=match)
        user, operator = await sit("demo-vendor-requester"), await sit("demo-senior-operator")
        await user.open(at(case))
        await operator.open(at(case) + "/override/force_cancel")
        approval = await company.approve(case)
        await company.operator.until(case["case_id"], acting("create_in_erp"), within=PATIENCE)
        with company.frozen_worker():  # it knows nothing of what comes now, and goes on then
            await operator.open(at(case) + "/override/force_cancel")
            await operator.page.get_by_label("Reason").fill("The vendor is insolvent")
            await operator.follow(operator.page.get_by_role("button", name="Stop and take everything back"))
        await expect(operator.page.locator("#order")).to_have_attribute("data-state", "completed")
        await state(user).to_have_text("Cancelled")
        assert await calls(company, approval, "create_in_erp") == ["create_vendor", "deactivate_vendor"]
        assert await calls(company, approval, "open_payee") == []
        assert await company.violations({case["case_id"]}) == []


class TestAPartnerThatDidItWhileTheAnswerWasLost:
    async def test_is_never_called_a_failure(self, company: Company, sit: Sit):
        case = await company.in_review()
        match = case["business_key"]
        await company.fault(partner="mail", call="send", mode="lose_reply", times=1, match=match)
        user, operator = await sit("demo-vendor-requester"), await sit("demo-operator")
        await user.open(at(case))
        approval = await company.approve(case)
        for window in (user, operator):
            await window.open(at(case))
            await expect(
                window.page.locator("#step-send_welcome--" + approval["operation_id"] + "\\:send_welcome")
            ).to_contain_text("unknown whether it happened")
            await expect(window.page.locator("#case .badge.bad")).to_have_count(0)
        await operator.act("mark_done")
        await expect(operator.page.get_by_text("with this you state that it did")).to_be_visible()
        await operator.page.get_by_label("Reason").fill("The vendor has the letter")
        await operator.page.get_by_label("Message id").fill("seen-at-the-vendor")
        await operator.follow(operator.page.get_by_role("button", name="It was done by hand"))
        for window in (operator, user):
            await state(window).to_have_text("Active")
        assert await calls(company, approval, "send_welcome") == ["send"]


class TestATimeline:
    async def test_tells_how_the_state_came_about(self, company: Company, sit: Sit):
        case = await blocked(company)
        operator, user = await sit("demo-senior-operator"), await sit("demo-vendor-requester")
        await user.open(at(case))
        await operator.open(at(case))
        await operator.act("skip")
        await operator.page.get_by_label("Reason").fill("Paid by cheque until spring")
        await operator.follow(operator.page.get_by_role("button", name="Leave it out"))
        await state(user).to_have_text("Active")
        told = user.page.locator(".timeline")
        await expect(told).to_contain_text("Paid by cheque until spring")
        await expect(told).to_contain_text("demo-senior-operator")
        for entry in (await company.operator.timeline(case["case_id"]))[-20:]:
            await expect(told).to_contain_text(entry["sentence"])


class TestARetrySentTwice:
    async def test_is_one_retry_and_one_effect(self, company: Company, sit: Sit):
        case = await blocked(company)
        operator = await sit("demo-operator")
        await operator.open(at(case))
        await operator.act("retry")
        await operator.page.get_by_label("Reason").fill("The bank mended it")
        again = await operator.page.context.new_page()
        sent = []
        operator.page.on("request", lambda request: sent.append(request) if request.method == "POST" else None)
        await operator.follow(operator.page.get_by_role("button", name="Try again now"))
        await expect(operator.page.locator("#order")).to_have_attribute("data-state", "completed")
        operation = await operator.page.locator("#order").get_attribute("data-operation")
        # As a browser does it where somebody loads the answer to a form once more.
        answer = await again.request.post(
            sent[0].url,
            data=sent[0].post_data,
            headers={"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "same-origin"},
        )
        assert answer.ok
        assert f'data-operation="{operation}"' in await answer.text()
        entries = await company.operator.timeline(case["case_id"])
        retries = [e for e in entries if e["type"] == "operation.accepted" and e["data"]["action"] == "Try again now"]
        assert len(retries) == 1
        approval = next(e for e in entries if e["type"] == "operation.accepted" and e["data"]["action"] == "Approve")
        assert await calls(company, approval, "open_payee") == ["open_payee"]
