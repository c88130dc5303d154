"""Who may do what: tokens, roles, and what somebody may not even know of."""

import base64
import hashlib
import hmac
import json
import time
from uuid import uuid4

import pytest
from fastapi.routing import APIRoute
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey
from joserfc.jws import JWSRegistry

from api.console.door import Guarded
from api.deps import get_identity
from tests.integration.office import CATALOGUE, Office, new_key

PUBLIC = {"/health/live", "/health/ready", "/metrics", "/openapi.json"}
SIGNED = {"/v1/partners/{partner}/callbacks"}  # no token, but a signature
NOBODY = "00000000-0000-0000-0000-000000000000"


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Forge:
    """Makes tokens, right ones and wrong ones."""

    def __init__(self, office: Office) -> None:
        keys = office.settings.data_dir / "keys"
        self.key = ECKey.import_key(json.loads((keys / "private.json").read_text()))
        self.jwks = json.loads((keys / "jwks.json").read_text())
        now = int(time.time())
        self.header = {"alg": "ES256", "typ": "at+jwt", "kid": self.key.kid}
        self.claims = {
            "iss": "caseward",
            "aud": "caseward",
            "sub": "requester-1",
            "roles": ["vendor_requester"],
            "exp": now + 60,
            "nbf": now,
        }

    def token(self, *, header: dict | None = None, key: ECKey | None = None, without: str = "", **claims) -> str:
        merged = {name: value for name, value in {**self.claims, **claims}.items() if name != without}
        chosen = {name: value for name, value in {**self.header, **(header or {})}.items() if value is not None}
        anything = JWSRegistry(algorithms=["ES256"], strict_check_header=False)
        return jwt.encode(chosen, merged, key or self.key, registry=anything, default_type=None)

    def parts(self, header: dict, signature: bytes | None = None) -> str:
        """A token put together by hand."""
        signed = f"{b64(json.dumps(header).encode())}.{b64(json.dumps(self.claims).encode())}"
        if signature is None:
            public = json.dumps(self.jwks["keys"][0]).encode()
            signature = hmac.new(public, signed.encode(), hashlib.sha256).digest()
        return f"{signed}.{b64(signature)}"


@pytest.fixture
def forge(office: Office) -> Forge:
    return Forge(office)


NOW = int(time.time())
BAD = {
    "without a signature": lambda f: f.parts({**f.header, "alg": "none"}, b""),
    "none spelt otherwise": lambda f: f.parts({**f.header, "alg": "NoNe"}, b""),
    "HS256 with the public key": lambda f: f.parts({**f.header, "alg": "HS256"}),
    "another algorithm's name": lambda f: f.parts({**f.header, "alg": "RS256"}),
    "no algorithm": lambda f: f.parts({"typ": "at+jwt", "kid": f.key.kid}),
    "header is a list": lambda f: f.parts([]),
    "another key": lambda f: f.token(key=ECKey.generate_key("P-256")),
    "an unknown kid": lambda f: f.token(header={"kid": "other"}),
    "no kid": lambda f: f.token(header={"kid": None}),
    "a kid that is no text": lambda f: f.parts({**f.header, "kid": 7}),
    "its own key's address": lambda f: f.token(header={"jku": "https://evil.example/jwks.json"}),
    "its own key": lambda f: f.token(header={"jwk": f.key.as_dict(private=False)}),
    "an extension": lambda f: f.parts({**f.header, "crit": ["exp"]}),
    "another issuer": lambda f: f.token(iss="other"),
    "no issuer": lambda f: f.token(without="iss"),
    "another audience": lambda f: f.token(aud="other"),
    "other audiences": lambda f: f.token(aud=["a", "b"]),
    "no audience": lambda f: f.token(without="aud"),
    "expired": lambda f: f.token(exp=int(time.time()) - 31),
    "no end": lambda f: f.token(without="exp"),
    "an end that is text": lambda f: f.token(exp="tomorrow"),
    "an end that is true": lambda f: f.token(exp=True),
    "not yet": lambda f: f.token(nbf=int(time.time()) + 90),
    "an id token": lambda f: f.token(header={"typ": "JWT"}),
    "no type": lambda f: f.token(header={"typ": None}),
    "no subject": lambda f: f.token(without="sub"),
    "an empty subject": lambda f: f.token(sub=""),
    "a subject with a line's end": lambda f: f.token(sub="a\nb"),
    "a subject that is a number": lambda f: f.token(sub=7),
    "a subject of ours": lambda f: f.token(sub="system"),
    "the other subject of ours": lambda f: f.token(sub="temporal"),
    "roles that are a text": lambda f: f.token(roles="vendor_requester"),
    "roles that are numbers": lambda f: f.token(roles=[1]),
    "roles that are an object": lambda f: f.token(roles={"vendor_requester": True}),
    "a changed claim": lambda f: changed(f.token()),
    "a cut signature": lambda f: f.token()[:-4],
    "two parts": lambda f: f.token().rpartition(".")[0],
    "five parts": lambda f: f.token() + ".a.b",
    "not base64": lambda _: "ä.ö.ü",
    "nothing": lambda _: "",
    "only dots": lambda _: "..",
    "far too long": lambda f: f.token(extra="a" * 200_000)[:60_000],
}


