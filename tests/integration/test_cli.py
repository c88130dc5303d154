"""The CLI on the real API: exit codes, documents for scripts, and which case is meant."""

import asyncio
import json
import shlex
from uuid import uuid4

import pytest
import structlog
from sqlalchemy import text
from typer.testing import CliRunner

from cli.main import cli
from cli.show import moment
from cli.tokens import sign_token
from tests.integration.office import VENDOR, Office, new_key
from tests.pdfs import pdf


class Terminal:
    """Somebody at a terminal of their own."""

    def __init__(self, office: Office, actor: str, *roles: str) -> None:
        token = sign_token(office.settings, actor=actor, roles=roles)
        self.environment = {"CASEWARD_API_URL": office.url, "CASEWARD_TOKEN": token}

    async def run(self, *arguments: str, typed: str | None = None, **environment: str | None):
        return await asyncio.to_thread(
            CliRunner().invoke, cli, [*arguments], input=typed, env={**self.environment, **environment}
        )


@pytest.fixture(autouse=True)
def _quiet_api():
    """The API runs in this process: its log would stand in the middle of what the CLI prints."""
    with structlog.testing.capture_logs():
        yield


@pytest.fixture
def requester(office: Office) -> Terminal:
    return Terminal(office, "requester-1", "vendor_requester")


@pytest.fixture
def reviewer(office: Office) -> Terminal:
    return Terminal(office, "reviewer-1", "vendor_reviewer")


@pytest.fixture
def operator(office: Office) -> Terminal:
    return Terminal(office, "operator-1", "operator")


async def blocked(office: Office):
    case = await office.draft()
    submitted = await office.requester.take(case, "submit")
    await office.perform(submitted.json(), rejected_at="screen_sanctions")
    return await office.requester.case(case)


class TestExitCodes:
    async def test_0_is_done(self, requester: Terminal):
        key = new_key()
        opened = await requester.run("open", "vendor-onboarding", key, "--input-json", "-", typed=json.dumps(VENDOR))
        assert (opened.exit_code, opened.stderr) == (0, "")
        assert f"{key}: Draft, waiting." in opened.stdout
        cancelled = await requester.run("take", key, "cancel", "--reason", "Opened by mistake")
        assert cancelled.exit_code in {0, 6}, cancelled.output  # nothing is in the way; nobody works here

    async def test_1_is_refused_with_the_code_and_every_reason(self, office: Office, requester: Terminal):
        case = await office.in_review()
        refused = await requester.run("take", case["business_key"], "approve")
        assert refused.exit_code == 1
        assert "role_missing" in refused.stderr
        assert "four_eyes" in refused.stderr
        as_json = await requester.run("take", case["business_key"], "approve", "--json")
        problem = json.loads(as_json.stdout)
        assert (as_json.exit_code, problem["code"], len(problem["reasons"])) == (1, "role_missing", 2)

    @pytest.mark.parametrize(
        "arguments",
        [
            ["take", "{case}", "no-such"],
            ["take", "{case}", "submit", "--input", "no-equals-sign"],
            ["take", "{case}", "submit", "--input", "nothing=known"],
            ["override", "retry", "{case}", "--reason", "x"],
            ["override", "retry", "{case}"],
            ["override", "mark-done", "{case}", "--reason", "By hand", "--result", "[1]"],
            ["bulk", "start", "retry", "--reason", "Which of them?"],
            ["bulk", "start", "retry", "--reason", "Not a time", "--group", "0123456789ab", "--until", "teatime"],
            ["bulk", "start", "retry", "--reason", "Of no group", "--case", "{case}", "--until", "2h"],
            ["no-such"],
        ],
    )
    async def test_2_is_called_wrongly(self, office: Office, operator: Terminal, requester: Terminal, arguments):
        case = await office.draft()
        who = requester if arguments[0] == "take" else operator
        done = await who.run(*(each.format(case=case["case_id"]) for each in arguments))
        assert (done.exit_code, done.stdout) == (2, ""), done.output

    async def test_3_is_no_token_or_not_one_any_more(self, operator: Terminal):
        none = await operator.run("work", CASEWARD_TOKEN=None)
        assert none.exit_code == 3
        assert "CASEWARD_TOKEN" in none.stderr
        wrong = await operator.run("work", CASEWARD_TOKEN="abc")
        assert wrong.exit_code == 3
        assert "token_invalid" in wrong.stderr

    async def test_4_is_not_found(self, office: Office, operator: Terminal):
        await office.draft()
        for reference in (str(uuid4()), "V-none-of-ours", f"{uuid4()}:submit"):
            assert (await operator.run("case", "show", reference)).exit_code == 4

    async def test_5_is_an_api_that_is_away_or_none(self, operator: Terminal, office: Office):
        for url in ("http://127.0.0.1:9", "no address"):
            assert (await operator.run("work", CASEWARD_API_URL=url)).exit_code == 5

    async def test_6_is_accepted_and_not_finished(self, office: Office, requester: Terminal):
        case = await office.draft()
        done = await requester.run("take", case["case_id"], "submit", "--wait", "1")
        assert done.exit_code == 6
        assert "Screening, queued" in done.stdout
        other = await office.draft()
        assert (await requester.run("take", other["case_id"], "submit", "--wait", "0")).exit_code == 0

    async def test_7_is_blocked(self, office: Office, requester: Terminal):
        case = await office.draft()
        key = uuid4().hex
        waiting = asyncio.create_task(requester.run("take", case["case_id"], "submit", "--wait", "300", "--key", key))
        while not (operation := (await office.requester.case(case))["operation"]):
            await asyncio.sleep(0.05)
        await office.perform(operation, rejected_at="screen_sanctions")
        done = await waiting
        assert done.exit_code == 7
        assert "Compliance decides." in done.stdout
        again = await requester.run("take", case["case_id"], "submit", "--key", key, "--json")
        assert (again.exit_code, json.loads(again.stdout)["operation_id"]) == (7, operation["operation_id"])


