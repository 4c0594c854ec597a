"""Fuzz every codec: `make fuzz` is guided by coverage, and pytest replays its corpus.

A target is a module with a `TARGET`. It sends one input to the codec, as an untrusted sender would,
and raises Finding when an invariant does not hold. `targets` lists them.
"""
