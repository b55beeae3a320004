"""What needs torch: data, models, the one training loop, and the exporter to bundles."""

import os

# GNU's OpenMP reads it when torch is loaded. Its threads usually look for work 300,000 times before they sleep: where
# another process wants the cores, that is the time of the very thread that they wait for, at every operation. So few
# cost little where nothing else runs (benchmarks/shared_cores.py).
if not os.environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}:
    os.environ["GOMP_SPINCOUNT"] = "1000"
