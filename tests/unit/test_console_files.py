"""What the console ships: files of others unchanged, and templates that can't let markup through."""

import hashlib
import re

import pytest

from api.console.pages import FILES, STATIC

TEMPLATES = STATIC.parent / "templates"
VENDOR = STATIC / "vendor"
LISTED = re.compile(r"^(\S+\.js) \S+ \d+\.\d+\.\d+ \S+ ([0-9a-f]{64})$", re.MULTILINE)


class TestVendoredFiles:
    def test_each_is_what_its_package_shipped(self):
        listed = dict(LISTED.findall((VENDOR / "VENDOR.txt").read_text()))
        found = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in VENDOR.glob("*.js")}
        assert found == listed


class TestTemplates:
    @pytest.mark.parametrize("template", sorted(TEMPLATES.glob("*")), ids=lambda file: file.name)
    def test_nothing_is_taken_for_safe_and_nothing_stands_inline(self, template):
        text = template.read_text()
        assert not re.search(r"\|\s*safe\b|autoescape|Markup", text)
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|hx-on|javascript:|<script(?![^>]*\ssrc=)", text)

    def test_each_static_file_they_name_is_there(self):
        named = {name for file in TEMPLATES.glob("*") for name in re.findall(r"static\('([^']+)'\)", file.read_text())}
        assert named <= set(FILES)