def changed(token: str) -> str:
    header, claims, signature = token.split(".")
    data = json.loads(base64.urlsafe_b64decode(claims + "=="))
    return f"{header}.{b64(json.dumps({**data, 'roles': ['senior_operator']}).encode())}.{signature}"


class TestTokens:
    @pytest.mark.parametrize("make", BAD.values(), ids=BAD.keys())
    async def test_a_bad_one_is_refused_with_no_more_than_a_word(self, office: Office, forge, make):
        token = make(forge)
        answer = await office.bearing(None).http.get(
            "/v1/me", headers=[("Authorization", f"Bearer {token}".strip().encode("latin-1"))]
        )
        problem = answer.json()
        assert (answer.status_code, problem["code"]) == (401, "token_invalid"), problem
        assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
        assert len(problem["detail"]) < 60

    async def test_a_good_one_names_actor_and_roles(self, office: Office, forge):
        answer = await office.bearing(forge.token(roles=["b", "a"])).get("/v1/me")
        assert answer.json() == {"id": "requester-1", "roles": ["a", "b"], "stands_in": {}}

    @pytest.mark.parametrize(
        "claims",
        [{"exp": NOW - 5}, {"nbf": NOW + 25}, {"aud": ["other", "caseward"]}, {"roles": []}, {"exp": 10**15}],
        ids=["clocks differ", "clocks differ the other way", "among audiences", "no roles", "for ever"],
    )
    async def test_what_is_still_good(self, office: Office, forge, claims):
        if "exp" in claims and claims["exp"] < NOW:
            claims = {"exp": int(time.time()) - 5}
        assert (await office.bearing(forge.token(**claims)).get("/v1/me")).status_code == 200

    async def test_without_one_everybody_is_asked_who_they_are(self, office: Office):
        answer = await office.bearing(None).get("/v1/cases")
        assert (answer.status_code, answer.json()["code"]) == (401, "token_missing")
        assert answer.headers["www-authenticate"] == "Bearer"

    @pytest.mark.parametrize("scheme", ["Basic", "Token", "bearer2"])
    async def test_another_scheme_is_no_token(self, office: Office, forge, scheme):
        headers = {"Authorization": f"{scheme} {forge.token()}"}
        assert (await office.bearing(None).http.get("/v1/me", headers=headers)).status_code == 401

    async def test_two_of_them_are_none(self, office: Office, forge):
        headers = [("Authorization", f"Bearer {forge.token()}")] * 2
        assert (await office.bearing(None).http.get("/v1/me", headers=headers)).status_code == 401

    async def test_a_replaced_key_file_counts_at_once(self, office: Office, forge):
        file = office.settings.jwks_file
        kept = file.read_bytes()
        fresh = ECKey.generate_key("P-256", {"use": "sig", "alg": "ES256"}, auto_kid=True)
        public = {"keys": [fresh.as_dict(private=False), RSAKey.generate_key(2048, auto_kid=True).as_dict()]}
        token = forge.token(key=fresh, header={"kid": fresh.kid})
        assert (await office.bearing(token).get("/v1/me")).status_code == 401
        try:
            replace(file, json.dumps(public).encode())
            assert (await office.bearing(token).get("/v1/me")).status_code == 200
            assert (await office.bearing(forge.token()).get("/v1/me")).status_code == 401, "the old one is out"
            replace(file, b"{ half a fi")
            assert (await office.bearing(token).get("/v1/me")).status_code == 200, "the last good keys stand"
        finally:
            replace(file, kept)
        assert (await office.bearing(forge.token()).get("/v1/me")).status_code == 200


