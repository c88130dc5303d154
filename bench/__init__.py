"""Benchmarks: side by side with a plain Temporal workflow, in one run, on one machine."""
