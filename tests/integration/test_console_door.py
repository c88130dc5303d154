"""The console's door: who gets in, that nothing from elsewhere does, and that what has ended has ended."""

import hashlib
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import product

import pytest
from sqlalchemy import select, update

from api.console import Console
from api.console.door import COOKIE, Guarded
from api.console.sign_in import demo_people
from caseward.db.tables import SignIn
from cli.tokens import sign_token
from tests.integration.browser import HERE, Browser
from tests.integration.office import CATALOGUE, CONSOLE, Office

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
NOBODY = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
async def browser(office: Office) -> AsyncIterator[Browser]:
    browser = Browser(office)
    yield browser
    await browser.http.aclose()


@pytest.fixture
def demo_off(office: Office):
    office.app.state.console = Console()
    yield
    office.app.state.console = CONSOLE


class TestSigningIn:
    async def test_whoever_is_not_is_asked_and_comes_where_they_wanted(self, browser: Browser):
        asked = await browser.get("/console/work?q=a%20b")
        assert (asked.status_code, asked.headers["location"]) == (
            303,
            "/console/sign-in?to=/console/work%3Fq%3Da%2520b",
        )
        entered = await browser.sign_in(to="/console/work?q=a%20b")
        assert (entered.status_code, entered.headers["location"]) == (303, "/console/work?q=a%20b")
        assert (await browser.get("/console/work")).status_code == 200

    @pytest.mark.parametrize(
        "to",
        ["https://evil.example/", "//evil.example/console/", "/console/\\evil", "/v1/cases", "/console/a\r\nb", "//["],
    )
    async def test_nowhere_else(self, browser: Browser, to):
        assert (await browser.sign_in(to=to)).headers["location"] == "/console/work"

    async def test_the_cookie_can_be_read_by_no_script_and_sent_by_no_other_site(self, browser: Browser):
        cookie = (await browser.sign_in()).headers["set-cookie"]
        attributes = {part.strip().lower() for part in cookie.split(";")[1:]}
        assert cookie.startswith("__Host-")
        assert attributes == {"path=/", "secure", "httponly", "samesite=lax"}

    async def test_the_database_has_only_a_hash_of_it(self, office: Office, browser: Browser):
        await browser.sign_in()
        async with office.database.transaction() as session:
            hashes = set(await session.scalars(select(SignIn.key_hash)))
        assert hashlib.sha256(browser.cookie.encode()).digest() in hashes
        assert browser.cookie.encode() not in hashes

    async def test_it_makes_a_new_session_and_ends_the_one_before(self, browser: Browser):
        await browser.sign_in()
        before = browser.cookie
        await browser.sign_in("demo-auditor")
        assert browser.cookie != before
        browser.cookie = before
        assert (await browser.get("/console/work")).status_code == 303

    async def test_a_cookie_that_somebody_planted_is_not_taken_up(self, browser: Browser):
        browser.cookie = "A" * 43
        await browser.sign_in()
        assert browser.cookie != "A" * 43

    async def test_by_an_access_token_for_no_longer_than_it_lasts(self, office: Office, browser: Browser):
        token = sign_token(office.settings, actor="ada", roles=["operator"], lasts=timedelta(minutes=5))
        assert (await browser.post("/console/sign-in", {"token": token})).status_code == 303
        assert "<b>ada</b>" in (await browser.get("/console/work")).text
        async with office.database.transaction() as session:
            row = await session.scalar(select(SignIn).where(SignIn.actor_id == "ada"))
        assert row.expires_at - row.created_at <= timedelta(minutes=5, seconds=2)

    @pytest.mark.parametrize("fields", [{"token": "x"}, {"token": ""}, {"to": "/console/work"}])
    async def test_a_token_that_is_none_is_refused(self, browser: Browser, fields):
        answer = await browser.post("/console/sign-in", fields)
        assert (answer.status_code, browser.cookie) == (401, None)

    def test_there_is_a_demo_person_for_every_role(self):
        declared = {role.name for process in CATALOGUE.values() for role in process.roles}
        assert {person.role for person in demo_people(CATALOGUE)} == {
            *declared,
            "operator",
            "senior_operator",
            "auditor",
        }

    async def test_demo_people_are_not_to_be_had_where_nobody_said_so(self, demo_off, browser: Browser):
        assert "demo-operator" not in (await browser.get("/console/sign-in")).text
        assert ((await browser.sign_in()).status_code, browser.cookie) == (403, None)

    async def test_nor_under_a_name_that_somebody_may_point_at_us(self, browser: Browser):
        evil = {"Host": "evil.example"}
        assert "demo-operator" not in (await browser.get("/console/sign-in", **evil)).text
        answer = await browser.post("/console/sign-in", {"person": "demo-operator"}, evil)
        assert (answer.status_code, browser.cookie) == (403, None)

    async def test_nobody_signs_in_from_elsewhere(self, browser: Browser):
        answer = await browser.post("/console/sign-in", {"person": "demo-operator"}, {"Sec-Fetch-Site": "cross-site"})
        assert (answer.status_code, browser.cookie) == (403, None)


