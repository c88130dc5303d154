"""Fuzzed from its own OpenAPI document: no accident, and no answer that the document does not declare."""

import random
from pathlib import Path
from uuid import uuid4

import httpx2
import pytest_asyncio
import schemathesis
from hypothesis import settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api.app import create_app
from api.tokens import Verifier
from caseward.db.session import Database
from cli.tokens import sign_token
from dev.stack import Stack
from processes import CATALOGUE
from tests.integration.office import VENDOR

EXAMPLES = 12  # of each operation, by a person drawn for each: about half a minute in all
PEOPLE = ("vendor_requester", "vendor_reviewer", "vendor_lead", "operator", "senior_operator", "auditor", "stranger")
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    allow_header_conformance,
]


class Target:
    """The API as a process of its own, people, and cases in several states."""

    def __init__(self, stack: Stack) -> None:
        self.url = stack.settings.api_url
        seed = random.randrange(2**32)
        self.dice = random.Random(seed)
        tokens = [sign_token(stack.settings, actor=f"a-{role}", roles=[role]) for role in PEOPLE]
        tokens.append(sign_token(stack.settings, actor="everybody", roles=PEOPLE))
        self.authorizations = [None, *(f"Bearer {token}" for token in tokens)]
        self.cases: list[str] = []
        self.operations: list[str] = []
        with httpx2.Client(base_url=self.url, trust_env=False, headers={"Authorization": f"Bearer {tokens[0]}"}) as api:
            for taken in (None, "submit", "cancel"):
                body = {"business_key": uuid4().hex, "subject": VENDOR}
                case = api.post("/v1/vendor-onboarding", json=body, headers={"Idempotency-Key": uuid4().hex}).json()
                self.cases.append(case["case_id"])
                if taken:
                    path = f"/v1/vendor-onboarding/{case['case_id']}/{taken}"
                    operation = api.post(path, headers={"Idempotency-Key": uuid4().hex}).json()
                    self.operations.append(operation["operation_id"])

    def aim(self, case: schemathesis.Case) -> None:
        """Mostly at what is there: ids drawn at random would only ever be a 404."""
        for name, known in (("case_id", self.cases), ("operation_id", self.operations)):
            if name in case.path_parameters and self.dice.random() < 0.7:
                case.path_parameters[name] = self.dice.choice(known)

    def headers(self) -> dict[str, str]:
        """Somebody's, or nobody's; mostly with a key, or most answers would be about that."""
        chosen = self.dice.choice(self.authorizations)
        key = {"Idempotency-Key": uuid4().hex} if self.dice.random() < 0.8 else {}
        return {**key, **({"Authorization": chosen} if chosen else {})}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def target(settings_for, tmp_path_factory):
    settings = settings_for(tmp_path_factory.mktemp("schema") / "data")
    async with Stack(settings, only=("postgres", "migrations", "api")) as stack:
        yield Target(stack)


def document() -> dict:
    """The API's own; made here, because tests are made from it before any server runs."""
    nowhere = Database.connect("postgresql://nobody@localhost/nothing")  # opens nothing
    return create_app(nowhere, CATALOGUE, Verifier(Path("none"), issuer="", audience="")).openapi()


config = schemathesis.Config.from_dict({"generation": {"mode": "all"}, "request-timeout": 60})
schema = schemathesis.openapi.from_dict(document(), config=config)
# Its stream never ends; test_api_stream.py reads it.
schema = schema.exclude(operation_id="stream_case")


@schema.parametrize()
@settings(max_examples=EXAMPLES)
def test_every_answer_is_declared_and_none_is_an_accident(case: schemathesis.Case, target: Target):
    target.aim(case)
    case.call_and_validate(target.url, checks=CHECKS, headers=target.headers())
