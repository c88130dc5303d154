"""The operators' console: pages made on the server, which show what the documents say and infer nothing.

To add a page: a module here with `router = console_router()` and, where it belongs into the navigation,
`PLACE = Place("Numbers", "/console/numbers")`; its template in `templates/`, which extends `page.html`; and its name in
`PAGES` of `routes.py`. Every route of a `console_router` is closed to whoever is not signed in, and to what another
site sends, before its own code runs.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Console:
    """What the console is told by the entry point."""

    demo_sign_in: bool = False
    """Anybody may choose to be any of the demo people: only where nothing is at stake."""
    temporal_ui: str | None = None
    """Where Temporal's Web UI shows the workflows of our namespace."""


@dataclass(frozen=True)
class Place:
    """An entry of the navigation."""

    title: str
    path: str
    roles: frozenset[str] | None = None
    """Whoever has one of them may look; None for everybody."""

    def open_to(self, roles: frozenset[str]) -> bool:
        """Somebody with these roles may look."""
        return self.roles is None or bool(self.roles & roles)
