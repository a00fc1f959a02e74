"""Who gets in: nobody without the token, no other site with a person's cookie, and nobody under another name."""

from __future__ import annotations

import json

import pytest
from stranger import Answer, Victim, cookie_header

BODY = json.dumps({"request": "cpu", "restart": True}).encode()
KEYS = {
    "no token": ({}, ""),
    "an empty token": ({"Authorization": "token "}, ""),
    "a wrong token": ({"Authorization": "token 0123456789abcdef"}, ""),
    "a wrong bearer": ({"Authorization": "Bearer 0123456789abcdef"}, ""),
    "a wrong token in the address": ({}, "?token=0123456789abcdef"),
    "a cookie of another's making": ({"Cookie": 'username-127-0-0-1="2|1:0|10:1|1:u|4:cm9vdA==|00"; _xsrf=a'}, ""),
}


def body_for(method: str) -> bytes | None:
    return BODY if method in ("PATCH", "POST", "PUT") else None


def tells_nothing(answer: Answer, victim: Victim) -> bool:
    secrets = (victim.kernel_id, victim.device_uuid, "private-research", "A100", "python3")
    return not any(secret.encode() in answer.body for secret in secrets)


@pytest.mark.parametrize("key", KEYS)
def test_nobody_gets_in_without_the_token_and_learns_nothing(victim: Victim, key: str) -> None:
    headers, query = KEYS[key]
    for method, path in victim.endpoints():
        answer = victim.stranger.ask(method, path + query, headers, body_for(method))
        to_login = answer.status == 302 and answer.headers["Location"].startswith("/login")
        assert answer.status == 403 or to_login, (method, path, answer)
        assert tells_nothing(answer, victim), (method, path, answer.body)
    assert victim.kernel()["request"] == "1"


def test_the_owner_gets_in_everywhere(victim: Victim) -> None:
    for method, path in victim.endpoints():
        if method == "GET":
            assert victim.stranger.ask(method, path, token=victim.server.token).status == 200, path


def test_methods_that_are_not_offered_do_nothing(victim: Victim) -> None:
    offered = set(victim.endpoints())
    for path in sorted({path for _, path in offered if path.startswith("/gpu/")}):
        for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "BREW"} - {
            method for method, offered_path in offered if offered_path == path
        }:
            answer = victim.stranger.ask(method, path, body=body_for(method), token=victim.server.token)
            assert answer.status in (400, 405), (method, path, answer)
    assert victim.kernel()["request"] == "1"


class TestAnotherSite:
    """A page of another origin in the browser of somebody who has logged in."""

    @pytest.fixture(scope="class")
    def cookies(self, victim: Victim) -> dict[str, str]:
        cookies = victim.stranger.logged_in(victim.server.token)
        assert any(name.startswith("username-") for name in cookies)
        return cookies

    @pytest.mark.parametrize(
        "site", [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"}]
    )
    def test_it_can_neither_read_nor_change_anything(
        self, victim: Victim, cookies: dict[str, str], site: dict[str, str]
    ) -> None:
        for method, path in victim.endpoints():
            headers = {"Cookie": cookie_header(cookies), "Content-Type": "text/plain", **site}
            answer = victim.stranger.ask(method, path, headers, body_for(method))
            # Without this header a browser shows the answer to no page of another origin.
            assert "Access-Control-Allow-Origin" not in answer.headers, (method, path)
            if method != "GET":
                assert answer.status in (403, 404), (method, path, answer)
            elif path.startswith("/gpu/"):
                assert answer.status in (403, 404), (method, path, answer)
                assert tells_nothing(answer, victim)
        assert victim.kernel()["request"] == "1"

    def test_a_form_or_script_of_its_cannot_forge_a_change(self, victim: Victim, cookies: dict[str, str]) -> None:
        forged = [
            {},
            {"Referer": "http://evil.example/page"},
            {"X-XSRFToken": "guessed"},
            {"Referer": victim.server.url, "X-XSRFToken": ""},
        ]
        changes = [(method, path) for method, path in victim.endpoints() if method != "GET"]
        assert {"PATCH", "DELETE"} <= {method for method, _ in changes}
        for method, path in changes:
            for headers in forged:
                answer = victim.stranger.ask(
                    method, path, {"Cookie": cookie_header(cookies), **headers}, body_for(method)
                )
                assert answer.status == 403, (method, path, headers, answer)
        assert victim.kernel()["request"] == "1"

    def test_the_page_itself_can_with_the_token_against_forgery(self, victim: Victim, cookies: dict[str, str]) -> None:
        headers = {
            "Cookie": cookie_header(cookies),
            "Referer": victim.server.url,
            "X-XSRFToken": cookies["_xsrf"],
            "Content-Type": "application/json",
        }
        path = f"/gpu/api/kernels/{victim.kernel_id}"
        assert victim.stranger.ask("PATCH", path, headers, b'{"request": "1"}').status == 200

    def test_a_name_that_leads_here_from_elsewhere_is_not_served(self, victim: Victim, cookies: dict[str, str]) -> None:
        for headers in ({"Host": "evil.example"}, {"Host": "evil.example", "Cookie": cookie_header(cookies)}):
            for method, path in victim.endpoints():
                answer = victim.stranger.ask(method, path, headers, body_for(method), victim.server.token)
                assert answer.status == 403, (method, path, answer)
                assert tells_nothing(answer, victim)


def test_an_answer_is_taken_for_nothing_but_json(victim: Victim) -> None:
    for method, path in victim.endpoints():
        if not path.startswith("/gpu/"):
            continue
        answer = victim.stranger.ask(method, path, body=b"<script>alert(1)</script>", token=victim.server.token)
        assert answer.headers["Content-Type"].startswith("application/json"), (method, path)
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
