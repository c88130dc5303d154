"""Settings: one frozen class, read from the environment by entry points only; everything else gets what it needs
by argument, so that nothing deep inside can behave differently because of a variable nobody passed to it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

Port = Annotated[int, Field(ge=1, le=65535)]
PortOrNone = Annotated[int, Field(ge=0, le=65535)]


def _split_at_commas(value: object) -> object:
    """`retry,pause` from the environment; pydantic-settings would demand JSON."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _as_text(value: object) -> str:
    """As the environment spells it."""
    match value:
        case tuple():
            return ",".join(map(str, value))  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        case Mapping():
            return json.dumps(dict(value))  # pyright: ignore[reportUnknownArgumentType]
        case _:
            return str(value)


def _with_our_driver(value: str) -> str:
    """Hosting providers hand out `postgres://…`; SQLAlchemy needs to be told which driver to take."""
    scheme, separator, rest = value.partition("://")
    return f"postgresql+psycopg{separator}{rest}" if scheme in {"postgres", "postgresql"} else value


Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_at_commas)]
DatabaseUrl = Annotated[str, AfterValidator(_with_our_driver)]
# Absolute, because a child process may run in another folder.
AbsolutePath = Annotated[Path, AfterValidator(Path.absolute)]


class Settings(BaseSettings):
    """All of Caseward's settings. Each is read from `CASEWARD_<NAME>`, then from `.env`, then from its default."""

    model_config = SettingsConfigDict(
        env_prefix="CASEWARD_",
        env_file=".env",
        env_ignore_empty=True,  # `CASEWARD_DATABASE_URL=` in a file or a compose list means "not set"
        extra="ignore",  # `.env` may hold other programs' variables too
        frozen=True,
        hide_input_in_errors=True,  # a mistyped database URL still holds its password
    )

    env: Literal["", "test", "production"] = Field(
        default="",
        description="`test` honours failpoints; `production` refuses what only the embedded stack may use",
    )
    data_dir: AbsolutePath = Field(
        default=Path(".caseward"),
        validate_default=True,
        description="Where the embedded stack keeps databases, keys and logs. One stack per folder",
    )

    api_host: str = Field(default="127.0.0.1", description="The address the API listens at; `0.0.0.0` in a container")
    api_port: Port = Field(default=8000, description="The API")
    temporal_port: Port = Field(default=7233, description="The embedded Temporal server")
    temporal_ui_port: Port = Field(default=8233, description="Its Web UI")
    sandbox_port: Port = Field(default=8100, description="The partner sandbox")
    sandbox_smtp_port: Port = Field(default=8125, description="Its mail server")

    metrics_host: str = Field(
        default="127.0.0.1", description="The address at which a worker serves its metrics; `0.0.0.0` in a container"
    )
    metrics_port: PortOrNone = Field(default=8001, description="The port, at `/metrics`; 0 = not at all")
    temporal_metrics_port: PortOrNone = Field(
        default=0, description="The port, at `/metrics`, of what Temporal's SDK counts in a worker; 0 = not at all"
    )

    database_url: DatabaseUrl | None = Field(
        default=None,
        repr=False,  # it carries the password, and settings get logged
        description="A Postgres that runs already, as `postgresql+psycopg://…`; empty = embedded, on a port of its own",
    )
    temporal_address: str | None = Field(
        default=None,
        description="A Temporal that runs already, as `host:port`; empty = embedded",
    )
    temporal_namespace: str = Field(default="caseward", description="Created by the embedded Temporal only")
    build_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] | None = Field(
        default=None,
        description="What Temporal's worker versioning tells this build from others by; empty = a digest of the code",
    )
    temporal_overrides: Words = Field(
        default=("retry", "pause", "resume"),
        description="What `temporal`, the actor nobody verified, may do by a signal or update sent past the API",
    )

    reconcile_after: Annotated[float, Field(gt=0)] = Field(
        default=15, description="Seconds that a case may be overdue before the reconciler looks after it"
    )
    reconcile_round: Annotated[float, Field(gt=0)] = Field(
        default=3600, description="Seconds in which every open case is compared with its workflow once"
    )

    api_url: str = Field(
        default_factory=lambda data: f"http://127.0.0.1:{data['api_port']}",
        description="Where the CLI and the partners' callbacks find the API",
    )
    sandbox_url: str = Field(
        default_factory=lambda data: f"http://127.0.0.1:{data['sandbox_port']}",
        description="Where the partners are: each one speaks below `/<partner>`",
    )

    documents_url: str = Field(
        default_factory=lambda data: (data["data_dir"] / "documents").as_uri(),
        description="Where documents are kept: `file:///folder`, or `s3://bucket/prefix` with AWS's own variables",
    )
    document_limit: Annotated[int, Field(gt=0)] = Field(
        default=20 * 1024 * 1024, description="Bytes that one document may have"
    )

    smtp_host: str = Field(default="127.0.0.1", description="The mail server; by default that of the sandbox")
    smtp_port: Port = Field(default_factory=lambda data: data["sandbox_smtp_port"], description="Its port")
    smtp_username: str | None = Field(default=None, description="As whom we log in there; empty = not at all")
    smtp_password: str | None = Field(default=None, repr=False, description="With it")
    smtp_starttls: bool = Field(default=False, description="Encrypt, and have the server show a valid certificate")
    mail_from: str = Field(default="caseward@caseward.test", description="Our address on every mail")
    mail_to: Mapping[str, str] = Field(
        default={},
        description="Where escalations go: addresses by team or role, `*` for all others, with `{name}` for its name",
    )

    token_issuer: str = Field(default="caseward", description="The `iss` a bearer token must carry")
    token_audience: str = Field(default="caseward", description="The `aud` a bearer token must carry")
    jwks_file: AbsolutePath = Field(
        default_factory=lambda data: data["data_dir"] / "keys" / "jwks.json",
        description="The public keys bearer tokens are checked with; made by the embedded stack at its first start",
    )

    demo_sign_in: bool = Field(
        default_factory=lambda data: data["database_url"] is None and data["env"] != "production",
        description="The console lets anybody be any of the demo people; by default on the embedded database only",
    )
    temporal_ui_url: str | None = Field(
        default_factory=lambda data: (
            f"http://127.0.0.1:{data['temporal_ui_port']}" if data["temporal_address"] is None else None
        ),
        description="Where the console finds Temporal's Web UI; empty = that of the embedded Temporal, or none",
    )

    callback_secret: str | None = Field(
        default=None,
        repr=False,
        description="Each partner signs its callbacks with a secret derived from it; empty = that of the sandbox",
    )
    callback_secret_previous: str | None = Field(
        default=None, repr=False, description="The one before, accepted too while partners change over"
    )

    failpoint: str | None = Field(
        default=None,
        description="`name[:n]`: SIGKILL to the process that reaches it for the n-th time; only where env is `test`",
    )

    @model_validator(mode="after")
    def _production_names_its_own(self) -> Self:
        # A forgotten variable would otherwise mean keys that lie on some disk, or an empty database.
        if self.env == "production":
            missing = [
                f"CASEWARD_{name.upper()}"
                for name in ("database_url", "temporal_address", "jwks_file", "callback_secret", "documents_url")
                if name not in self.model_fields_set or getattr(self, name) is None
            ]
            if missing:
                message = f"production needs its own {', '.join(missing)}"
                raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _nobody_is_anybody_in_production(self) -> Self:
        if self.env == "production" and self.demo_sign_in:
            message = "CASEWARD_DEMO_SIGN_IN is for trying things out, and production is not"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _no_password_in_the_clear(self) -> Self:
        if self.smtp_password is not None and not self.smtp_starttls:
            message = "CASEWARD_SMTP_PASSWORD needs CASEWARD_SMTP_STARTTLS=true, or everybody on the way could read it"
            raise ValueError(message)
        return self

    @property
    def temporal_ui(self) -> str | None:
        """Where Temporal's Web UI shows the workflows of our namespace."""
        return f"{self.temporal_ui_url}/namespaces/{self.temporal_namespace}" if self.temporal_ui_url else None

    @classmethod
    def read(cls) -> Self:
        """For entry points: a wrong setting ends the process with one line for each, not with a traceback."""
        try:
            return cls()
        except ValidationError as error:
            # A default derived from a wrong setting fails too; only the cause is worth a line.
            causes = [fault for fault in error.errors() if fault["type"] != "default_factory_not_called"]
            lines = [
                f"CASEWARD_{str(fault['loc'][0]).upper()}: {fault['msg']}" if fault["loc"] else fault["msg"]
                for fault in causes
            ]
            raise SystemExit("\n".join(lines)) from None

    def environment(self) -> dict[str, str]:
        """These settings as the environment of a child process, so that it sees the same whatever its folder."""
        values = {name: _as_text(value) for name, value in self if value not in (None, "")}
        return {f"CASEWARD_{name.upper()}": value for name, value in values.items()}
