"""Which token each method needs: one rule per RPC, read from the proto annotations or from a table.

Everything doubtful is refused while the service starts, where somebody is looking: a method without a rule, a rule that
says nothing or two things, a scope that could never match. A method the policy was not told of has no rule and is
denied.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from google.protobuf.descriptor import FileDescriptor, MethodDescriptor, ServiceDescriptor

from watchword.scope import is_scope
from watchword.v1 import options_pb2

# As many as the authority takes with one token. It refuses a whole batch of checks for one that has more.
REQUIRED_SCOPES_MAX: Final = 64


class PolicyError(ValueError):
    """The policy leaves doubt about a method. The message names the method and says what to write."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What a caller of one method needs. Exactly one of the three is set; raises PolicyError otherwise."""

    scopes: tuple[str, ...] = ()
    """The token must be active and hold all of these; none has a wildcard."""
    public: bool = False
    """No token is needed, and none is looked at."""
    authenticated: bool = False
    """The token must be active; no particular scope is needed."""

    def __post_init__(self) -> None:
        said = bool(self.scopes) + self.public + self.authenticated
        if said == 0:
            raise PolicyError("the rule is empty: give scopes, public or authenticated")
        if said > 1:
            raise PolicyError("the rule contradicts itself: give one of scopes, public and authenticated")
        if len(self.scopes) > REQUIRED_SCOPES_MAX:
            raise PolicyError(f"the rule has {len(self.scopes)} scopes; at most {REQUIRED_SCOPES_MAX} can be asked for")
        for scope in self.scopes:
            if not is_scope(scope):
                raise PolicyError(
                    f"{scope!r} is not a scope: a required scope is lower-case segments joined by dots, no wildcard"
                )


PUBLIC: Final = Rule(public=True)
AUTHENTICATED: Final = Rule(authenticated=True)

_HEALTH: Final = tuple("/grpc.health.v1.Health/" + name for name in ("Check", "List", "Watch"))
_REFLECTION: Final = tuple(
    f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo" for version in ("v1", "v1alpha")
)

Table = Mapping[str, Rule | Sequence[str]]


class Policy:
    """One rule for each method that a server offers, complete when constructed and immutable after.

    `described` are descriptors: `orders_pb2.DESCRIPTOR` for all services of a file, or one of its `services_by_name`.
    Each of their methods needs a `watchword.v1.rule` annotation or a line in `table`, not both.

    `table` maps full method names, `/orders.v1.Orders/Get`, to a Rule (`PUBLIC`, `AUTHENTICATED`) or a list of scopes,
    for services whose protos are not yours to annotate.

    grpc.health.v1.Health is public unless `health_public` is False or the table says otherwise. Server reflection
    describes the whole API to whoever asks, so it is public only with `reflection_public`.

    Raises PolicyError.
    """

    __slots__ = ("_rules",)

    def __init__(
        self,
        *described: ServiceDescriptor | FileDescriptor,
        table: Table | None = None,
        health_public: bool = True,
        reflection_public: bool = False,
    ) -> None:
        rules: dict[str, Rule] = {}
        for method, value in (table or {}).items():
            rules[_checked_name(method)] = _rule_of_table(method, value)
        for method_descriptor in _methods(described):
            method = f"/{method_descriptor.containing_service.full_name}/{method_descriptor.name}"
            annotated = _rule_of_annotation(method, method_descriptor)
            if annotated is None:
                if method not in rules:
                    raise PolicyError(
                        f"{method} has no rule: annotate it with option (watchword.v1.rule) or add it to the table"
                    )
            elif method in rules:
                raise PolicyError(f"{method} has two rules, an annotation and a line in the table: remove one")
            else:
                rules[method] = annotated
        if not rules:
            raise PolicyError("the policy names no method: give it the descriptors of the services you serve")
        for wanted, methods in ((health_public, _HEALTH), (reflection_public, _REFLECTION)):
            if wanted:
                for method in methods:
                    rules.setdefault(method, PUBLIC)
        self._rules: Final[Mapping[str, Rule]] = MappingProxyType(rules)

    @property
    def rules(self) -> Mapping[str, Rule]:
        """Every method's rule by full method name, read-only. A method that is not in it is denied."""
        return self._rules

    def __repr__(self) -> str:
        return f"Policy({len(self._rules)} methods)"


def _methods(described: Iterable[ServiceDescriptor | FileDescriptor]) -> Iterable[MethodDescriptor]:
    for one in described:
        services = one.services_by_name.values() if isinstance(one, FileDescriptor) else (one,)
        for service in services:
            yield from service.methods


def _rule_of_annotation(method: str, descriptor: MethodDescriptor) -> Rule | None:
    options = descriptor.GetOptions()
    if not options.HasExtension(options_pb2.rule):
        return None
    annotated = options.Extensions[options_pb2.rule]
    return _rule(method, tuple(annotated.scopes), public=annotated.public, authenticated=annotated.authenticated)


def _rule_of_table(method: str, value: object) -> Rule:
    if isinstance(value, Rule):
        return value
    if isinstance(value, (list, tuple)) and all(isinstance(scope, str) for scope in value):
        return _rule(method, tuple(value))
    # A bare string would be taken apart into letters.
    raise PolicyError(f"{method}: write a list of scopes, PUBLIC or AUTHENTICATED")


def _rule(method: str, scopes: tuple[str, ...], *, public: bool = False, authenticated: bool = False) -> Rule:
    try:
        return Rule(scopes, public=public, authenticated=authenticated)
    except PolicyError as error:
        raise PolicyError(f"{method}: {error}") from None


def _checked_name(method: str) -> str:
    slash, _, rest = method.partition("/")
    service, _, name = rest.partition("/")
    if slash or not service or not name or "/" in name or "*" in method or not method.isascii():
        raise PolicyError(f"{method!r} is not a full method name such as '/orders.v1.Orders/Get'")
    return method
