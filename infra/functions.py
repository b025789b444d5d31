"""The one table of functions: what each runs, how long it may, and everything it is allowed to touch.

The stack builds every function, environment variable and grant from these rows, and nothing else grants
a function anything; what a row does not say, its function may not do.
"""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from types import MappingProxyType

JOB_OBJECTS = "jobs/*"
WORK_OBJECTS = "work/*"
UPLOADS = "uploads/*"
Names = tuple[str, ...]


@dataclass(frozen=True)
class Function:
    """One function: `name` is its construct's id, its placeholder in the state machine, its state and its module.

    `service` is the folder below lambdas/ that it belongs to, which is also who owns its data. `timeout` is in seconds
    (Lambda ends at 900, API Gateway at 29), `memory` in MiB; CPU grows with memory (1,769 MiB is one vCPU).
    """

    name: str
    timeout: int
    memory: int
    purpose: str
    _: KW_ONLY
    service: str = "fan_out"
    table: Names = ()  # DynamoDB actions on the task table
    signs_pages: bool = False  # may read the secret that signs page tokens
    reads: Names = ()  # patterns of the objects it reads; a reader can also tell a missing object from a forbidden one
    writes: Names = ()  # patterns of the objects it writes; no function deletes: objects expire by the bucket's rules
    streams: Names = ()  # those of them that it writes as streams of lines: in parts, which it aborts if it fails
    calls: Names = ()  # functions that it invokes
    account: Names = ()  # Lambda actions on the AWS account as a whole
    starts: Names = ()  # functions of this service that it calls asynchronously, at their latest code
    machine: Names = ()  # Step Functions actions on the state machine
    jobs: Names = ()  # Step Functions actions on its executions
    map_runs: Names = ()  # Step Functions actions on the map runs of its executions

    @property
    def module(self) -> str:
        """Its path below lambdas/ with dots; the module has a function `handler`."""
        return f"{self.service}.{snake(self.name)}"


def snake(name: str) -> str:
    """ListTasks: list_tasks."""
    return "".join("_" + c.lower() if c.isupper() else c for c in name).lstrip("_")


_FUNCTIONS = (
    #         name     seconds  MiB  purpose
    Function("TaskApi",    29,  512, "REST API of the tasks", service="task_service",
             table=("GetItem", "PutItem", "UpdateItem", "DeleteItem", "Scan"), signs_pages=True),
    # One vCPU, as for the Lister, which waits for it: less takes longer, and costs the same.
    Function("ListTasks",  60, 1769, "Internal: a page of one segment of the tasks", service="task_service",
             table=("Scan", "BatchGetItem", "DescribeTable"), signs_pages=True),
    # One vCPU: the time of a write is mostly the SDK's, and the worker waits for it.
    Function("WriteTasks", 60, 1769, "Internal: conditional creates and updates of tasks, safe to repeat",
             service="task_service", table=("PartiQLInsert", "PutItem", "UpdateItem")),
    Function("Planner",    60,  512, "Checks a job's input, applies defaults, decides the segments",
             reads=(JOB_OBJECTS, UPLOADS), writes=("jobs/*/job.json",), calls=("ListTasks",),
             account=("GetAccountSettings",)),
    Function("Lister",    900, 1769, "Lists one segment of a job's source into shards",
             reads=(JOB_OBJECTS, WORK_OBJECTS, UPLOADS),
             writes=("work/*/shards/*", "work/*/parts/*"), calls=("ListTasks",)),
    Function("Manifest",  900, 1024, "Joins a job's committed parts into the list of its shards",
             reads=(JOB_OBJECTS, WORK_OBJECTS), writes=("work/*/manifest.jsonl", "jobs/*/manifest.json"),
             streams=("work/*/manifest.jsonl",), account=("GetAccountSettings",)),
    Function("Worker",    900, 1024, "Works on one shard of a job", calls=("WriteTasks",),
             reads=(JOB_OBJECTS, WORK_OBJECTS),
             writes=("work/*/checkpoints/*", "work/*/partials/*", "work/*/excess/*", "work/*/excess.json")),
    Function("Merger",    900, 2048, "Makes some nodes of a large job's reduction, beside others",
             reads=(JOB_OBJECTS, WORK_OBJECTS), writes=("work/*/reduce/*", "work/*/partials/*"),
             streams=("work/*/reduce/*", "work/*/partials/*")),
    Function("Reducer",   900, 2048, "Folds a job's partials, checks its tally, writes its result and record",
             reads=(JOB_OBJECTS, WORK_OBJECTS), writes=(JOB_OBJECTS, WORK_OBJECTS),
             streams=(JOB_OBJECTS, WORK_OBJECTS)),
    Function("JobsApi",    29,  512, "REST API of the jobs, and the upload of tasks",
             reads=(JOB_OBJECTS, UPLOADS), writes=(UPLOADS,), starts=("Finalizer",),
             machine=("StartExecution", "ListExecutions"),
             jobs=("DescribeExecution", "StopExecution", "ListMapRuns"), map_runs=("DescribeMapRun",)),
    Function("Finalizer", 900, 2048, "Finalizes a job that ended before its reducer: writes its record",
             reads=(JOB_OBJECTS, WORK_OBJECTS), writes=(JOB_OBJECTS, WORK_OBJECTS),
             streams=(JOB_OBJECTS, WORK_OBJECTS), machine=("ListExecutions",)),
)  # fmt: skip

FUNCTIONS: Mapping[str, Function] = MappingProxyType({f.name: f for f in _FUNCTIONS})
TASK_SERVICE = tuple(f for f in _FUNCTIONS if f.service == "task_service")
STATES = tuple(FUNCTIONS[name] for name in ("Planner", "Lister", "Manifest", "Worker", "Merger", "Reducer"))
"""The functions that the state machine runs: each is a state, and a `${...Arn}` of its definition."""
