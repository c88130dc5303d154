"""A superuser against the timeline: what he does behind the database's rules, `caseward timeline` names."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from typer.testing import CliRunner

from caseward.cases.queries import MAX_PAGE
from caseward.cases.timeline import new_entry
from caseward.db.tables import Case, Entry
from caseward.evidence import GENESIS, examine, linked, read_evidence
from caseward.situation import SYSTEM
from cli.main import cli
from tests.integration.office import VENDOR, Json, Office


@pytest.fixture
def caseward(office: Office, monkeypatch):
    """The command, as somebody at the embedded stack's terminal runs it."""
    for name, value in office.settings.environment().items():
        monkeypatch.setenv(name, value)

    async def run(*arguments: str) -> tuple[int, str]:
        done = await asyncio.to_thread(CliRunner().invoke, cli, ["timeline", *arguments])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.output

    return run


async def tamper(office: Office, case: Json, *statements: str, **values: object) -> None:
    """Rules out of force, as only a superuser can."""
    async with office.database.engine.begin() as connection:
        await connection.execute(text("SET LOCAL session_replication_role = replica"))
        for statement in statements:
            changed = await connection.execute(text(statement), {"id": UUID(case["case_id"]), **values})
            assert changed.rowcount, statement


def copied(number: str, *, of: int = 1, actor: str = "actor_id") -> str:
    return (
        f"INSERT INTO timeline_entries SELECT case_id, {number}, type, at, {actor}, actor_role, actor_via, reason, "
        f"operation_id, effect_key, traceparent, data, hash FROM timeline_entries WHERE case_id = :id AND number = {of}"
    )


ENTRY = "timeline_entries WHERE case_id = :id AND number"


class TestTheRule:
    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE timeline_entries SET reason = 'another' WHERE case_id = :id AND number = 1",
            "DELETE FROM timeline_entries WHERE case_id = :id AND number = 1",
            "TRUNCATE timeline_entries",
        ],
        ids=["update", "delete", "truncate"],
    )
    async def test_lets_nobody_change_or_remove_an_entry(self, office: Office, statement):
        case = await office.in_review()
        with pytest.raises(DBAPIError, match="never changed or removed"):
            async with office.database.engine.begin() as connection:
                await connection.execute(text(statement), {"id": UUID(case["case_id"])} if ":id" in statement else {})


