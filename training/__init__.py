"""Training, evaluation and export of models: all that needs torch."""

import os

# GNU's OpenMP, which torch loads, reads this variable once. By default an idle thread checks for work 300,000 times
# before it sleeps, and takes its core from any process that has work to do. With 1,000 checks, two trainings at once
# are at least twice as fast, and one alone is hardly slower. To measure it: python -m benchmarks.shared_cores
if not os.environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}:
    os.environ["GOMP_SPINCOUNT"] = "1000"
