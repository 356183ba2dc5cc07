"""
`tailor serve`: one gateway from a configuration file, as a container or a service manager runs it.
"""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer


def serve(
    config: Annotated[Path, typer.Option(help="The configuration file.")] = Path("tailor.yaml"),
) -> None:
    """Serve callers and administrators from a configuration file, until SIGTERM."""
    # In place of this process: what supervises it then sees the gateway itself.
    os.execv(sys.executable, [sys.executable, "-m", "gateway", "serve", "--config", str(config)])
