"""Forms made from schemas: what comes back from them is what the API would take."""

from api.console.act import _one_more
from api.console.forms import Form, Json

TAGS: Json = {
    "type": "object",
    "properties": {"tags": {"type": "array", "items": {"type": "string"}}},
}


class TestRows:
    def test_one_more_of_plain_values_is_empty(self):
        given: Json = {"tags": ["a"]}
        _one_more(given, "tags")
        (tags,) = Form(TAGS, given, {}).fields()
        assert [row.value for row in tags.fields] == ["a", ""]

    def test_the_first_row_of_a_list_of_which_nothing_was_given_is_there_already(self):
        given: Json = {}
        _one_more(given, "tags")
        (tags,) = Form(TAGS, given, {}).fields()
        assert [row.value for row in tags.fields] == ["", ""]
