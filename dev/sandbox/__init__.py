"""The partner sandbox: a server of its own that speaks HTTP as our partners would, and keeps a ledger of what it did.

    python -m dev.sandbox

Each partner speaks below `/{partner}`, mail comes by SMTP and is read at `/mail`; tests and demos steer faults and
read the ledger below `/_control`. Nothing here knows Caseward: it only calls back where it was told to. A partner is
one file in `partners/` and a line in its list.
"""
