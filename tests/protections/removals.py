"""Where each protection of the reliability guide lives, and the least change that takes it away.

The keys are the first cells of the table in docs/reliability.md, in its order.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.protections.cuts import Cut, JsonCut, delete, never, replace, value

MACHINE = "statemachines/fan_out.asl.json"
ACCOUNT = "lambdas/fan_out/steps/finalizing.py"
CLOSER = "lambdas/fan_out/finalizer.py"
LISTING = "lambdas/fan_out/steps/listing.py"
PLANNER = "lambdas/fan_out/planner.py"
RECORD = "lambdas/fan_out/model/record.py"
REDUCTION = "lambdas/fan_out/steps/reduction.py"
SOURCE_CSV = "lambdas/fan_out/sources/csv.py"
STORAGE = "lambdas/fan_out/aws/storage.py"
TOLERANCE = "lambdas/fan_out/steps/early_stop.py"
WORK = "lambdas/fan_out/steps/shard_runner.py"
RUNNER = "lambdas/fan_out/steps/kind_runner.py"
SEARCH = "lambdas/fan_out/steps/quarantine.py"
FOLDING = "lambdas/fan_out/steps/folding.py"
GUARD = "lambdas/fan_out/steps/process_guard.py"
KIND = "lambdas/fan_out/model/kind.py"
STORE = "lambdas/task_service/store.py"
WRITES = "lambdas/task_service/writes.py"


@dataclass(frozen=True, slots=True)
class Removal:
    """A protection taken away from a file by its cuts.

    `test` is the one of its row's tests that must fail then; without it each of them must.
    """

    protection: str
    file: str
    cuts: tuple[Cut | JsonCut | Text, ...]
    test: str | None = None

    def apply(self, text: str) -> str:
        """The file's text without the protection. Raises LookupError if there is nothing to take away."""
        for cut in self.cuts:
            text = cut.apply(text)
        return text


@dataclass(frozen=True, slots=True)
class Text:
    """`new` in place of `old`, which the file holds exactly once."""

    old: str
    new: str

    def apply(self, text: str) -> str:
        if text.count(self.old) != 1 or self.old == self.new:
            raise LookupError(f"the file has this {text.count(self.old)} times: {self.old}")
        return text.replace(self.old, self.new)


def _of(
    protection: str,
    file: str,
    old: str,
    new: str,
    test: str | None = None,
    also: tuple[tuple[str, str], ...] = (),
) -> Removal:
    return Removal(protection, file, tuple(Text(*pair) for pair in ((old, new), *also)), test)


