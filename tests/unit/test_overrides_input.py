"""What overrides take: a reason from everybody, and nothing unknown."""

import pytest
from pydantic import ValidationError

from caseward.overrides import OVERRIDES
from caseward.process import ENGINE_ROLES, RESERVED_TRANSITIONS


def example_of(name: str) -> dict:
    return OVERRIDES[name].input.model_json_schema()["examples"][0]


@pytest.mark.parametrize("name", OVERRIDES)
class TestEveryOverride:
    def test_has_an_example_that_works(self, name):
        model = OVERRIDES[name].input
        for example in model.model_json_schema()["examples"]:
            model.model_validate(example)

    @pytest.mark.parametrize("reason", [None, "", "ok", "   \n ", "x" * 2001, 7])
    def test_wants_a_reason_that_people_can_read(self, name, reason):
        with pytest.raises(ValidationError) as refused:
            OVERRIDES[name].input.model_validate({**example_of(name), "reason": reason})
        assert [error["loc"] for error in refused.value.errors()] == [("reason",)]

    def test_takes_a_reason_of_several_lines(self, name):
        OVERRIDES[name].input.model_validate(
            {**example_of(name), "reason": "Agreed by phone:\n\tthey did it by hand. Grüße 🙂"}
        )

    def test_refuses_unknown_fields(self, name):
        with pytest.raises(ValidationError, match="state"):
            OVERRIDES[name].input.model_validate({"reason": "Agreed", "state": "active"})

    def test_is_declared_whole(self, name):
        override = OVERRIDES[name]
        assert override.name == name
        assert override.roles <= ENGINE_ROLES
        assert name in RESERVED_TRANSITIONS
        assert {"step", "item"} <= set(override.input.model_fields) or not override.per_step
        assert not (override.per_step and override.takes_over)


@pytest.mark.parametrize("name", ["retry", "skip", "mark_done"])
@pytest.mark.parametrize("field", ["step", "item"])
def test_a_steps_name_is_bounded(name, field):
    with pytest.raises(ValidationError, match=field):
        OVERRIDES[name].input.model_validate({"reason": "Agreed", field: "x" * 201})
