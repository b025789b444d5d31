"""Step Functions on the embedded AWS: the parts of the interpreter that ministack leaves out or gets wrong.

Runs inside the server process. shim.py puts these functions in the place of ministack's own; they call back
into ministack for everything that it does right (paths, choices, tasks, retriers).
"""

from __future__ import annotations

import contextvars
import copy
import json
import logging
import os
import random
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ministack.services import lambda_svc, s3
from ministack.services import stepfunctions as sf

logger = logging.getLogger("fanout.states")

# https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html
MAX_PAYLOAD_BYTES = 256 * 1024
MAX_EVENTS = 25_000
# Children of one map run that this machine works on at once, however large the state's own bound is: each
# holds a thread here and, usually, a Lambda process.
MAX_PARALLEL_CHILDREN = 100
# Executions per result file. AWS splits by bytes, far beyond a test's data; split early, so that whoever reads
# them meets several files.
RESULT_FILE_EXECUTIONS = 1000

COUNTS = (
    "pending",
    "running",
    "succeeded",
    "failed",
    "timedOut",
    "aborted",
    "total",
    "resultsWritten",
    "failuresNotRedrivable",
    "pendingRedrive",
)
ENDED = {"ExecutionSucceeded", "ExecutionFailed", "ExecutionAborted", "ExecutionTimedOut"}
# Neither is ever matched by a Retry or a Catch, States.ALL included:
# https://docs.aws.amazon.com/step-functions/latest/dg/concepts-error-handling.html
UNCATCHABLE = {"States.DataLimitExceeded", "States.Runtime"}
NAME = re.compile(r"[^\s<>{}\[\]?*\"#%\\^|~`$&,;:/\x00-\x1f\x7f-\x9f]{1,80}")

Data = dict[str, Any]


class HaltedError(Exception):
    """The execution has ended (stopped, timed out, or its map run failed): no further step of it may start."""


@dataclass
class Control:
    """What a running execution's threads share."""

    execution: Data
    halted: threading.Event = field(default_factory=threading.Event)


_current: contextvars.ContextVar[Control | None] = contextvars.ContextVar("fanout_execution", default=None)
_controls: dict[str, Control] = {}
# Guards every change of a status and every append to a history: an execution ends once, whoever gets there first.
_lock = threading.RLock()


def error(name: str, cause: str) -> Exception:
    failure: Exception = sf._ExecutionError(name, cause)
    return failure


def finish(execution: Data, status: str, event: str, details: Data | None = None, **fields: object) -> bool:
    """End an execution, once: False, and nothing changed, if it had ended already."""
    with _lock:
        if execution["status"] != "RUNNING":
            return False
        execution.update(status=status, stopDate=sf.now_iso(), **fields)
        key = f"{event[0].lower()}{event[1:]}EventDetails"
        add_event(execution, event, {key: details or {}})
        control = _controls.get(execution["executionArn"])
    if control is not None:
        control.halted.set()
    if "mapRunArn" not in execution:
        sf._emit_execution_status_event(execution)
    return True


def add_event(execution: Data, event_type: str, details: Data | None = None) -> Data:
    """Append to the history; raises HaltedError once the execution has ended, which is what keeps a stopped
    execution's threads from taking another step.

    The history has the events of AWS (a started task is two, scheduled and started) and its limit.
    """
    with _lock:
        if event_type not in ENDED:
            if execution.get("status", "RUNNING") != "RUNNING":
                raise HaltedError
            if len(execution["events"]) >= MAX_EVENTS - 1:
                raise error(
                    "States.Runtime",
                    f"The execution reached the maximum number of history events ({MAX_EVENTS}).",
                )
        events: list[Data] = execution["events"]
        event: Data = {
            "id": len(events) + 1,
            "type": event_type,
            "timestamp": sf.now_iso(),
            **(details or {}),
        }
        events.append(event)
        if event_type == "TaskScheduled":
            resource = (details or {}).get("taskScheduledEventDetails", {})
            add_event(execution, "TaskStarted", {"taskStartedEventDetails": resource})
        return event