class TestSessionsEnd:
    async def test_signing_out_ends_it_for_whoever_kept_the_cookie(self, browser: Browser):
        await browser.sign_in()
        kept, csrf = browser.cookie, await browser.csrf()
        left = await browser.post("/console/sign-out", {"csrf": csrf})
        assert (left.status_code, browser.cookie) == (303, None)
        browser.cookie = kept
        assert (await browser.get("/console/work")).status_code == 303

    @pytest.mark.parametrize(
        ("column", "by", "ends"),
        [
            ("seen_at", timedelta(hours=2, seconds=5), True),
            ("seen_at", timedelta(hours=1, minutes=59), False),
            ("expires_at", timedelta(hours=12, seconds=5), True),
            ("expires_at", timedelta(hours=11, minutes=59), False),
        ],
    )
    async def test_idle_or_old(self, office: Office, browser: Browser, column, by, ends):
        await browser.sign_in()
        mine = SignIn.key_hash == hashlib.sha256(browser.cookie.encode()).digest()
        async with office.database.transaction() as session:
            row = await session.scalar(select(SignIn).where(mine))
            await session.execute(update(SignIn).where(mine).values({column: getattr(row, column) - by}))
        assert (await browser.get("/console/work")).status_code == (303 if ends else 200)

    async def test_only_a_click_is_a_sign_of_life(self, office: Office, browser: Browser):
        await browser.sign_in()
        mine = SignIn.key_hash == hashlib.sha256(browser.cookie.encode()).digest()

        async def seen():
            async with office.database.transaction() as session:
                return await session.scalar(select(SignIn.seen_at).where(mine))

        async with office.database.transaction() as session:
            await session.execute(update(SignIn).where(mine).values(seen_at=SignIn.seen_at - timedelta(hours=1)))
        before = await seen()
        await browser.get("/console/work", **{"HX-Request": "true"})
        assert await seen() == before
        await browser.get("/console/work")
        assert await seen() > before

    async def test_what_a_page_fetches_by_itself_hears_that_it_is_over(self, browser: Browser):
        assert (await browser.get("/console/work", **{"HX-Request": "true"})).status_code == 401


def console_routes(office: Office) -> list[Guarded]:
    found, waiting = [], list(office.app.routes)
    while waiting:
        route = waiting.pop()
        inner = getattr(route, "original_router", None)
        if inner is not None:
            waiting += inner.routes
        elif isinstance(route, Guarded):
            found.append(route)
    return found


def address(route: Guarded) -> str:
    path = re.sub(r"\{\w+:path\}", "nothing", route.path)
    path = re.sub(r"\{(case|operation|document)_id\}", NOBODY, path)
    return re.sub(r"\{\w+\}", "7", path)


