"""Where each protection of the reliability guide lives, and the least change that takes it away.

The keys are the first cells of the table in docs/reliability.md, in its order.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.protections.cuts import Cut, JsonCut, always, condition, never, replace, value

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
ASKING = "lambdas/fan_out/steps/kind_runner.py"
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
        _of(
            "a failing task is a value",
            ASKING,
            """except FAULTS as error:
            if len(tasks) > 1:""",
            """except TimeoutError as error:
            if len(tasks) > 1:""",
        ),
        _of(
            "a failing batch is taken apart",
            ASKING,
            "                return [answer for task in tasks for answer in self._asked_alone(task)]\n",
            "                return [Failure(type(error).__name__, str(error))] * len(tasks)\n",
        ),
    ),
    "a poison task that kills its worker": (
        _of(
            "markers after a death",
            WORK,
            "self._mark_in_flight(start, end)",
            "pass",
        ),
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
        _of("a suspect's worker begins with it", WORK, "if end == marker.start:", "if False:"),
    ),
    "a kind's value or line that JSON cannot hold": (
        _of(
            "a value must come back as it was",
            WORK,
            "    if json.loads(body) != value:",
            "    if False:",
            test="test_a_value_that_cannot_be_stored_fails_the_task_that_brought_it_and_no_other",
        ),
        _of(
            "a line's key is printable",
            WORK,
            "if not isinstance(key, str) or not key.isprintable():",
            "if False:",
            test="test_a_line_that_is_none_fails_its_task_alone",
        ),
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
        _of(
            "a suspect must kill alone",
            WORK,
            "if self.end - self.start == 1:",
            "if True:",
            test="test_deaths_among_neighbours_do_not_count_against_a_task",
            also=((" if (start, end) == (self._marker.start, self._marker.end) else 0", ""),),
        ),
        _of(
            "three times",
            WORK,
            "DEADLY = 3",
            "DEADLY = 1",
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
        _of(
            "of partials",
            WORK,
            """        return dict(
            self._store.put_once(self._shard.partial, partial(self._store, self._shard, self._progress))
        )
""",
            """        made = partial(self._store, self._shard, self._progress)
        self._store.put(self._shard.partial, made)
        return made
