"""The demo: the stack, and a working day of every business played on it, each step printed as it happens."""
