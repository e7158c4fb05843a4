"""Validate and BatchValidate: what every verifier asks, and the hottest path there is.

The other RPCs of TokenService are in lifecycle.py and reading.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from watchword.network import Networks
from watchword.scope import is_scope
from watchword.token import ParsedToken
from watchword.v1 import token_service_pb2 as pb
from watchword_server.answer.errors import FieldsInvalidError, PepperUnknownError
from watchword_server.answer.proof import Digests, examine
from watchword_server.request.pipeline import Call, Method
from watchword_server.request.rates import Rates
from watchword_server.request.verdict_messages import fill_verdict
from watchword_server.rules.fields import BATCH_MAX, SCOPES_MAX, Faults
from watchword_server.rules.tokens import TokenRecord
from watchword_server.rules.verdicts import Evidence, Reason, is_bound
from watchword_server.store.contract import Snapshot

# How many required scopes are judged before other calls get a turn: some ten milliseconds at worst.
_SCOPES_AT_A_STRETCH: Final = 512
_NETWORK_IN_SCOPES: Final = 4
"""What it costs to read one of a bound token's networks."""

SERVICE = pb.DESCRIPTOR.services_by_name["TokenService"]
PATH: Final = f"/{SERVICE.full_name}/"

CountUse = Callable[[TokenRecord, str, str, Sequence[str]], None]
"""Counts one use: which token, at which verifier, from what address (empty: not known), needing which scopes."""
RotatedPresented = Callable[[TokenRecord, str, str], None]
"""Hears of a rotated token that was presented after its end, with its secret: which one, at which verifier, from what
address (empty: not known)."""


def _uncounted(record: TokenRecord, verifier: str, address: str, required: Sequence[str]) -> None:
    """Where nobody counts uses."""


def _unheard(record: TokenRecord, verifier: str, address: str) -> None:
    """Where nobody is alarmed."""


class TokenService:
    """The verdicts of watchword.v1.TokenService, for callers that the pipeline has authenticated."""

    def __init__(
        self,
        *,
        digests: Digests,
        count_verdict: Callable[[Reason], None],
        failures: Rates | None = None,
        count_use: CountUse = _uncounted,
        rotated_presented: RotatedPresented = _unheard,
    ) -> None:
        self._digests = digests
        self._count_verdict = count_verdict
        self._failures = failures or Rates(0)
        self._count_use = count_use
        self._rotated_presented = rotated_presented

    def methods(self) -> list[Method[Any]]:
        """What to register."""
        return [
            Method(PATH + "Validate", pb.ValidateRequest, self.validate, _token_field, rates=self._failures),
            Method(
                PATH + "BatchValidate",
                pb.BatchValidateRequest,
                self.batch_validate,
                _batched_tokens,
                rates=self._failures,
            ),
        ]

    async def validate(self, call: Call[pb.ValidateRequest]) -> pb.ValidateResponse:
        """One verdict for the calling verifier."""
        required = tuple(call.request.required_scopes[:])
        _check_required([required])
        response = pb.ValidateResponse()
        if self._answer(response, call.request, call.tokens[0], call.snapshot, call.caller.subject, required):
            self._failures.spend(call.caller)
        return response

    async def batch_validate(self, call: Call[pb.BatchValidateRequest]) -> pb.BatchValidateResponse:
        """Many verdicts at one instant."""
        requests, snapshot, verifier = call.request.requests, call.snapshot, call.caller.subject
        # Tuples: each look into a repeated field of a message costs as much as the rest of a verdict. Out of slices,
        # which takes half as long as iterating does.
        all_required = [tuple(request.required_scopes[:]) for request in requests]
        _check_required(all_required)
        response = pb.BatchValidateResponse()
        add: Callable[[], pb.ValidateResponse] = response.responses.add
        asked = failed = 0
        for request, token, required in zip(requests, call.tokens, all_required, strict=True):
            answer = add()
            try:
                failed += self._answer(answer, request, token, snapshot, verifier, required)
            except PepperUnknownError:
                answer.unjudged.SetInParent()
            asked += len(required)
            record = None if token is None else snapshot.rows.get(token.token_id)
            if record is not None and record.allowed_networks:
                asked += len(record.allowed_networks) * _NETWORK_IN_SCOPES
            if asked >= _SCOPES_AT_A_STRETCH:
                asked = 0
                # A thousand times 64 scopes against 64 held take more than a second, and so do 32 networks of each: the
                # others get their turns meanwhile (test_a_batch_of_many_scopes_gives_way_to_others,
                # test_a_batch_of_tokens_with_many_networks_gives_way_to_others).
                await asyncio.sleep(0)
        if failed:
            self._failures.spend(call.caller, failed)
        return response

    def _answer(
        self,
        response: pb.ValidateResponse,
        request: pb.ValidateRequest,
        token: ParsedToken | None,
        snapshot: Snapshot,
        verifier: str,
        required: Sequence[str],
    ) -> bool:
        """Fills in one verdict. True for `inactive`, which a caller may ask for only so often."""
        record = None if token is None else snapshot.rows.get(token.token_id)
        # What a call comes with is looked at for bound tokens alone: it is half a microsecond of everybody's time.
        evidence = None
        is_enforced = False
        if record is not None and is_bound(record):
            is_enforced = request.enforces_bindings
            if not is_enforced:
                evidence = Evidence(request.client_ip, request.certificate_sha256)
        verdict = examine(self._digests, token, snapshot, verifier=verifier, required=required, evidence=evidence)
        reason, record = verdict.reason, verdict.record
        self._count_verdict(reason)
        fill_verdict(response, verdict, token, snapshot, of_one_call=evidence is not None)
        if reason is Reason.ACTIVE:
            assert record is not None
            if not request.recheck and not (is_enforced and _is_for_its_verifier_to_tell(request, record)):
                self._count_use(record, verifier, request.client_ip, required)
            return False
        if reason is Reason.ROTATED and record is not None:
            # The secret was right. (Without a record it could not be looked at.)
            self._rotated_presented(record, verifier, request.client_ip)
        return reason is not Reason.SCOPE_MISSING


def _is_for_its_verifier_to_tell(request: pb.ValidateRequest, record: TokenRecord) -> bool:
    """Whether a call was admitted that has to match bindings, only who compares them knows. Those that remember report
    it; otherwise whoever stole a bound session would keep it from ending by calls that are refused
    (test_a_stolen_bound_session_is_not_kept_alive_by_calls_that_are_refused). Those that do not report ask about each
    call, and one from elsewhere is no use."""
    if request.reports_uses:
        return True
    networks = record.allowed_networks
    return bool(networks and request.client_ip) and not Networks(networks).hold(request.client_ip)


def _check_required(lists: Sequence[Sequence[str]]) -> None:
    for required in lists:
        if len(required) > SCOPES_MAX or not all(map(is_scope, required)):
            break
    else:
        return
    faults = Faults()
    for at, required in enumerate(lists):
        path = "required_scopes" if len(lists) == 1 else f"requests[{at}].required_scopes"
        faults.required_scopes(path, required)
    raise FieldsInvalidError(faults.found)


def _token_field(request: pb.ValidateRequest) -> Sequence[str]:
    return (request.token,)


def _batched_tokens(request: pb.BatchValidateRequest) -> Sequence[str]:
    faults = Faults()
    if not faults.count("requests", request.requests, BATCH_MAX, count_min=1):
        raise FieldsInvalidError(faults.found)
    return [one.token for one in request.requests]