class TestWhichCase:
    async def test_is_found_by_its_key_and_by_every_id(self, office: Office, operator: Terminal):
        case = await blocked(office)
        operation = case["operation"]
        effect = next(step["effect_key"] for step in operation["steps"] if step["effect_key"])
        for reference in (case["case_id"], case["business_key"], operation["operation_id"], effect):
            shown = await operator.run("case", "show", reference, "--json")
            assert json.loads(shown.stdout)["case_id"] == case["case_id"]

    async def test_json_is_the_servers_document(self, office: Office, operator: Terminal):
        case = await blocked(office)
        shown = await operator.run("case", "show", case["case_id"], "--json")
        assert json.loads(shown.stdout) == await office.operator.case(case)
        told = await operator.run("case", "timeline", case["case_id"], "--json")
        assert json.loads(told.stdout) == (await office.operator.get(f"/v1/cases/{case['case_id']}/timeline")).json()

    async def test_shows_what_is_offered_and_why_the_rest_is_not(self, office: Office, operator: Terminal):
        case = await blocked(office)
        shown = (await operator.run("case", "show", case["business_key"])).stdout
        assert case["condition_info"]["sentence"] in shown
        assert f'caseward override retry {case["business_key"]} --step screen_sanctions --reason "..."' in shown
        reasons = [r["message"] for a in (await office.operator.case(case))["actions"] for r in a["reasons"]]
        assert reasons
        assert [reason for reason in reasons if reason not in shown] == []
        assert "\x1b" not in shown

    async def test_shows_who_led_it_there_when_and_why(self, office: Office, operator: Terminal):
        case = await office.in_review()
        asked = {"input": {"grounds": "The IBAN, please"}, "reason": "A digit is missing"}
        assert (await office.reviewer.take(case, "request_changes", asked)).status_code == 200
        shown = (await operator.run("case", "show", case["case_id"])).stdout
        finished = (await office.operator.case(case))["latest"]["finished_at"]
        assert (
            f"Led here by: Request changes, by reviewer-1 at {moment(finished)}\n"
            "Grounds: The IBAN, please\n"
            "Reason: A digit is missing\n"
        ) in shown
        under_way = await blocked(office)
        assert "Led here by" not in (await operator.run("case", "show", under_way["case_id"])).stdout


