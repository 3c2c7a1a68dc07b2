"""What is sent, and its signature, by the Standard Webhooks specification 1.0.0.

webhook-id         the same for all attempts: receivers drop what they have had
webhook-timestamp  seconds since 1970, of this attempt: receivers refuse old ones
webhook-signature  `v1,` and Base64 of HMAC-SHA256(secret, ID "." TIMESTAMP "." BODY)
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

import msgspec

from vmkernel.model import Event

__all__ = ["SECRET_BYTES", "body_of", "headers_for", "secret_key", "signature"]

_PREFIX = "whsec_"
SECRET_BYTES = range(24, 65)
"""By the specification."""


def secret_key(secret: str) -> bytes:
    """The key that a secret is. ValueError if it is none."""
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except binascii.Error as error:
        raise ValueError("it is not Base64") from error
    if len(key) not in SECRET_BYTES:
        raise ValueError(f"it has {len(key)} bytes, not 24 to 64")
    return key


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """The value of webhook-signature."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    digest = hmac.new(secret_key(secret), signed, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


def headers_for(secret: str, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of one attempt."""
    return {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signature(secret, message_id, timestamp, body),
    }


def body_of(event: Event) -> bytes:
    """What is sent of an event."""
    return msgspec.json.encode({"type": event.type, "timestamp": event.time, "data": event})
