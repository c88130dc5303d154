"""The drill: every step of a process under every fault, with every answer that operators may give.

Nothing in it is a double. The workflows run on Temporal's time-skipping server, the engine on a Postgres of its own,
the steps' activities send to the partners' sandbox; what users and operators see comes from the case document. Only
time is made: Postgres is asked for the time through a function that stands before its own in the search path, and
before any activity begins that clock is set to the one that the Temporal server has skipped to. So both agree at
every instant at which the engine reads one, and hours of waiting take no longer than the work in them.
"""
