"""What a run writes for the gateway and for the person: read back by the gateway itself and by a shell."""

import shlex
import stat
import subprocess
from pathlib import Path

from gateway.config import Config, load_config
from gateway.domain.keys import matches, parse_key
from gateway.local.bases import BASES, BaseName
from gateway.local.config_file import PEPPER_VARIABLE, TENANTS, Addresses, Keys, write_config, write_env
from gateway.local.layout import RunDirectory
from gateway.local.ports import Ports

PORTS = Ports().shifted(1000)


def written(tmp_path: Path, keys: Keys) -> Config:
    path = write_config(RunDirectory(tmp_path), BASES[BaseName.TINY], PORTS, keys, workers=2)
    return load_config(path, {PEPPER_VARIABLE: keys.pepper})


def test_the_gateway_takes_the_file(tmp_path: Path) -> None:
    config = written(tmp_path, Keys.fresh())

    assert (config.listen.port, config.listen.workers, config.admin.port) == (9080, 2, 9081)
    assert config.redis.url == "redis://127.0.0.1:9379/0"
    assert [endpoint.url for endpoint in config.endpoints] == ["127.0.0.1:9001"]
    assert [base.name for base in config.bases] == ["tiny"]
    assert [(tenant.name, tenant.bases) for tenant in config.tenants] == [(name, ("tiny",)) for name in TENANTS]


def test_the_keys_of_the_run_open_what_the_file_names(tmp_path: Path) -> None:
    keys = Keys.fresh()
    config = written(tmp_path, keys)

    for tenant in config.tenants:
        presented = parse_key(keys.tenants[tenant.name].text)
        assert presented
        assert presented.id == tenant.keys[0].id
        assert matches(presented, tenant.keys[0].hash, config.key_pepper)
    admin = parse_key(keys.admin.text)
    assert admin
    assert matches(admin, config.admin_keys[0].hash, config.key_pepper)


def test_no_secret_is_in_the_file(tmp_path: Path) -> None:
    keys = Keys.fresh()
    written(tmp_path, keys)
    text = (tmp_path / "tailor.yaml").read_text()

    assert keys.pepper not in text
    assert not [key for key in (*keys.tenants.values(), keys.admin) if key.text in text]


def test_two_runs_have_no_key_in_common() -> None:
    first, second = Keys.fresh(), Keys.fresh()

    assert first.pepper != second.pepper
    assert not {key.text for key in first.tenants.values()} & {key.text for key in second.tenants.values()}


def test_a_shell_that_sources_the_file_exports_the_promised_names(tmp_path: Path) -> None:
    keys = Keys.fresh()
    env = write_env(RunDirectory(tmp_path), Addresses.of(PORTS), keys)

    shown = subprocess.run(
        ["/bin/sh", "-c", f". {shlex.quote(str(env))} && env"], env={}, capture_output=True, text=True, check=True
    ).stdout
    variables = dict(line.split("=", 1) for line in shown.splitlines())

    assert {name: value for name, value in variables.items() if name not in ("PWD", "_", "SHLVL", "OLDPWD")} == {
        "OPENAI_BASE_URL": "http://127.0.0.1:9080/v1",
        "OPENAI_API_KEY": keys.tenants["acme"].text,
        "SECOND_API_KEY": keys.tenants["globex"].text,
        "TAILOR_URL": "http://127.0.0.1:9080",
        "TAILOR_ADMIN_URL": "http://127.0.0.1:9081",
        "TAILOR_ADMIN_KEY": keys.admin.text,
    }
    assert stat.S_IMODE(env.stat().st_mode) == 0o600
