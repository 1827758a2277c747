"""Cron expressions: which are understood, when they are due, and what systemd calls them."""

import re
from datetime import datetime

from croniter import CroniterError, croniter

from steps.errors import ConfigError

FIELDS = ("minute", "hour", "day of the month", "month", "day of the week")
EXAMPLE = 'such as "0 3 * * *" for every night at three'
MONTHS = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
VALUES = (r"\d+", r"\d+", r"\d+", rf"\d+|{MONTHS}", rf"\d+|{'|'.join(WEEKDAYS)}")


def check_cron(cron: str) -> None:
    """Accept what every cron understands: numbers, names, lists, ranges, and steps after a star or a range.

    Raises:
        ConfigError: it has other things, or its time never comes.
    """
    fields = cron.lower().split()
    if len(fields) != len(FIELDS):
        raise ConfigError(f"--cron {cron!r}: has {len(fields)} fields, not 5 ({', '.join(FIELDS)}), {EXAMPLE}")
    for field, name, value in zip(fields, FIELDS, VALUES, strict=True):
        item = rf"(\*|({value})-({value}))(/[1-9]\d*)?|({value})"
        for part in field.split(","):
            if not re.fullmatch(item, part):
                raise ConfigError(
                    f"--cron {cron!r}: {part!r} is no {name}: numbers, names, lists a,b, ranges a-b, and steps */n or "
                    "a-b/n are understood"
                )
    try:
        next_due(cron, datetime.now())
    except CroniterError as error:
        raise ConfigError(f"--cron {cron!r}: {error}; {EXAMPLE}") from error


def next_due(cron: str, after: datetime) -> datetime:
    """When it is due next, by the clock on the wall; ``croniter.CroniterError`` where it is wrong or never due."""
    due: datetime = croniter(cron, after, implement_cron_bug=True).get_next(datetime)
    return due


def on_calendar(cron: str) -> list[str]:
    """What systemd's ``OnCalendar=`` says for it: a timer with two of them is due when either is.

    Cron's rule for days: where both the day of the month and that of the week are restricted, either is enough; a
    field that begins with a star, ``*/2`` too, counts as not restricted, and then both must fit (crontab(5)).
    """
    minute, hour, day, month, weekday = croniter.expand(cron)[0]
    time = f"{_numbers(hour)}:{_numbers(minute)}:00"
    days, weekdays = f"*-{_numbers(month)}-{_numbers(day)}", _weekdays(weekday)
    _, _, day_text, _, weekday_text = cron.split()
    if day_text.startswith("*") or weekday_text.startswith("*"):
        return [f"{weekdays}{days} {time}"]
    return [f"{days} {time}", f"{weekdays}*-{_numbers(month)}-* {time}"]


def portable(cron: str) -> str:
    """The same for any ``crontab``: ranges that go round (``fri-sun``) and names are spelt out as numbers.

    A field that begins with a star stays, since the rule for days looks at the star.
    """
    expanded = croniter.expand(cron)[0]
    fields = zip(cron.split(), expanded, strict=True)
    return " ".join(text if text.startswith("*") else _numbers(values) for text, values in fields)


def _numbers(values: list[int | str]) -> str:
    return "*" if "*" in values else ",".join(map(str, values))


def _weekdays(values: list[int | str]) -> str:
    return "" if "*" in values else ",".join(WEEKDAYS[int(value)].title() for value in values) + " "
