"""Settings: what a person types is what the processes get."""

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from settings import Settings

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # no `.env`
    for name in Settings.model_fields:
        monkeypatch.delenv(f"CASEWARD_{name.upper()}", raising=False)


class TestReading:
    def test_addresses_follow_the_ports(self, monkeypatch):
        monkeypatch.setenv("CASEWARD_API_PORT", "8001")
        assert Settings.read().api_url == "http://127.0.0.1:8001"

    def test_empty_means_not_set(self, monkeypatch):
        monkeypatch.setenv("CASEWARD_DATABASE_URL", "")
        assert Settings.read().database_url is None

    def test_overrides_are_separated_by_commas(self, monkeypatch):
        monkeypatch.setenv("CASEWARD_TEMPORAL_OVERRIDES", "retry, skip")
        assert Settings.read().temporal_overrides == ("retry", "skip")

    @pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
    def test_every_usual_form_of_a_database_address_is_taken(self, monkeypatch, scheme):
        monkeypatch.setenv("CASEWARD_DATABASE_URL", f"{scheme}://someone@db.example/caseward")
        assert Settings.read().database_url == "postgresql+psycopg://someone@db.example/caseward"

    def test_a_wrong_setting_is_told_by_its_name_and_by_no_other(self, monkeypatch):
        monkeypatch.setenv("CASEWARD_SANDBOX_PORT", "http")
        with pytest.raises(SystemExit) as stopped:
            Settings.read()
        assert str(stopped.value).startswith("CASEWARD_SANDBOX_PORT: ")
        assert "\n" not in str(stopped.value)

    def test_production_takes_neither_embedded_servers_nor_embedded_keys(self, monkeypatch):
        monkeypatch.setenv("CASEWARD_ENV", "production")
        with pytest.raises(
            SystemExit,
            match=r"CASEWARD_DATABASE_URL, CASEWARD_TEMPORAL_ADDRESS, CASEWARD_JWKS_FILE, CASEWARD_CALLBACK_SECRET",
        ):
            Settings.read()


class TestSecrets:
    def test_the_database_password_is_not_shown(self):
        assert "hunter2" not in repr(Settings(database_url="postgresql://someone:hunter2@db.example/caseward"))

    def test_nor_are_those_of_callbacks(self):
        shown = repr(Settings(callback_secret="hunter2", callback_secret_previous="hunter3"))
        assert "hunter" not in shown

    def test_nor_in_an_error(self):
        with pytest.raises(ValidationError) as refused:
            Settings(database_url=b"\xffhunter2")
        assert "hunter2" not in str(refused.value)


class TestDemoSignIn:
    def test_only_on_the_embedded_database_unless_somebody_says_so(self):
        assert Settings(database_url=None).demo_sign_in
        assert not Settings(database_url="postgresql://db.example/caseward").demo_sign_in
        assert Settings(database_url="postgresql://db.example/caseward", demo_sign_in=True).demo_sign_in

    def test_never_in_production(self, tmp_path):
        own = {
            "env": "production",
            "database_url": "postgresql://db.example/caseward",
            "temporal_address": "temporal.example:7233",
            "jwks_file": tmp_path / "jwks.json",
            "callback_secret": "secret",
            "documents_url": "file:///documents",
        }
        assert not Settings(**own).demo_sign_in
        with pytest.raises(ValidationError, match="DEMO_SIGN_IN"):
            Settings(**own, demo_sign_in=True)


class TestPassingOn:
    def test_a_child_process_reads_the_same_settings(self, monkeypatch):
        ours = Settings(api_port=8001, temporal_overrides=("retry",), data_dir=Path("somewhere"))
        for name, value in ours.environment().items():
            monkeypatch.setenv(name, value)
        assert Settings.read() == ours

    def test_the_example_file_names_every_setting(self):
        example = (ROOT / ".env.example").read_text()
        assert sorted(re.findall(r"^#CASEWARD_(\w+)=", example, re.MULTILINE)) == sorted(
            name.upper() for name in Settings.model_fields
        )