def replace(file, content: bytes) -> None:
    new = file.with_suffix(".other")
    new.write_bytes(content)
    new.rename(file)


# Every route, and who may. Written out, not derived: a role added by mistake has to show here.
REQUESTER, REVIEWER, LEAD = "vendor_requester", "vendor_reviewer", "vendor_lead"
OPERATOR, SENIOR, AUDITOR, CLERK = "operator", "senior_operator", "auditor", "parcel_clerk"
ROLES = (REQUESTER, REVIEWER, LEAD, OPERATOR, SENIOR, AUDITOR, CLERK, "stranger")
SEES = {REQUESTER, REVIEWER, LEAD, OPERATOR, SENIOR, AUDITOR}
VENDOR_CASE, CASE = "/v1/vendor-onboarding/{case_id}/", "/v1/cases/{case_id}"
PARCEL_CASE = "/v1/parcel-return/{case_id}/"
PROPOSED = "/v1/operations/{operation_id}"
COMMANDS = {
    "/v1/vendor-onboarding": {REQUESTER},
    VENDOR_CASE + "submit": {REQUESTER},
    VENDOR_CASE + "resubmit": {REQUESTER},
    VENDOR_CASE + "approve": {REVIEWER, LEAD},
    VENDOR_CASE + "request-changes": {REVIEWER, LEAD},
    VENDOR_CASE + "reject": {REVIEWER, LEAD},
    VENDOR_CASE + "cancel": {REQUESTER, LEAD},
    VENDOR_CASE + "suspend": {REVIEWER, LEAD},
    VENDOR_CASE + "reinstate": {LEAD},
    VENDOR_CASE + "reopen": {REQUESTER, LEAD},
    "/v1/parcel-return": {CLERK},
    PARCEL_CASE + "refund": {CLERK},
    PARCEL_CASE + "inspect": {CLERK},
    PARCEL_CASE + "refuse": {CLERK},
    CASE + "/claim": SEES,  # no vendor's is claimable, which everybody may know who sees it
    CASE + "/unclaim": SEES,
    CASE + "/overrides/retry": {OPERATOR, SENIOR},
    CASE + "/overrides/skip": {OPERATOR, SENIOR},
    CASE + "/overrides/mark-done": {OPERATOR, SENIOR},
    CASE + "/overrides/undo": {OPERATOR, SENIOR},
    CASE + "/overrides/replay": {SENIOR},
    CASE + "/plan": SEES,
    CASE + "/overrides/force-cancel": {SENIOR},
    CASE + "/overrides/pause": {OPERATOR, SENIOR},
    CASE + "/overrides/resume": {OPERATOR, SENIOR},
    "/v1/outbox/{message_id}/requeue": {OPERATOR, SENIOR},
    "/v1/outbox/{message_id}/dismiss": {OPERATOR, SENIOR},
    "/v1/callbacks/dismiss": {OPERATOR, SENIOR},
    "/v1/bulk": {OPERATOR, SENIOR},
    "/v1/bulk/{bulk_id}/continue": {OPERATOR, SENIOR},
    "/v1/bulk/{bulk_id}/stop": {OPERATOR, SENIOR},
    PROPOSED + "/confirm": {LEAD},
    PROPOSED + "/decline": {LEAD},
    "/v1/pauses": {OPERATOR, SENIOR},
    "/v1/pauses/{pause_id}/resume": {OPERATOR, SENIOR},
}
NO_CASE = {
    "/v1/vendor-onboarding",
    "/v1/parcel-return",
    "/v1/outbox/{message_id}/requeue",
    "/v1/outbox/{message_id}/dismiss",
    "/v1/callbacks/dismiss",
    "/v1/bulk",
    "/v1/bulk/{bulk_id}/continue",
    "/v1/bulk/{bulk_id}/stop",
    "/v1/pauses",
    "/v1/pauses/{pause_id}/resume",
}
READS = {
    "/v1/cases": set(ROLES),
    CASE: SEES,
    CASE + "/timeline": SEES,
    CASE + "/stream": SEES,
    CASE + "/evidence": {SENIOR, AUDITOR},
    CASE + "/documents": SEES,
    "/v1/delegations": set(ROLES),
    PROPOSED: SEES,
    "/v1/processes": set(ROLES),
    "/v1/processes/{process}": set(ROLES),
    "/v1/schemas/{name}": set(ROLES),
    "/v1/me": set(ROLES),
    "/v1/outbox": {OPERATOR, SENIOR, AUDITOR},
    "/v1/bulk": {OPERATOR, SENIOR, AUDITOR},
    "/v1/bulk/groups": set(ROLES),
    "/v1/bulk/{bulk_id}": {OPERATOR, SENIOR, AUDITOR},
    "/v1/bulk/{bulk_id}/items": {OPERATOR, SENIOR, AUDITOR},
    "/v1/callbacks": {OPERATOR, SENIOR, AUDITOR},
    "/v1/numbers": {OPERATOR, SENIOR, AUDITOR},
    "/v1/pauses": {OPERATOR, SENIOR, AUDITOR},
    "/v1/pauses/{pause_id}": {OPERATOR, SENIOR, AUDITOR},
}