def fail_execution(execution: Data, name: str, cause: str) -> None:
    """End as FAILED, unless the execution has been stopped or timed out meanwhile."""
    finish(
        execution,
        "FAILED",
        "ExecutionFailed",
        {"error": name, "cause": cause},
        error=name,
        cause=cause,
        output=json.dumps({"Error": name, "Cause": cause}),
    )


def limited(value: object, what: str) -> str:
    """`value` as JSON; raises States.DataLimitExceeded above 256 KiB of UTF-8."""
    text = json.dumps(value, ensure_ascii=False)
    if len(text) > MAX_PAYLOAD_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_PAYLOAD_BYTES:
        raise error(
            "States.DataLimitExceeded",
            f"The state/task '{what}' returned a result with a size exceeding the maximum number of bytes "
            "service limit.",
        )
    return text


def walk(states: Data, start: str | None, data: Any, execution: Data, ctx: Data) -> Any:
    """Run states from `start` to an end and return the output; raises what the last state failed with."""
    name = start
    while name is not None:
        state = states.get(name)
        if state is None:
            raise error("States.Runtime", f"State '{name}' not found in definition")
        kind = state["Type"]
        ctx["State"] = {"Name": name, "EnteredTime": sf.now_iso(), "RetryCount": 0}
        entered = {"name": name, "input": limited(data, name)}
        add_event(execution, f"{kind}StateEntered", {"stateEnteredEventDetails": entered})
        following: str | None = None
        if kind == "Succeed":
            data = sf._apply_output_path(state, sf._apply_input_path(state, data, ctx), ctx)
        elif kind == "Fail":
            raise error(*sf._fail_state_error(state, data, ctx))
        elif kind in ("Task", "Parallel", "Map"):
            run = {"Task": sf._execute_task, "Parallel": sf._execute_parallel, "Map": sf._execute_map}[kind]
            data, following = run(state, data, execution, ctx)
        elif kind in ("Pass", "Choice", "Wait"):
            step = {"Pass": sf._execute_pass, "Choice": sf._execute_choice, "Wait": sf._execute_wait}[kind]
            data, following = step(state, data, ctx)
        else:
            raise error("States.Runtime", f"Unknown state type: {kind}")
        exited = {"name": name, "output": limited(data, name)}
        add_event(execution, f"{kind}StateExited", {"stateExitedEventDetails": exited})
        name = following
    return data


def run_branch(states: Data, start: str, data: Any, execution: Data, ctx: Data) -> Any:
    """One iteration of an inline Map or one branch of a Parallel: its events are in the execution's history."""
    item = ctx.get("Map", {}).get("Item")
    if item is None:
        return walk(states, start, copy.deepcopy(data), execution, ctx)
    details = {"name": ctx["State"]["Name"], "index": item["Index"]}
    add_event(execution, "MapIterationStarted", {"mapIterationStartedEventDetails": details})
    output = walk(states, start, copy.deepcopy(data), execution, ctx)
    add_event(execution, "MapIterationSucceeded", {"mapIterationSucceededEventDetails": details})
    return output


def run_execution(arn: str) -> None:
    """Run a started execution to its end, in the calling thread. At the machine's TimeoutSeconds it ends as
    TIMED_OUT, whatever its tasks are doing."""
    execution = sf._executions.get(arn)
    machine = sf._state_machines.get(execution["stateMachineArn"]) if execution else None
    if execution is None:
        return
    if machine is None:
        fail_execution(execution, "StateMachineDeleted", "State machine no longer exists")
        return
    definition = json.loads(machine["definition"])
    data = json.loads(execution["input"])
    ctx = {
        "QueryLanguage": definition.get("QueryLanguage", "JSONPath"),
        "Execution": {
            "Id": arn,
            "Input": data,
            "Name": execution["name"],
            "RoleArn": machine["roleArn"],
            "StartTime": execution["startDate"],
            "RedriveCount": 0,
        },
        "StateMachine": {"Id": execution["stateMachineArn"], "Name": machine["name"]},
        "variables": {},
    }
    control = _controls[arn] = Control(execution)
    _current.set(control)
    timer = None
    if "TimeoutSeconds" in definition:
        context = contextvars.copy_context()
        timer = threading.Timer(definition["TimeoutSeconds"], context.run, (time_out, execution))
        timer.daemon = True
        timer.start()
    try:
        output = walk(definition["States"], definition["StartAt"], data, execution, ctx)
        text = json.dumps(output)
        finish(execution, "SUCCEEDED", "ExecutionSucceeded", {"output": text}, output=text)
    except HaltedError:
        logger.info("%s is %s", arn, execution["status"])
    except sf._ExecutionError as failure:
        fail_execution(execution, failure.error, failure.cause)
    except Exception as failure:
        logger.exception("Execution %s", arn)
        fail_execution(execution, "States.Runtime", str(failure))
    finally:
        if timer is not None:
            timer.cancel()
        _controls.pop(arn, None)


