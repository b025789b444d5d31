"""Sample tasks: a realistic CSV of any size, the same bytes for the same seed and day.

`python -m fanout.sample 10000 > tasks.csv` writes one with due dates around today.
"""

import csv
import random
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone
from typing import NamedTuple, TextIO

import click

COLUMNS = ("title", "detail", "dueAt", "isComplete")
DEFAULT_SEED = 2026

# Templates of titles.
_TITLES = (
    "Call {person} about {thing}|Send {thing} to {person}|Review {person}'s draft of {thing}|"
    'Pay {company}, invoice {number}|Book a table at {place} for {small}|Read "{book}"|Fix: {fault}|'
    "Fix flaky test `{test}`|Prepare {thing}, then share it with {person}|Renew {thing} ({company})|Buy {groceries}|"
    "{emoji} {person}: birthday|{emoji} Water the plants|Ask {company} why {fault}|"
    "Order #{number}: check the delivery at {place}|Move {thing} from {place} to {company}|"
    "Décider: {thing} — avec {person}?|{person}に{number}番の書類を送る|Позвонить: {person}, заказ №{number}|"
    "مراجعة الفاتورة {number}|לשלם חשבון {number}|{number}번 문의에 답장하기 ({person})|हिसाब {number} की जाँच|"
    "Ελέγξτε την παραγγελία {number}|ตอบอีเมลของ {person}|C:\\reports\\{number}.txt; archive & delete|"
    "=SUM(A1:A{small}) looks wrong in {thing}|1/{small}: {thing}"
)
# What stands for each name of a template.
_WORDS = {
    "person": (
        "Ada|Björk|Chinedu|Eoghan|Fatima|Güneş|Håkon|Iñaki|José|Kateřina|Łukasz|Mei-Ling|Nguyễn|Oluwaseun|Priya|"
        "Renée|Søren|Zoë|Siân|Núria|Ömer|O'Brien|山田さん|김민준|Дмитрий|Ελένη|محمد|נועה|สมชาย"
    ),
    "thing": (
        "the Q4 budget|the slides|passport|the lease|release notes|car insurance|the backup plan|tax return|"
        "the wedding list|the on-call rota|domain names|the “final” contract|the gym pass|50% deposit|"
        "the customer survey|last month's numbers|naïve Bayes notes|the offsite agenda"
    ),
    "company": "Ågård & Søn|Müller GmbH|ACME, Inc.|O'Reilly|Çiçek A.Ş.|株式会社サンプル|Peña Hnos.|Café 24",
    "place": "Zürich|São Paulo|Kraków|Reykjavík|東京|İzmir|Malmö|القاهرة|Québec|Hà Nội",
    "book": "Crime and Punishment|Les Misérables|1984|吾輩は猫である|Pippi Långstrump|Война и мир",
    "fault": (
        "totals are off by one cent|the login page shows “null”|export stops at 1,000 rows|"
        "emoji 🤯 break the PDF|the cron job runs twice in October|café is sorted after zebra"
    ),
    "test": "test_leap_day|test_empty_page|test_ÅÄÖ|test_retry_after_timeout|test_dst_change",
    "groceries": "milk, eggs, flour|1 kg of rice; beans|jalapeños, crème fraîche|bread|coffee (decaf)|味噌, 豆腐",
    "emoji": "🎂|🎉|🌱|👩\u200d💻|🇧🇷|👍🏽|🐧|☎️|❤️\u200d🔥|🧾",
}
_CHOICES = {name: words.split("|") for name, words in _WORDS.items()}

_DETAILS = (
    "Agreed on {day}: {thing} goes first.",
    'They said: "{fault}".\nReply before noon.',
    "1. call {person}\n2. ask about {thing}\n3. write it down",
    "See https://example.com/tickets/{number}?view=all&sort=due",
    "A 3\" pipe, a 5' ladder, and {groceries}.",
    "Ref. {number},\r\n{company},\r\n{place}",
    "{emoji}{emoji} with {person}\tand {person}",
    "{thing} — {place} — {person}",
)


