"""The console's processes and numbers: what the API counts is what the pages show, to those who may see it."""

import re
from html import unescape

import pytest

from api.console.door import COOKIE
from api.console.plots import LONGEST, SHORTEST, drawn, duration, part, place
from caseward.documents.numbers import Spread
from tests.integration.office import Office


class Signed:
    """Somebody at the console."""

    def __init__(self, office: Office, cookie: str) -> None:
        self.office, self.cookie = office, cookie

    async def page(self, path: str, *, status: int = 200) -> str:
        answer = await self.office.bearing(None).get(path, Cookie=f"{COOKIE}={self.cookie}")
        assert answer.status_code == status, answer.text
        return answer.text


async def sign_in(office: Office, person: str) -> Signed:
    answer = await office.bearing(None).http.post(
        "/console/sign-in", data={"person": person, "to": "/console/work"}, headers={"Sec-Fetch-Site": "same-origin"}
    )
    office.bearing(None).http.cookies.clear()
    found = re.search(rf"{COOKIE}=([^;]+)", answer.headers.get("set-cookie", ""))
    assert found, answer.text
    return Signed(office, found[1].strip('"'))


def cells(page: str, head: str) -> list[str]:
    found = re.findall(rf'<td data-head="{head}"[^>]*>(.*?)</td>', page, re.DOTALL)
    return [" ".join(re.sub(r"<[^>]+>", " ", cell).split()) for cell in found]


class TestProcesses:
    async def test_the_picture_says_how_many_cases_are_where_and_stuck(self, office: Office):
        case = await office.draft()
        submitted = await office.requester.take(case, "submit")
        await office.perform(submitted.json(), rejected_at="screen_sanctions")
        counted = (await office.operator.get("/v1/numbers?process=vendor_onboarding")).json()["processes"][0]
        page = await (await sign_in(office, "demo-operator")).page("/console/processes/vendor-onboarding")
        state = next(row for row in counted["states"] if row["stuck"])
        assert f"{state['cases']} here, {state['stuck']} stuck, the oldest" in page
        assert re.search(rf'class="state [^"]*alarming[^"]*" data-state="{state["state"]}"', page)
        assert "<style" not in page  # the pages' policy lets nothing inline through
        assert " style=" not in page
        assert set(cells(page, "Partner")) >= {"bank", "erp", "screening"}

    async def test_every_place_where_a_move_is_owed_leads_to_its_cases(self, office: Office):
        case = await office.draft()
        signed = await sign_in(office, "demo-operator")
        page = await signed.page("/console/processes/vendor-onboarding")
        wanted = r"process=vendor_onboarding&amp;state=draft&amp;condition=waiting&amp;recovery_owner=\w+"
        found = re.search(rf"/console/work\?{wanted}", page)
        assert found
        assert f"/console/cases/{case['case_id']}" in await signed.page(unescape(found[0]))

    async def test_a_paused_partner_is_told_with_whom_and_why(self, office: Office):
        await office.operator.command("/v1/pauses", {"partner": "bank", "reason": "They are <b>moving</b> house"})
        signed = await sign_in(office, "demo-operator")
        for path in ("/console/processes", "/console/processes/vendor-onboarding"):
            page = await signed.page(path)
            assert "by operator-1: They are &lt;b&gt;moving&lt;/b&gt; house" in page

    async def test_others_see_the_declaration_without_any_number(self, office: Office):
        await office.draft()
        signed = await sign_in(office, "demo-vendor-requester")
        listed = await signed.page("/console/processes")
        page = await signed.page("/console/processes/vendor-onboarding")
        assert "Vendor onboarding" in listed
        assert 'data-state="draft"' in page
        assert not re.search(r"\d+ here", page)
        assert "stuck</li>" not in listed + page

    async def test_an_unknown_process_is_not_found(self, office: Office):
        await (await sign_in(office, "demo-operator")).page("/console/processes/nothing", status=404)


class TestNumbers:
    async def test_each_plot_stands_beside_its_numbers(self, office: Office):
        await office.in_review()
        counted = (await office.operator.get("/v1/numbers?days=30&process=vendor_onboarding")).json()["processes"][0]
        page = await (await sign_in(office, "demo-operator")).page("/console/numbers?days=30&process=vendor_onboarding")
        accepted = [str(row["accepted"]) for row in counted["operations"]]
        assert cells(page, "Accepted") == accepted
        assert cells(page, "Left it") == [
            str(row["left"]["count"]) for row in counted["states"] if row["left"]["count"]
        ]
        assert page.count('<svg class="plot"') >= len(accepted)
        assert len(re.findall(r"<svg(?![^>]*aria-hidden)", page)) == 0

    async def test_only_operators_and_auditors_may(self, office: Office):
        page = await (await sign_in(office, "demo-vendor-requester")).page("/console/numbers", status=403)
        assert 'data-code="role_missing"' in page
        assert "Acceptance to outcome" not in page
        await (await sign_in(office, "demo-auditor")).page("/console/numbers")

    async def test_a_senseless_address_is_no_page(self, office: Office):
        signed = await sign_in(office, "demo-operator")
        await signed.page("/console/numbers?days=0", status=404)
        await signed.page("/console/numbers?process=nothing", status=404)


class TestScale:
    def test_runs_from_the_shortest_to_the_longest(self):
        assert (place(0), place(SHORTEST), place(LONGEST), place(LONGEST * 2)) == (0, 0, 100, 100)
        assert place(1) < place(10) < place(100)
        assert place(10) - place(1) == pytest.approx(place(100) - place(10), abs=0.02)

    def test_nothing_is_not_drawn(self):
        assert drawn(Spread(count=0)) is None

    def test_what_hardly_differs_can_still_be_seen(self):
        marks = drawn(Spread(count=2, p50=1, p90=1, p99=1, longest=1))
        assert marks is not None
        assert marks.width > 0

    def test_the_largest_bar_fills_the_width(self):
        assert [part(value, [1, 4]) for value in (1, 4)] == [25, 100]
        assert part(0, []) == 0

    @pytest.mark.parametrize(
        ("seconds", "said"),
        [(0.0123, "12 ms"), (3.14159, "3.1 s"), (59, "59 s"), (180, "3 min"), (7200, "2 h"), (200000, "2 d")],
    )
    def test_durations_are_said_in_the_unit_that_people_would_use(self, seconds, said):
        assert duration(seconds) == said
