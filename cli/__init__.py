"""The `caseward` command."""