def time_out(execution: Data) -> None:
    if finish(
        execution, "TIMED_OUT", "ExecutionTimedOut", {"error": "States.Timeout"}, error="States.Timeout"
    ):
        abort_map_runs(execution["executionArn"])


def start_execution(original: Callable[[Data], Any], data: Data) -> Any:
    """StartExecution with AWS's checks of name and input, and its answer to a repeated start: the running
    execution if name and input are the same, else ExecutionAlreadyExists."""
    name = data.get("name")
    if name is not None and not NAME.fullmatch(name):
        return sf.error_response_json("InvalidName", f"Invalid Name: '{name}'", 400)
    text = data.get("input", "{}")
    try:
        json.loads(text)
    except ValueError as problem:
        return sf.error_response_json(
            "InvalidExecutionInput", f"Invalid State Machine Execution Input: '{problem}'", 400
        )
    if len(text.encode("utf-8", "surrogatepass")) > MAX_PAYLOAD_BYTES:
        return sf.error_response_json(
            "InvalidExecutionInput", f"The input exceeds the maximum of {MAX_PAYLOAD_BYTES} bytes.", 400
        )
    machine_arn = sf._resolve_state_machine_arn(data.get("stateMachineArn", ""))
    if name is not None and machine_arn is not None:
        arn = f"{machine_arn.replace(':stateMachine:', ':execution:')}:{name}"
        running = sf._executions.get(arn)
        if running is not None and running["status"] == "RUNNING" and running["input"] == text:
            return sf.json_response({"executionArn": arn, "startDate": running["startDate"]})
    return original(data)


def stop_execution(data: Data) -> Any:
    """StopExecution: the execution is ABORTED for good, its children are ABORTED, and none of them starts new
    work. A Lambda invocation under way runs to its end, unheard, as on AWS."""
    execution = sf._executions.get(data.get("executionArn"))
    if execution is None:
        cause = f"Execution Does Not Exist: '{data.get('executionArn')}'"
        return sf.error_response_json("ExecutionDoesNotExist", cause, 400)
    reason = {"error": data.get("error"), "cause": data.get("cause")}
    details = {key: value or "" for key, value in reason.items()}
    if finish(execution, "ABORTED", "ExecutionAborted", details, **reason):
        abort_map_runs(execution["executionArn"])
    # Stopping what has ended is no error and changes nothing.
    return sf.json_response({"stopDate": execution["stopDate"]})


def abort_map_runs(parent_arn: str) -> None:
    for run in list(sf._map_runs.values()):
        if run["executionArn"] == parent_arn and run["status"] == "RUNNING":
            run["_map"].abort("ABORTED")


