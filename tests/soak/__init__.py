"""Faults on real processes under load: `make soak MINUTES=20 SEED=7`.

The lab has three hosts, each with a relay, a member of one cluster, and a caller.

| module | what it does |
|---|---|
| `campaign` | runs the test: storms of faults, rolling restarts, clock jumps, final checks |
| `schedule` | draws the faults and their times from the seed |
| `faults` | starts and ends a fault |
| `testbed` | starts, stops and watches the processes |
| `programs` | the caller and the member, which check every message |
| `counts`, `executions`, `memory`, `findings` | the results and the checks |
"""
