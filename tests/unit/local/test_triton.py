"""What Triton's stub needs to find this Python, and how much shared memory it gets."""

import subprocess
import sys
from pathlib import Path

import pytest

from gateway.local import triton
from gateway.local.errors import LocalRunError
from gateway.local.ports import Ports

MIB = 2**20


def test_the_folder_of_libpython_lets_the_stub_start() -> None:
    """The loader finds every library of the stub with it."""
    triton.install_stub()
    stub = triton.SERVER / "backends" / "python" / "triton_python_backend_stub"
    libraries = triton.SERVER.parent.parent / "nvidia_pytriton.libs"

    listed = subprocess.run(
        ["/bin/sh", "-c", 'LD_TRACE_LOADED_OBJECTS=1 exec "$0"', stub],
        env={"LD_LIBRARY_PATH": f"{triton.libpython_folder()}:{libraries}"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert f"{triton.libpython_name()} => {triton.libpython_folder()}" in listed
    assert "not found" not in listed


def test_a_python_without_its_library_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton, "libpython_name", lambda: "libpython3.99.so.1.0")

    with pytest.raises(LocalRunError, match=r"without libpython3\.99\.so\.1\.0, .*sudo apt-get install libpython3\.99"):
        triton.libpython_folder()


def test_triton_gets_this_environments_packages_and_nothing_of_pythonhome() -> None:
    environment = triton.environment({"PATH": "/bin", "PYTHONHOME": "/elsewhere", "LD_LIBRARY_PATH": "/mine"})

    assert "PYTHONHOME" not in environment
    assert (Path(environment["PYTHONPATH"]) / "numpy").is_dir()
    assert environment["PATH"] == f"{Path(sys.executable).parent}:/bin"
    assert environment["LD_LIBRARY_PATH"].endswith(":/mine")


def test_every_port_of_the_run_is_on_the_loopback_address() -> None:
    command = triton.command(Path("/models"), Ports(), pool_bytes=MIB)

    assert {argument for argument in command if "-address=" in argument} == {
        f"--{service}-address=127.0.0.1" for service in ("http", "grpc", "metrics")
    }
    assert {"--http-port=8000", "--grpc-port=8001", "--metrics-port=8002"} <= set(command)


@pytest.mark.parametrize(
    ("free", "pool"),
    [
        pytest.param(24_000 * MIB, 256 * MIB, id="no more than it needs"),
        pytest.param(512 * MIB, 256 * MIB, id="half of 512 is enough"),
        pytest.param(200 * MIB, 100 * MIB, id="half of what there is in a small place"),
        pytest.param(32 * MIB, 16 * MIB, id="the smallest that will do"),
    ],
)
def test_the_pool_fits_the_place(free: int, pool: int) -> None:
    assert triton.pool_bytes(free) == pool


def test_too_small_a_place_is_one_sentence() -> None:
    with pytest.raises(
        LocalRunError, match="has 31 MiB free and Triton needs 32; in a container start it with --shm-size"
    ):
        triton.pool_bytes(32 * MIB - 1)