class TestHostileContent:
    async def test_in_a_title_and_a_reason_is_text(self, office: Office, requester: Terminal, operator: Terminal):
        key = new_key()
        named = ["--input", "legal_name=[red]Evil[/red] :smile:"]
        await requester.run("open", "vendor-onboarding", key, "--input-json", "-", *named, typed=json.dumps(VENDOR))
        await requester.run("take", key, "submit", "--wait", "0", "--reason", "[bold]x\x1b[31m\u202e")
        for command in ("show", "timeline"):
            shown = (await operator.run("case", command, key)).stdout
            assert "[red]Evil[/red] :smile:" in shown
            assert r"[bold]x\x1b[31m\u202e" in shown
            assert not set(shown) & set("\x1b\u202e")


class TestWork:
    async def test_names_what_is_blocked_with_its_cause_and_the_command(self, office: Office, operator: Terminal):
        case = await blocked(office)
        shown = (await operator.run("work", "--only", "blocked", "--find", case["business_key"])).stdout
        assert "Blocked: 1" in shown
        assert case["condition_info"]["sentence"] in shown
        assert f"caseward override retry {case['business_key']} --step screen_sanctions" in shown

    async def test_follows_pages_and_says_where_it_stopped(self, office: Office, operator: Terminal):
        cases = [await blocked(office) for _ in range(3)]
        few = (await operator.run("work", "--only", "blocked", "--limit", "2")).stdout
        assert "Blocked: 2 or more" in few
        rows = json.loads((await operator.run("work", "--only", "blocked", "--limit", "0", "--json")).stdout)["blocked"]
        assert {case["case_id"] for case in cases} <= {row["case_id"] for row in rows}
        href = "/v1/cases?limit=2&condition=blocked"
        first = (await office.operator.get(href)).json()["cases"]
        assert rows[:2] == first, "rows are the server's"

    async def test_has_what_waits_for_my_roles_only(self, office: Office, reviewer: Terminal, operator: Terminal):
        case = await office.in_review()
        mine = await reviewer.run("work", "--find", case["business_key"])
        assert f"caseward take {case['business_key']} approve" in mine.stdout
        assert (
            "Nothing needs anybody."
            in (await operator.run("work", "--only", "waiting", "--find", case["business_key"])).stdout
        )

    async def test_has_proposals_and_their_answers(self, office: Office):
        proposed = await office.proposal()
        lead = Terminal(office, "lead-1", "vendor_lead")
        shown = (await lead.run("work", "--only", "proposals", "--find", proposed["case_id"])).stdout
        assert f"caseward confirm {proposed['operation_id']}" in shown
        others = Terminal(office, "operator-1", "operator")
        shown = (await others.run("work", "--only", "proposals", "--find", proposed["case_id"])).stdout
        assert "caseward case show" in shown, "nobody is led around what was proposed"
        declined = await lead.run("decline", proposed["operation_id"], "--reason", "No report is attached", "--json")
        assert (declined.exit_code, json.loads(declined.stdout)["state"]) == (0, "declined")
        again = await lead.run("confirm", proposed["operation_id"])
        assert again.exit_code == 1

    async def test_has_what_is_overdue(self, office: Office, operator: Terminal):
        case = await office.in_review()
        asked = ("work", "--only", "overdue", "--find", case["business_key"])
        assert "Nothing needs anybody." in (await operator.run(*asked)).stdout
        async with office.database.transaction() as session:
            late = "UPDATE cases SET deadline_at = now() - interval '1 minute' WHERE id = :id"
            await session.execute(text(late), {"id": case["case_id"]})
        assert case["business_key"] in (await operator.run(*asked)).stdout

    async def test_has_parked_messages_and_their_release(self, office: Office, operator: Terminal, requester: Terminal):
        message = await office.park_a_message(await office.draft())
        shown = (await operator.run("work", "--only", "parked", "--limit", "0")).stdout
        assert str(message) in shown
        assert "caseward outbox requeue" in shown
        assert (await operator.run("outbox", "requeue", str(message))).exit_code == 0
        message = await office.park_a_message(await office.draft())
        dismissed = await operator.run("outbox", "dismiss", str(message), "--reason", "It did arrive")
        assert dismissed.exit_code == 0, dismissed.output
        assert (await operator.run("outbox", "dismiss", str(message), "--reason", "Again")).exit_code == 4
        assert "parked" not in json.loads((await requester.run("work", "--json")).stdout)


