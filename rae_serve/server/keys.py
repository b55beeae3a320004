"""API keys: who may use the service, where its operator says that not everybody may."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from typing import Final

from pydantic import SecretStr
from starlette.types import Scope

# What needs no key: probes, the page, which asks for one, and the API's description.
_OPEN: Final = frozenset(("/livez", "/healthz", "/readyz", "/", "/ui", "/docs", "/openapi.json"))
_OPEN_FOLDER: Final = "/ui/"
_REALM: Final = 'Bearer realm="rae-serve"'


class ApiKeys:
    """Keys that clients send as `Authorization: Bearer KEY`. Without any, everything is open."""

    def __init__(self, keys: Iterable[SecretStr]) -> None:
        self._digests = [_digest(key.get_secret_value().encode()) for key in keys]

    def challenge(self, scope: Scope, headers: Mapping[bytes, bytes]) -> str | None:
        """What a request without a key of ours is to be asked, as WWW-Authenticate; None for one that may pass."""
        if not self._digests or scope["path"] in _OPEN or scope["path"].startswith(_OPEN_FOLDER):
            return None
        scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer":
            return _REALM
        given = _digest(key.strip())
        # Every one is compared, in a time that depends neither on which fits, nor on how much of it does.
        known = sum(hmac.compare_digest(given, digest) for digest in self._digests)
        return None if known else f'{_REALM}, error="invalid_token"'


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