class TestVerify:
    async def test_a_whole_one_is_called_so(self, office: Office, caseward):
        case = await office.in_review()
        code, said = await caseward("verify", case["case_id"])
        assert (code, said.splitlines()[-1][:8]) == (0, "1 whole ")

    @pytest.mark.parametrize(
        ("statement", "named"),
        [
            ("UPDATE timeline_entries SET actor_id = 'ned' WHERE case_id = :id AND number = 4", "entry 4 was edited"),
            (
                'UPDATE timeline_entries SET data = data || \'{"title": "X"}\' WHERE case_id = :id AND number = 5',
                "entry 5 was edited",
            ),
            (
                "UPDATE timeline_entries SET at = at - interval '1 day' WHERE case_id = :id AND number = 1",
                "entry 1 was edited",
            ),
            (f"DELETE FROM {ENTRY} = 3", "entry 3 is missing"),
            (f"DELETE FROM {ENTRY} IN (4, 5)", "entries 4 to 5 are missing"),
            (f"DELETE FROM {ENTRY} > 6", "the end was cut off"),
            (copied("0"), "entry 0 was inserted"),
            ("UPDATE cases SET timeline_head = sha256('x') WHERE id = :id", "the case's head is not the hash of entry"),
        ],
        ids=["actor", "data", "instant", "removed", "two removed", "cut", "inserted", "head"],
    )
    async def test_names_what_was_done(self, office: Office, caseward, statement, named):
        case = await office.in_review()
        await tamper(office, case, statement)
        code, said = await caseward("verify", case["case_id"])
        assert code == 1
        assert f"{case['case_id']}: {named}" in said or f"{named}\n" in said
        assert len([line for line in said.splitlines() if line.startswith(case["case_id"])]) == 1, said

    async def test_tells_an_inserted_entry_from_an_edited_one(self, office: Office, caseward):
        case = await office.in_review()
        await tamper(
            office,
            case,
            "UPDATE timeline_entries SET number = -number - 1 WHERE case_id = :id AND number >= 4",
            "UPDATE timeline_entries SET number = -number WHERE case_id = :id AND number < 0",
            copied("4", of=3, actor="'ned'"),
            "UPDATE cases SET timeline_number = timeline_number + 1 WHERE id = :id",
        )
        code, said = await caseward("verify", case["case_id"])
        assert code == 1
        assert f"{case['case_id']}: entry 4 was inserted" in said

    async def test_tells_swapped_entries(self, office: Office, caseward):
        case = await office.in_review()
        await tamper(
            office,
            case,
            "UPDATE timeline_entries SET number = -4 WHERE case_id = :id AND number = 4",
            "UPDATE timeline_entries SET number = 4 WHERE case_id = :id AND number = 5",
            "UPDATE timeline_entries SET number = 5 WHERE case_id = :id AND number = -4",
        )
        code, said = await caseward("verify", case["case_id"])
        assert (code, "it was moved" in said) == (1, True)

    async def test_all_walks_over_every_case(self, office: Office, caseward):
        cases = [await office.in_review() for _ in range(3)]
        await tamper(office, cases[1], "UPDATE timeline_entries SET reason = 'x' WHERE case_id = :id AND number = 2")
        code, said = await caseward("verify", "--all")
        assert code == 1
        assert f"{cases[1]['case_id']}: entry 2 was edited" in said
        assert cases[0]["case_id"] not in said

    async def test_all_walks_over_every_page_of_cases(self, office: Office, caseward):
        cases = [await office.draft() for _ in range(MAX_PAGE + 1)]
        await tamper(office, cases[0], "UPDATE timeline_entries SET reason = 'x' WHERE case_id = :id AND number = 1")
        code, said = await caseward("verify", "--all")
        assert code == 1
        assert f"{cases[0]['case_id']}: entry 1 was edited" in said
        assert int(said.splitlines()[-1].split()[0]) >= MAX_PAGE

    async def test_asks_for_something_to_do(self, caseward):
        assert (await caseward("verify"))[0] == 2
        assert (await caseward("verify", "--all", "--file", "x.json"))[0] == 2
        assert (await caseward("verify", "--file", "no-such-file.json"))[0] == 2

    async def test_a_case_that_is_none_is_said_to_be_none(self, caseward):
        code, said = await caseward("verify", str(uuid4()))
        assert (code, "there is no such case" in said) == (1, True)

    async def test_needs_the_right_to_read_it_all(self, office: Office, caseward):
        case = await office.draft()
        token = office.operator.headers["Authorization"].removeprefix("Bearer ")
        code, said = await caseward("verify", case["case_id"], "--token", token)
        assert (code, "role_missing" in said or "403" in said) == (1, True)


class TestEvidence:
    async def test_a_file_verifies_offline_and_holds_the_whole_case(self, office: Office, caseward, tmp_path):
        case = await office.in_review()
        code, printed = await caseward("export", case["case_id"])
        assert code == 0
        path = tmp_path / "case.json"
        path.write_text(printed)
        document = json.loads(printed)
        assert [subject["revision"] for subject in document["subjects"]] == [1]
        assert document["subjects"][0]["data"]["legal_name"] == VENDOR["legal_name"]
        names = [operation["name"] for operation in document["operations"]]
        assert names == ["open", "submit"]
        steps = document["operations"][1]["steps"]
        assert [len(step["attempts"]) for step in steps] == [1, 1, 1]
        assert document["case"]["state"] == "in_review"
        shown = (await office.requester.get(f"/v1/operations/{document['operations'][1]['operation_id']}")).json()
        assert document["operations"][1] == shown
        assert (await caseward("verify", "--file", str(path)))[0] == 0
        document["timeline"][2]["canonical"] = document["timeline"][2]["canonical"].replace("system", "nobody")
        path.write_text(json.dumps(document))
        code, said = await caseward("verify", "--file", str(path))
        assert (code, "entry 3 was edited" in said) == (1, True)

    async def test_it_is_a_download_with_a_name(self, office: Office):
        case = await office.draft()
        answer = await office.senior.get(f"/v1/cases/{case['case_id']}/evidence")
        named = f'attachment; filename="caseward-evidence-{case["case_id"]}.json"'
        assert answer.headers["content-disposition"] == named
        assert answer.headers["cache-control"] == "no-store"
        assert examine(read_evidence(answer.json())) == []

    async def test_thousands_of_entries_come_in_order_and_verify(self, office: Office):
        case = await office.draft()
        async with office.database.transaction() as session:
            row = await session.get_one(Case, UUID(case["case_id"]))
            for number in range(3000):
                session.add(
                    new_entry(
                        row,
                        "effect.skipped",
                        at=datetime(2026, 5, 4, tzinfo=UTC) + timedelta(seconds=number),
                        actor=SYSTEM,
                        data={"title": f"Step {number}"},
                    )
                )
        document = (await office.senior.get(f"/v1/cases/{case['case_id']}/evidence")).json()
        chain = read_evidence(document)
        assert [link.number for link in chain.links] == list(range(1, chain.length + 1))
        assert chain.length > 3000
        assert examine(chain) == []

    async def test_numbers_and_words_of_every_kind_are_hashed_as_they_are_read(self, office: Office):
        case = await office.draft()
        async with office.database.transaction() as session:
            row = await session.get_one(Case, UUID(case["case_id"]))
            data = {"title": 'Größe \u2028 \\ "', "partner": "a", "n": [1e16, 1e-7, -0.0, 0.1, 2**70, 1e300]}
            session.add(new_entry(row, "effect.skipped", at=datetime.now(UTC), actor=SYSTEM, data=data))
        document = (await office.senior.get(f"/v1/cases/{case['case_id']}/evidence")).json()
        assert examine(read_evidence(document)) == []