class TestBulk:
    async def test_takes_only_what_was_blocked_when_its_group_was_read(self, office: Office, operator: Terminal):
        async def block() -> None:
            submitted = await office.requester.take(await office.draft(), "submit")
            await office.perform(submitted.json(), rejected_at="screen_sanctions")

        await block()
        listed = (await operator.run("bulk", "groups")).stdout
        groups = json.loads((await operator.run("bulk", "groups", "--json")).stdout)["groups"]
        (group,) = [each for each in groups if each["step"] == "screen_sanctions"]
        [typed] = [line for line in listed.splitlines() if group["fingerprint"] in line]
        await block()
        order = [*shlex.split(typed.replace("...", "They are back"))[1:], "--wait", "0", "--json"]
        ran = await operator.run(*order)
        assert json.loads(ran.stdout)["total"] == group["count"], ran.output
        order[order.index("--until") + 1] = "1d"
        none = await operator.run(*order)
        assert (none.exit_code, "nothing_blocked" in none.output) == (1, True)

    async def test_over_chosen_cases_of_a_group_says_so(self, office: Office, operator: Terminal):
        cases = [await blocked(office) for _ in range(3)]
        fingerprint = (await office.operator.case(cases[0]))["condition_info"]["fingerprint"]
        named = ["--group", fingerprint, "--process", "vendor-onboarding", "--reason", "Only these two"]
        chosen = [part for case in cases[:2] for part in ("--case", case["case_id"])]
        ran = await operator.run("bulk", "start", "retry", *named, *chosen, "--wait", "0", "--json")
        assert ran.exit_code == 0, ran.output
        run = json.loads(ran.stdout)
        assert (run["total"], run["group"]["fingerprint"], run["chosen"]["cases"]) == (2, fingerprint, 2)
        listed = await operator.run("bulk", "show", run["bulk_id"], "--items")
        assert [case["case_id"] in listed.stdout for case in cases] == [True, True, False]
        shown = await operator.run("bulk", "show", run["bulk_id"])
        assert "Only 2 chosen cases of the group." in shown.stdout
        mistyped = str(uuid4())
        wrong = await operator.run("bulk", "start", "retry", *named, *chosen, "--case", mistyped)
        assert (wrong.exit_code, f"No case has the id {mistyped} here." in wrong.stderr) == (2, True), wrong.output


class TestPauses:
    async def test_of_a_partner_begin_and_end(self, operator: Terminal):
        paused = await operator.run("pause", "partner", "bank", "--reason", "They are moving house", "--json")
        assert (paused.exit_code, json.loads(paused.stdout)["state"]) == (0, "paused")
        assert "They are moving house" in (await operator.run("pauses")).stdout
        resumed = await operator.run("resume", "partner", "bank", "--reason", "They are back")
        assert resumed.exit_code == 0
        assert (await operator.run("resume", "partner", "none-such", "--reason", "They are back")).exit_code == 4

    async def test_of_a_process_refuse_what_would_begin(self, operator: Terminal, requester: Terminal, office: Office):
        case = await office.draft()
        await operator.run("pause", "process", "vendor-onboarding", "--reason", "Stocktaking")
        refused = await requester.run("take", case["case_id"], "submit")
        assert refused.exit_code == 1
        assert refused.stderr.startswith("paused:")
        assert (await operator.run("resume", "process", "vendor-onboarding", "--reason", "Done")).exit_code == 0


async def test_claims_are_taken_and_given_back(office: Office):
    clerk = Terminal(office, "clerk-7", "parcel_clerk")
    key = new_key()
    opened = await clerk.run("open", "parcel-return", key, "--input", "number=7")
    assert opened.exit_code == 0, opened.output
    claimed = await clerk.run("claim", key)
    assert claimed.exit_code == 0, claimed.output
    assert "Claimed by clerk-7" in (await clerk.run("case", "show", key)).stdout
    assert (await clerk.run("unclaim", key)).exit_code == 0


