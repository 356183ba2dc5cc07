"""What a person can paste has to run as it stands, whatever is in a prompt."""

import ast
import io
import json
import subprocess
from pathlib import Path

import pytest
from rich.console import Console

from gateway.local.config_file import Addresses
from gateway.local.demo import DemoProfile, Example
from gateway.local.ports import Ports
from gateway.local.summary import Ready, RunningService, print_summary

AWKWARD = """it's "quoted" [bold]\\ and $HOME `id`"""


def ready(*profiles: DemoProfile) -> Ready:
    return Ready(
        base="tiny",
        run_directory="/somewhere/.run",
        env="/somewhere/.run/env",
        addresses=Addresses.of(Ports()),
        services=[
            RunningService(name="valkey", address="127.0.0.1:8379", pid=12, log="/somewhere/.run/logs/valkey.log")
        ],
        profiles=profiles,
        ready_s=7.6,
        resident_bytes=405 * 2**20,
    )


def profile(prompt: str) -> DemoProfile:
    return DemoProfile(
        tenant="acme",
        name="order-desk",
        directories=("/adapters/one",),
        description="Takes [orders].",
        instruction="",
        example=Example(prompt=prompt, answer=""),
    )


def shown(what: Ready, question: str = "where?") -> str:
    console = Console(file=io.StringIO(), width=60, force_terminal=False)
    print_summary(console, what, question=question)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def heredoc(text: str, command: str) -> str:
    """What a shell passes to `command`, which begins a line."""
    lines = text.splitlines()
    begin = next(index for index, line in enumerate(lines) if line.startswith(command))
    end = lines.index("END", begin)
    script = "\n".join(lines[begin : end + 1])
    body = script[script.index("<<'END'") :]
    return subprocess.run(["/bin/sh", "-c", f"cat {body}\n"], capture_output=True, text=True, check=True).stdout


def test_it_says_what_runs_where_and_which_profiles_there_are() -> None:
    text = shown(ready(profile("hello")))

    assert "Tailor serves tiny ready in 8 s, 405 MiB of memory" in text
    assert "127.0.0.1:8379" in text
    assert "Takes [orders]." in text
    assert "source /somewhere/.run/env" in text


@pytest.mark.parametrize("text", ["where does paul live ?", AWKWARD])
def test_the_body_for_curl_is_json_with_the_question_as_it_is(text: str) -> None:
    body = json.loads(heredoc(shown(ready(), question=text), "curl "))

    assert body == {"model": "tiny", "messages": [{"role": "user", "content": text}]}


@pytest.mark.parametrize("text", ["please send 42 of kettle to prague .", AWKWARD])
def test_the_lines_of_python_compile_and_hold_the_prompt_as_it_is(text: str) -> None:
    code = heredoc(shown(ready(profile(text))), ".venv/bin/python ")

    messages = next(node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Assign))
    assert ast.literal_eval(messages) == [{"role": "user", "content": text}]


def test_paths_below_the_current_folder_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "cwd", lambda: Path("/somewhere"))
    monkeypatch.setattr("os.getcwd", lambda: "/somewhere")

    text = shown(ready())

    assert "source .run/env" in text
    assert ".run/logs/valkey.log" in text
