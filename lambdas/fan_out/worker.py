"""Worker: works on one shard."""

from functools import lru_cache, partial
from typing import Any

from common.environment import variable
from fan_out.aws import task_service
from fan_out.aws.runtime import deadline, job_store, state
from fan_out.errors import ShardFailedError
from fan_out.model.plan import Plan
from fan_out.model.shard import Shard
from fan_out.steps.early_stop import counts_as_failed
from fan_out.steps.process_guard import ProcessGuard
from fan_out.steps.shard_runner import ShardRunner


@state
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """`{jobId, shard, listed, shards, workers, resume, attempt}` → the same with `resume` set, and `done`.

    Raises ShardFailedError when the shard's failures should count towards ending the job early.
    """
    # However the call ends: also by a shard that is given up, or a zero that raises.
    # protection: a-damaged-worker-ends
    with ProcessGuard():
        plan, shard = _plan(event["jobId"]), Shard(**event["shard"])
        store = job_store(plan.job_id)
        runner = ShardRunner(
            store,
            plan,
            shard,
            workers=event["workers"],
            write=partial(task_service.write, variable("WRITE_TASKS_ARN")),
            is_late=deadline(context),
        )
        committed = runner.run(attempt=event["attempt"], is_resumed=event["resume"])
        if committed is not None:
            failed = committed.counts.failed + committed.counts.quarantined
            tolerated = plan.tolerated_failure_percentage
            # protection: failed-shards-end-the-map
            if counts_as_failed(
                store, shard, failed, listed=event["listed"], shards=event["shards"], tolerated=tolerated
            ):
                raise ShardFailedError(f"{failed} tasks of shard {shard.index} failed; its partial is written.")
        kept = {name: value for name, value in event.items() if name != "attempt"}
        return kept | {"resume": True, "done": committed is not None}


@lru_cache(maxsize=4)
def _plan(job_id: str) -> Plan:
    """A job's plan never changes, so a warm worker reads it once."""
    return job_store(job_id).require("job.json", Plan)
