"""The seam between an interceptor and whoever judges tokens: the contract, the verdicts, and the remote verifiers."""

from watchword.verifier.contract import BlockingVerifier, Verifier, VerifierUnavailableError
from watchword.verifier.verdict import Active, Answer, Inactive, Insufficient, Position, Verdict

__all__ = [
    "Active",
    "Answer",
    "BlockingVerifier",
    "Inactive",
    "Insufficient",
    "Position",
    "Verdict",
    "Verifier",
    "VerifierUnavailableError",
]
