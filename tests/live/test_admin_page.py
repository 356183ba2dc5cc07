"""
The admin port: its page works without a foreign host, its API has one door, and its metrics tell of requests.
"""

import json
import re
import urllib.error
import urllib.request

import pytest

from tests.live.stack import Stack


def fetch(url: str, key: str = "") -> bytes:
    request = urllib.request.Request(url, headers={"authorization": f"Bearer {key}"} if key else {})
    with urllib.request.urlopen(request, timeout=10) as response:
        return bytes(response.read())


def test_the_openapi_page_loads_everything_from_here(stack: Stack) -> None:
    page = fetch(f"{stack.admin_url}/docs").decode()
    links = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert links
    for link in links:
        assert link.startswith("/docs/static/"), link
        assert fetch(stack.admin_url + link)
    assert "/admin/v1/profiles" in json.loads(fetch(f"{stack.admin_url}/openapi.json"))["paths"]


@pytest.mark.parametrize("key", ["", "acme"])
@pytest.mark.parametrize("path", ["/admin/v1/profiles", "/admin/v1/engines", "/admin/v1/tenants"])
def test_the_admin_api_takes_an_administrators_key_only(stack: Stack, path: str, key: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        fetch(stack.admin_url + path, stack.api_key if key else "")
    assert caught.value.code == 401


def test_engines_are_shown_with_what_they_can_take(stack: Stack) -> None:
    [engine] = json.loads(fetch(f"{stack.admin_url}/admin/v1/engines", stack.admin_key))
    assert engine["ready"] is True
    assert engine["manifest"]["base"]["name"] == "tiny"


def test_metrics_count_requests_and_tokens(stack: Stack) -> None:
    def count(name: str) -> float:
        text = fetch(f"{stack.admin_url}/metrics").decode()
        return sum(float(value) for value in re.findall(rf"^{name}\{{.*\}} ([0-9.e+]+)$", text, re.MULTILINE))

    before = count("tailor_requests_total"), count("tailor_tokens_total")
    answer = stack.openai().chat.completions.create(model="tiny", messages=[{"role": "user", "content": "hello"}])
    after = count("tailor_requests_total"), count("tailor_tokens_total")
    assert after[0] == before[0] + 1
    assert after[1] == before[1] + answer.usage.total_tokens
