"""Early stop: a job that cannot end within its tolerance any more is not worked on to its end.

The map stops by itself once more shards count as failed than the Manifest says are tolerated; so the question
is which do. A shard counts as failed only on a proof that includes its own failures:

- it alone has at least as many failures as a shard has tasks on average. If more shards than
  are tolerated are like that, more than the tolerated percentage of all tasks has failed; or
- it and the shards that ended before it have more failures together than the whole job tolerates.

Either way a map that is stopped was the map of a job that exceeds its tolerance for certain. A shard within the
tolerance pays nothing for this; one above it writes its number of failures down, as the name of an object.
"""

import hashlib

from fan_out.aws.storage import JobStore
from fan_out.model.outcomes import exceeds
from fan_out.model.shard import Shard

# Below it, shards above the tolerance note their failures: `{index}-{failures}`.
EXCESS = "excess/"
# There once the noted failures have proven that the job exceeds its tolerance.
PROOF = "excess.json"
# About how many shards of a job add up what all have noted. A thousand names are a page of a listing, so that
# the pages read for a job are never more than its shards.
SUMS = 1000


def counts_as_failed(store: JobStore, shard: Shard, failed: int, *, listed: int, shards: int, tolerated: float) -> bool:
    """Whether the map should count this shard as failed: its partial is committed, with `failed` failures.

    `listed` tasks in `shards` shards are the job's, `tolerated` is its percentage.
    """
    # What is tolerated in full, or in this shard, proves nothing.
    if tolerated >= 100 or not exceeds(failed, tolerated, shard.count):
        return False
    if failed * shards >= listed or store.has(PROOF):
        return True
    store.put(f"{EXCESS}{shard.index:08d}-{failed}", {})
    # Chosen by their hash, as failures may come in any pattern.
    hashed = int(hashlib.sha256(str(shard.index).encode()).hexdigest(), 16)
    if hashed % -(-shards // SUMS):
        return False
    # protection: failures-are-added-up
    noted = sum(int(name.rpartition("-")[2]) for name in store.names(EXCESS))
    # protection: only-proven-excess-counts
    if not exceeds(noted, tolerated, listed):
        return False
    store.put(PROOF, {"failed": noted, "listed": listed})
    return True
