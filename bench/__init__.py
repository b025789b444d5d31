"""`make bench`: how memory and time grow with a job, as tables of one run.

    .venv/bin/python -m bench [--quick] [SECTION ...]

Read the ratios, not the seconds: every figure was measured on the machine that ran it, whatever else that machine
was doing, against the embedded AWS, which shares its CPUs with what is measured. Nothing passes or fails by a time.
A run ends within its time (`--seconds`); what would not fit is named as not measured. Everything binds to
127.0.0.1 and is stopped at the end, also of an interrupted run.

reducer
    One reduction of daily-plan partials from the first node to `result.json`, in a fresh process; the objects are
    in the embedded AWS, another process, so that they cannot count as the reducer's memory. *Peak* is the most
    memory above what the process had after its imports. A merge holds at most one block (1 MiB) of each of FAN_IN
    (64) streams, and one part (8 MiB) of an upload. *MiB in blocks* says how much of that a job of this size can
    use: the peak follows it, at two to three times as much for a block's bytes and its lines, and stays where it is
    full, from some half a million tasks on, however many come on top. With more shards it does not grow at all.
    *To first* is what the row has, divided by what the first row has.
worker
    Calls of the daily plan's worker, each on a shard of its own. *Requests* are those of one shard, retries
    included, and the same at every size, but for one GET for each further MiB of the shard. *After a death* are the
    calls that follow a worker's death, until the shard is done: they look for a checkpoint, and mark each range of
    tasks before they start on it. Their requests do not depend on the shard's size either.
listing
    *CPU*: a page of tasks in a fresh process, from the bytes that DynamoDB sends to the lines that go into a shard,
    without a network: what ListTasks and the Lister take of it now, and what they took when each decoded and encoded
    every task, beside a scan by the SDK that does nothing with what it finds. *Object*: one step of the lister over a
    whole CSV object, in a fresh process: memory is that of two pages and a few shards, whatever the object's size.
flow
    Whole jobs through the state machine. *Bound*: a kind that sleeps, so that time is the workers' and hardly the
    machine's; *peak running* never exceeds maxConcurrency. *State*: events and payloads of the parent execution,
    which do not depend on the number of shards (a payload has more digits in it).
"""
