"""
`tailor adapters`, `tenants` and `keys` against the real admin API: what people read, what programs read, exit codes.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from gateway.cli.main import app
from gateway.domain.keys import matches, parse_key
from gateway.registry.registry import Registry
from tests.contract.adapters.admin_server import AdminServer, admin_server
from tests.contract.adapters.conftest import Directories
from tests.contract.adapters.valkey import free_port
from tests.unit.adapters.handmade import lora_config, lora_tensors, write

REFUSED, USAGE, UNREACHABLE, NOT_FOUND = 1, 2, 3, 4


class Tailor:
    """The command in this process, with the environment of an engineer."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = {"COLUMNS": "160", "NO_COLOR": "1", **environment}

    def __call__(self, *words: object, exit_code: int = 0, typed: str | None = None) -> Result:
        result = CliRunner().invoke(app, [str(word) for word in words], env=self.environment, input=typed)
        assert result.exit_code == exit_code, result.output
        assert "Traceback" not in result.output
        return result

    def json(self, *words: object, exit_code: int = 0) -> Any:
        return json.loads(self(*words, "--json", exit_code=exit_code).stdout)


@pytest.fixture
def server(registry: Registry) -> Iterator[AdminServer]:
    with admin_server(registry) as running:
        yield running


@pytest.fixture
def tailor(server: AdminServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tailor:
    monkeypatch.chdir(tmp_path)
    return Tailor({"TAILOR_ADMIN_URL": server.url, "TAILOR_ADMIN_KEY": server.key})


def test_from_a_directory_to_a_promoted_version(tailor: Tailor, directories: Directories, tmp_path: Path) -> None:
    assert "No profiles yet" in tailor("adapters", "list").stdout
    (tmp_path / "prompt.txt").write_text("Answer kindly.\n")
    first = tailor(
        *("adapters", "add", directories.lora, "--tenant", "acme", "--name", "bot", "--instruction", "@prompt.txt")
    ).stdout
    assert "Registered acme/bot@1" in first
    assert "LoRA; rank 8; q_proj, down_proj in 3 layers" in first
    assert 'It is live: model="bot"' in first

    second = tailor("adapters", "add", directories.other, "-t", "acme", "-n", "bot").stdout
    assert "It is not live; version 1 is" in second
    assert "tailor adapters promote acme/bot@2" in second
    assert "Nothing new" in tailor("adapters", "add", directories.other, "-t", "acme", "-n", "bot").stdout

    promoted = tailor("adapters", "promote", "acme/bot@2").stdout
    assert "acme/bot@2 is live" in promoted
    assert "tailor adapters rollback acme/bot" in promoted
    assert "was live already" in tailor("adapters", "promote", "bot@2", "--tenant", "acme").stdout
    listed = tailor("adapters", "list").stdout.splitlines()
    assert listed[0].split() == ["TENANT", "NAME", "LIVE", "VERSIONS", "KIND", "BASE", "CHANGED"]
    assert listed[1].split()[:6] == ["acme", "bot", "2", "2", "LoRA", "small-llama"]
    assert "acme/bot@2 is intact" in tailor("adapters", "verify", "acme/bot").stdout
    assert "acme/bot@1 is live again" in tailor("adapters", "rollback", "acme/bot").stdout

    shown = tailor("adapters", "show", "acme/bot").stdout
    assert "version 1 (live)" in shown
    assert "instruction: Answer kindly." in shown
    assert "lora_task_id" in shown
    one = tailor("adapters", "show", "acme/bot@2").stdout
    assert "version 2" in one
    assert "version 1" not in one
    assert "version 1 (live)" in tailor("adapters", "show", "acme/bot@live").stdout

    assert "Retired acme/bot: version 2" in tailor("adapters", "remove", "acme/bot@2").stdout
    tailor("adapters", "remove", "acme/bot", typed="n\n", exit_code=1)
    assert "Retired acme/bot: version 1" in tailor("adapters", "remove", "acme/bot", typed="y\n").stdout


def test_two_adapters_in_one_profile_and_live_at_once(tailor: Tailor, directories: Directories) -> None:
    tailor("adapters", "add", directories.lora, "-t", "acme", "-n", "bot")
    made = tailor.json(
        *("adapters", "add", directories.table, directories.ia3, "-t", "acme", "-n", "bot"),
        *("--promote", "--description", "both"),
    )
    assert made["live"] == 2
    assert [item["peft_type"] for item in made["version"]["adapters"]] == ["PROMPT_TUNING", "IA3"]
    row = tailor("adapters", "list", "--tenant", "acme").stdout.splitlines()[1]
    assert "prompt tuning + IA3" in row


def test_json_is_all_that_is_on_stdout(tailor: Tailor, directories: Directories) -> None:
    made = tailor.json("adapters", "add", directories.lora, "-t", "acme", "-n", "bot")
    assert made["outcome"] == "registered"
    assert tailor.json("adapters", "list")[0]["name"] == "bot"
    assert tailor.json("adapters", "show", "acme/bot")["live"] == 1
    assert tailor.json("adapters", "verify", "acme/bot")["ok"] is True
    tailor.json("adapters", "add", directories.other, "-t", "acme", "-n", "bot")
    assert tailor.json("adapters", "promote", "acme/bot@2") == {
        "tenant": "acme",
        "name": "bot",
        "before": 1,
        "live": 2,
    }
    assert tailor.json("adapters", "rollback", "acme/bot")["live"] == 1
    assert tailor.json("adapters", "remove", "acme/bot@2")["retired"] == [2]
    assert tailor.json("adapters", "remove", "acme/bot", "--yes")["retired"] == [1]
    assert [item["name"] for item in tailor.json("tenants", "list")] == ["acme", "globex"]
    error = tailor.json("adapters", "show", "acme/bot2", exit_code=NOT_FOUND)["error"]
    assert error["code"] == "not_found"


def test_refusals_say_what_to_do(tailor: Tailor, directories: Directories, tmp_path: Path) -> None:
    bad = write(tmp_path / "bad", lora_config(r=4), lora_tensors())
    words = ("adapters", "add", bad, "-t", "acme", "-n", "bot")
    said = tailor(*words, exit_code=REFUSED).stderr
    assert "rank 8, but the configuration says 4" in said
    assert "Hand in the adapter_config.json" in said
    assert tailor.json(*words, exit_code=REFUSED)["error"]["details"]["reason"] == "rank_mismatch"
    (bad / "adapter_model.safetensors").rename(bad / "adapter_model.bin")
    assert "safe_serialization=True" in tailor(*words, exit_code=REFUSED).stderr
    assert tailor.json(*words, exit_code=REFUSED)["error"]["details"]["reason"] == "pickle_weights"


@pytest.mark.parametrize(
    ("words", "exit_code", "said"),
    [
        (["adapters", "show", "bot"], USAGE, "--tenant TENANT, or TENANT/bot"),
        (["adapters", "show", "acme/bot"], NOT_FOUND, "There is no profile acme/bot"),
        (["adapters", "show", "acme/bot", "-t", "globex"], USAGE, "belongs to acme"),
        (["adapters", "show", "a b"], USAGE, "is no profile's name"),
        (["adapters", "promote", "acme/bot"], USAGE, "acme/bot@NUMBER"),
        (["adapters", "rollback", "acme/bot@2"], USAGE, "promote acme/bot@2"),
        (["adapters", "add", "x", "y", "z", "-t", "acme", "-n", "b"], USAGE, "one or two directories"),
        (["adapters", "add", "nowhere", "-t", "acme", "-n", "b"], REFUSED, "no directory nowhere"),
        (["adapters", "add", "x", "-t", "acme", "-n", "b", "--instruction", "@nowhere"], USAGE, "nowhere cannot be"),
        (["keys", "new"], USAGE, "--tenant TENANT or --admin"),
        (["keys", "new", "--admin"], USAGE, "TAILOR_KEY_PEPPER"),
    ],
)
def test_mistakes(words: list[str], exit_code: int, said: str, tailor: Tailor) -> None:
    assert said in " ".join(tailor(*words, exit_code=exit_code).stderr.split())


def test_an_unknown_tenant_is_noticed_before_the_upload(tailor: Tailor, directories: Directories) -> None:
    said = tailor("adapters", "add", directories.lora, "-t", "acmee", "-n", "bot", exit_code=NOT_FOUND).stderr
    assert "There is no tenant acmee; there is acme, globex." in said


def test_an_unreachable_gateway_and_a_wrong_key(tailor: Tailor, server: AdminServer) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    assert "cannot be reached" in tailor("adapters", "list", "--url", nobody, exit_code=UNREACHABLE).stderr
    wrong = tailor("adapters", "list", "--admin-key", "tlr_wrong", exit_code=UNREACHABLE).stderr
    assert "does not know this admin key" in wrong
    assert "tlr_" not in wrong


def test_the_local_runs_env_is_the_default(
    server: AdminServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("TAILOR_ADMIN_URL", "TAILOR_ADMIN_KEY"):
        monkeypatch.delenv(name, raising=False)
    tailor = Tailor({})
    assert "run this where `make up` runs" in tailor("tenants", "list", exit_code=USAGE).stderr
    (tmp_path / ".run").mkdir()
    (tmp_path / ".run/env").write_text(
        f"export TAILOR_ADMIN_URL='{server.url}'\nexport TAILOR_ADMIN_KEY={server.key}\n"
    )
    assert tailor("tenants", "list").stdout.split()[:3] == ["TENANT", "PROFILES", "BASES"]


def test_a_new_key_matches_what_goes_into_the_configuration(tailor: Tailor) -> None:
    tailor.environment["TAILOR_KEY_PEPPER"] = "a pepper of sixteen or more"
    made = tailor.json("keys", "new", "--tenant", "acme", "--name", "ci")
    key = parse_key(made["key"])
    assert key is not None
    assert key.id == made["id"]
    assert matches(key, made["hash"], "a pepper of sixteen or more")
    text = tailor("keys", "new", "--admin", "--name", "ops").stdout
    assert "under admin_keys" in text
    assert 'name: "ops"' in text


def test_the_command_starts_without_what_only_serving_needs() -> None:
    """Its start is what an engineer waits for each time."""
    heavy = "('torch', 'transformers', 'numpy', 'fastapi', 'grpc', 'uvicorn')"
    code = f"import sys, gateway.cli.main; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout.strip() == "[]"
