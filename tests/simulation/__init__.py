"""Simulate whole networks in one process, on a simulated clock, from one seed.

Relay cores, codecs and outboxes are the real ones.

    make simulate SEEDS=1000 JOBS=2     seeds 1 to 1000, then a table of the events in them
    make simulate SEED=17               repeat one run exactly
    make simulate-mutants               every planted bug must be found

| module | what it contains |
|---|---|
| `world` | one network and one run of it |
| `schedule` | the simulated clock |
| `links` | cables between nodes, and the links of relays over them |
| `joins` | the join handshake between relays |
| `relay` | one relay around the real core |
| `attachment` | a program's connection, at its relay |
| `program` | a program, with its `caller`, `member`, `fanout` and `tunnels` |
| `workload` | the random actions of programs |
| `faults` | the random faults |
| `final_checks`, `healthy_network` | end all faults, then check that everything works |
| `invariants`, `convergence` | what must be true of one relay, and of all relays together |
| `coverage` | which outcomes, events and pairs of faults occurred |
"""
