"""
What a caller's `model` may be: one grammar, and None for everything else.
"""

import pytest

from gateway.domain.profile import ModelName, is_profile_name

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "owner", "name", "selector"),
    [
        ("support-bot", None, "support-bot", "live"),
        ("support-bot@3", None, "support-bot", 3),
        ("support-bot@999999999", None, "support-bot", 999999999),
        ("support-bot@canary", None, "support-bot", "canary"),
        ("support-bot@live", None, "support-bot", "live"),
        (f"support-bot@{DIGEST}", None, "support-bot", DIGEST),
        ("globex/support-bot", "globex", "support-bot", "live"),
        (f"globex/support-bot@{DIGEST}", "globex", "support-bot", DIGEST),
        ("a", None, "a", "live"),
        ("SmolLM2-135M-Instruct", None, "SmolLM2-135M-Instruct", "live"),
        ("a.b_c-d", None, "a.b_c-d", "live"),
        ("x" * 128, None, "x" * 128, "live"),
    ],
)
def test_names_and_their_parts(text, owner, name, selector):
    assert ModelName.parse(text) == ModelName(owner, name, selector)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param(" support-bot", id="a leading space"),
        pytest.param("support-bot\n", id="a line's end"),
        pytest.param("support-bot\x00", id="a zero byte"),
        pytest.param("support-bot@", id="no version after the sign"),
        pytest.param("support-bot@0", id="version zero"),
        pytest.param("support-bot@01", id="a version with a leading zero"),
        pytest.param("support-bot@-1", id="a negative version"),
        pytest.param("support-bot@1.5", id="half a version"),
        pytest.param("support-bot@1e3", id="a version in another notation"),
        pytest.param("support-bot@٣", id="a digit of another script"),
        pytest.param("support-bot@1000000000", id="a version of too many digits"),
        pytest.param("support-bot@" + "9" * 200, id="a version of far too many digits"),
        pytest.param("support-bot@Canary", id="a shouted label"),
        pytest.param("support-bot@" + "a" * 33, id="a label that is too long"),
        pytest.param("support-bot@3@4", id="two versions"),
        pytest.param("support-bot@sha256:" + "0" * 63, id="a short digest"),
        pytest.param("support-bot@sha256:" + "G" * 64, id="a digest in no hexadecimal"),
        pytest.param("support-bot@SHA256:" + "0" * 64, id="another digest"),
        pytest.param("/support-bot", id="an empty owner"),
        pytest.param("globex/", id="an empty name"),
        pytest.param("globex/eu/support-bot", id="two owners"),
        pytest.param("Globex/support-bot", id="a shouted owner"),
        pytest.param("../../etc/passwd", id="a path"),
        pytest.param("globex/..", id="a parent folder"),
        pytest.param("-support", id="a leading dash"),
        pytest.param("support-", id="a trailing dash"),
        pytest.param(".", id="a dot"),
        pytest.param("support bot", id="a space"),
        pytest.param("support%2fbot", id="an escape"),
        pytest.param("sùpport", id="a letter of another alphabet"),
        pytest.param("ｓupport", id="a wide letter"),
        pytest.param("support\u200bbot", id="a space of no width"),
        pytest.param("x" * 129, id="one character too many"),
        pytest.param("a" * 257, id="past the bound on everything"),
        pytest.param("a." * 500_000, id="a megabyte"),
        pytest.param("${jndi:ldap://x}", id="somebody's trick"),
    ],
)
def test_what_is_no_name(text):
    assert ModelName.parse(text) is None


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("a", True),
        ("support-bot", True),
        ("x" * 64, True),
        ("x" * 65, False),
        ("Support", False),
        ("a/b", False),
        ("", False),
        ("a\n", False),
        ("..", False),
        ("a-", False),
    ],
)
def test_names_of_profiles_and_tenants(text, good):
    assert is_profile_name(text) is good
