"""What a row may and may not say about a token."""

from __future__ import annotations

from datetime import timedelta

import psycopg
import pytest

from tests.conftest import Watchword
from tests.servers import client
from watchword.v1 import token_service_pb2 as pb


@pytest.mark.parametrize("ttl_seconds", [2])
def test_row_cannot_outlive_its_id(watchword: Watchword, ttl_seconds: int) -> None:
    admin = watchword.admin
    request = pb.IssueRequest(subject="short", audiences=["watchword"], scopes=["watchword.read"])
    request.ttl.FromTimedelta(timedelta(seconds=ttl_seconds))
    issued = admin.tokens.Issue(request, metadata=admin.metadata)
    with psycopg.connect(watchword.dsn, autocommit=True) as rows:
        rows.execute("update tokens set expires_at = expires_at + interval '1 year' where subject = 'short'")
    listed = admin.tokens.GetToken(pb.GetTokenRequest(token_id=issued.token.token_id), metadata=admin.metadata)
    assert listed.token.expires_at.ToMilliseconds() == issued.token.expires_at.ToMilliseconds()
    with client(watchword.address, issued.secret) as holder:
        assert holder.tokens.ListTokens(pb.ListTokensRequest(), metadata=holder.metadata)
