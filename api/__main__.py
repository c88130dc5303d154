"""`python -m api`: the API server, until SIGTERM."""

import asyncio
import signal
import sys
from types import FrameType
from typing import NoReturn

import uvicorn

from api.app import create_app
from api.console import Console
from api.logs import set_up_logs
from api.notices import Notices
from api.tokens import Verifier
from api.uploads import Uploads
from api.webhooks import Signatures
from caseward import failpoints, metrics
from caseward.db.session import Database
from caseward.memory import collect_seldom
from caseward.objects import Objects
from processes import CATALOGUE
from settings import Settings

GRACE = 5  # seconds for requests under way; whoever waits is answered at once


class Server(uvicorn.Server):
    """uvicorn, which tells those who wait that it is about to go."""

    def __init__(self, config: uvicorn.Config, notices: Notices) -> None:
        super().__init__(config)
        self._notices = notices

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal to stop came."""
        super().handle_exit(sig, frame)
        # Called between two bytecodes of anything: only the loop may touch what waits in it.
        asyncio.get_running_loop().call_soon_threadsafe(self._notices.close)


def main() -> None:
    """Serve until a signal."""
    settings = Settings.read()
    if settings.database_url is None:
        sys.exit("CASEWARD_DATABASE_URL: say which database to work on")
    if settings.env == "test" and settings.failpoint:
        failpoints.arm(settings.failpoint)
    set_up_logs()
    verifier = Verifier(settings.jwks_file, issuer=settings.token_issuer, audience=settings.token_audience)
    database = Database.connect(settings.database_url)
    signatures = Signatures(
        settings.callback_secret,
        settings.callback_secret_previous,
        file=settings.data_dir / "sandbox" / "callback-secret",
    )
    uploads = Uploads(Objects.connect(settings.documents_url), settings.document_limit)
    console = Console(demo_sign_in=settings.demo_sign_in, temporal_ui=settings.temporal_ui)
    metrics.begin_at_zero(CATALOGUE)
    app = create_app(database, CATALOGUE, verifier, signatures, uploads, console)
    config = uvicorn.Config(
        app,
        host=settings.api_host,
        port=settings.api_port,
        loop="uvloop",
        http="httptools",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=GRACE,
    )
    collect_seldom()
    # uvicorn ends gracefully and then hands the signal back to whoever had it before.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    Server(config, app.state.wiring.notices).run()


def _leave(_signal: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(0)


if __name__ == "__main__":
    main()
