"""Times as both services keep them: UTC, whole seconds, fixed width, so that they compare as strings."""

from datetime import UTC, datetime
from typing import Final

RULE: Final = "an ISO 8601 timestamp with a zone, such as 2026-05-17T09:00:00Z or 2026-05-17T11:00+02:00"
_LONGEST: Final = 64


def utc(text: object) -> str:
    """An ISO 8601 timestamp with a zone, as `YYYY-MM-DDTHH:MM:SSZ` in UTC; fractions of a second are cut off.

    Raises ValueError for anything else: no zone, no time, text around it, or a year outside 1 to 9999 in UTC.
    """
    # Some versions of Python read 24:00 as the next day's midnight, others refuse it.
    if not isinstance(text, str) or len(text) > _LONGEST or text.count("T") != 1 or "T24" in text:
        raise ValueError(RULE)
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(RULE)
    try:
        return written(moment)
    except OverflowError:
        raise ValueError(RULE) from None


def written(moment: datetime) -> str:
    """An aware moment in the stored form."""
    # isoformat pads the year to four digits on every platform; strftime does not.
    return moment.astimezone(UTC).replace(tzinfo=None, microsecond=0).isoformat() + "Z"


def now() -> str:
    """The current moment in the stored form."""
    return written(datetime.now(UTC))
