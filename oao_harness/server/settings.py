"""What a server is told: defaults, then the project, then the environment, then the command line."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from oao_harness.errors import ConfigError
from oao_harness.policy.project import find_project_setting, oao_table, project_files
from oao_harness.policy.reading import close_to, table_in
from oao_harness.server.keys import KEYS_FILE

__all__ = ["Settings"]

_PREFIX: Final = "OAO_SERVER_"
_STORE: Final = "sqlite:.oao/oao.db"
# Two letters at least, so that a Windows path such as C:\runs.db is a path.
_URL: Final = re.compile(r"[a-z][a-z0-9+.-]+:", re.IGNORECASE)


class Settings(BaseModel):
    """The settings of a server.

    ```toml
    [tool.oao.server]
    port = 8080
    deadline_s = 120
    ```

    The environment has them in capitals behind `OAO_SERVER_`, for example `OAO_SERVER_PORT`; `OAO_STORE` and
    `OAO_SCHEDULER` say where journals and jobs are.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)

    host: str = "127.0.0.1"
    """The address to listen on. Any other than this machine's own needs callers that can be told apart."""
    port: int = Field(default=8000, ge=0, le=65535)
    """0 takes a free one."""
    store: str = _STORE
    """Where the journals are: a URL, or the path of a SQLite file."""
    scheduler: str = "local:"
    """What carries jobs to workers: `local:` for this process alone, or `redis://HOST:PORT/DB`."""
    work: bool | None = None
    """True does the jobs in this process too; by default only where nobody else can: with `local:`."""
    slots: int = Field(default=64, ge=1, le=100_000)
    """Runs of one agent at once."""
    waiting: int = Field(default=256, ge=0, le=1_000_000)
    """How many more of one agent may wait; who comes after that is told to come again."""
    deadline_s: float = Field(default=300.0, gt=0, le=86_400)
    """Seconds that a run may take where the request does not say."""
    most_deadline_s: float = Field(default=3600.0, gt=0, le=86_400)
    """Seconds that a request may ask for at most."""
    grace_s: float = Field(default=5.0, ge=0, le=3600)
    """Seconds that the server may take to stop: half of them for runs to end, half for what is put down."""
    most_wait_s: float = Field(default=60.0, gt=0, le=3600)
    """Seconds that one request may wait for a job; a client that wants to wait longer asks again."""
    heartbeat_s: float = Field(default=15.0, gt=0, le=3600)
    """Seconds between two signs of life on a stream that has nothing to say."""
    most_streams: int = Field(default=2000, ge=1, le=1_000_000)
    """Open streams of events; who comes after that is told to come again."""
    most_body_bytes: int = Field(default=1024 * 1024, ge=1, le=1024**3)
    """How many bytes a request may have."""
    body_s: float = Field(default=30.0, gt=0, le=3600)
    """Seconds in which the body of a request must have come, and before it, by `oao serve`, its head."""
    address_rate: str = "6000/minute"
    """Requests of one address, health checks left out; empty for any number. Not counted while nobody needs a key."""
    caller_rate: str = "6000/minute"
    """Requests of one key or token; empty for any number."""
    keys: str = KEYS_FILE
    """The file of the API keys, see `oao keys`; also `OAO_KEYS_FILE`."""
    tokens: dict[str, Any] = Field(default_factory=dict[str, Any])
    """Whose JWTs are believed: the fields of `TokenSettings`; empty for nobody's."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may ask, for example `https://desk.example`; nobody's by default."""

    @property
    def works(self) -> bool:
        """True where this process does the jobs."""
        return self.scheduler == "local:" if self.work is None else self.work

    @classmethod
    def load(cls, start: Path | None = None, /, **overrides: object) -> Settings:
        """Return the settings of a project.

        Args:
            start: A folder of the project; the working folder by default.
            overrides: What the command line says; None for nothing.

        Raises:
            ConfigError: A setting is unknown or wrong; the message says where it is from.
        """
        found: dict[str, object] = {}
        sources: dict[str, str] = {}
        for values, source in (
            (_of_project(start), "pyproject.toml"),
            (_of_environment(os.environ), "the environment"),
            ({key: value for key, value in overrides.items() if value is not None}, "the command line"),
        ):
            found |= values
            sources |= dict.fromkeys(values, source)
        scheduler = str(found.get("scheduler", ""))
        if "store" not in found and scheduler.startswith(("redis:", "rediss:", "unix:")):
            found["store"] = scheduler
        if isinstance(store := found.get("store"), str) and not _URL.match(store):
            found["store"] = f"sqlite:{store}"
        try:
            return cls.model_validate(found)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = str(first["loc"][0]) if first["loc"] else ""
            if first["type"] == "extra_forbidden":
                raise ConfigError(
                    f"{sources[key]}: the server has no setting {key!r}{close_to(key, tuple(cls.model_fields))}"
                ) from error
            raise ConfigError(
                f"{sources.get(key, 'server')}: {key} is {first['input']!r:.80}: {first['msg']}"
            ) from error


def _of_project(start: Path | None) -> dict[str, object]:
    found: dict[str, object] = {}
    for key in ("store", "scheduler"):
        setting = find_project_setting(key, start)
        if setting is not None:
            found[key] = setting.text
    for file in project_files(start):
        oao, at = oao_table(file)
        if "server" not in oao:
            continue
        table = table_in(oao["server"])
        if table is None:
            raise ConfigError(f"{at('server')}: [tool.oao.server] is no table; write for example port = 8080")
        return found | cast("dict[str, Any]", dict(table))
    return found


def _of_environment(environ: Mapping[str, str]) -> dict[str, object]:
    found: dict[str, object] = {
        key: environ[name]
        for key, name in (("store", "OAO_STORE"), ("scheduler", "OAO_SCHEDULER"), ("keys", "OAO_KEYS_FILE"))
        if environ.get(name)
    }
    for name, value in environ.items():
        if name.startswith(_PREFIX) and value:
            found[name.removeprefix(_PREFIX).lower()] = value
    return found
