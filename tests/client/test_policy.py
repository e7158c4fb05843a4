"""A policy is complete and unambiguous, or it is not constructed."""

from __future__ import annotations

import pytest
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, MethodOptions
from google.protobuf.descriptor_pool import DescriptorPool

from watchword import AUTHENTICATED, PUBLIC, Policy, PolicyError, Rule
from watchword.v1 import options_pb2
from watchword_server.rules.fields import SCOPES_MAX

HEALTH = "/grpc.health.v1.Health/Check"
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"


def described(**rules: options_pb2.Rule | None) -> FileDescriptor:
    """A file with the service `shop.Shop` and one method for each keyword."""
    file = FileDescriptorProto(name="shop.proto", package="shop", syntax="proto3")
    file.message_type.add(name="Empty")
    service = file.service.add(name="Shop")
    for name, rule in rules.items():
        method = service.method.add(name=name, input_type=".shop.Empty", output_type=".shop.Empty")
        if rule is not None:
            options = MethodOptions()
            options.Extensions[options_pb2.rule].CopyFrom(rule)
            # Copying an empty submessage still marks the extension as present.
            options.Extensions[options_pb2.rule].SetInParent()
            method.options.CopyFrom(options)
    pool = DescriptorPool()
    pool.Add(file)
    return pool.FindFileByName("shop.proto")


def test_annotations_become_rules() -> None:
    file = described(
        Get=options_pb2.Rule(scopes=["shop.read", "shop.look"]),
        Ping=options_pb2.Rule(public=True),
        Me=options_pb2.Rule(authenticated=True),
    )
    for policy in (Policy(file), Policy(file.services_by_name["Shop"])):
        assert policy.rules["/shop.Shop/Get"] == Rule(("shop.read", "shop.look"))
        assert policy.rules["/shop.Shop/Ping"] == PUBLIC
        assert policy.rules["/shop.Shop/Me"] == AUTHENTICATED
        assert "/shop.Shop/Other" not in policy.rules


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        (None, "has no rule"),
        (options_pb2.Rule(), "empty"),
        (options_pb2.Rule(public=False), "empty"),
        (options_pb2.Rule(public=True, authenticated=True), "contradicts"),
        (options_pb2.Rule(scopes=["a.b"], public=True), "contradicts"),
        (options_pb2.Rule(scopes=["a.b"], authenticated=True), "contradicts"),
        (options_pb2.Rule(scopes=["a.*"]), "no wildcard"),
        (options_pb2.Rule(scopes=["*"]), "no wildcard"),
        (options_pb2.Rule(scopes=["a.b", ""]), "not a scope"),
        (options_pb2.Rule(scopes=["Orders.read"]), "not a scope"),
        (options_pb2.Rule(scopes=["a b"]), "not a scope"),
        (options_pb2.Rule(scopes=["\N{CYRILLIC SMALL LETTER A}.read"]), "not a scope"),
    ],
)
def test_a_doubtful_annotation_refuses_construction_and_names_the_method(
    rule: options_pb2.Rule | None, complaint: str
) -> None:
    with pytest.raises(PolicyError, match=complaint) as caught:
        Policy(described(Fine=options_pb2.Rule(scopes=["a.b"]), Get=rule))
    assert "/shop.Shop/Get" in str(caught.value)


def test_a_table_fills_in_for_methods_without_annotation() -> None:
    policy = Policy(described(Get=None), table={"/shop.Shop/Get": ["shop.read"]})
    assert policy.rules["/shop.Shop/Get"] == Rule(("shop.read",))


def test_two_rules_for_one_method_are_refused() -> None:
    with pytest.raises(PolicyError, match="two rules"):
        Policy(described(Get=options_pb2.Rule(public=True)), table={"/shop.Shop/Get": ["shop.read"]})


@pytest.mark.parametrize("value", ["shop.read", [], (), None, ["shop.*"], [b"shop.read"], {"shop.read"}, True])
def test_a_doubtful_line_of_the_table_is_refused(value: object) -> None:
    with pytest.raises(PolicyError):
        Policy(table={"/shop.Shop/Get": value})  # type: ignore[dict-item]


@pytest.mark.parametrize("name", ["", "/", "Get", "shop.Shop/Get", "/shop.Shop/", "//Get", "/shop.Shop/*", "/a/b/c"])
def test_a_name_that_is_no_method_is_refused(name: str) -> None:
    with pytest.raises(PolicyError):
        Policy(table={name: ["shop.read"]})


def test_an_empty_policy_is_refused() -> None:
    with pytest.raises(PolicyError, match="names no method"):
        Policy()


def test_health_is_public_unless_said_otherwise_and_reflection_only_if_said() -> None:
    table = {"/shop.Shop/Get": ["shop.read"]}
    assert Policy(table=table).rules[HEALTH] == PUBLIC
    assert REFLECTION not in Policy(table=table).rules
    assert Policy(table=table, reflection_public=True).rules[REFLECTION] == PUBLIC
    assert HEALTH not in Policy(table=table, health_public=False).rules
    assert Policy(table={HEALTH: ["ops.health"]}).rules[HEALTH] == Rule(("ops.health",))


def test_rules_cannot_be_changed_afterwards() -> None:
    table = {"/shop.Shop/Get": ["shop.read"]}
    policy = Policy(table=table)
    table["/shop.Shop/Put"] = ["shop.read"]
    assert "/shop.Shop/Put" not in policy.rules
    with pytest.raises(TypeError):
        policy.rules["/shop.Shop/Put"] = PUBLIC  # type: ignore[index]


def test_more_scopes_than_the_authority_takes_are_refused() -> None:
    """It would refuse the checks of every other method that share a batch with this one."""
    scopes = [f"orders.s{n}" for n in range(SCOPES_MAX + 1)]
    assert Rule(tuple(scopes[:-1])).scopes
    with pytest.raises(PolicyError, match="65 scopes"):
        Rule(tuple(scopes))
