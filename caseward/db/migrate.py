"""Bring the database to the newest revision: `python -m caseward.db.migrate`, safe to run twice at once."""

import os
import sys
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

MIGRATIONS = Path(__file__).parent / "migrations"


def configuration(database_url: str) -> Config:
    """Alembic's configuration, without a file of its own."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["database_url"] = database_url
    return config


def revisions() -> tuple[str, ...]:
    """Every revision there is, the newest first."""
    return tuple(script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions())


def migrate(database_url: str) -> None:
    """Upgrade to head."""
    command.upgrade(configuration(database_url), "head")


if __name__ == "__main__":
    url = os.environ.get("CASEWARD_DATABASE_URL")
    if not url:
        sys.exit("CASEWARD_DATABASE_URL: say which database to migrate")
    migrate(url)