class DistributedMap:
    """One map run: its children, their counts, and its end."""

    def __init__(self, state: Data, effective: Any, iterator: Data, execution: Data, ctx: Data) -> None:
        if "ItemBatcher" in state:
            raise error("States.Runtime", "The embedded AWS has no ItemBatcher.")
        self.state, self.effective, self.iterator, self.parent, self.ctx = (
            state,
            effective,
            iterator,
            execution,
            ctx,
        )
        if state.get("ItemReader"):
            items = sf._read_map_items(state["ItemReader"], effective, ctx)
        else:
            items = sf._resolve_path_or_ctx(state.get("ItemsPath", "$"), effective, ctx)
        self.items: list[Any] = items if isinstance(items, list) else [items]
        self.bound = int(self._number("MaxConcurrency", 0))
        self.tolerated_percentage = self._number("ToleratedFailurePercentage", None)
        self.tolerated_count = self._number("ToleratedFailureCount", None)
        self.children: list[Data | None] = [None] * len(self.items)
        self.running: dict[int, Data] = {}
        self.peak = 0
        self.changed = threading.Condition(_lock)
        self.left: Iterator[int] = iter(range(len(self.items)))
        self.run = self._record()
        sf._map_runs[self.run["mapRunArn"]] = self.run

    def _number(self, name: str, default: float | None) -> Any:
        """A field of the state, or what its ...Path form selects from the state's input."""
        path = self.state.get(f"{name}Path")
        if path is None:
            return self.state.get(name, default)
        value = sf._resolve_path_or_ctx(path, self.effective, self.ctx)
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise error(
                "States.Runtime",
                f"The value of {name}Path must be a number that is not negative, but '{path}' selects "
                f"{json.dumps(value)}.",
            )
        return value

    def _record(self) -> Data:
        parts = self.parent["stateMachineArn"].split(":")
        region, account, machine = parts[3], parts[4], parts[6]
        label = self.state.get("Label") or re.sub(r"[^A-Za-z0-9]", "", self.ctx["State"]["Name"])[:40]
        self.child_machine = f"arn:aws:states:{region}:{account}:stateMachine:{machine}/{label}"
        self.child_prefix = f"arn:aws:states:{region}:{account}:execution:{machine}/{label}:"
        counts = dict.fromkeys(COUNTS, 0)
        counts |= {"total": len(self.items), "pending": len(self.items)}
        return {
            "mapRunArn": f"arn:aws:states:{region}:{account}:mapRun:{machine}/{label}:{sf.new_uuid()}",
            "executionArn": self.parent["executionArn"],
            "status": "RUNNING",
            "startDate": sf.now_iso(),
            "maxConcurrency": self.bound,
            "toleratedFailurePercentage": float(self.tolerated_percentage or 0),
            "toleratedFailureCount": int(self.tolerated_count or 0),
            "itemCounts": dict(counts),
            "executionCounts": dict(counts),
            "redriveCount": 0,
            "_stateMachineArn": self.child_machine,
            "_map": self,
        }

    def execute(self) -> Any:
        """Run every child and return the state's result; raises States.ExceedToleratedFailureThreshold as soon as
        more children failed than are tolerated, HaltedError if the parent ended."""
        width = min(len(self.items), self.bound or MAX_PARALLEL_CHILDREN, MAX_PARALLEL_CHILDREN)
        arn = {"mapRunArn": self.run["mapRunArn"]}
        try:
            add_event(self.parent, "MapRunStarted", {"mapRunStartedEventDetails": arn})
        except HaltedError:
            self.abort("ABORTED")
            raise
        for _ in range(width):
            context = contextvars.copy_context()
            threading.Thread(target=context.run, args=(self._work,), name="map-child", daemon=True).start()
        counts = self.run["executionCounts"]
        with self.changed:
            while (
                self.run["status"] == "RUNNING" and counts["succeeded"] + counts["failed"] < counts["total"]
            ):
                self.changed.wait()
            if self.run["status"] == "RUNNING":
                self.run.update(status="SUCCEEDED", stopDate=sf.now_iso())
        self._note_peak()
        if self.run["status"] == "ABORTED":
            raise HaltedError
        result = self._write_results() if "ResultWriter" in self.state else self._outputs()
        if self.run["status"] == "FAILED":
            add_event(
                self.parent, "MapRunFailed", {"mapRunFailedEventDetails": {"error": self._exceeded().error}}
            )
            raise self._exceeded()
        add_event(self.parent, "MapRunSucceeded")
        return result

    def abort(self, status: str) -> None:
        """End the run: what runs becomes ABORTED, what is pending never starts."""
        with self.changed:
            if self.run["status"] != "RUNNING":
                return
            self.run.update(status=status, stopDate=sf.now_iso())
            self.left = iter(())
            for index, child in list(self.running.items()):
                if finish(child, "ABORTED", "ExecutionAborted"):
                    self._count("running", -1)
                    self._count("aborted", 1)
                    del self.running[index]
                    abort_map_runs(child["executionArn"])
            self.changed.notify_all()

    def _exceeded(self) -> Any:
        return error(
            "States.ExceedToleratedFailureThreshold", "The specified tolerated failure threshold was exceeded"
        )

    def _is_exceeded(self, failed: int) -> bool:
        if self.tolerated_percentage is None and self.tolerated_count is None:
            return failed > 0
        by_count = self.tolerated_count is not None and failed > self.tolerated_count
        percentage = self.tolerated_percentage
        return by_count or (percentage is not None and failed * 100 > percentage * len(self.items))

    def _count(self, name: str, change: int) -> None:
        self.run["itemCounts"][name] += change
        self.run["executionCounts"][name] += change

    def _work(self) -> None:
        while True:
            with self.changed:
                index = next(self.left, None)
                if index is None:
                    return
                child = self._child(index)
                self.children[index] = self.running[index] = child
                self._count("pending", -1)
                self._count("running", 1)
                self.peak = max(self.peak, len(self.running))
            sf._executions[child["executionArn"]] = child
            self._run_child(child)
            with self.changed:
                # Gone already if the run was aborted meanwhile.
                if self.running.pop(index, None) is not None:
                    self._count("running", -1)
                    self._count("succeeded" if child["status"] == "SUCCEEDED" else "failed", 1)
                if self._is_exceeded(self.run["executionCounts"]["failed"]):
                    self.abort("FAILED")
                self.changed.notify_all()

    def _child(self, index: int) -> Data:
        name = sf.new_uuid()
        started = sf.now_iso()
        return {
            "executionArn": self.child_prefix + name,
            "stateMachineArn": self.child_machine,
            "name": name,
            "status": "RUNNING",
            "startDate": started,
            "stopDate": None,
            "input": "",
            "inputDetails": {"included": True},
            "output": None,
            "outputDetails": {"included": True},
            "mapRunArn": self.run["mapRunArn"],
            "events": [{"id": 1, "type": "ExecutionStarted", "timestamp": started}],
            "testCase": self.parent.get("testCase"),
            "mockAttempts": {},
            "_index": index,
        }

    def _child_input(self, index: int) -> Any:
        """The item, or what ItemSelector makes of it: evaluated in the parent's context."""
        item = self.items[index]
        selector = self.state.get("ItemSelector") or self.state.get("Parameters")
        if not selector:
            return item
        ctx = {**self.ctx, "Map": {"Item": {"Index": index, "Value": item}}}
        return sf._resolve_params_obj(selector, self.effective, ctx)

    def _run_child(self, child: Data) -> None:
        arn = child["executionArn"]
        try:
            data = self._child_input(child.pop("_index"))
            child["input"] = json.dumps(data)
            # A child is an execution of its own: $$.Execution is the child's, and there is no $$.Map.
            ctx = {
                "QueryLanguage": self.ctx.get("QueryLanguage", "JSONPath"),
                "Execution": {**self.ctx["Execution"], "Id": arn, "Name": child["name"], "Input": data}
                | {"StartTime": child["startDate"]},
                "StateMachine": {**self.ctx["StateMachine"], "Id": self.child_machine},
                "variables": {},
            }
            control = _controls[arn] = Control(child)
            _current.set(control)
            output = walk(self.iterator["States"], self.iterator["StartAt"], data, child, ctx)
            text = json.dumps(output)
            finish(child, "SUCCEEDED", "ExecutionSucceeded", {"output": text}, output=text)
        except HaltedError:
            logger.debug("%s is %s", arn, child["status"])
        except sf._ExecutionError as failure:
            fail_execution(child, failure.error, failure.cause)
        except Exception as failure:
            logger.exception("Child execution %s", arn)
            fail_execution(child, "States.Runtime", str(failure))
        finally:
            _controls.pop(arn, None)

    def _outputs(self) -> list[Any]:
        return [json.loads(child["output"]) if child and child["output"] else None for child in self.children]

    def _write_results(self) -> Data:
        """Write AWS's manifest and result files; the state's result names the manifest."""
        writer = self.state["ResultWriter"]
        unknown = set(writer) - {"Resource", "Parameters"}
        if unknown:
            raise error(
                "States.Runtime", f"The embedded AWS has no ResultWriter field {', '.join(sorted(unknown))}."
            )
        place = sf._resolve_params_obj(writer["Parameters"], self.effective, self.ctx)
        bucket, prefix = place["Bucket"], place.get("Prefix", "")
        folder = "/".join(
            part for part in (prefix.strip("/"), self.run["mapRunArn"].rpartition(":")[2]) if part
        )
        files: dict[str, list[Data]] = {"FAILED": [], "PENDING": [], "SUCCEEDED": []}
        for status, listed in files.items():
            records = list(self._records(status))
            for number, start in enumerate(range(0, len(records), RESULT_FILE_EXECUTIONS)):
                body = json.dumps(records[start : start + RESULT_FILE_EXECUTIONS]).encode()
                key = f"{folder}/{status}_{number}.json"
                self._put(bucket, key, body)
                listed.append({"Key": key, "Size": len(body)})
            if status != "PENDING":
                self._count("resultsWritten", len(records))
        manifest = {"DestinationBucket": bucket, "MapRunArn": self.run["mapRunArn"], "ResultFiles": files}
        self._put(bucket, f"{folder}/manifest.json", json.dumps(manifest).encode())
        details = {"Bucket": bucket, "Key": f"{folder}/manifest.json"}
        return {"MapRunArn": self.run["mapRunArn"], "ResultWriterDetails": details}

    def _records(self, file: str) -> Iterator[Data]:
        """The executions of one result file: aborted ones count as failed, as on AWS."""
        for index, child in enumerate(self.children):
            status = child["status"] if child else "PENDING"
            if {"SUCCEEDED": "SUCCEEDED", "PENDING": "PENDING"}.get(status, "FAILED") != file:
                continue
            if child is None:
                yield {"Input": json.dumps(self._child_input(index)), "InputDetails": {"Included": True}} | {
                    "Status": "PENDING"
                }
                continue
            record = {
                "ExecutionArn": child["executionArn"],
                "Input": child["input"],
                "InputDetails": {"Included": True},
                "Name": child["name"],
                "RedriveCount": 0,
                "StartDate": child["startDate"],
                "StateMachineArn": child["stateMachineArn"],
                "Status": status,
                "StopDate": child["stopDate"],
            }
            if status == "SUCCEEDED":
                record |= {"Output": child["output"], "OutputDetails": {"Included": True}}
                record |= {"RedriveStatus": "NOT_REDRIVABLE"}
            else:
                record |= {"Error": child.get("error"), "Cause": child.get("cause")}
                record |= {"RedriveStatus": "REDRIVABLE_BY_MAP_RUN"}
            yield record

    def _put(self, bucket: str, key: str, body: bytes) -> None:
        status, _, answer = s3._put_object(bucket, key, body, {"content-type": "application/json"})
        if status != 200:
            raise error("States.ResultWriterFailed", f"Writing s3://{bucket}/{key} failed: {answer.decode()}")

    def _note_peak(self) -> None:
        """One line for each ended map run in map-runs.jsonl of the home folder: the bound and the peak."""
        line = {
            "mapRunArn": self.run["mapRunArn"],
            "executionArn": self.run["executionArn"],
            "status": self.run["status"],
            "children": len(self.items),
            "maxConcurrency": self.bound,
            "peakRunning": self.peak,
        }
        path = Path(os.environ["FANOUT_MAP_RUNS"])
        with _lock, path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def run_distributed_map(
    state: Data, raw_input: Any, effective: Any, iterator: Data, execution: Data, ctx: Data
) -> tuple[Any, str | None]:
    result = DistributedMap(state, effective, iterator, execution, ctx).execute()
    output = sf._apply_result_path(state, raw_input, sf._apply_result_selector(state, result))
    return sf._apply_output_path(state, output, ctx), sf._next_or_end(state)