REMOVALS: dict[str, tuple[Removal, ...]] = {
    "a payload over 256 KiB": (
        _of(
            "tasks go through S3",
            "lambdas/fan_out/lister.py",
            '"done": done.is_last}',
            '"done": done.is_last, "shards": done.shards}',
            test="test_ten_and_two_hundred_shards_give_the_parent_the_same_payloads",
        ),
        _of(
            "a large result stays out of the record",
            RECORD,
            'result if len(encode(result)) <= LARGEST_RESULT else {"resultKey": store.key("result.json")}',
            "result",
            test="test_a_large_result_stays_out_of_the_record",
        ),
    ),
    "history over 25,000 events": (
        _of(
            "a Distributed Map",
            MACHINE,
            '"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"',
            '"Mode": "INLINE"',
            test="test_the_shards_are_run_by_children_under_the_jobs_own_bounds",
        ),
        _of(
            "few segments, each listed in as few calls as its time allows",
            LISTING,
            "if cursor is not None and is_late(longest):",
            "if cursor is not None:",
            test="test_the_parent_execution_is_the_same_at_ten_shards_and_at_two_hundred",
            also=(("limit=PAGE,", "limit=plan.shard_size,"),),
        ),
    ),
    "429 from Lambda": (
        _of(
            "a retrier of its own",
            MACHINE,
            '{ "ErrorEquals": ["InvalidJobError", "SourceNotFoundError"], "MaxAttempts": 0 },\n'
            "        {\n"
            '          "ErrorEquals": ["Lambda.TooManyRequestsException"],',
            '{ "ErrorEquals": ["InvalidJobError", "SourceNotFoundError"], "MaxAttempts": 0 },\n'
            "        {\n"
            '          "ErrorEquals": ["Lambda.Unknown"],',
        ),
        _of("patience", MACHINE, '"MaxAttempts": 1000', '"MaxAttempts": 3'),
    ),
    "unbounded fan-out": (_of("the map's bound", MACHINE, '"MaxConcurrencyPath": "$.workers",', ""),),
    "a poison task that raises": (
        Removal(
            "a failing task is a value",
            RUNNER,
            (Cut("a-failing-task-is-a-value", replace("return self._process(tasks)")),),
        ),
        Removal("a failing batch is taken apart", RUNNER, (Cut("a-failing-batch-is-divided", never),)),
    ),
    "a poison task that kills its worker": (
        Removal("markers after a death", SEARCH, (Cut("markers-after-a-death", delete),)),
    ),
    "a task that hangs until the time-out": (
        _of(
            "a time-out is a death",
            MACHINE,
            '"ErrorEquals": ["States.ALL"],\n'
            '                "IntervalSeconds": 1,\n'
            '                "BackoffRate": 2,\n'
            '                "MaxDelaySeconds": 30,\n'
            '                "MaxAttempts": 12,',
            '"ErrorEquals": ["Runtime.ExitError"],\n'
            '                "IntervalSeconds": 1,\n'
            '                "BackoffRate": 2,\n'
            '                "MaxDelaySeconds": 30,\n'
            '                "MaxAttempts": 12,',
        ),
    ),
    "a process that leaks, or that another task has spoilt": (
        Removal("a suspect's worker begins with it", SEARCH, (Cut("a-suspect-is-worked-on-first", never),)),
    ),
    "a kind's value or line that JSON cannot hold": (
        Removal(
            "a value must come back as it was",
            KIND,
            (Cut("a-value-comes-back-as-it-was", never),),
            test="test_a_value_that_is_not_json_fails_its_task_alone",
        ),
        Removal(
            "a line's key is printable",
            FOLDING,
            (Cut("keys-are-printable", never),),
            test="test_a_line_that_is_none_fails_its_task_alone",
        ),
    ),
    "a kind that raises or returns anything": (
        Removal(
            "every failure has a text",
            KIND,
            (Cut("any-exception-has-a-text", value("str(error)")),),
            test="test_whatever_is_raised_fails_its_task_alone",
        ),
        Removal(
            "a value has at most 100 levels",
            KIND,
            (Cut("a-value-is-not-too-deep", never),),
            test="test_whatever_is_returned_fails_its_task_alone",
        ),
    ),
    "a kind that shares its zero": (
        Removal(
            "a copy is worked on",
            FOLDING,
            (Cut("a-zero-is-copied", replace("self._good = plain_json(progress.value)[0]")),),
        ),
    ),
    "a kind that damages its process": (
        Removal(
            "a damaged process ends itself",
            GUARD,
            (Cut("a-damaged-process-ends", never),),
            test="test_a_task_that_damages_its_process_is_quarantined",
        ),
        Removal(
            "so does a fork that returns",
            GUARD,
            (Cut("a-fork-does-not-return", never),),
            test="test_a_damaged_process_ends_itself",
        ),
        Removal(
            "a partial adds up",
            WORK,
            (Cut("a-partial-adds-up", never),),
            test="test_a_partial_that_does_not_add_up_is_not_committed",
        ),
    ),
    "a kind that breaks a rule": (
        Removal("rules are checked when it is loaded", KIND, (Cut("rules-of-a-kind", never),)),
    ),
    "a kind that fails on the job's result": (
        _of(
            "a fault of merge is kept apart",
            REDUCTION,
            """            except (Exception, SystemExit) as error:
                node.fault = _told(error)
""",
            """            except SystemExit as error:
                node.fault = _told(error)
""",
        ),
        _of(
            "and of summary",
            REDUCTION,
            """            except (Exception, SystemExit) as error:
                root.fault = _told(error)
""",
            """            except SystemExit as error:
                root.fault = _told(error)
""",
        ),
    ),
    "deaths that no task caused": (
        Removal(
            "a suspect must kill alone",
            SEARCH,
            (
                Cut("a-suspect-must-kill-alone", value("True")),
                Cut("deaths-are-of-one-stretch", value("self.deaths")),
            ),
            test="test_deaths_among_neighbours_do_not_count_against_a_task",
        ),
        Removal(
            "three times",
            SEARCH,
            (Cut("three-deaths", value("1")),),
            test="test_workers_that_die_for_reasons_of_their_own_cost_no_task",
        ),
    ),
    "a function runs twice at once": (
        _of(
            "conditional commits",
            STORAGE,
            'Body=body, IfNoneMatch="*")',
            "Body=body)",
        ),
        Removal(
            "of partials",
            WORK,
            (Cut("the-first-partial-counts", replace("self.store.put(self.shard.partial, made)")),),
            test="test_of_two_workers_on_one_shard_the_first_commit_counts",
        ),
        _of(
            "of nodes",
            REDUCTION,
            "self._store.put_once(self._name(level, number), asdict(node))",
            "self._store.put(self._name(level, number), asdict(node))",
            test="test_of_two_reducers_at_the_same_time_the_first_commit_of_a_node_counts",
        ),
        _of(
            "of records",
            ACCOUNT,
            """manifest, now(), status=status, error=error)
    return dict(store.put_once(RECORD, record))
""",
            """manifest, now(), status=status, error=error)
    store.put(RECORD, record)
    return record
""",
            test="test_a_finalizer_that_races_the_reducer_agrees_with_it",
        ),
    ),
    "a function outlives its job's stop": (
        _of(
            "a record is written once",
            ACCOUNT,
            "if (committed := store.get(RECORD)) is not None:",
            "if (committed := None) is not None:",
            also=(
                (
                    """manifest, now(), status=status, error=error)
    return dict(store.put_once(RECORD, record))
""",
                    """manifest, now(), status=status, error=error)
    store.put(RECORD, record)
    return record
""",
                ),
            ),
        ),
        _of(
            "a retry goes by the record",
            "lambdas/fan_out/steps/retry_source.py",
            'is_listed = counts["listed"] > 0 or "resultUrl" in record',
            'is_listed = earlier.has("manifest.json")',
        ),
    ),
    "a lost acknowledgement of a write to S3": (
        _of(
            "a commit that exists is read",
            STORAGE,
            'if code not in {"PreconditionFailed", "412"}:',
            "if True:",
        ),
    ),
    "a lost acknowledgement of an effect": (
        _of("the key of a creation", WRITES, "if stored.create_key == each.key:", "if False:"),
        _of("the key of a change", WRITES, "if stored.effect_key == each.key:", "if False:"),
    ),
    "every answer to a request of the API is lost": (
        _of(
            "a look at the table after a creation",
            STORE,
            "if self._found(task.id, error) is None:",
            "if True:",
        ),
        _of(
            "and after a replacement",
            STORE,
            "found = self._found(task_id, error)",
            "found = None",
        ),
    ),
    "an empty scan page with a key": (
        _of(
            "only a missing cursor ends a listing",
            STORE,
            "if last_key is None:",
            "if last_key is None or not items:",
        ),
    ),
    "unprocessed keys of a batch": (
        _of(
            "they are resent",
            STORE,
            'unread = {key["id"]["S"] for key in left["Keys"]} if left else set()',
            "unread: set[str] = set()",
        ),
        _of(
            "or the call is throttled",
            "lambdas/task_service/listing.py",
            "raise ThrottledError",
            "break",
            test="test_keys_that_dynamodb_did_not_get_round_to_are_asked_for_again",
        ),
    ),
    "a transaction cancelled in part": (
        _of(
            "refused items are singled out",
            WRITES,
            "if refusal is Refusal.INVALID:",
            "if True:",
        ),
    ),
    "tasks change while they are listed": (
        _of(
            "a segment's cursor is a key",
            STORE,
            'request["ExclusiveStartKey"] = {"id": {"S": after}}',
            'request["Limit"] += int(after)',
            # A position instead, which others shift.
            also=(
                (
                    'last_id = last_key["id"]["S"] if last_key else None',
                    """begin = int(after or 0)
        answer["Items"] = answer["Items"][begin:]
        last_id = str(begin + len(answer["Items"])) if last_key else None""",
                ),
                (
                    "task.id if position + 1 < len(items) else last_key",
                    "str(int(after or 0) + position + 1) if position + 1 < len(items) else last_key",
                ),
            ),
        ),
    ),
    "a task changes after it was listed": (
        _of(
            "a write is for the listed version",
            WRITES,
            "if stored.task.version != each.version:",
            "if False:",
            test="test_a_change_after_the_listing_is_kept",
        ),
        _of(
            "DynamoDB's own condition",
            STORE,
            '"ConditionExpression": "#version = :given"',
            '"ConditionExpression": "#version >= :given"',
            test="test_an_update_between_reading_and_writing_is_never_overwritten",
        ),
    ),
    "a throttled page in a long listing": (
        _of("what is listed is kept", LISTING, "        if not pages:\n", "        if True:\n"),
    ),
    "skewed segments": (
        _of(
            "each segment continues by itself",
            LISTING,
            "if cursor is not None and is_late(longest):",
            "if False:",
        ),
    ),
    "the lister's 15 minutes": (
        _of(
            "a cursor near the deadline",
            LISTING,
            "if cursor is not None and is_late(longest):",
            "if False:",
        ),
    ),
    "the worker's 15 minutes": (
        Removal(
            "a checkpoint near the deadline",
            WORK,
            (Cut("a-checkpoint-near-the-deadline", never),),
            test="test_a_shard_of_any_length_finishes_without_repeats",
        ),
        Removal(
            "and every minute",
            WORK,
            (Cut("a-checkpoint-every-minute", never),),
            test="test_a_long_call_saves_a_checkpoint_now_and_then",
        ),
    ),
    "the reducer's 15 minutes": (
        _of(
            "a call goes on at the node where the last one ended",
            REDUCTION,
            "return Cursor(level, number, offset)",
            "return Cursor(level, number + 1, offset)",
            test="test_a_reducer_that_is_called_again_and_again_ends_with_the_same_bytes",
        ),
        _of(
            "a cursor near the deadline",
            REDUCTION,
            "if is_late(longest):",
            "if False:",
            test="test_a_late_reducer_answers_a_cursor_and_keeps_the_error_that_was_caught",
        ),
    ),
    "a reducer's memory": (
        _of(
            "lines are streamed",
            REDUCTION,
            "streams = [self._texts(child.lines) for",
            "streams = [iter(list(self._texts(child.lines))) for",
            test="test_what_a_merge_holds_in_memory_does_not_grow_with_its_lines",
        ),
        _of(
            "at most 64 children a node",
            REDUCTION,
            "FAN_IN = 64",
            "FAN_IN = 1_000_000",
            test="test_the_open_streams_of_a_node_fit_into_the_reducers_memory",
        ),
    ),
    "overload of what is behind": (
        Removal(
            "a ceiling of tasks a second",
            RUNNER,
            (Cut("a-rate-limit", delete),),
            test="test_no_window_has_more_starts_than_the_rate_limit",
        ),
        Removal(
            "a retry budget",
            RUNNER,
            (Cut("a-retry-budget", value("number < ATTEMPTS")),),
            test="test_the_retries_of_one_call_are_bounded",
        ),
    ),
    "one task of many that is throttled for good": (
        Removal("the last try is one by one", RUNNER, (Cut("the-last-attempt-is-alone", value("False")),)),
    ),
    "throttling that outlasts a call": (
        Removal(
            "tries are counted across calls",
            WORK,
            (Cut("attempts-are-counted-across-calls", value("(0, 0)")),),
        ),
    ),
    "stray objects in the job's prefix": (
        _of(
            "parts are read by name",
            LISTING,
            "for number in range(steps[segment]):",
            'for number in range(len(list(store.names(f"parts/{segment:04d}-")))):',
            test="test_stray_objects_of_dead_attempts_are_never_taken_in",
        ),
        _of(
            "shards have their content in their names",
            LISTING,
            "{len(self.shards):06d}-{digest}.jsonl",
            "{len(self.shards):06d}.jsonl",
            test="test_an_attempt_that_listed_something_else_cannot_change_a_committed_shard",
        ),
    ),
    "a missing part": (
        _of(
            "parts are counted",
            LISTING,
            "step = Step(**store.require(part_name(segment, number)))",
            "step = Step(**(store.get(part_name(segment, number)) or Step([], 0, None).to_json()))",
        ),
    ),
    "a missing shard object": (
        _of(
            "the account names what is lost",
            REDUCTION,
            'problems.append(f"Shard {shard.index} is lost: {error}")',
            "del error",
        ),
    ),
    "a missing partial": (
        _of(
            "the manifest says what must be there",
            REDUCTION,
            "                self._give_up(shard, progress)\n",
            "                pass\n",
        ),
    ),
    "silent partial success": (
        _of(
            "the account decides",
            RECORD,
            '"PARTIAL" if counts.not_succeeded else "SUCCEEDED"',
            '"SUCCEEDED"',
            test="test_the_tolerance_is_of_tasks_and_decides_between_partial_and_failed",
        ),
        _of(
            "exit code 3",
            "fanout/cli.py",
            '"PARTIAL": PARTIAL}',
            '"PARTIAL": SUCCESS}',
            test="test_run_prints_the_record_as_one_document_and_tells_success_from_partial",
        ),
    ),
    "mass failure": (
        Removal(
            "failed shards count towards the map's tolerance",
            "lambdas/fan_out/worker.py",
            (Cut("failed-shards-end-the-map", never),),
        ),
    ),
    "failures spread over all shards": (
        Removal(
            "failures are added up across shards", TOLERANCE, (Cut("failures-are-added-up", value("failed")),)
        ),
    ),
    "failing tasks within the tolerance": (
        Removal("only proven excess counts", TOLERANCE, (Cut("only-proven-excess-counts", never),)),
    ),
    "a kind that kills throughout": (
        Removal(
            "a bound on quarantined tasks", SEARCH, (Cut("few-tasks-of-a-shard-are-quarantined", never),)
        ),
    ),
    "rare deaths in a long shard": (
        Removal(
            "the count of retries begins anew when the shard moves on",
            SEARCH,
            (Cut("retries-start-anew", never),),
        ),
    ),
    "tasks that take minutes": (
        Removal(
            "the longest so far is part of the deadline",
            WORK,
            (Cut("the-longest-batch-counts", value("self._runner.limiter.seconds_until(len(batch))")),),
        ),
    ),
    "a CSV overwritten while it is listed": (
        _of(
            "reads are of the version that was planned",
            STORAGE,
            '{} if etag is None else {"IfMatch": etag}',
            "{}",
        ),
    ),
    "a job's name that was used before": (
        _of(
            "the plan is committed once",
            PLANNER,
            'kept = record if record is not None else jobs.put_once("job.json", plan.to_json())',
            'jobs.put("job.json", kept := plan.to_json())',
        ),
    ),
    "a job's name that was used before, its objects gone": (
        _of(
            "effects are keyed by the job's start, too",
            "lambdas/fan_out/model/plan.py",
            'else f"{job_id}@{started_at}"',
            "else job_id",
        ),
    ),
    "workers that all die, everything tolerated": (
        _of(
            "a job of which no shard was finished is FAILED",
            RECORD,
            "if root.failed and not root.done:",
            "if False:",
        ),
    ),
    "a stuck job": (
        _of(
            "a time-out on the machine",
            MACHINE,
            '"TimeoutSeconds": 604800,',
            "",
            test="test_a_stuck_job_ends_some_day",
        ),
        _of(
            "a time-out on every Task",
            MACHINE,
            '"TimeoutSeconds": 90,',
            "",
            test="test_a_state_waits_longer_than_its_function_runs",
        ),
        _of(
            "the Finalizer",
            CLOSER,
            '"TIMED_OUT": (',
            '"TIMED": (',
            test="test_a_job_that_ended_in_the_middle_of_its_work_gets_its_account",
        ),
    ),
    "the same job started twice at once": (
        _of(
            "the execution's name is the job's id",
            "lambdas/fan_out/jobs.py",
            "name=job_id, input=text",
            "name=new_id(), input=text",
            test="test_the_same_job_again_is_the_same_job",
        ),
        _of(
            "conditional commits",
            STORAGE,
            'Body=body, IfNoneMatch="*")',
            "Body=body)",
            test="test_the_same_job_run_twice_at_once_is_one_job",
        ),
    ),
    "stop mid-way, then retry": (
        _of("the closing account", CLOSER, '"ABORTED": ("STOPPED"', '"ABORTED": ("FAILED"'),
        _of(
            "failedIn lists anew what was not listed to its end",
            "lambdas/fan_out/model/plan.py",
            "source = retried.plan.source if retried.named is None else asked.source",
            "source = asked.source",
            test="test_a_job_stopped_anywhere_is_accounted_for_and_made_good_by_a_retry",
        ),
    ),
    "a chain of retries": (
        _of(
            "effects are keyed by the chain's first job",
            "lambdas/fan_out/model/plan.py",
            'effect_scope=origin.effect_scope if origin is not None else f"{job_id}@{started_at}"',
            'effect_scope=f"{job_id}@{started_at}"',
        ),
    ),
    "a retry's list of failures is not whole": (
        _of(
            "the origin's account says how many there are",
            LISTING,
            "if plan.named is not None and listed + skipped != plan.named:",
            "if False:",
            test="test_a_retry_that_lists_another_number_of_tasks_than_its_origin_names_fails",
        ),
        _of(
            "a lost list is not gone by",
            "lambdas/fan_out/steps/retry_source.py",
            "if is_listed and not is_off and earlier.has(FAILURES):",
            "if is_listed:",
            test="test_a_retry_of_a_job_that_lost_objects_lists_its_source_anew",
        ),
    ),
    "the reducer cannot write the account": (
        _of(
            "Catch to a Fail state",
            MACHINE,
            '"Catch": [{"ErrorEquals": ["States.ALL"], "ResultPath": "$.error", "Next": "Unaccounted"}],',
            "",
            test="test_a_reducer_that_cannot_write_the_account_fails_the_job_loudly",
        ),
        _of(
            "the Finalizer tries again",
            CLOSER,
            '"FAILED": ("FAILED"',
            '"BROKEN": ("FAILED"',
            test="test_a_job_whose_reducer_could_not_write_the_account_gets_it_here",
        ),
        _of(
            "EventBridge",
            "infra/constructs/workflow.py",
            '"status": ["ABORTED", "TIMED_OUT", "FAILED"]',
            '"status": ["ABORTED", "TIMED_OUT"]',
            test="test_a_job_that_ends_early_reaches_the_closer_or_the_dead_letter_queue",
        ),
    ),
    "a broken CSV": (
        _of(
            "a bad row is a row with a problem",
            SOURCE_CSV,
            "return _Record([], _problem(error), first.end)",
            "raise InvalidJobError(_problem(error)) from error",
        ),
        _of(
            "recovery at the next line",
            SOURCE_CSV,
            "self._again.extendleft(reversed(taken[1:]))",
            "pass",
            test="test_an_unclosed_quote_does_not_swallow_the_rows_behind_it",
        ),
    ),
    "numbers and text at their limits": (
        _of(
            "numbers have bounds",
            "lambdas/fan_out/model/plan.py",
            '500, alias="shardSize", ge=1, le=10_000,',
            '500, alias="shardSize", ge=1,',
            test="test_a_wrong_field_is_refused_with_its_name_its_value_and_what_is_allowed",
        ),
        _of(
            "input is typed",
            "lambdas/fan_out/model/plan.py",
            "frozen=True, strict=True, extra=",
            "frozen=True, strict=False, extra=",
            test="test_a_wrong_field_is_refused_with_its_name_its_value_and_what_is_allowed",
        ),
        _of(
            "UTF-8 throughout",
            "lambdas/fan_out/model/outcomes.py",
            'str(said).encode("utf-8", "replace").decode()',
            "str(said)",
            test="test_a_failures_message_is_written_short",
        ),
    ),
    "items over 400 KB": (
        _of(
            "a task has at most 1,100 characters",
            "lambdas/task_service/validation.py",
            "DETAIL_CHARACTERS: Final = 1_000\n",
            "DETAIL_CHARACTERS: Final = 1_000_000\n",
            test="test_a_value_outside_the_rules_is_refused_with_a_sentence",
        ),
        _of(
            "a row has at most 64 KiB",
            SOURCE_CSV,
            """if size > LONGEST_ROW:
                    raise""",
            """if False:
                    raise""",
            test="test_a_quoted_row_longer_than_any_task_is_a_problem_of_its_own",
        ),
    ),
}
