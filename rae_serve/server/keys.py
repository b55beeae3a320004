"""API keys: which requests need a key, and whether the key is right."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from typing import Final

from pydantic import SecretStr
from starlette.types import Scope

# These paths need no key: the probes, the description of the API, and the web page, which asks the user for a key.
_PROBES: Final = ("/livez", "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready")
_OPEN_PATHS: Final = frozenset((*_PROBES, "/", "/ui", "/docs", "/openapi.json"))
_OPEN_FOLDERS: Final = ("/ui/", "/docs/")
_REALM: Final = 'Bearer realm="rae-serve"'


class ApiKeys:
    """The keys that clients may send as `Authorization: Bearer KEY`. Without keys, every request may pass."""

    def __init__(self, keys: Iterable[SecretStr]) -> None:
        self._digests = [_digest(key.get_secret_value().encode()) for key in keys]

    def challenge(self, scope: Scope, headers: Mapping[bytes, bytes]) -> str | None:
        """Return None if the request may pass, else the `WWW-Authenticate` header of the 401 response."""
        if not self._digests or scope["path"] in _OPEN_PATHS or scope["path"].startswith(_OPEN_FOLDERS):
            return None
        scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer":
            return _REALM
        given = _digest(key.strip())
        # Compare with every key: the time must not tell which key matches, nor how much of a key matches.
        known = sum(hmac.compare_digest(given, digest) for digest in self._digests)
        return None if known else f'{_REALM}, error="invalid_token"'


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