class TestCheckpoint:
    async def test_shows_a_chain_that_was_made_anew(self, office: Office, caseward, tmp_path):
        """A superuser edits an entry and makes every hash behind it, and the head, anew: nothing inside shows it."""
        case, other = await office.in_review(), await office.draft()
        code, printed = await caseward("checkpoint")
        path = tmp_path / "heads.json"
        path.write_text(printed[: printed.rindex("}") + 1])
        kept = json.loads(path.read_text())["heads"]
        assert {case["case_id"], other["case_id"]} <= set(kept)

        await make_anew(office, case, number=3)
        assert (await caseward("verify", case["case_id"]))[0] == 0, "from within it can't be seen"
        code, said = await caseward("verify", case["case_id"], "--against", str(path))
        assert code == 1
        assert f"{case['case_id']}: entry {kept[case['case_id']]['entries']} is not the one it was" in said

        await office.requester.take(other, "submit")
        assert (await caseward("verify", other["case_id"], "--against", str(path)))[0] == 0, "it only grew"

    async def test_shows_a_case_that_is_gone(self, caseward, tmp_path):
        gone, path = str(uuid4()), tmp_path / "heads.json"
        heads = {gone: {"entries": 3, "head": "00"}}
        path.write_text(json.dumps({"format": "caseward.checkpoint", "format_version": 1, "heads": heads}))
        code, said = await caseward("verify", "--against", str(path))
        assert (code, f"{gone}: was in the checkpoint, and is gone" in said) == (1, True)


async def make_anew(office: Office, case: Json, *, number: int) -> None:
    """Edit an entry and chain everything behind it again, head and all."""
    document = (await office.senior.get(f"/v1/cases/{case['case_id']}/evidence")).json()
    previous = GENESIS
    statements, values = [], {}
    for entry in document["timeline"]:
        canonical = entry["canonical"]
        if entry["number"] == number:
            content = {**json.loads(canonical), "reason": "Made up"}
            canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        previous = linked(previous, canonical)
        name = f"hash_{entry['number']}"
        values[name] = previous
        statements.append(
            f"UPDATE timeline_entries SET hash = :{name} WHERE case_id = :id AND number = {entry['number']}"
        )
    statements.append(f"UPDATE timeline_entries SET reason = 'Made up' WHERE case_id = :id AND number = {number}")
    statements.append("UPDATE cases SET timeline_head = :head WHERE id = :id")
    await tamper(office, case, *statements, **values, head=previous)


def test_entries_have_no_column_that_the_hash_leaves_out():
    columns = {column.name for column in Entry.__table__.columns}
    covered = {"case_id", "number", "type", "at", "actor_id", "actor_role", "actor_via", "reason", "operation_id"}
    assert columns == covered | {"effect_key", "traceparent", "data", "hash"}
