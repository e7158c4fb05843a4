"""The fake authority judges as the real one does."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from watchword import VerifierUnavailableError, error_info, sync
from watchword.fake_authority import TokenNotLiveError, TokenRotatedError
from watchword.testing import FakeAuthority, serve
from watchword.token import MalformedTokenError, new_token, parse_token
from watchword.v1 import token_service_pb2 as pb
from watchword.v1.token_service_pb2_grpc import TokenServiceStub
from watchword.verifier import Active, Bound, Inactive, Insufficient


def test_tokens_have_the_real_format() -> None:
    token = FakeAuthority().issue("alice")
    assert len(token) == 64
    assert parse_token(token).text == token.encode()
    parse_token(FakeAuthority(token_prefix="acme_").issue("alice"), "acme_")


def test_scopes_and_audiences_are_judged_by_the_real_rules() -> None:
    authority = FakeAuthority()
    token = authority.issue("alice", scopes=["orders.*"])
    assert isinstance(authority.judge(token, ["orders.read"], "orders"), Active)
    lacking = authority.judge(token, ["orders.read", "orders"], "orders")
    assert isinstance(lacking, Insufficient)
    assert lacking.missing_scopes == ("orders",)
    assert authority.judge(token, [], "watchword") == Inactive()
    narrow = authority.issue("alice", audiences=["orders"])
    assert isinstance(authority.judge(narrow, [], "orders"), Active)
    assert authority.judge(narrow, [], "billing") == Inactive()
    with pytest.raises(ValueError, match="not a scope"):
        authority.issue("alice", scopes=["Orders"])


def test_a_wrong_secret_for_a_real_id_is_inactive() -> None:
    authority = FakeAuthority()
    real = parse_token(authority.issue("alice"))
    forged = new_token(real.token_id)
    assert authority.judge(forged.text.decode(), [], "orders") == Inactive()
    assert not authority.revoke(forged.text.decode())
    assert isinstance(authority.judge(real.text.decode(), [], "orders"), Active)


@pytest.mark.parametrize(("at", "active"), [(9.999, True), (10.0, False), (10.001, False)])
def test_a_token_ends_with_its_time_to_live(at: float, active: bool) -> None:
    now = [0.0]
    authority = FakeAuthority(clock=lambda: now[0])
    token = authority.issue("alice", ttl_seconds=10)
    now[0] = at
    assert isinstance(authority.judge(token, [], "orders"), Active) == active


def test_revocation_is_final_and_says_whether_it_changed_anything() -> None:
    authority = FakeAuthority()
    token = authority.issue("alice")
    assert authority.revoke(token)
    assert not authority.revoke(token)
    assert authority.judge(token, [], "orders") == Inactive()
    with pytest.raises(MalformedTokenError):
        authority.revoke("nonsense")


async def test_outages_nest_and_end() -> None:
    authority = FakeAuthority()
    token = authority.issue("alice")
    with authority.unavailable(), authority.unavailable():
        with pytest.raises(VerifierUnavailableError):
            await authority.verifier().check(token, ())
        with pytest.raises(VerifierUnavailableError):
            authority.blocking_verifier().check(token, ())
    assert isinstance(await authority.verifier().check(token, ()), Active)


def test_served_it_asks_for_tokens_as_watchword_does() -> None:
    authority = FakeAuthority()
    admin = authority.issue("admin", scopes=["watchword.*"], audiences=["watchword"])
    elsewhere = authority.issue("orders", scopes=["watchword.validate"], audiences=["orders"])
    with serve(authority) as address:
        with sync.connect(address, token=admin) as channel:
            stub = TokenServiceStub(channel)
            issued = stub.Issue(pb.IssueRequest(subject="alice", audiences=["*"], scopes=["orders.read"]))
            assert issued.secret[3:25] == issued.token.token_id
            assert stub.Validate(pb.ValidateRequest(token=issued.secret)).WhichOneof("verdict") == "active"
            assert stub.Revoke(pb.RevokeRequest(token=issued.secret)).revoked_count == 1
            assert stub.Revoke(pb.RevokeRequest(token="nonsense")).revoked_count == 0
            assert stub.Validate(pb.ValidateRequest(token=issued.secret)).WhichOneof("verdict") == "inactive"
            with authority.unavailable(), pytest.raises(grpc.RpcError) as failed:
                stub.Issue(pb.IssueRequest(subject="alice", audiences=["*"]))
            assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
        with sync.connect(address, token=elsewhere) as channel, pytest.raises(grpc.RpcError) as caught:
            TokenServiceStub(channel).Validate(pb.ValidateRequest(token=admin))
    info = error_info(caught.value)
    assert info is not None
    assert info.reason == "TOKEN_INACTIVE"


def test_bound_tokens_are_judged_for_whoever_compares_and_for_whoever_does_not() -> None:
    authority = FakeAuthority()
    own = authority.issue("orders", scopes=["watchword.validate"], audiences=["watchword"])
    token = authority.issue("alice", allowed_networks=["10.0.0.0/8"], certificate_sha256=b"c" * 32)
    with serve(authority) as address, sync.connect(address, token=own) as channel:
        stub = TokenServiceStub(channel)
        told = stub.Validate(pb.ValidateRequest(token=token, enforces_bindings=True))
        assert told.active.bindings.allowed_networks == ["10.0.0.0/8"]
        assert told.active.bindings.certificate_sha256 == b"c" * 32
        assert told.cacheable_for.seconds > 0
        for shown, verdict in (
            (pb.ValidateRequest(token=token, client_ip="10.1.2.3"), "inactive"),
            (pb.ValidateRequest(token=token, certificate_sha256=b"c" * 32), "inactive"),
            (pb.ValidateRequest(token=token, client_ip="10.1.2.3", certificate_sha256=b"c" * 32), "active"),
        ):
            answer = stub.Validate(shown)
            assert answer.WhichOneof("verdict") == verdict
            assert not answer.active.HasField("bindings")
            assert answer.cacheable_for.ToNanoseconds() == 0
    with pytest.raises(ValueError, match="beyond its prefix"):
        authority.issue("alice", allowed_networks=["10.0.0.1/8"])
    with pytest.raises(ValueError, match="32 bytes"):
        authority.issue("alice", certificate_sha256=b"c" * 31)


def test_a_rotated_token_has_a_successor_with_its_rights_and_a_time_of_grace() -> None:
    clock = [0.0]
    authority = FakeAuthority(clock=lambda: clock[0])
    token = authority.issue("alice", scopes=["orders.read"], ttl_seconds=100.0, allowed_networks=["10.0.0.0/8"])
    clock[0] = 40.0
    successor = authority.rotate(token, grace_seconds=10.0)
    verdict = authority.judge(successor, ["orders.read"], "orders")
    assert isinstance(verdict, Bound)
    assert verdict.verdict.identity.subject == "alice"
    assert authority.remaining_seconds(successor[3:25]) == 100.0
    for now, live in ((49.9, True), (50.0, False)):
        clock[0] = now
        assert isinstance(authority.judge(token, [], "orders"), Bound) is live
    with pytest.raises(TokenNotLiveError):
        authority.rotate(token)


def test_of_two_rotations_one_wins_and_a_retry_replaces_the_successor() -> None:
    authority = FakeAuthority()
    token = authority.issue("alice")
    first = authority.rotate(token, request_id="r")
    with pytest.raises(TokenRotatedError) as caught:
        authority.rotate(token)
    assert caught.value.successor_id == first[3:25]
    second = authority.rotate(token, request_id="r")
    assert authority.judge(first, [], "orders") == Inactive()
    assert isinstance(authority.judge(second, [], "orders"), Active)


def test_served_it_rotates_and_narrows_and_tells_callers_who_they_are() -> None:
    authority = FakeAuthority()
    admin = authority.issue("admin", scopes=["watchword.revoke"], audiences=["watchword"])
    token = authority.issue("orders", scopes=["orders.read", "orders.write"], audiences=["watchword"])
    with serve(authority) as address:
        with sync.connect(address, token=token) as channel:
            stub = TokenServiceStub(channel)
            me = stub.WhoAmI(pb.WhoAmIRequest()).token
            assert (me.token_id, me.subject, me.state) == (token[3:25], "orders", pb.TOKEN_STATE_LIVE)
            assert me.created_at.ToNanoseconds() < me.expires_at.ToNanoseconds()
            rotated = stub.Rotate(pb.RotateRequest(grace=Duration(seconds=60)))
            assert rotated.rotated.successor_id == rotated.token.token_id == rotated.secret[3:25]
            with pytest.raises(grpc.RpcError) as lost:
                stub.Rotate(pb.RotateRequest())
            info = error_info(lost.value)
            assert info is not None
            assert (info.reason, info.metadata["token_id"]) == ("TOKEN_ROTATED", rotated.token.token_id)
            with pytest.raises(grpc.RpcError) as others:
                stub.Rotate(pb.RotateRequest(token_id=admin[3:25]))
            assert others.value.code() is grpc.StatusCode.PERMISSION_DENIED
        with sync.connect(address, token=admin) as channel:
            stub = TokenServiceStub(channel)
            narrowed = stub.Narrow(pb.NarrowRequest(token_id=rotated.token.token_id, remove_scopes=["orders.write"]))
            assert narrowed.token.scopes == ["orders.read"]
            with pytest.raises(grpc.RpcError) as unknown:
                stub.Narrow(pb.NarrowRequest(token_id=rotated.token.token_id, remove_scopes=["orders.write"]))
            assert unknown.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert isinstance(authority.judge(rotated.secret, ["orders.write"], "watchword"), Insufficient)


async def test_it_can_be_asked_from_threads_and_tasks_at_once() -> None:
    authority = FakeAuthority()
    token = authority.issue("alice")
    blocking = authority.blocking_verifier()
    verdicts = await asyncio.gather(*(asyncio.to_thread(blocking.check, token, ()) for _ in range(16)))
    assert all(isinstance(one, Active) for one in verdicts)
    assert authority.checks_count == 16
