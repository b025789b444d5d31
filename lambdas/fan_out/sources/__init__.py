"""Where a job's tasks come from: a file for each source, whose function `batches` gives the tasks of one segment."""

from dataclasses import dataclass

# The most tasks of a batch: what one call of the Task Service's list function returns.
PAGE = 5000
# The most bytes of a batch of rows.
BATCH_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Batch:
    """Some tasks of the source in listing order, and the cursor behind them; None at the end of the segment."""

    lines: list[bytes]
    cursor: str | None
    # Tasks of a retry that no longer exist, or no longer match the job's filter.
    skipped: int = 0
