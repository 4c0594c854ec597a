"""Whole networks in one process, on a fake clock, from one seed: real cores, codecs and outboxes.

    make simulate SEEDS=1000 JOBS=2     seeds 1 to 1000, then a table of what happened in them
    make simulate SEED=17               one of them again, exactly as it was
    make simulate-mutants               every planted bug must be found

The pieces of the world: `schedule` is its clock, `lines` the cables between nodes, `relay` one
relay around the real core, `attachment` a program's connection as its relay sees it, `program` the
program, with its `caller`, `member`, `listener` and `tunnels`. `workload` says what programs do,
`faults` what befalls everybody, `ending` heals the world and looks at what is left. `invariants`
and `agreement` say what must hold.
"""
