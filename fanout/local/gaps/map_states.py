"""Map: the first failed iteration ends an inline Map at once, MaxConcurrencyPath, items that are no list or cannot be
read, and AWS's events."""

import contextvars
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any

from ministack.services import stepfunctions as sf

from . import replaces
from .distributed_map import DistributedMap
from .execution_history import Control, Data, add_event, current, error, previous
from .executions import walk
from .paths import number


@replaces(sf, "_execute_map", wraps=True)
def execute_map(original: Callable[..., Any], state: Data, raw_input: Any, execution: Data, ctx: Data) -> Any:
    """A Map state; its history tells of a failure when it is not retried, and before it is caught."""

    def attempts() -> Any:
        try:
            return original({**state, "Catch": []}, raw_input, execution, ctx)
        except sf._ExecutionError as failure:
            if failure.error != "States.Runtime":
                add_event(execution, "MapStateFailed")
            raise

    return sf._with_retry_and_catch({**state, "Retry": []}, raw_input, ctx, attempts)


@replaces(sf, "_run_map_items")
def run_items(state: Data, raw_input: Any, execution: Data, ctx: Data) -> Any:
    """One attempt of a Map state."""
    data = sf._apply_input_path(state, raw_input, ctx)
    processor = state.get("ItemProcessor") or state["Iterator"]
    reader, path = state.get("ItemReader"), state.get("ItemsPath", "$")
    items = [] if reader else sf._resolve_path_or_ctx(path, data, ctx)
    if not isinstance(items, list):
        raise error("States.Runtime", f"Reference path '{path}' must point to array.")
    bound = number(state, "MaxConcurrency", data, ctx) or 0
    add_event(execution, "MapStateStarted", {"mapStateStartedEventDetails": {"length": len(items)}})
    if processor.get("ProcessorConfig", {}).get("Mode") == "DISTRIBUTED":
        run = DistributedMap(state, data, bound, execution, ctx)
        result = run.execute(lambda: _read(reader, data, ctx) if reader else items)
    else:
        result = _run_inline(state, data, items, bound, execution, ctx)
    add_event(execution, "MapStateSucceeded")
    output = sf._apply_result_path(state, raw_input, sf._apply_result_selector(state, result))
    return sf._apply_output_path(state, output, ctx), sf._next_or_end(state)


def _read(reader: Data, data: Any, ctx: Data) -> list[Any]:
    try:
        items = sf._read_map_items(reader, data, ctx)
    except ValueError as problem:
        raise error("States.ItemReaderFailed", str(problem)) from None
    if isinstance(items, list):
        return items
    raise error("States.ItemReaderFailed", "Attempting to map over non-iterable node.")


def _run_inline(state: Data, data: Any, items: list[Any], bound: int, execution: Data, ctx: Data) -> list[Any]:
    outer = current.get()
    inner = Control(execution)
    if outer is not None:
        outer.inner.append(inner)

    def run(index: int) -> Any:
        current.set(inner)
        details = {"mapIterationStartedEventDetails": {"name": ctx["State"]["Name"], "index": index}}
        add_event(execution, "MapIterationStarted", details)
        own = {**ctx, "variables": dict(ctx["variables"])}
        own["Map"] = {"Item": {"Index": index, "Value": items[index]}}
        selector = state.get("ItemSelector") or state.get("Parameters")
        item = sf._resolve_params_obj(selector, data, own) if selector else items[index]
        processor = state.get("ItemProcessor") or state["Iterator"]
        try:
            output = walk(processor["States"], processor["StartAt"], item, execution, own)
        except sf._ExecutionError:
            add_event(execution, "MapIterationFailed")
            inner.halt()
            raise
        add_event(execution, "MapIterationSucceeded")
        return output

    pool = ThreadPoolExecutor(bound or len(items) or 1)
    runs = [pool.submit(contextvars.copy_context().run, run, index) for index in range(len(items))]
    wait(runs, return_when=FIRST_EXCEPTION)
    pool.shutdown(wait=False, cancel_futures=True)
    previous.set(len(execution["events"]))
    failures = [run.exception() for run in runs if run.done() and not run.cancelled() and run.exception()]
    # Those that were halted because another one failed are no reason.
    for failure in sorted(failures, key=lambda failure: not isinstance(failure, sf._ExecutionError)):
        assert failure is not None
        raise failure
    return [run.result() for run in runs]
