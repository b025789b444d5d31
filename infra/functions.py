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
    """One function: `name` is its construct's id, its placeholder in the state machine and its state.

    `module` is a path below lambdas/ with dots, and exposes `handler`. `timeout` is in seconds (Lambda ends at 900, API
    Gateway at 29), `memory` in MiB; CPU grows with memory (1,769 MiB is one vCPU).
    """

    name: str
    module: str
    purpose: str
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
    def service(self) -> str:
        """The folder below lambdas/ that the function belongs to, which is also who owns its data."""
        return self.module.partition(".")[0]

    @property
    def handler(self) -> str:
        return f"{self.module}.handler"


_FUNCTIONS = (
    Function(
        name="TaskApi",
        module="task_service.task_api",
        purpose="REST API of the tasks",
        timeout=29,
        table=("GetItem", "PutItem", "UpdateItem", "DeleteItem", "Scan"),
        signs_pages=True,
    ),
    Function(
        name="ListTasks",
        module="task_service.list_tasks",
        purpose="Internal: a page of one segment of the tasks",
        table=("Scan", "BatchGetItem"),
        signs_pages=True,
    ),
    Function(
        name="WriteTasks",
        module="task_service.write_tasks",
        purpose="Internal: conditional creates and updates of tasks, safe to repeat",
        # One vCPU: the time of a write is mostly the SDK's, and the worker waits for it.
        memory=1769,
        table=("PutItem", "UpdateItem"),
    ),
    Function(
        name="Planner",
        module="fan_out.planner",
        purpose="Checks a job's input, applies defaults, decides the segments",
        reads=(JOB_OBJECTS, UPLOADS),
        writes=("jobs/*/job.json",),
    ),
    Function(
        name="Lister",
        module="fan_out.lister",
        purpose="Lists one segment of a job's source into shards",
        timeout=900,
        memory=1024,
        reads=(JOB_OBJECTS, UPLOADS),
        writes=("jobs/*/shards/*", "jobs/*/parts/*"),
        calls=("ListTasks",),
    ),
    Function(
        name="Manifest",
        module="fan_out.manifest",
        purpose="Joins a job's committed parts into the list of its shards",
        timeout=900,
        memory=1024,
        reads=(JOB_OBJECTS,),
        writes=("jobs/*/manifest.jsonl", "jobs/*/manifest.json"),
    ),
    Function(
        name="Worker",
        module="fan_out.worker",
        purpose="Works on one shard of a job",
        timeout=900,
        memory=1024,
        reads=(JOB_OBJECTS,),
        writes=("jobs/*/checkpoints/*", "jobs/*/partials/*", "jobs/*/excess/*", "jobs/*/excess.json"),
        calls=("WriteTasks",),
    ),
    Function(
        name="Reducer",
        module="fan_out.reducer",
        purpose="Folds a job's partials, checks its tally, writes its result and record",
        timeout=900,
        memory=2048,
        reads=(JOB_OBJECTS,),
        writes=(JOB_OBJECTS,),
    ),
    Function(
        name="JobsApi",
        module="fan_out.jobs_api",
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
        module="fan_out.finalizer",
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
