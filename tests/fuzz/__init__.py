"""Hostile octets for every codec: `make fuzz` is guided by coverage, pytest replays its corpus.

A target is a module with a `TARGET`: it plays one input to the codec, as an outsider would, and
raises when a promise is broken. `targets` names them all.
"""