def sleep(seconds: float) -> None:
    """Wait as a Wait state or a retrier does; raises HaltedError as soon as the execution ends."""
    control = _current.get()
    halted = control.halted if control else threading.Event()
    if halted.wait(max(0.0, seconds * sf._SFN_WAIT_SCALE)):
        raise HaltedError


def matches(original: Callable[[list[str], str], bool], error_equals: list[str], name: str) -> bool:
    return name not in UNCATCHABLE and original(error_equals, name)


def pick_retrier(
    original: Callable[..., tuple[Data | None, int]], retriers: list[Data], name: str, counts: dict[int, int]
) -> tuple[Data | None, int]:
    """Find the retrier and wait as it says: IntervalSeconds x BackoffRate^n, at most MaxDelaySeconds, and with
    JitterStrategy FULL a random part of that. The caller is left with nothing to wait for."""
    control = _current.get()
    if control is not None and control.halted.is_set():
        raise HaltedError
    retrier, index = original(retriers, name, counts)
    if retrier is None:
        return None, index
    sleep(retry_delay(retrier, counts.get(index, 0)))
    return {**retrier, "IntervalSeconds": 0}, index


def retry_delay(retrier: Data, count: int) -> float:
    """Seconds before retry number `count`, from 0."""
    delay = float(retrier.get("IntervalSeconds", 1)) * float(retrier.get("BackoffRate", 2.0)) ** count
    delay = min(delay, float(retrier.get("MaxDelaySeconds", delay)))
    if retrier.get("JitterStrategy") == "FULL":
        # Spreads load; not a secret.
        delay = random.uniform(0, delay)  # noqa: S311
    return delay


