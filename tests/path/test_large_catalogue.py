"""What one caller asks must not hold up the others, however much there is to search."""

from __future__ import annotations

import psycopg

from tests.conftest import running_watchword
from tests.path.party import administrator, refused

NAMES = 10_000


def test_misspelt_scopes_hold_up_nobody_however_large_the_catalogue(dsn: str) -> None:
    with psycopg.connect(dsn) as database:
        database.execute(
            "insert into scopes (name, description, owner)"
            " select 'service' || at / 4 || '.orders.' || mod(at, 4), '', 'x' from generate_series(1, %s) as at",
            (NAMES,),
        )
    with running_watchword(dsn) as running:
        admin = administrator(running)
        scopes = [f"service{at}.order.1" for at in range(64)]
        # Comparing with every name took the whole server most of a minute.
        answer = refused(admin.issue, "x", scopes=scopes, timeout=5)
        assert answer.fields[:2] == ("scopes[0]", "scopes[1]")
        assert "'service0.orders.1'" in answer.descriptions[0]
        assert "RegisterScopes" in answer.descriptions[-1]
