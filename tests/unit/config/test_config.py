"""
tailor.yaml: read exactly, or refused with the file, the key and the reason.
"""

from pathlib import Path

import pytest

from gateway.config import Config, ConfigError, load_config

HASH = "0" * 64
GOOD = f"""
store: {{directory: store}}
key_pepper: "${{TAILOR_KEY_PEPPER}}"
bases:
  - {{name: tiny, tokenizer: build/tiny}}
endpoints:
  - {{name: triton-1, url: "127.0.0.1:8001", manifest: manifest.json}}
tenants:
  - {{name: acme, keys: [{{id: aaaaaaaaaaaa, hash: "{HASH}"}}], bases: [tiny]}}
"""
ENVIRONMENT = {"TAILOR_KEY_PEPPER": "a pepper of the tests", "lower": "x"}


def read(tmp_path: Path, text: str, environment: dict[str, str] = ENVIRONMENT) -> Config:
    path = tmp_path / "tailor.yaml"
    path.write_text(text)
    return load_config(path, environment)


def refusal(tmp_path: Path, text: str, environment: dict[str, str] = ENVIRONMENT) -> str:
    with pytest.raises(ConfigError) as refused:
        read(tmp_path, text, environment)
    assert str(tmp_path / "tailor.yaml") in str(refused.value)
    return str(refused.value)


def test_what_is_written_is_read_and_the_rest_has_its_default(tmp_path):
    config = read(tmp_path, GOOD)
    assert config.key_pepper == "a pepper of the tests"
    assert config.tenants[0].keys[0].id == "aaaaaaaaaaaa"
    assert (config.listen.host, config.listen.port, config.admin.port) == ("127.0.0.1", 8080, 8081)
    assert config.limits.default_max_tokens is None


def test_references_are_resolved_within_a_text_and_in_lists(tmp_path):
    config = read(tmp_path, GOOD + 'redis: {url: "redis://${lower}:1/0"}\n')
    assert config.redis.url == "redis://x:1/0"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(("store:", "stoer: {}\nstore:"), ["stoer"], id="a key nobody knows"),
        pytest.param(("store: {directory: store}", ""), ["store"], id="a key that is missing"),
        pytest.param(("{directory: store}", "{}"), ["directory", "$.store"], id="a missing key within another"),
        pytest.param(("{directory: store}", "{directory: store, colour: red}"), ["colour"], id="an unknown one within"),
        pytest.param(("${TAILOR_KEY_PEPPER}", "${NOWHERE}"), ["NOWHERE", "key_pepper"], id="an unset variable"),
        pytest.param(("${TAILOR_KEY_PEPPER}", "${}"), ["key_pepper"], id="a reference to nothing"),
        pytest.param(("${TAILOR_KEY_PEPPER}", "${a-b}"), ["a-b", "key_pepper"], id="a reference that is no name"),
        pytest.param(("${TAILOR_KEY_PEPPER}", "short"), ["key_pepper", "16"], id="a pepper that is too short"),
        pytest.param(("name: triton-1", "name: tri/ton"), ["endpoints[0].name"], id="a name with a slash"),
        pytest.param(("name: triton-1", 'name: "triton-1\\n"'), ["endpoints[0].name"], id="a name with a line's end"),
        pytest.param(("name: tiny,", "name: tiny-,"), ["bases[0].name"], id="a name that no caller could write"),
        pytest.param(("name: acme", "name: Acme"), ["tenants[0].name"], id="a tenant in capitals"),
        pytest.param(("aaaaaaaaaaaa", "aaa"), ["tenants[0].keys[0].id"], id="a key's id that is none"),
        pytest.param((HASH, "x" * 64), ["tenants[0].keys[0].hash"], id="a hash that is none"),
        pytest.param(("bases: [tiny]", "bases: [huge]"), ["acme", "huge", "bases"], id="a base that is not there"),
        pytest.param(("store:", "listen: {port: 70000}\nstore:"), ["listen.port", "65535"], id="a port past the last"),
        pytest.param(("store:", "listen: {port: '80'}\nstore:"), ["listen.port", "int"], id="a number as text"),
        pytest.param(("store:", "listen: {workers: 0}\nstore:"), ["listen.workers"], id="no workers"),
        pytest.param(("store:", "limits: {body_s: 0}\nstore:"), ["limits.body_s"], id="no time"),
        pytest.param(("store:", "limits: {total_s: .nan}\nstore:"), ["limits.total_s"], id="a time that is no number"),
        pytest.param(
            ("store:", "store: {directory: other}\nstore:"), ["store", "twice"], id="a key that is there twice"
        ),
        pytest.param(("{name: tiny,", "{name: tiny, name: huge,"), ["name", "twice"], id="and so within another"),
        pytest.param(("bases:", "bases: ["), ["YAML"], id="no YAML"),
        pytest.param(
            ("bases:", "bases: !!python/object:os.system"), ["YAML"], id="a YAML tag that would run something"
        ),
    ],
)
def test_what_is_refused_and_how_it_is_named(tmp_path, change, words):
    assert change[0] in GOOD
    text = refusal(tmp_path, GOOD.replace(*change))
    assert all(word in text for word in words), text


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        pytest.param(
            ("  - {name: tiny, tokenizer: build/tiny}", "bases:"), ["base `tiny`", "twice"], id="two bases of one name"
        ),
        pytest.param(
            ('  - {name: triton-1, url: "127.0.0.1:9", manifest: m.json}', "endpoints:"),
            ["endpoint `triton-1`", "twice"],
            id="two endpoints of one name",
        ),
        pytest.param(("  - {name: acme}", "tenants:"), ["tenant `acme`", "twice"], id="two tenants of one name"),
        pytest.param(
            (f'  - {{name: globex, keys: [{{id: aaaaaaaaaaaa, hash: "{HASH}"}}]}}', "tenants:"),
            ["key id `aaaaaaaaaaaa`", "twice"],
            id="one key id with two tenants",
        ),
        pytest.param(
            (f'admin_keys: [{{id: aaaaaaaaaaaa, hash: "{HASH}"}}]', None),
            ["key id `aaaaaaaaaaaa`", "twice"],
            id="a tenant's key id with an administrator",
        ),
    ],
)
def test_names_are_used_once(tmp_path, extra, words):
    line, under = extra
    text = GOOD.replace(f"{under}\n", f"{under}\n{line}\n") if under else f"{GOOD}{line}\n"
    told = refusal(tmp_path, text)
    assert all(word in told for word in words), told


@pytest.mark.parametrize("text", ["", "[]", "just words", "42"], ids=["nothing", "a list", "words", "a number"])
def test_a_file_that_holds_something_else_is_refused(tmp_path, text):
    assert "object" in refusal(tmp_path, text)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "tailor.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="YAML"):
        load_config(tmp_path / "tailor.yaml", {})


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot be read"):
        load_config(tmp_path / "nowhere.yaml", {})


def test_no_secret_is_in_a_refusal(tmp_path):
    text = GOOD.replace("tenants:", "tenant:")
    assert "a pepper of the tests" not in refusal(tmp_path, text)
    assert "secret!" not in refusal(tmp_path, GOOD, {"TAILOR_KEY_PEPPER": "secret!"})
