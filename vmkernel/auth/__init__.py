"""Authentication and authorisation: tokens, roles, the claim code, the audit
trail; no other state.
"""

from vmkernel.auth.audit import Audit
from vmkernel.auth.audit_trail import AuditTrail
from vmkernel.auth.caller import SYSTEM, Caller
from vmkernel.auth.claim import ClaimCode
from vmkernel.auth.service import AccessService
from vmkernel.auth.tokens import hash_secret, parse_bearer

__all__ = [
    "AccessService",
    "Audit",
    "AuditTrail",
    "Caller",
    "ClaimCode",
    "SYSTEM",
    "hash_secret",
    "parse_bearer",
]