class TestEveryRoute:
    def test_of_the_console_stands_behind_the_door(self, office: Office):
        outside = [
            getattr(route, "path", "")
            for route in office.app.routes
            if getattr(route, "original_router", None) is None and not isinstance(route, Guarded)
        ]
        assert not [path for path in outside if path.startswith("/console")]
        assert len(console_routes(office)) > 5

    async def test_is_closed_to_whoever_is_not_signed_in(self, office: Office, browser: Browser):
        for route in console_routes(office):
            if "public" in route.tags:
                continue
            for method in route.methods:
                if method == "GET":
                    answer = await browser.get(address(route))
                    assert answer.headers["location"].startswith("/console/sign-in?to="), route.path
                else:
                    answer = await browser.post(address(route), {"key": "k", "etag": "1"})
                    assert answer.status_code == 401, route.path

    FOREIGN = (
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "null"},  # of an old browser, which says no more
        {"Origin": "http://evil.example"},
        {},
    )

    async def test_takes_nothing_from_another_site_whatever_it_knows(self, office: Office, browser: Browser):
        await browser.sign_in()
        fields = {"csrf": await browser.csrf(), "key": "k", "etag": "1"}
        before = await office.rows()
        posts = [route for route in console_routes(office) if "POST" in route.methods]
        assert posts
        for route, headers in product(posts, self.FOREIGN):
            answer = await browser.post(address(route), fields, headers)
            assert (answer.status_code, "not_from_here" in answer.text) == (403, True), (route.path, headers)
        assert await office.rows() == before

    @pytest.mark.parametrize("csrf", [{}, {"csrf": ""}, {"csrf": "0" * 64}, {"csrf": "ä"}])
    async def test_takes_nothing_without_the_token_of_the_session(self, office: Office, browser: Browser, csrf):
        await browser.sign_in()
        for route in console_routes(office):
            if "POST" in route.methods and "public" not in route.tags:
                answer = await browser.post(address(route), {**csrf, "key": "k", "etag": "1"})
                assert (answer.status_code, "not_from_here" in answer.text) == (403, True), route.path

    async def test_takes_no_other_sessions_token(self, office: Office, browser: Browser):
        await browser.sign_in()
        other = await browser.csrf()
        await browser.sign_in("demo-auditor")
        assert (await browser.post("/console/sign-out", {"csrf": other})).status_code == 403

    async def test_an_old_browser_says_its_origin_instead(self, office: Office, browser: Browser):
        await browser.sign_in()
        csrf = await browser.csrf()
        cookie = {"Cookie": f"{COOKIE}={browser.cookie}", "Origin": office.url}
        answer = await browser.http.post("/console/sign-out", data={"csrf": csrf}, headers=cookie)
        assert answer.status_code == 303

    @pytest.mark.parametrize(
        ("content", "kind"),
        [
            (b"{}", "application/json"),
            (b"csrf=%ff%fe", FORM["Content-Type"]),
            (b"a=1&a=2", FORM["Content-Type"]),
            (b"a" * 100, FORM["Content-Type"]),
            (b"&".join(b"f%d=1" % n for n in range(600)), FORM["Content-Type"]),
        ],
        ids=["json", "not UTF-8", "a field twice", "no pairs", "too many"],
    )
    async def test_takes_no_other_content_than_a_form(self, browser: Browser, content, kind):
        answer = await browser.http.post("/console/sign-in", content=content, headers={**HERE, "Content-Type": kind})
        assert (answer.status_code, "form_malformed" in answer.text) == (400, True)

    async def test_answers_with_the_headers_of_a_page(self, office: Office, browser: Browser):
        await browser.sign_in()
        for path in ("/console/work", "/console/sign-in", "/console/nothing", "/", f"/console/cases/{NOBODY}"):
            answer = await browser.get(path)
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["x-frame-options"] == "DENY"
            assert answer.headers["x-content-type-options"] == "nosniff"

    async def test_only_static_files_are_kept_by_browsers(self, browser: Browser):
        answer = await browser.get("/console/static/vendor/htmx.min.js")
        assert (answer.status_code, "immutable" in answer.headers["cache-control"]) == (200, True)
        for path in ("..%2fpages.py", "vendor/VENDOR.txt", "nothing.css"):
            assert (await browser.get(f"/console/static/{path}")).status_code == 404

    async def test_an_unknown_page_is_a_page(self, browser: Browser):
        await browser.sign_in()
        answer = await browser.get("/console/nowhere")
        assert (answer.status_code, answer.headers["content-type"]) == (404, "text/html; charset=utf-8")

    async def test_the_front_page_leads_to_the_work(self, browser: Browser):
        assert (await browser.get("/")).headers["location"] == "/console/work"
