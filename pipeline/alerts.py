"""Alerts: tell people, by a webhook or a command, what a scheduled run could not do.

An alert that cannot be sent is a line in the log and nothing more: it never fails a build.
"""

import json
import logging
import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Annotated, Any, Self

import pydantic.dataclasses
from pydantic import ConfigDict, Field, model_validator

logger = logging.getLogger(__name__)


class RefusedError(RuntimeError):
    """An alert that was not taken, in words of our own."""


_POST_SECONDS = 10
_COMMAND_SECONDS = 60


@pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class AlertsConfig:
    """Where alerts go; without `url_from` and `command`, nowhere."""

    url_from: Annotated[str, Field(pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$")] = ""
    """Name of the environment variable that holds a webhook's URL, since such URLs are secrets."""
    command: tuple[str, ...] = ()
    """Program and arguments; it gets the alert on its standard input."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.url_from and self.command:
            raise ValueError("give alerts a url_from or a command, not both")
        return self


def send(config: AlertsConfig, alert: Mapping[str, Any]) -> bool:
    """Send `alert` as JSON; return whether somebody took it. Raises nothing.

    Args:
        config: Where to.
        alert: Of strings, numbers, lists and mappings; `text` says it all in one line, which is
            what chats show.
    """
    if not config.url_from and not config.command:
        return False
    try:
        body = json.dumps(alert, default=str).encode()
        if config.command:
            _run(config.command, body)
        else:
            _post(config.url_from, body)
    except Exception as error:  # whatever it is: a build must not fail because nobody was told
        # Neither the address nor a traceback with it: it may hold a token.
        logger.error("the alert was not sent: %s", _in_words(error))
        return False
    return True


def _post(variable: str, body: bytes) -> None:
    url = os.environ.get(variable, "")
    if not url.startswith(("https://", "http://")):
        raise RefusedError(
            f"environment variable {variable} must be the webhook's http(s) address, "
            f"got {'something else' if url else 'nothing'}"
        )
    request = urllib.request.Request(  # noqa: S310  # http(s) alone, see above
        url, data=body, headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=_POST_SECONDS):  # noqa: S310  # as above
        return


def _run(command: tuple[str, ...], body: bytes) -> None:
    done = subprocess.run(
        command, input=body, capture_output=True, timeout=_COMMAND_SECONDS, check=False
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()[-500:]
        raise RefusedError(f"{command[0]} exited with {done.returncode}: {said}")


def _in_words(error: Exception) -> str:
    """Return what may be told of an error: nothing that others wrote, which may hold a token."""
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answered {error.code}"
    if isinstance(error, RefusedError):
        return str(error)
    return type(error).__name__
