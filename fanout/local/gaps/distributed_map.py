"""Distributed Map: MaxConcurrencyPath, ToleratedFailure...Path, an end as soon as the threshold is exceeded,
children that are executions of their own, and the peak of running children on record."""

import contextvars
import json
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from ministack.services import s3
from ministack.services import stepfunctions as sf

from .execution_history import Data, HaltedError, add_event, error, fail_execution, finish, lock
from .executions import run_to_the_end
from .paths import number

# Children of one map run that this machine works on at once, however large the state's own bound is: each
# holds a thread here and, usually, a Lambda process.
MAX_PARALLEL_CHILDREN = 100
INCLUDED = {"Included": True}
RECORDED = "cause error executionArn input name output startDate stateMachineArn status stopDate"
COUNTS = "pending running succeeded failed timedOut aborted total resultsWritten failuresNotRedrivable pendingRedrive"


class DistributedMap:
    """One map run: its children, their counts, and its end."""

    peak = 0

    def __init__(self, state: Data, effective: Any, bound: int, execution: Data, ctx: Data) -> None:
        unknown = {"ItemBatcher"} & state.keys() | state.get("ResultWriter", {}).keys() - {"Resource", "Parameters"}
        if unknown:
            raise error("States.Runtime", f"The embedded AWS has no {', '.join(sorted(unknown))}.")
        self.state, self.effective, self.bound = state, effective, bound
        self.parent, self.ctx = execution, ctx
        self.percentage = number(state, "ToleratedFailurePercentage", effective, ctx)
        self.count = number(state, "ToleratedFailureCount", effective, ctx)
        self.changed = threading.Condition(lock)
        label = state.get("Label") or re.sub(r"[^A-Za-z0-9]", "", ctx["State"]["Name"])[:40]
        self.child_machine = f"{execution['stateMachineArn']}/{label}"
        self.items: list[Any] = []
        self.children: list[Data] = []
        self.counts = dict.fromkeys(COUNTS.split(), 0)
        self.run: Data = {
            "mapRunArn": f"{self.child_machine.replace(':stateMachine:', ':mapRun:')}:{sf.new_uuid()}",
            "executionArn": execution["executionArn"],
            "status": "RUNNING",
            "startDate": sf.now_iso(),
            "maxConcurrency": bound,
            "toleratedFailurePercentage": float(self.percentage or 0),
            "toleratedFailureCount": int(self.count or 0),
            # Without an ItemBatcher a child has one item: they are the same.
            "itemCounts": self.counts,
            "executionCounts": self.counts,
            "redriveCount": 0,
            "_stateMachineArn": self.child_machine,
            "_map": self,
        }

    def execute(self, read: Callable[[], list[Any]]) -> Any:
        """Run a child for every item that is read, and return the state's result; raises
        States.ExceedToleratedFailureThreshold as soon as more children failed than are tolerated, HaltedError if the
        parent ended, and what `read` raises."""
        arn = self.run["mapRunArn"]
        # Together, so that an end of the parent finds it or prevents it.
        with lock:
            add_event(self.parent, "MapRunStarted", {"mapRunStartedEventDetails": {"mapRunArn": arn}})
            sf._map_runs[arn] = self.run
        try:
            self.items = read()
        except sf._ExecutionError as failure:
            self._fail(failure)
        counts = self.counts
        counts["total"] = counts["pending"] = len(self.items)
        for _ in range(min(len(self.items), self.bound or MAX_PARALLEL_CHILDREN, MAX_PARALLEL_CHILDREN)):
            context = contextvars.copy_context()
            threading.Thread(target=context.run, args=(self._work,), name="map-child", daemon=True).start()
        with self.changed:
            while self.run["status"] == "RUNNING" and counts["succeeded"] + counts["failed"] < counts["total"]:
                self.changed.wait()
            if self.run["status"] == "RUNNING":
                self.run.update(status="SUCCEEDED", stopDate=sf.now_iso())
        # In map-runs.jsonl of the home folder: the bound and the peak.
        line = {name: self.run[name] for name in ("mapRunArn", "executionArn", "status", "maxConcurrency")}
        line |= {"children": len(self.items), "peakRunning": self.peak}
        with lock, Path(os.environ["FANOUT_MAP_RUNS"]).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self.run["status"] == "ABORTED":
            raise HaltedError
        counts["resultsWritten"] = counts["total"] - counts["pending"]
        result: Any = [_result(child) for child in self.children]
        if "ResultWriter" in self.state:
            result = self._write_results()
        if self.run["status"] == "FAILED":
            cause = "The specified tolerated failure threshold was exceeded"
            self._fail(error("States.ExceedToleratedFailureThreshold", cause))
        add_event(self.parent, "MapRunSucceeded")
        return result

    def abort(self, status: str) -> None:
        """End the run: what runs becomes ABORTED, what is pending never starts."""
        with self.changed:
            if self.run["status"] != "RUNNING":
                return
            self.run.update(status=status, stopDate=sf.now_iso())
            for child in self.children:
                if finish(child, "ABORTED", "ExecutionAborted"):
                    self._move("running", "aborted")
            self.changed.notify_all()

    def _fail(self, failure: Any) -> NoReturn:
        self.abort("FAILED")
        add_event(self.parent, "MapRunFailed", {"mapRunFailedEventDetails": vars(failure)})
        raise failure

    def _is_exceeded(self) -> bool:
        failed, percentage, count = self.counts["failed"], self.percentage, self.count
        if percentage is None:
            return failed > (count or 0)
        return failed * 100 > percentage * len(self.items) or (count is not None and failed > count)

    def _move(self, before: str, after: str) -> None:
        self.counts[before] -= 1
        self.counts[after] += 1

    def _work(self) -> None:
        while True:
            with self.changed:
                index = len(self.children)
                if self.run["status"] != "RUNNING" or index == len(self.items):
                    return
                child = self._child()
                self.children.append(child)
                self._move("pending", "running")
                self.peak = max(self.peak, self.counts["running"])
            sf._executions[child["executionArn"]] = child
            self._run_child(child, index)
            with self.changed:
                # Counted already if the run was aborted meanwhile.
                if self.run["status"] == "RUNNING" or child["status"] != "ABORTED":
                    self._move("running", "succeeded" if child["status"] == "SUCCEEDED" else "failed")
                if self._is_exceeded():
                    self.abort("FAILED")
                self.changed.notify_all()

    def _child(self) -> Data:
        name = sf.new_uuid()
        started = sf.now_iso()
        return {
            "executionArn": f"{self.child_machine.replace(':stateMachine:', ':execution:')}:{name}",
            "stateMachineArn": self.child_machine,
            "name": name,
            "status": "RUNNING",
            "startDate": started,
            "stopDate": None,
            "input": "",
            "output": None,
            "mapRunArn": self.run["mapRunArn"],
            "events": [{"id": 1, "type": "ExecutionStarted", "timestamp": started}],
        }

    def _child_input(self, index: int) -> Any:
        """The item, or what ItemSelector makes of it: evaluated in the parent's context."""
        item = self.items[index]
        selector = self.state.get("ItemSelector") or self.state.get("Parameters")
        ctx = {**self.ctx, "Map": {"Item": {"Index": index, "Value": item}}}
        return sf._resolve_params_obj(selector, self.effective, ctx) if selector else item

    def _run_child(self, child: Data, index: int) -> None:
        try:
            data = self._child_input(index)
        except sf._ExecutionError as failure:
            fail_execution(child, failure.error, failure.cause)
            return
        child["input"] = json.dumps(data)
        # A child is an execution of its own: $$.Execution is the child's, and there is no $$.Map.
        own = {"Id": child["executionArn"], "Name": child["name"], "Input": data, "StartTime": child["startDate"]}
        ctx = {
            "QueryLanguage": self.ctx.get("QueryLanguage", "JSONPath"),
            "Execution": self.ctx["Execution"] | own,
            "StateMachine": self.ctx["StateMachine"] | {"Id": self.child_machine},
            "variables": {},
        }
        run_to_the_end(child, self.state.get("ItemProcessor") or self.state["Iterator"], data, ctx)

    def _write_results(self) -> Data:
        """Write AWS's manifest and result files; the state's result names the manifest."""
        place = sf._resolve_params_obj(self.state["ResultWriter"]["Parameters"], self.effective, self.ctx)
        bucket, run_arn = place["Bucket"], self.run["mapRunArn"]
        folder = f"{place.get('Prefix', '').strip('/')}/{run_arn.rpartition(':')[2]}".lstrip("/")
        never_started = (json.dumps(self._child_input(n)) for n in range(len(self.children), len(self.items)))
        records = {
            # Aborted ones count as failed, as on AWS.
            "FAILED": [_record(child) for child in self.children if child["status"] != "SUCCEEDED"],
            "PENDING": [{"Input": data, "InputDetails": INCLUDED, "Status": "PENDING"} for data in never_started],
            "SUCCEEDED": [_record(child) for child in self.children if child["status"] == "SUCCEEDED"],
        }
        # AWS splits a file by bytes, far beyond what runs here.
        files = {
            status: [_put(bucket, f"{folder}/{status}_0.json", listed)] if listed else []
            for status, listed in records.items()
        }
        manifest = {"DestinationBucket": bucket, "MapRunArn": run_arn, "ResultFiles": files}
        written = _put(bucket, f"{folder}/manifest.json", manifest)
        return {"MapRunArn": run_arn, "ResultWriterDetails": {"Bucket": bucket, "Key": written["Key"]}}


def _record(child: Data) -> Data:
    """What a result file says of a child."""
    record = {name[0].upper() + name[1:]: child[name] for name in RECORDED.split() if child.get(name) is not None}
    if child["status"] != "SUCCEEDED":
        return record | {"InputDetails": INCLUDED, "RedriveCount": 0, "RedriveStatus": "REDRIVABLE_BY_MAP_RUN"}
    details = {"InputDetails": INCLUDED, "OutputDetails": INCLUDED}
    return record | details | {"RedriveCount": 0, "RedriveStatus": "NOT_REDRIVABLE"}


def _put(bucket: str, key: str, content: object) -> Data:
    """Write an object of JSON; what a manifest says of it."""
    body = json.dumps(content).encode()
    status, _, answer = s3._put_object(bucket, key, body, {"content-type": "application/json"})
    if status != 200:
        raise error("States.ResultWriterFailed", f"Writing s3://{bucket}/{key} failed: {answer.decode()}")
    return {"Key": key, "Size": len(body)}


def _result(child: Data) -> Any:
    """A child's item in the result of the state: its output, or how it failed."""
    if child["status"] == "SUCCEEDED":
        return json.loads(child["output"])
    return {"Error": child.get("error"), "Cause": child.get("cause")}
