"""The embedded stack, the partner sandbox and the demo: all of Caseward on one machine, started by one command."""
