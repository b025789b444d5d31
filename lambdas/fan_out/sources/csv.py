"""The rows of a CSV object.

The columns are `title,detail,dueAt,isComplete`, in any order, all but `title` optional. UTF-8, with or without
a byte order mark; lines end in LF or CRLF; a quoted field may hold commas, quotes and line ends (RFC 4180).
A row that cannot be read becomes a Row with a `problem`; it never takes its neighbours with it.
"""

import csv
import json
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fan_out import sources
from fan_out.aws.storage import Bucket, Line
from fan_out.errors import InvalidJobError
from fan_out.model.documents import encode
from fan_out.model.job_input import CsvSource
from fan_out.model.plan import Plan
from fan_out.model.task import Row
from fan_out.sources import Batch

COLUMNS = ("title", "detail", "dueAt", "isComplete")
# Far above what a task may hold (1,100 characters); a longer row has an unclosed quote or is no row at all.
LONGEST_ROW = 64 * 1024
# Sentences for what Python's reader says.
_PROBLEMS = {
    "unexpected end of data": "a quote is opened and never closed",
    "expected after": "a closing quote must be followed by a comma or the end of the line",
    "new-line character": "a carriage return inside a field must be in quotes",
}
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Position:
    """Between two rows: the byte offset and number of the next one, and the columns that the header gave."""

    offset: int = 0
    number: int = 1
    columns: tuple[str, ...] = ()


def batches(bucket: Bucket, plan: Plan, _: int, cursor: str | None, function: str) -> Iterator[Batch]:
    assert isinstance(plan.source, CsvSource)
    position = Position()
    if cursor is not None:
        offset, number, *columns = json.loads(cursor)
        position = Position(offset, number, tuple(columns))
    texts = bucket.lines(plan.source.key, position.offset, plan.source.etag, is_cut=True)
    lines: list[bytes] = []
    size = 0
    for row, after in read(texts, position):
        lines.append(encode(row.to_json()))
        size += len(lines[-1])
        if len(lines) == sources.PAGE or size >= sources.BATCH_BYTES:
            yield Batch(lines, json.dumps([after.offset, after.number, *after.columns]))
            lines, size = [], 0
    yield Batch(lines, None)


def read(lines: Iterator[Line], position: Position) -> Iterator[tuple[Row, Position]]:
    """The rows from a position on, each with the position behind it; `lines` begin at that position's offset.

    The same object gives the same rows from any position. Empty lines are no rows. Raises InvalidJobError if the
    header is wrong.
    """
    records = _records(lines, is_start=position.offset == 0)
    columns, first = position.columns, position.number
    if not columns:
        header = next(records, None)
        if header is None:
            raise InvalidJobError(
                "The CSV object is empty, but must begin with a header such as title,detail,dueAt,isComplete."
            )
        columns = _header(header)
        first = 2
    for number, record in enumerate(records, first):
        yield _row(record, number, columns), Position(record.end, number + 1, columns)


@dataclass(frozen=True, slots=True)
class _Record:
    fields: list[str]
    problem: str | None
    end: int


def _records(lines: Iterator[Line], *, is_start: bool) -> Iterator[_Record]:
    """CSV records with the offset behind each; behind a malformed one it recovers at the next line."""
    again: deque[Line] = deque()

    def next_line() -> Line | None:
        return again.popleft() if again else next(lines, None)

    while (first := next_line()) is not None:
        if is_start:
            first = Line(first.text.removeprefix(_BOM), first.end)
            is_start = False
        if not first.text.strip(b"\r"):
            continue
        taken: list[Line] = []
        problem: str | None = None
        try:
            fields = next(csv.reader(_texts(first, next_line, taken), strict=True))
        except csv.Error as error:
            # The lines after the first one may be good rows that an unclosed quote has swallowed.
            # protection: recovery-at-the-next-line
            again.extendleft(reversed(taken[1:]))
            problem = next((ours for words, ours in _PROBLEMS.items() if words in str(error)), str(error))
            # protection: a-bad-row-is-a-row
            yield _Record([], problem, first.end)
            continue
        if any("\udc80" <= character <= "\udcff" for field in fields for character in field):
            problem = "the row is not UTF-8"
        elif any("\0" in field for field in fields):
            problem = "the row holds a NUL character"
        yield _Record(fields, problem, taken[-1].end)


def _texts(first: Line, next_line: Callable[[], Line | None], taken: list[Line]) -> Iterator[str]:
    """The lines that a record may have, each put into `taken`. Raises csv.Error if they are too long for one."""
    size = -1
    line: Line | None = first
    while line is not None:
        taken.append(line)
        size += len(line.text) + 1
        # protection: longest-row
        if size > LONGEST_ROW:
            hint = "" if line is first else "; is a quote not closed?"
            raise csv.Error(f"the row is longer than 64 KiB{hint}")
        yield line.text.decode("utf-8", "surrogateescape") + "\n"
        line = next_line()


def _header(record: _Record) -> tuple[str, ...]:
    names = [name.strip() for name in record.fields]
    known = {column.lower(): column for column in COLUMNS}
    columns = tuple(known.get(name.lower(), "") for name in names)
    rule = "the header must name title and may name detail, dueAt and isComplete, in any order, each once"
    if record.problem is not None:
        raise InvalidJobError(f"The CSV header cannot be read: {record.problem}; {rule}.")
    for name, column in zip(names, columns, strict=True):
        if not column:
            raise InvalidJobError(f'The CSV header has a column "{name[:100]}", but {rule}.')
    if "title" not in columns or len(set(columns)) != len(columns):
        raise InvalidJobError(f'The CSV header is "{",".join(names)[:100]}", but {rule}.')
    return columns


def _row(record: _Record, number: int, columns: tuple[str, ...]) -> Row:
    problem = record.problem
    values = record.fields
    if problem is None and len(values) > len(columns):
        problem = f"the row has {len(values)} fields, but the header has {len(columns)}"
    # A short row lacks its last columns, as spreadsheets write them; an empty field says nothing.
    fields = {column: value for column, value in zip(columns, values, strict=False) if value != "" or column == "title"}
    return Row(number, fields if problem is None else {}, problem)