def invoke_resource(original: Callable[[str, Any], Any], resource: str, data: Any) -> Any:
    """Call what a Task names, with the size limit on what goes in and what comes out."""
    limited(data, resource)
    result = original(resource, data)
    limited(result, resource)
    return result


def call_lambda(reference: str, event: object) -> Any:
    """Invoke a function for a Task; a failure has the error's own name and, as Cause, Lambda's payload. A refused
    invocation is Lambda.TooManyRequestsException."""
    func, config, name = lambda_svc._get_func_record_for_ref(reference)
    if not func or not config:
        raise error("Lambda.ResourceNotFoundException", f"Function not found: {name}")
    record = lambda_svc._execution_record_for_config(func, config)
    outcome = lambda_svc._execute_function_with_config_scope(record, event)
    body = outcome.get("body")
    if outcome.get("throttle"):
        raise error(
            "Lambda.TooManyRequestsException", f"{body['message']} (Service: Lambda, Status Code: 429)"
        )
    if outcome.get("error"):
        raise error(body.get("errorType", "Lambda.Unknown"), json.dumps(body))
    return body


def is_present(path: str, data: Any) -> bool:
    """Whether a reference path selects something, null included."""
    found = sf._resolve_path(path, data)
    if found is not None or not path.startswith("$"):
        return True
    tokens = sf._parse_jsonpath_tokens(path)
    if tokens is None:
        return False
    for kind, value in tokens:
        is_field = kind == "field" and isinstance(data, dict) and value in data
        is_index = kind == "index" and isinstance(data, list) and value < len(data)
        if not (is_field or is_index):
            return False
        data = data[value]
    return True


