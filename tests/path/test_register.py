"""RegisterScopes: the first owner keeps a name."""

from __future__ import annotations

import grpc
import pytest

from tests.path.audit import awaited, listed
from tests.path.party import Party, grant, refused, unique
from watchword.v1 import token_service_pb2 as pb


def _scope(admin: Party, name: str) -> pb.Scope | None:
    token_page = ""
    while True:
        answer = admin.list_scopes(pb.ListScopesRequest(page_size=1000, page_token=token_page))
        for scope in answer.scopes:
            if scope.name == name:
                return scope
        token_page = answer.next_page_token
        if not token_page:
            return None


def _register_pairs(party: Party, *scopes: tuple[str, str]) -> int:
    request = pb.RegisterScopesRequest(
        scopes=[pb.ScopeRegistration(name=name, description=description) for name, description in scopes]
    )
    return party.tokens.RegisterScopes(request, metadata=party.metadata, timeout=10).registered_count


@pytest.fixture
def stem() -> str:
    """A first segment of the test's own."""
    return unique("s")


def _service(admin: Party, stem: str) -> Party:
    return admin.party(unique("service"), ["watchword.register"], grants=[grant(f"{stem}.*", "nobody", "nowhere")])


def test_new_names_are_counted_and_belong_to_the_caller(admin: Party, stem: str) -> None:
    service = _service(admin, stem)
    assert _register_pairs(service, (f"{stem}.read", "See"), (f"{stem}.write", "Change")) == 2
    found = _scope(admin, f"{stem}.read")
    assert found is not None
    assert (found.description, found.owner) == ("See", admin.record(service.token_id).subject)


def test_registering_ones_own_again_updates_the_description(admin: Party, stem: str) -> None:
    service = _service(admin, stem)
    assert _register_pairs(service, (f"{stem}.read", "old")) == 1
    assert _register_pairs(service, (f"{stem}.read", "new"), (f"{stem}.write", "")) == 1
    found = _scope(admin, f"{stem}.read")
    assert found is not None
    assert found.description == "new"


def test_the_first_owner_keeps_a_name_and_nothing_else_is_registered(admin: Party, stem: str) -> None:
    first, second = _service(admin, stem), _service(admin, stem)
    _register_pairs(first, (f"{stem}.read", "mine"))
    answer = refused(_register_pairs, second, (f"{stem}.new", ""), (f"{stem}.read", "stolen"))
    assert (answer.code, answer.reason) == (grpc.StatusCode.ALREADY_EXISTS, "SCOPE_OWNED")
    assert dict(answer.metadata) == {"scope": f"{stem}.read", "owner": admin.record(first.token_id).subject}
    assert _scope(admin, f"{stem}.new") is None
    found = _scope(admin, f"{stem}.read")
    assert found is not None
    assert found.description == "mine"


def test_a_name_outside_ones_grants_is_refused_with_all_others(admin: Party, stem: str) -> None:
    service = _service(admin, stem)
    answer = refused(_register_pairs, service, (f"{stem}.read", ""), (f"{stem}x.read", ""))
    assert (answer.code, answer.reason) == (grpc.StatusCode.PERMISSION_DENIED, "GRANT_MISSING")
    assert dict(answer.metadata) == {"scope": f"{stem}x.read"}
    assert _scope(admin, f"{stem}.read") is None


@pytest.mark.parametrize(
    "name",
    [
        "watchword",
        "watchword.own",
        "*",
        "a.*",
        "A.b",
        "a..b",
        ".a",
        "a.",
        "",
        "a b",
        "x" * 129,
        "\u043erders.read",
        "a.b\n",
    ],
)
def test_a_name_that_is_none_or_reserved_is_refused(admin: Party, name: str) -> None:
    answer = refused(_register_pairs, admin, ("fine.name", ""), (name, ""))
    assert (answer.code, answer.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ("scopes[1].name",))
    assert _scope(admin, "fine.name") is None


def test_none_too_many_and_the_same_twice_are_refused(admin: Party, stem: str) -> None:
    for scopes in ([], [(f"{stem}.n{at}", "") for at in range(257)], [(f"{stem}.a", ""), (f"{stem}.a", "x")]):
        answer = refused(_register_pairs, admin, *scopes)
        assert (answer.code, answer.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ("scopes",))
    assert _register_pairs(admin, *[(f"{stem}.n{at}", "") for at in range(256)]) == 256


def test_registering_writes_an_event(admin: Party, stem: str) -> None:
    service = _service(admin, stem)
    _register_pairs(service, (f"{stem}.b", ""), (f"{stem}.a", ""))
    actor = admin.record(service.token_id).subject
    (event,) = listed(admin, actor=actor)
    assert (event.action, event.details["scopes"]) == ("register_scopes", f"{stem}.a {stem}.b")


def test_a_refused_registration_leaves_the_event_of_its_refusal_alone(admin: Party, stem: str) -> None:
    service = _service(admin, stem)
    _register_pairs(admin, (f"{stem}.read", ""))
    answer = refused(_register_pairs, service, (f"{stem}.read", ""))
    (event,) = awaited(admin, actor=admin.record(service.token_id).subject)
    assert (event.action, event.outcome) == ("register_scopes", answer.reason)