# Who may depends on more than a role: see test_api_documents.py and test_api_delegations.py.
ELSEWHERE = {
    CASE + "/documents/{document_id}",
    CASE + "/documents/made/{effect_key}",
    "/v1/delegations/{delegation_id}/end",
}
FOR_SOME_ROLES = {
    "/v1/outbox",
    "/v1/callbacks",
    "/v1/numbers",
    CASE + "/evidence",
    *(path for path in READS if path.startswith(("/v1/bulk", "/v1/pauses"))),
}


def all_routes(office: Office) -> list[APIRoute]:
    """Every route of the API, those of included routers too; the console's have a door of their own."""
    found, waiting = [], list(office.app.routes)
    while waiting:
        route = waiting.pop()
        inner = getattr(route, "original_router", None)
        if inner is not None:
            waiting += inner.routes
        elif not isinstance(route, Guarded):
            found.append(route)
    return found


class TestRoutes:
    async def test_none_is_left_out_of_the_table(self, office: Office):
        paths = {route.path for route in all_routes(office)}
        assert paths == {*COMMANDS, *READS, *ELSEWHERE, *PUBLIC, *SIGNED}

    async def test_every_one_but_the_public_ones_asks_who_it_is(self, office: Office):
        for route in all_routes(office):
            if route.path in PUBLIC | SIGNED:
                continue
            asked, waiting = set(), [route.dependant]
            while waiting:
                dependant = waiting.pop()
                asked.add(dependant.call)
                waiting += dependant.dependencies
            assert get_identity in asked, route.path

    async def test_without_a_token_none_answers(self, office: Office):
        known = dict.fromkeys(
            ("case_id", "operation_id", "process", "name", "message_id", "bulk_id", "pause_id"), NOBODY
        )
        for path in COMMANDS:
            answer = await office.bearing(None).http.post(path.format(**known))
            assert answer.status_code == 401, path
        for path in READS:
            assert (await office.bearing(None).get(path.format(**known))).status_code == 401, path
        for path in PUBLIC:
            assert (await office.bearing(None).get(path)).status_code == 200, path

    async def test_without_the_guard_in_front_a_route_still_refuses(self, office: Office, monkeypatch):
        monkeypatch.setattr("api.front.GUARDED", "/elsewhere")
        assert (await office.bearing(None).get("/v1/me")).status_code == 401
        assert (await office.requester.get("/v1/me")).status_code == 401

    @pytest.mark.parametrize("role", ROLES)
    async def test_every_command_by_every_role(self, office: Office, role):
        person = office.person(f"the-{role}", role)
        example = await examples(office)
        for path, allowed in COMMANDS.items():
            case = await office.draft()
            message = await office.park_a_message(case)
            bulk = await office.bulk_run(case) if "{bulk_id}" in path else None
            body = example.get(path)
            if path.endswith(("onboarding", "return")):
                body = {**body, "business_key": new_key()}
            known = {"case_id": case["case_id"], "message_id": message, "bulk_id": bulk}
            if path.startswith(PROPOSED):
                known["operation_id"] = (await office.proposal())["operation_id"]
            if path == "/v1/callbacks/dismiss":
                body = {**body, "event_id": await office.park_a_callback(body["partner"])}
            answer = await person.command(path.format(**known, pause_id=await pause_of(office, "bank")), body)
            code = answer.json().get("code")
            if role in allowed and not path.startswith(PARCEL_CASE):
                nothing_done = {422} if path.endswith("/plan") else set()
                assert answer.status_code in {200, 201, 202, 409} | nothing_done, (path, answer.text)
                assert code not in {"role_missing", "four_eyes"}
            elif path in NO_CASE or (role in SEES and not path.startswith(PARCEL_CASE)):
                assert (answer.status_code, code) == (403, "role_missing"), path
            else:  # somebody else's case, or a case under another process's address
                missing = "operation_not_found" if path.startswith(PROPOSED) else "case_not_found"
                assert (answer.status_code, code) == (404, missing), path

    @pytest.mark.parametrize("role", ROLES)
    async def test_every_read_by_every_role(self, office: Office, role):
        person = office.person(f"the-{role}", role)
        case = await office.draft()
        operation = (await office.requester.take(case, "submit")).json()["operation_id"]
        known = {"case_id": case["case_id"], "operation_id": operation, "process": "vendor-onboarding"}
        known["bulk_id"], known["pause_id"] = await office.bulk_run(case), await pause_of(office, "bank")
        for path, allowed in READS.items():
            if path.endswith("/stream") and role in allowed:
                continue
            answer = await person.get(path.format(**known, name="override.retry"))
            expected = 200 if role in allowed else 403 if path in FOR_SOME_ROLES else 404
            assert answer.status_code == expected, path