async def test_documents_are_added_listed_and_taken_away(office: Office, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    clerk, key, once = Terminal(office, "clerk-7", "parcel_clerk"), new_key(), new_key()
    assert (await clerk.run("open", "parcel-return", key, "--input", "number=7")).exit_code == 0
    scan = tmp_path / "scan.pdf"
    scan.write_bytes(pdf())
    adding = ("case", "upload", key, str(scan), "--kind", "receipt", "--name", "receipt.pdf", "--key", once)
    added = json.loads((await clerk.run(*adding, "--json")).stdout)
    again = await clerk.run(*adding)  # as after an answer that got lost
    assert f"receipt.pdf: document {added['document_id']}, {len(pdf())} bytes, uploaded" in again.stdout
    scan.write_text("not what the process takes")
    refused = await clerk.run("case", "upload", key, str(scan), "--kind", "receipt")
    assert (refused.exit_code, "document_type_refused" in refused.output) == (2, True), refused.output
    assert (await clerk.run("case", "upload", key, str(tmp_path / "none.pdf"), "--kind", "receipt")).exit_code == 2
    listed = await clerk.run("case", "documents", key)
    assert listed.stdout.count("receipt.pdf") == 1
    assert added["document_id"] in listed.stdout
    assert (await clerk.run("case", "download", key, added["document_id"])).exit_code == 0
    assert (tmp_path / "receipt.pdf").read_bytes() == pdf()
    assert (await clerk.run("case", "download", key, added["document_id"])).exit_code == 2  # nothing is overwritten
    assert (await clerk.run("case", "download", key, "none-such")).exit_code == 4


async def test_processes_are_listed_and_shown(operator: Terminal):
    assert "vendor_onboarding" in (await operator.run("process", "list")).stdout
    shown = (await operator.run("process", "show", "vendor-onboarding")).stdout
    assert {"open_payee", "in_review", "approve"} <= set(shown.split())
    assert (await operator.run("process", "show", "no-such")).exit_code == 4
    schema = json.loads((await operator.run("process", "schema", "vendor_onboarding.open_payee.result")).stdout)
    assert "payee_id" in schema["properties"]


async def test_watching_ends_when_it_is_so_or_the_time_is_over(office: Office, operator: Terminal):
    case = await blocked(office)
    seen = await operator.run("case", "watch", case["case_id"], "--until", "blocked", "--json", "--within", "300")
    events = [json.loads(line) for line in seen.stdout.splitlines()]
    told = (await office.operator.get(f"/v1/cases/{case['case_id']}/timeline")).json()["entries"]
    assert seen.exit_code == 0
    assert [event["data"] for event in events if event["event"] == "entry"] == told
    late = await operator.run("case", "watch", case["case_id"], "--until", "active", "--within", "0.5")
    assert late.exit_code == 6


async def test_help_has_the_exit_codes(operator: Terminal):
    assert "7 ended blocked" in " ".join((await operator.run("--help")).stdout.split())


async def test_shells_complete_what_there_is(operator: Terminal):
    asked = {"_CASEWARD_COMPLETE": "complete_bash", "COMP_WORDS": "caseward override re", "COMP_CWORD": "2"}
    completed = await asyncio.to_thread(CliRunner().invoke, cli, [], env=asked, prog_name="caseward")
    assert completed.stdout.split() == ["retry", "resume", "replay"]


class TestNumbers:
    async def test_a_script_gets_the_document_and_a_person_the_tables(self, office: Office, operator: Terminal):
        case = await blocked(office)
        asked = await operator.run("numbers", "vendor-onboarding", "--days", "1", "--json")
        assert asked.exit_code == 0, asked.output
        document = json.loads(asked.output)
        (process,) = document["processes"]
        assert (document["days"], process["process"]) == (1, case["process"])
        assert process["stuck"] >= 1
        shown = await operator.run("numbers", "vendor-onboarding", "--days", "1")
        assert shown.exit_code == 0, shown.output
        assert f"Vendor onboarding: {process['open']} open, {process['stuck']} stuck" in shown.output
        assert "screening blocked compliance" in " ".join(shown.output.split())

    async def test_who_may_not_is_refused(self, requester: Terminal):
        refused = await requester.run("numbers")
        assert (refused.exit_code, "role_missing" in refused.output) == (1, True)
