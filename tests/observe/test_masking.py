"""No secret leaves through text: tokens, passwords in connection strings, and what the masker was told of."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchword.token import ID_LENGTH, new_token, new_token_id
from watchword_server.observe.masking import Masker, url_secrets

TOKEN = new_token(new_token_id(2**44)).text.decode()
PUBLIC = TOKEN[: len("ww_") + ID_LENGTH]
SECRET = TOKEN[len("ww_") + ID_LENGTH :]


@pytest.mark.parametrize(
    "text",
    [
        TOKEN,
        f"token={TOKEN}&x",
        f"<{TOKEN}>",
        f"{TOKEN}{TOKEN}",
        f"{TOKEN}trailing",
        f"leading{TOKEN}",
        f"authorization: Bearer {TOKEN}",
        f"b'{TOKEN}'",
        json.dumps({"a": json.dumps({"b": TOKEN})}),
        TOKEN[:-7],
        TOKEN[: len(PUBLIC) + 4],
    ],
)
def test_the_secret_half_of_a_token_is_masked_wherever_it_stands(text: str) -> None:
    masked = Masker()(text)
    assert SECRET[:4] not in masked
    assert "[masked]" in masked


def test_the_public_half_stays_so_that_the_token_can_be_found() -> None:
    assert Masker()(f"saw {TOKEN}") == f"saw {PUBLIC}[masked]"
    assert Masker()(f"saw {PUBLIC}.") == f"saw {PUBLIC}."


def test_a_token_of_another_deployment_is_masked_whole() -> None:
    foreign = new_token(new_token_id(2**44), "acme_").text.decode()
    assert Masker()(f"saw {foreign}.") == "saw [masked]."


@given(st.text(max_size=40), st.text(max_size=40))
def test_no_surroundings_bring_the_secret_out(before: str, after: str) -> None:
    assert SECRET not in Masker()(before + TOKEN + after)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("postgresql://app:hunter2@db/w", "postgresql://app:[masked]@db/w"),
        ("postgres://app:hun@ter/2@db/w failed", "postgres://app:[masked]@db/w failed"),
        ("postgresql://app@db/w", "postgresql://app@db/w"),
        ("host=db password=hunter2 user=app", "host=db password=[masked] user=app"),
        ("host=db password='hunter 2' user=app", "host=db password='[masked]' user=app"),
        ('{"password": "hunter2", "x": 1}', '{"password": "[masked]", "x": 1}'),
        (r'{"a": "{\"password\": \"hunter2\"}"}', r'{"a": "{\"password\": \"[masked]\"}"}'),
        ("postgresql://db/w?user=app&password=hunter2&x=1", "postgresql://db/w?user=app&password=[masked]&x=1"),
        ("the password authentication failed", "the password authentication failed"),
        ("listening on 127.0.0.1:7600", "listening on 127.0.0.1:7600"),
    ],
)
def test_passwords_in_connection_strings_are_masked(text: str, masked: str) -> None:
    assert Masker()(text) == masked


@pytest.mark.parametrize("shown", ["p@ss/wörd\"'", "p%40ss%2Fw%C3%B6rd%22%27", r"p@ss/wörd\"'"])
def test_a_secret_it_was_told_of_is_masked_in_every_spelling(shown: str) -> None:
    masker = Masker(secrets=url_secrets("postgresql://app:p%40ss%2Fw%C3%B6rd%22%27@db/w"))
    assert masker(f"x {shown} y") == "x [masked] y"


def test_a_secret_that_contains_another_is_masked_whole() -> None:
    assert Masker(secrets=["hunter2", "hunter2-long"])("hunter2-long") == "[masked]"
