"""Looks at one PDF: standard input in, one line of JSON out. `checker.py` runs it.

A program of its own, so that a hostile file can do no more than end it: bounded in memory and computing.
"""

import io
import json
import logging
import resource
import sys

MEMORY = 768 * 1024 * 1024  # bytes of address space, the interpreter's included
SECONDS = 2  # of computing: what takes longer takes too long for whoever opens it, too
MOST_PAGES = 2000


def main() -> int:
    """Say what is found out; the exit code is 0 whatever that is."""
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))  # ends it by SIGXCPU, which nobody else sends
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logging.disable(logging.CRITICAL)
    print(json.dumps(look(sys.stdin.buffer.read())))  # noqa: T201 - its answer
    return 0


def look(content: bytes) -> dict[str, str | int | None]:
    """A finding, or none, and the number of pages."""
    from pypdf import PdfReader  # noqa: PLC0415 - within the limits, like all that comes of it

    try:
        reader = PdfReader(io.BytesIO(content), strict=False)
        if reader.is_encrypted:
            return {"finding": "encrypted", "pages": None}
        pages = len(reader.pages)
        if pages == 0:
            return {"finding": "no_pages", "pages": 0}
        if pages > MOST_PAGES:
            return {"finding": "too_many_pages", "pages": pages}
        for number in (0, pages - 1):  # a page tree may promise what is not there
            page = reader.pages[number]
            if page.mediabox.width <= 0 or page.mediabox.height <= 0:
                return {"finding": "unreadable", "pages": None}
    except MemoryError:
        return {"finding": "too_complex", "pages": None}
    except Exception:  # noqa: BLE001 - whatever a file makes the reader raise, it can't be read
        return {"finding": "unreadable", "pages": None}
    return {"finding": None, "pages": pages}


if __name__ == "__main__":
    sys.exit(main())
