"""A token's life, end to end, on both transports."""

from __future__ import annotations

from uuid import uuid4

from tests.conftest import Watchword
from tests.servers import client
from watchword.v1 import token_service_pb2 as pb


def test_issued_token_is_active_until_revoked(watchword: Watchword) -> None:
    admin = watchword.admin
    scope = f"s{uuid4().hex}.read"
    admin.tokens.RegisterScopes(
        pb.RegisterScopesRequest(scopes=[pb.ScopeRegistration(name=scope)]), metadata=admin.metadata
    )
    verifier = admin.tokens.Issue(
        pb.IssueRequest(subject="orders", audiences=["watchword"], scopes=["watchword.validate"]),
        metadata=admin.metadata,
    )
    issued = admin.tokens.Issue(
        pb.IssueRequest(subject="caller", audiences=["orders"], scopes=[scope], metadata={"team": "red"}),
        metadata=admin.metadata,
    )
    with client(watchword.address, verifier.secret) as orders:
        asked = pb.ValidateRequest(token=issued.secret, required_scopes=[scope])
        answer = orders.tokens.Validate(asked, metadata=orders.metadata)
        assert answer.WhichOneof("verdict") == "active"
        assert answer.active.subject == "caller"
        assert dict(answer.active.metadata) == {"team": "red"}
        revoked = admin.tokens.Revoke(pb.RevokeRequest(token_id=issued.token.token_id), metadata=admin.metadata)
        assert (revoked.revoked_count, revoked.propagation) == (1, pb.PROPAGATION_COMPLETE)
        answer = orders.tokens.Validate(asked, metadata=orders.metadata)
        assert answer.WhichOneof("verdict") == "inactive"
        assert answer.position.number == revoked.position.number
