import os

from tests.support.deployment import NAMED

# Run by `make aws-test` alone.
collect_ignore = [] if NAMED in os.environ else ["test_assumptions.py"]
