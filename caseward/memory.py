"""Memory: when Python looks for garbage in a process that serves."""

import gc


def collect_seldom() -> None:
    """Call it once, when all is imported and made.

    What is there by then stays anyhow; looking through it stops everybody for a fifth of a second at a time. And
    transactions make garbage by the thousand, hardly any of it in cycles, so that a look is seldom worth it.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
