"""Faults on real processes, under load, for as long as asked: `make soak MINUTES=20 SEED=7`.

Three hosts in the lab, each with a relay, a member of one cluster and a program that calls all the
time. `schedule` says which faults come when, `stage` holds the processes, `faults` does to them
what the schedule says, `programs` are the load and count what becomes of it, `checks` compares what
they saw, `memory` looks at how much they take, `campaign` leads through it all.
"""
