"""How the environment is judged and where torch comes from. Source: scripts/bootstrap.py."""

import fcntl
import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.unit.local.scripts import SCRIPTS, load_script


@pytest.fixture
def bootstrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script at work in an empty folder, with no choice made by this machine's environment."""
    for name in ("TORCH", "TAILOR_TORCH_INDEX"):
        monkeypatch.delenv(name, raising=False)
    module = load_script("bootstrap")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(module, "VENV_PYTHON", tmp_path / ".venv" / "bin" / "python")
    monkeypatch.setattr(module, "CONSTRAINTS", tmp_path / "constraints.txt")
    (tmp_path / "constraints.txt").write_text(
        "# comment\nnvidia-pytriton==0.7.0\n\nMy_Package==1.0  # why\ntorch==2.13.0\n"
    )
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    return module


@pytest.fixture
def index() -> Iterator[str]:
    """A server that answers as a package index does."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200 if self.path.startswith("/cpu") else 404)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def holds(bootstrap: ModuleType, *names: str) -> None:
    for name in names:
        folder = bootstrap.VENV / "lib" / "python3.11" / "site-packages" / f"{name}.dist-info"
        folder.mkdir(parents=True)
        (folder / "RECORD").touch()


def test_pins_are_read_without_comments_and_under_normal_names(bootstrap: ModuleType) -> None:
    assert bootstrap.pins() == {"nvidia-pytriton": "0.7.0", "my-package": "1.0", "torch": "2.13.0"}


def test_an_environment_that_holds_every_pin_lacks_nothing(bootstrap: ModuleType) -> None:
    holds(bootstrap, "my_package-1.0", "torch-2.13.0")

    assert bootstrap.missing() == []


def test_a_build_of_torch_with_a_suffix_is_the_pinned_one(bootstrap: ModuleType) -> None:
    holds(bootstrap, "my_package-1.0", "torch-2.13.0+cpu")

    assert bootstrap.missing() == []


def test_another_version_is_missing(bootstrap: ModuleType) -> None:
    holds(bootstrap, "my_package-1.1", "torch-2.13.0")

    assert bootstrap.missing() == ["my-package"]


def test_a_package_whose_installation_was_cut_off_is_missing(bootstrap: ModuleType) -> None:
    holds(bootstrap, "my_package-1.0", "torch-2.13.0")
    (bootstrap.VENV / "lib/python3.11/site-packages/torch-2.13.0.dist-info/RECORD").unlink()

    assert bootstrap.missing() == ["torch"]


@pytest.mark.parametrize("name", ["constraints.txt", "pyproject.toml"])
def test_a_change_of_what_is_asked_for_changes_the_stamp(bootstrap: ModuleType, name: str) -> None:
    before = bootstrap.fingerprint("3.11")
    with (bootstrap.ROOT / name).open("a") as file:
        file.write("\n")

    assert bootstrap.fingerprint("3.11") != before


def test_another_python_changes_the_stamp(bootstrap: ModuleType) -> None:
    assert bootstrap.fingerprint("3.11") != bootstrap.fingerprint("3.12")


def test_an_environment_that_is_not_there_does_not_work(bootstrap: ModuleType) -> None:
    assert not bootstrap.venv_works()


def test_an_interpreter_that_does_not_run_does_not_work(bootstrap: ModuleType) -> None:
    bootstrap.VENV_PYTHON.parent.mkdir(parents=True)
    bootstrap.VENV_PYTHON.write_text("#!/bin/sh\nexit 1\n")
    bootstrap.VENV_PYTHON.chmod(0o755)

    assert not bootstrap.venv_works()


def test_pytorchs_own_index_is_taken_where_it_answers(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, index: str
) -> None:
    monkeypatch.setattr(bootstrap, "PYTORCH_INDEXES", index)

    assert bootstrap.torch_source()[0] == ["--index-url", f"{index}/cpu"]


def test_pips_own_index_is_taken_where_pytorchs_does_not_answer(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bootstrap, "PYTORCH_INDEXES", "http://127.0.0.1:1/whl")

    assert bootstrap.torch_source()[0] == []
    assert "TAILOR_TORCH_INDEX=<url>" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("variable", "value", "arguments"),
    [
        pytest.param(
            "TAILOR_TORCH_INDEX", "https://x.example/whl", ["--index-url", "https://x.example/whl"], id="a URL"
        ),
        pytest.param("TAILOR_TORCH_INDEX", "pip", [], id="pip's own"),
        pytest.param("TORCH", "cu130", ["--index-url", "https://download.pytorch.org/whl/cu130"], id="a CUDA build"),
    ],
)
def test_a_variable_chooses_where_torch_comes_from(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, arguments: list[str]
) -> None:
    monkeypatch.setenv(variable, value)

    assert bootstrap.torch_source()[0] == arguments


def test_a_second_make_waits_for_the_first(tmp_path: Path) -> None:
    """Two at once would write into one environment; seen by holding the lock as the first would."""
    lock = tmp_path / "lock"
    code = (
        "import importlib.util, pathlib, sys\n"
        f"spec = importlib.util.spec_from_file_location('b', {str(SCRIPTS / 'bootstrap.py')!r})\n"
        "b = importlib.util.module_from_spec(spec); spec.loader.exec_module(b)\n"
        f"b.LOCK = pathlib.Path({str(lock)!r})\n"
        "with b.only_one(): print('mine')\n"
    )
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        second = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert second.stderr
        assert "another make is preparing this environment" in second.stderr.readline()
        assert second.poll() is None
        fcntl.flock(held, fcntl.LOCK_UN)
    out, _ = second.communicate(timeout=30)
    assert out == "mine\n"


def test_every_requirement_of_the_project_is_pinned() -> None:
    """The real files: a requirement that constraints.txt does not name would float."""
    real = load_script("bootstrap")
    project = real.tomllib.loads((SCRIPTS.parent / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [*project["dependencies"], *extras["local"], *extras["dev"], *real.BUILD_TOOLS, real.TRITON_PACKAGE]

    names = {real.normalised(real.re.split(r"[<>=!~\[; ]", requirement)[0]) for requirement in asked}

    assert names <= set(real.pins())


def test_no_committed_file_of_the_build_names_a_package_index_but_pytorchs() -> None:
    texts = [(SCRIPTS.parent / name).read_text() for name in ("Makefile", "constraints.txt", "pyproject.toml")]
    texts += [path.read_text() for path in SCRIPTS.iterdir() if path.is_file()]

    assert not [text for text in texts if "index-url http" in text or "pypi" + ".org" in text or "find-links" in text]