class Row(NamedTuple):
    """One row as it stands in the CSV, in the order of COLUMNS: text fields, empty where the task has none."""

    title: str
    detail: str
    due_at: str
    is_complete: str


def rows(count: int, *, day: date, seed: int = DEFAULT_SEED) -> Iterator[Row]:
    """Yield `count` rows, each a valid task, due around `day` in UTC.

    About a quarter is overdue, a twelfth due on `day`, a quarter within the six days after it, a third later,
    and the rest has no date. About one task in eight is complete. The first n rows do not depend on `count`.
    """
    # Sample data has to be repeatable, not secret.
    chance = random.Random(f"{seed}/{day.isoformat()}")  # noqa: S311
    return (_row(chance, day) for _ in range(count))


def write(to: TextIO, tasks: Iterable[Row]) -> None:
    """Write the header and one record a row, holding one row in memory. Open `to` with newline=''."""
    out = csv.writer(to)
    out.writerow(COLUMNS)
    out.writerows(tasks)


def _row(chance: random.Random, day: date) -> Row:
    # A few titles are as long as the Task Service lets them be, 100 characters, as pasted mail subjects are.
    title = _filled(chance.choice(_TITLES.split("|")), chance, day)
    if chance.random() < 0.01:
        title = f"{title} / {_filled(chance.choice(_DETAILS), chance, day)} / {title} / {title}".replace("\n", " ")
    detail = _filled(chance.choice(_DETAILS), chance, day) if chance.random() < 0.3 else ""
    is_complete = "true" if chance.random() < 0.125 else chance.choice(("false", "false", "false", ""))
    return Row(" ".join(title.split())[:100].strip(), detail, _due_at(chance, day), is_complete)


def _filled(template: str, chance: random.Random, day: date) -> str:
    words = {name: chance.choice(choices) for name, choices in _CHOICES.items()}
    number, small = chance.randint(100, 99_999), chance.randint(2, 12)
    return template.format(**words, number=number, small=small, day=day - timedelta(days=chance.randint(1, 60)))


def _due_at(chance: random.Random, day: date) -> str:
    group = chance.random()
    if group < 0.25:
        # Most of what is overdue is so since last week, some of it for a year.
        days = -min(1 + int(chance.expovariate(1 / 12)), 400)
    elif group < 0.33:
        days = 0
    elif group < 0.58:
        days = chance.randint(1, 6)
    elif group < 0.90:
        days = chance.randint(7, 180)
    else:
        return ""
    hour, minute = chance.randint(0, 23), chance.choice((0, 0, 15, 30, 45, 59))
    due = datetime.combine(day, time(hour, minute), UTC) + timedelta(days=days)
    # People's exports carry the zones that they live in; the moment stays the one chosen above.
    offset = chance.choice((0, 0, 0, 0, 60, 120, -300, 330, 540))
    return due.astimezone(timezone(timedelta(minutes=offset))).isoformat().replace("+00:00", "Z")


@click.command()
@click.argument("count", type=click.IntRange(0), help="How many tasks.")
@click.option("--seed", default=DEFAULT_SEED, help="Another seed gives other tasks.")
@click.option(
    "--day", type=click.DateTime(["%Y-%m-%d"]), help="The day the due dates lie around (default: today, UTC)."
)
@click.option(
    "--output", type=click.File("w", encoding="utf-8"), default="-", help="A file (default: standard output)."
)
def main(count: int, seed: int, day: datetime | None, output: TextIO) -> None:
    """Write sample tasks as CSV."""
    # The CSV has its own line ends.
    output.reconfigure(encoding="utf-8", newline="")  # type: ignore[attr-defined]
    write(output, rows(count, day=(day or datetime.now(UTC)).date(), seed=seed))


if __name__ == "__main__":
    main()
