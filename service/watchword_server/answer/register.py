"""RegisterScopes: put names into the catalogue."""

from __future__ import annotations

from collections.abc import Sequence

from watchword_server.answer.errors import FieldsInvalidError, GrantMissingError, ScopeOwnedError
from watchword_server.rules.fields import REGISTRATIONS_MAX, Faults
from watchword_server.rules.grants import covers_scope_name
from watchword_server.rules.tokens import TokenRecord
from watchword_server.store.contract import Actor, ScopeEntry, ScopeOwned, Store


class Registering:
    """Registers scopes for their first owner."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def register(self, caller: TokenRecord, actor: Actor, scopes: Sequence[tuple[str, str]]) -> int:
        """Registers pairs of name and description, all or nothing; how many names are new.

        Raises FieldsInvalidError, GrantMissingError, ScopeOwnedError, and the store's errors.
        """
        faults = Faults()
        if faults.count("scopes", scopes, REGISTRATIONS_MAX, count_min=1):
            for at, (name, description) in enumerate(scopes):
                faults.registration(f"scopes[{at}]", name, description)
            if len({name for name, _ in scopes}) < len(scopes):
                faults.add("scopes", "names a scope twice")
        if faults.found:
            raise FieldsInvalidError(faults.found)
        for name, _ in scopes:
            if not covers_scope_name(caller.grants, name):
                raise GrantMissingError(f"no grant of the calling token covers the scope '{name}'", {"scope": name})
        entries = [ScopeEntry(name, description, caller.subject) for name, description in scopes]
        outcome = await self._store.register_scopes(entries, actor)
        if isinstance(outcome, ScopeOwned):
            raise ScopeOwnedError(outcome.name, outcome.owner)
        return outcome