async def pause_of(office: Office, partner: str) -> str:
    listed = (await office.operator.get("/v1/pauses")).json()["pauses"]
    return next(pause["pause_id"] for pause in listed if pause["name"] == partner)


async def examples(office: Office) -> dict[str, dict]:
    """What the OpenAPI document says that works as it stands."""
    document = (await office.bearing(None).get("/openapi.json")).json()
    found = {}
    for path, methods in document["paths"].items():
        content = methods.get("post", {}).get("requestBody", {}).get("content", {}).get("application/json", {})
        if "examples" in content:
            found[path] = content["examples"]["example"]["value"]
    found["/v1/parcel-return"] = {"business_key": "x", "subject": {"number": "7"}}
    return found


class TestForeignCases:
    """Whoever may not see a case can't tell it from one that does not exist."""

    async def test_every_address_of_it_answers_as_if_there_were_none(self, office: Office):
        case, stranger = await office.draft(), office.person("clerk-1", "parcel_clerk")
        operation = (await office.requester.take(case, "submit")).json()["operation_id"]
        for path in (f"/v1/cases/{{}}{tail}" for tail in ("", "/timeline", "/stream")):
            foreign, missing = await stranger.get(path.format(case["case_id"])), await stranger.get(path.format(NOBODY))
            assert same(foreign, missing), path
        proposal = (await office.proposal())["operation_id"]
        for answer in ("confirm", "decline"):
            body = {"reason": "Curious"}
            foreign = await stranger.command(f"/v1/operations/{proposal}/{answer}", body)
            assert same(foreign, await stranger.command(f"/v1/operations/{uuid4()}/{answer}", body))
        foreign = await stranger.get(f"/v1/operations/{operation}")
        assert same(foreign, await stranger.get(f"/v1/operations/{uuid4()}"))
        for override in ("retry", "force_cancel"):
            foreign = await stranger.override(case, override)
            assert same(foreign, await stranger.override({**case, "case_id": NOBODY}, override))
        for claim in ("claim", "unclaim"):
            foreign = await stranger.command(f"/v1/cases/{case['case_id']}/{claim}")
            assert same(foreign, await stranger.command(f"/v1/cases/{NOBODY}/{claim}"))
        foreign = await stranger.take(case, "approve")
        assert same(foreign, await stranger.take({**case, "case_id": NOBODY}, "approve"))

    async def test_no_list_shows_it(self, office: Office):
        case, stranger = await office.draft(), office.person("clerk-1", "parcel_clerk")
        for query in (
            "",
            f"?business_key={case['business_key']}",
            f"?q={case['case_id']}",
            "?process=vendor_onboarding",
        ):
            listed = (await stranger.get(f"/v1/cases{query}")).json()["cases"]
            assert case["case_id"] not in {row["case_id"] for row in listed}

    async def test_it_is_not_found_under_another_process(self, office: Office):
        case = await office.draft()
        everybody = office.person("all", "vendor_requester", "parcel_clerk", "senior_operator")
        answer = await everybody.take({**case, "process": "parcel_return"}, "refund")
        assert (answer.status_code, answer.json()["code"]) == (404, "case_not_found")

    async def test_somebody_elses_key_finds_nothing(self, office: Office):
        key = uuid4().hex
        await office.requester.open(key=key)
        answer = await office.person("clerk-1", "parcel_clerk").open(key=key)
        assert (answer.status_code, answer.json()["code"]) == (403, "role_missing")


