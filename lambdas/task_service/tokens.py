"""Page tokens: where a listing continues, signed against changes."""

import base64
import hashlib
import hmac
import json
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from common.errors import Fault, FaultyError
from common.task import is_id
from task_service.errors import InvalidPageTokenError
from task_service.filters import TaskFilter

ALLOWED: Final = "the token of an earlier answer to the same filter, unchanged"
_LONGEST: Final = 256
_FORM: Final = b"1"
_MAC_BYTES: Final = 32


@dataclass(frozen=True)
class Listing:
    """What a token belongs to: a filter and one segment of the listing."""

    filter: TaskFilter
    segment: int = 0
    total_segments: int = 1


class PageTokens:
    """Issues and reads page tokens under one secret.

    A token holds the id of the last task passed, and an HMAC-SHA256 over that id and the listing it belongs
    to: changed in any byte, or used with another filter or segment, it is refused. Tokens never expire.
    """

    def __init__(self, secret: str) -> None:
        if not secret:
            raise ValueError("The secret that signs page tokens is empty.")
        self._key = secret.encode()

    def issue(self, last_id: str, listing: Listing) -> str:
        signed = _FORM + last_id.encode()
        return _encode(signed + self._mac(signed, listing))

    def read(
        self,
        token: object,
        listing: Listing,
        field: str = "pageToken",
        error: type[FaultyError] = InvalidPageTokenError,
    ) -> str:
        """The id of the last task passed. Raises `error`, which says nothing about why."""
        raw = b""
        if isinstance(token, str) and len(token) <= _LONGEST and token.isascii():
            with suppress(ValueError):
                raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        signed, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
        last_id = signed[len(_FORM) :].decode("ascii", "replace")
        is_signed = hmac.compare_digest(mac, self._mac(signed, listing))
        # The decoder skips foreign characters and ignores spare bits: only the one canonical spelling is a token.
        if not is_signed or _encode(raw) != token or not signed.startswith(_FORM) or not is_id(last_id):
            raise error([Fault(field, token, ALLOWED)])
        return last_id

    def _mac(self, signed: bytes, listing: Listing) -> bytes:
        # JSON keeps the parts apart: no id can spell the end of its field and the start of the next.
        bound = json.dumps(
            [signed.hex(), listing.filter.to_json(), listing.segment, listing.total_segments], sort_keys=True
        )
        return hmac.new(self._key, bound.encode(), hashlib.sha256).digest()


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
