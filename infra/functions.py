"""The one table of functions: what each runs, how long it may, and everything it is allowed to touch.

The stack builds every function, environment variable and grant from these rows, and nothing else grants
a function anything; what a row does not say, its function may not do.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

JOB_OBJECTS = "jobs/*"
UPLOADS = "uploads/*"


@dataclass(frozen=True, kw_only=True)
class Function:
    """One function: `name` is its construct's id, its placeholder in the state machine, its state and its module.

    `service` is the folder below lambdas/ that it belongs to, which is also who owns its data. `timeout` is in seconds
    (Lambda ends at 900, API Gateway at 29), `memory` in MiB; CPU grows with memory (1,769 MiB is one vCPU).
    """

    name: str
    purpose: str
    service: str = "fan_out"
    timeout: int = 60
    memory: int = 512
    table: tuple[str, ...] = ()
    """DynamoDB actions on the task table."""
    signs_pages: bool = False
    """May read the secret that signs page tokens."""
    reads: tuple[str, ...] = ()
    """Patterns of the objects it reads; a reader can also tell a missing object from a forbidden one."""
    writes: tuple[str, ...] = ()
    """Patterns of the objects it writes. No function deletes: objects expire by the bucket's rules."""
    calls: tuple[str, ...] = ()
    """Names of the functions that it invokes."""
    machine: tuple[str, ...] = ()
    """Step Functions actions on the state machine."""
    jobs: tuple[str, ...] = ()
    """Step Functions actions on its executions."""
    map_runs: tuple[str, ...] = ()
    """Step Functions actions on the map runs of its executions."""

    @property
    def module(self) -> str:
        """Exposes `handler`."""
        return f"{self.service}.{snake(self.name)}"


def snake(name: str) -> str:
    """ListTasks: list_tasks."""
    return "".join("_" + c.lower() if c.isupper() else c for c in name).lstrip("_")


_FUNCTIONS = (
    Function(
        name="TaskApi",
        service="task_service",
        purpose="REST API of the tasks",
        timeout=29,
        table=("GetItem", "PutItem", "UpdateItem", "DeleteItem", "Scan"),
        signs_pages=True,
    ),
    Function(
        name="ListTasks",
        service="task_service",
        purpose="Internal: a page of one segment of the tasks",
        table=("Scan", "BatchGetItem"),
        signs_pages=True,
    ),
    Function(
        name="WriteTasks",
        service="task_service",
        purpose="Internal: conditional creates and updates of tasks, safe to repeat",
        table=("BatchGetItem", "PutItem", "UpdateItem"),
    ),
    Function(
        name="Planner",
        purpose="Checks a job's input, applies defaults, decides the segments",
        reads=(JOB_OBJECTS, UPLOADS),
        writes=("jobs/*/job.json",),
    ),
    Function(
        name="Lister",
        purpose="Lists one segment of a job's source into shards",
        timeout=900,
        memory=1024,
        reads=(JOB_OBJECTS, UPLOADS),
        writes=("jobs/*/shards/*", "jobs/*/parts/*"),
        calls=("ListTasks",),
    ),
    Function(
        name="Manifest",
        purpose="Joins a job's committed parts into the list of its shards",
        timeout=900,
        memory=1024,
        reads=(JOB_OBJECTS,),
        writes=("jobs/*/manifest.jsonl", "jobs/*/manifest.json"),
    ),
    Function(
        name="Worker",
        purpose="Works on one shard of a job",
        timeout=900,
        memory=1024,
        reads=(JOB_OBJECTS,),
        writes=("jobs/*/checkpoints/*", "jobs/*/partials/*", "jobs/*/excess/*", "jobs/*/excess.json"),
        calls=("WriteTasks",),
    ),
    Function(
        name="Reducer",
        purpose="Folds a job's partials, checks its tally, writes its result and record",
        timeout=900,
        memory=2048,
        reads=(JOB_OBJECTS,),
        writes=(JOB_OBJECTS,),
    ),
    Function(
        name="JobsApi",
        purpose="REST API of the jobs, and the upload of tasks",
        timeout=29,
        reads=(JOB_OBJECTS, UPLOADS),
        writes=(UPLOADS,),
        machine=("StartExecution", "ListExecutions"),
        jobs=("DescribeExecution", "StopExecution", "ListMapRuns"),
        map_runs=("DescribeMapRun",),
    ),
    Function(
        name="Finalizer",
        purpose="Finalizes a job that ended before its reducer: writes its record",
        timeout=900,
        memory=2048,
        reads=(JOB_OBJECTS,),
        writes=(JOB_OBJECTS,),
    ),
)

FUNCTIONS: Mapping[str, Function] = MappingProxyType({f.name: f for f in _FUNCTIONS})
TASK_SERVICE = tuple(f for f in _FUNCTIONS if f.service == "task_service")
STATES = tuple(FUNCTIONS[name] for name in ("Planner", "Lister", "Manifest", "Worker", "Reducer"))
"""The functions that the state machine runs: each is a state, and a `${...Arn}` of its definition."""
