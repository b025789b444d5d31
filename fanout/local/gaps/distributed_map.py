"""Distributed Map: MaxConcurrencyPath, ToleratedFailure...Path, an end as soon as the threshold is exceeded,
children that are executions of their own, and the peak of running children on record."""

import contextvars
import json
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
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
# Executions per result file. AWS splits by bytes, far beyond a test's data; split early, so that whoever reads
# them meets several files.
RESULT_FILE_EXECUTIONS = 1000
COUNTS = "pending running succeeded failed timedOut aborted total resultsWritten failuresNotRedrivable pendingRedrive"


class DistributedMap:
    """One map run: its children, their counts, and its end."""

    items: Sequence[Any] = ()

    def __init__(self, state: Data, effective: Any, bound: int, execution: Data, ctx: Data) -> None:
        if "ItemBatcher" in state:
            raise error("States.Runtime", "The embedded AWS has no ItemBatcher.")
        self.state, self.effective, self.bound = state, effective, bound
        self.parent, self.ctx = execution, ctx
        self.iterator = state.get("ItemProcessor") or state["Iterator"]
        self.tolerated_percentage = number(state, "ToleratedFailurePercentage", effective, ctx)
        self.tolerated_count = number(state, "ToleratedFailureCount", effective, ctx)
        self.running: dict[int, Data] = {}
        self.left: Iterator[int] = iter(())
        self.peak = 0
        self.changed = threading.Condition(lock)
        self.run = self._record()
        sf._map_runs[self.run["mapRunArn"]] = self.run

    def _record(self) -> Data:
        parts = self.parent["stateMachineArn"].split(":")
        region, account, machine = parts[3], parts[4], parts[6]
        label = self.state.get("Label") or re.sub(r"[^A-Za-z0-9]", "", self.ctx["State"]["Name"])[:40]
        self.child_machine = f"arn:aws:states:{region}:{account}:stateMachine:{machine}/{label}"
        self.child_prefix = f"arn:aws:states:{region}:{account}:execution:{machine}/{label}:"
        counts = dict.fromkeys(COUNTS.split(), 0)
        return {
            "mapRunArn": f"arn:aws:states:{region}:{account}:mapRun:{machine}/{label}:{sf.new_uuid()}",
            "executionArn": self.parent["executionArn"],
            "status": "RUNNING",
            "startDate": sf.now_iso(),
            "maxConcurrency": self.bound,
            "toleratedFailurePercentage": float(self.tolerated_percentage or 0),
            "toleratedFailureCount": int(self.tolerated_count or 0),
            # Without an ItemBatcher a child has one item: they are the same.
            "itemCounts": counts,
            "executionCounts": counts,
            "redriveCount": 0,
            "_stateMachineArn": self.child_machine,
            "_map": self,
        }

    def execute(self, read: Callable[[], list[Any]]) -> Any:
        """Run a child for every item that is read, and return the state's result; raises
        States.ExceedToleratedFailureThreshold as soon as more children failed than are tolerated, HaltedError if the
        parent ended, and what `read` raises."""
        arn = {"mapRunArn": self.run["mapRunArn"]}
        try:
            add_event(self.parent, "MapRunStarted", {"mapRunStartedEventDetails": arn})
        except HaltedError:
            self.abort("ABORTED")
            raise
        try:
            self.items = read()
        except sf._ExecutionError as failure:
            self._fail(failure)
        self.children: list[Data | None] = [None] * len(self.items)
        self.left = iter(range(len(self.items)))
        counts = self.run["executionCounts"]
        counts["total"] = counts["pending"] = len(self.items)
        width = min(len(self.items), self.bound or MAX_PARALLEL_CHILDREN, MAX_PARALLEL_CHILDREN)
        for _ in range(width):
            context = contextvars.copy_context()
            threading.Thread(target=context.run, args=(self._work,), name="map-child", daemon=True).start()
        with self.changed:
            while self.run["status"] == "RUNNING" and counts["succeeded"] + counts["failed"] < counts["total"]:
                self.changed.wait()
            if self.run["status"] == "RUNNING":
                self.run.update(status="SUCCEEDED", stopDate=sf.now_iso())
        self._note_peak()
        if self.run["status"] == "ABORTED":
            raise HaltedError
        self._count("resultsWritten", counts["succeeded"])
        result: Any = [_result(child) for child in self.children if child]
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
            self.left = iter(())
            for index, child in list(self.running.items()):
                if finish(child, "ABORTED", "ExecutionAborted"):
                    self._count("running", -1)
                    self._count("aborted", 1)
                    del self.running[index]
            self.changed.notify_all()

    def _fail(self, failure: Any) -> NoReturn:
        self.abort("FAILED")
        add_event(self.parent, "MapRunFailed", {"mapRunFailedEventDetails": vars(failure)})
        raise failure

    def _is_exceeded(self, failed: int) -> bool:
        if self.tolerated_percentage is None and self.tolerated_count is None:
            return failed > 0
        by_count = self.tolerated_count is not None and failed > self.tolerated_count
        percentage = self.tolerated_percentage
        return by_count or (percentage is not None and failed * 100 > percentage * len(self.items))

    def _count(self, name: str, change: int) -> None:
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
        try:
            data = self._child_input(child.pop("_index"))
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
        run_to_the_end(child, self.iterator, data, ctx)

    def _write_results(self) -> Data:
        """Write AWS's manifest and result files; the state's result names the manifest."""
        writer = self.state["ResultWriter"]
        unknown = set(writer) - {"Resource", "Parameters"}
        if unknown:
            raise error("States.Runtime", f"The embedded AWS has no ResultWriter field {', '.join(sorted(unknown))}.")
        place = sf._resolve_params_obj(writer["Parameters"], self.effective, self.ctx)
        bucket, prefix = place["Bucket"], place.get("Prefix", "")
        folder = "/".join(part for part in (prefix.strip("/"), self.run["mapRunArn"].rpartition(":")[2]) if part)
        files: dict[str, list[Data]] = {"FAILED": [], "PENDING": [], "SUCCEEDED": []}
        for status, listed in files.items():
            records = list(self._records(status))
            for part, start in enumerate(range(0, len(records), RESULT_FILE_EXECUTIONS)):
                body = json.dumps(records[start : start + RESULT_FILE_EXECUTIONS]).encode()
                key = f"{folder}/{status}_{part}.json"
                self._put(bucket, key, body)
                listed.append({"Key": key, "Size": len(body)})
            if status == "FAILED":
                self._count("resultsWritten", len(records))
        manifest = {"DestinationBucket": bucket, "MapRunArn": self.run["mapRunArn"], "ResultFiles": files}
        self._put(bucket, f"{folder}/manifest.json", json.dumps(manifest).encode())
        details = {"Bucket": bucket, "Key": f"{folder}/manifest.json"}
        return {"MapRunArn": self.run["mapRunArn"], "ResultWriterDetails": details}

    def _records(self, file: str) -> Iterator[Data]:
        """The executions of one result file: aborted ones count as failed, as on AWS."""
        for index, child in enumerate(self.children):
            status = child["status"] if child else "PENDING"
            if (status if status in ("SUCCEEDED", "PENDING") else "FAILED") != file:
                continue
            data = child["input"] if child else json.dumps(self._child_input(index))
            record: Data = {"Input": data, "InputDetails": {"Included": True}, "Status": status}
            if child:
                names = ("executionArn", "name", "startDate", "stateMachineArn", "stopDate")
                record |= {name[0].upper() + name[1:]: child[name] for name in names} | {"RedriveCount": 0}
            if status == "SUCCEEDED" and child:
                record |= {"Output": child["output"], "OutputDetails": {"Included": True}}
                record |= {"RedriveStatus": "NOT_REDRIVABLE"}
            elif child:
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
        with lock, path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def _result(child: Data) -> Any:
    """A child's item in the result of the state: its output, or how it failed."""
    if child["status"] == "SUCCEEDED":
        return json.loads(child["output"])
    return {"Error": child.get("error"), "Cause": child.get("cause")}
