"""
Where the admin API is and with which key: options, then the environment, then the local run's `.run/env`.

Decides that order. Does not connect.
"""

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.cli.output import CommandError, Exit

LOCAL_RUN = Path(".run/env")


@dataclass(frozen=True, slots=True)
class AdminSettings:
    url: str
    key: str


def setting(name: str, environment: Mapping[str, str] = os.environ, local_run: Path = LOCAL_RUN) -> str | None:
    """A variable of the environment, or else of the local run in this directory."""
    value = environment.get(name)
    return value if value else _local(local_run).get(name)


def admin_settings(url: str | None, key: str | None) -> AdminSettings:
    """
    From what was given on the command line, or else from elsewhere.

    Raises:
        CommandError: one of the two is nowhere to be found.
    """
    url = url or setting("TAILOR_ADMIN_URL")
    key = key or setting("TAILOR_ADMIN_KEY")
    if not url:
        raise CommandError(
            "No gateway to speak to: give --url, set TAILOR_ADMIN_URL, or run this where `make up` runs.", Exit.USAGE
        )
    if not key:
        raise CommandError(
            "No admin key: give --admin-key, set TAILOR_ADMIN_KEY, or run this where `make up` runs.", Exit.USAGE
        )
    return AdminSettings(url.rstrip("/"), key)


def _local(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    found = {}
    for line in lines:
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        if equals:
            found[name] = "".join(shlex.split(value))
    return found