""",
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
        Removal("the key of a creation", WRITES, (Cut("the-key-of-a-creation-is-kept", never),)),
        Removal("the key of a change", WRITES, (Cut("the-key-of-a-change-is-kept", never),)),
    ),
    "every answer to a request of the API is lost": (
        Removal(
            "a look at the table after a creation", STORE, (Cut("a-look-after-a-lost-creation", always),)
        ),
        Removal("and after a replacement", STORE, (Cut("a-look-after-a-lost-replacement", value("None")),)),
    ),
    "an empty scan page with a key": (
        Removal(
            "only a missing cursor ends a listing",
            STORE,
            (Cut("an-empty-page-is-not-the-last", condition("last_key is None or not items")),),
        ),
    ),
    "unprocessed keys of a batch": (
        Removal("they are resent", STORE, (Cut("unprocessed-keys-are-not-missing", value("set()")),)),
        Removal(
            "or the call is throttled",
            "lambdas/task_service/listing.py",
            (Cut("an-unprocessed-key-is-throttled", replace("break")),),
            test="test_unprocessed_keys_are_read_again",
        ),
    ),
    "a transaction cancelled in part": (
        Removal("refused items are singled out", WRITES, (Cut("only-an-invalid-item-is-invalid", always),)),
    ),
    "tasks change while they are listed": (
        Removal(
            "a segment's cursor is a key",
            STORE,
            # A position instead, which others shift.
            (
                Cut("a-cursor-is-a-key", replace('request["Limit"] += int(after)')),
                Cut(
                    "a-page-ends-at-a-key",
                    replace(
                        "begin = int(after or 0)\n"
                        'answer["Items"] = answer["Items"][begin:]\n'
                        'last_id = str(begin + len(answer["Items"])) if last_key else None'
                    ),
                ),
                Cut(
                    "a-full-page-ends-at-a-key",
                    value(
                        "Page(tasks, str(int(after or 0) + position + 1) if position + 1 < len(items) else last_key)"
                    ),
                ),
            ),
        ),
    ),
    "a task changes after it was listed": (
        Removal(
            "a write is for the listed version",
            WRITES,
            (Cut("a-write-is-for-the-listed-version", never),),
            test="test_a_task_that_someone_changed_after_it_was_listed_keeps_their_change",
        ),
        Removal(
            "DynamoDB's own condition",
            STORE,
            (Cut("an-update-has-a-condition", value('"#version >= :given"')),),
            test="test_a_concurrent_update_is_never_overwritten",
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
        _of(
            "a checkpoint near the deadline",
            WORK,
            "if self._has_worked and self._is_late(wait + self._longest):",
            "if False:",
            test="test_a_shard_of_any_length_finishes_and_no_task_is_worked_on_twice",
        ),
        _of(
            "and every minute",
            WORK,
            "if self._clock.now() - self._saved_at > CHECKPOINT_SECONDS:",
            "if False:",
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
        _of(
            "a ceiling of tasks a second",
            ASKING,
            "self.clock.sleep(self.seconds_until(tasks))",
            "pass",
            test="test_never_do_more_tasks_start_than_the_ceiling_lets_in_any_window",
        ),
        _of(
            "a retry budget",
            ASKING,
            " and tries < TRIES and self._retries_left > 0:",
            " and tries < TRIES:",
            test="test_a_throttled_downstream_gets_a_bounded_number_of_further_tries_from_one_call",
        ),
    ),
    "one task of many that is throttled for good": (
        _of(
            "the last try is one by one",
            ASKING,
            "is_apart = self._is_refused_whole and tries >= TRIES",
            "is_apart = False",
        ),
    ),
    "throttling that outlasts a call": (
        _of(
            "tries are counted across calls",
            WORK,
            "tries, self._progress.tries = self._progress.tries, 0",
            "tries = self._progress.tries = 0",
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
        _of(
            "failed shards count towards the map's tolerance",
            "lambdas/fan_out/worker.py",
            "if committed is not None and tolerance.counts_as_failed(",
            "if False and tolerance.counts_as_failed(",
        ),
    ),
    "failures spread over all shards": (
        _of(
            "failures are added up across shards",
            TOLERANCE,
            'noted = sum(int(name.rpartition("-")[2]) for name in store.names(EXCESS))',
            "noted = failed",
        ),
    ),
    "failing tasks within the tolerance": (
        _of(
            "only proven excess counts",
            TOLERANCE,
            "if not exceeds(noted, tolerated, listed):",
            "if False:",
        ),
    ),
    "a kind that kills throughout": (
        _of(
            "a bound on quarantined tasks",
            WORK,
            "if self._progress.counts.quarantined > QUARANTINES:",
            "if False:",
        ),
    ),
    "rare deaths in a long shard": (
        _of(
            "the count of retries begins anew when the shard moves on",
            WORK,
            "if self._is_after_death and end < len(tasks):",
            "if False:",
        ),
    ),
    "tasks that take minutes": (
        _of(
            "the longest so far is part of the deadline",
            WORK,
            "self._is_late(wait + self._longest):",
            "self._is_late(wait):",
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
        Removal(
            "the execution's name is the job's id",
            "lambdas/fan_out/jobs.py",
            (
                Cut(
                    "one-name-is-one-execution",
                    replace(
                        "aws.step_functions().start_execution("
                        "stateMachineArn=self.state_machine_arn, name=new_id(), input=text)"
                    ),
                ),
            ),
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
            test="test_an_early_end_reaches_finalizer_or_dead_letters",
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
            test="test_a_failures_message_of_any_length_and_any_text_is_written_short",
        ),
    ),
    "items over 400 KB": (
        Removal(
            "a task has at most 1,100 characters",
            "lambdas/task_service/validation.py",
            (Cut("a-detail-is-bounded", value("1_000_000")),),
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
