"""The job's day: when it is, in which time zone, and when it ends. Shared by the kinds that look at due times."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Annotated
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, Field

from fan_out import Params, Timestamp, instant, utc


def _has_a_week_around(as_of: str) -> str:
    if not "0002" <= as_of[:4] <= "9998":
        raise ValueError("the calendar ends within a week of it")
    return as_of


# It walks through the folders of the zone database: some milliseconds in each call of a function.
_zones = lru_cache(available_timezones)


def _zone(name: str) -> str:
    if name not in _zones():
        raise ValueError("no such time zone")
    return name


@dataclass(frozen=True, slots=True)
class Day:
    """A moment of a day, the day's date, and the first moments after the day and after its week, in UTC.

    Weeks begin on Monday.
    """

    now: str
    today: date
    tomorrow: str
    next_week: str


class DayParams(Params):
    """Parameters of a kind that looks at a day; without `asOf` it is the day of the job's start."""

    as_of: Annotated[Timestamp, AfterValidator(_has_a_week_around)] | None = Field(
        None, alias="asOf", description='an ISO 8601 timestamp with a zone, such as "2026-11-23T09:00:00+01:00"'
    )
    time_zone: Annotated[str, AfterValidator(_zone)] = Field(
        "UTC", alias="timeZone", description='the IANA name of a time zone, such as "Europe/Berlin"'
    )

    def day(self, started_at: str) -> Day:
        return _day(self.as_of or started_at, self.time_zone)


@lru_cache(maxsize=16)
def _day(as_of: str, zone: str) -> Day:
    here = ZoneInfo(zone)
    today = instant(as_of).astimezone(here).date()

    def start(days: int) -> str:
        day = today + timedelta(days=days)
        return utc(datetime(day.year, day.month, day.day, tzinfo=here).isoformat())

    return Day(as_of, today, start(1), start(7 - today.weekday()))