def require_path(path: Any, data: Any, ctx: Data | None, what: str) -> None:
    if not isinstance(path, str) or not path.startswith("$"):
        return
    present = is_present(path[1:], ctx or {}) if path.startswith("$$.") else is_present(path, data)
    if not present:
        raise error(
            "States.Runtime",
            f"The JSONPath '{path}' specified for the field '{what}' could not be found in the input "
            f"'{json.dumps(data)[:1000]}'",
        )


def resolve_template(original: Callable[..., Any], template: Any, data: Any, ctx: Data | None = None) -> Any:
    """A payload template, refusing a path that selects nothing, where ministack passes null."""
    if isinstance(template, dict):
        for key, value in template.items():
            if key.endswith(".$"):
                require_path(value, data, ctx, key)
    return original(template, data, ctx)


def evaluate_rule(original: Callable[..., bool], rule: Data, data: Any, ctx: Data | None = None) -> bool:
    """A Choice rule, refusing a variable that is not there, where ministack says false."""
    if "Variable" in rule and "IsPresent" not in rule:
        require_path(rule["Variable"], data, ctx, "Variable")
    return original(rule, data, ctx)


def apply_input_path(original: Callable[..., Any], state: Data, data: Any, ctx: Data | None = None) -> Any:
    require_path(state.get("InputPath"), data, ctx, "InputPath")
    return original(state, data, ctx)


def apply_output_path(original: Callable[..., Any], state: Data, data: Any, ctx: Data | None = None) -> Any:
    require_path(state.get("OutputPath"), data, ctx, "OutputPath")
    return original(state, data, ctx)