def same(one, other) -> bool:
    """The same answer, but for its trace."""
    first, second = ({**answer.json(), "trace_id": ""} for answer in (one, other))
    return one.status_code == other.status_code == 404 and first == second


class TestFourEyes:
    async def test_who_submitted_can_not_approve_in_whatever_role(self, office: Office):
        both = office.person("requester-1", "vendor_requester", "vendor_reviewer")
        case = await office.in_review()  # by requester-1
        answer = await both.take(case, "approve")
        assert (answer.status_code, answer.json()["code"]) == (403, "four_eyes")
        assert (await office.reviewer.take(case, "approve")).status_code == 202

    async def test_nor_by_another_token_of_the_same_person(self, office: Office):
        case = await office.in_review()
        assert (await office.person("requester-1", "vendor_lead").take(case, "approve")).status_code == 403

    async def test_rights_lost_between_two_calls_are_lost_at_once(self, office: Office):
        case = await office.in_review()
        fallen = office.person("reviewer-1", "vendor_requester")
        answer = await fallen.take(case, "reject", {"input": {"grounds": "No longer mine"}})
        assert (answer.status_code, answer.json()["code"]) == (403, "role_missing")


class TestDeclarations:
    async def test_every_schema_named_anywhere_is_there(self, office: Office):
        case = await office.draft()
        for action in (await office.operator.case(case))["actions"]:
            assert (await office.operator.get(action["input_schema"])).json()["type"] == "object"
        for name in CATALOGUE:
            process = (await office.operator.get(f"/v1/processes/{name}")).json()
            named = [*process["transitions"], *process["overrides"]]
            for href in (*(row["input_schema"] for row in named), *(row["result_schema"] for row in process["steps"])):
                assert (await office.operator.get(href)).status_code == 200, href
            assert (await office.operator.get(process["subject_schema"])).status_code == 200

    async def test_a_process_tells_its_states_and_transitions(self, office: Office):
        process = (await office.requester.get("/v1/processes/vendor-onboarding")).json()
        review = next(state for state in process["states"] if state["name"] == "in_review")
        assert (review["waiting_on"], review["pending"], review["final"]) == ("vendor_reviewer", False, False)
        assert review["deadline"] == {
            "after_seconds": 172800.0,
            "counted_from": None,
            "escalates_to": "vendor_lead",
            "takes": None,
            "undoes": False,
            "blocks_for": None,
        }
        approve = next(row for row in process["transitions"] if row["name"] == "approve")
        assert approve["href"] == "/v1/vendor-onboarding/{case_id}/approve"
        assert approve["four_eyes"] == ["open", "resubmit", "submit"]
