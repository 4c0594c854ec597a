"""The Iris relay protocol, version 1.0-draft2: programs written for Iris attach unchanged.

Their packets are translated to operations of the native protocol, and back. The rest of the relay
does not know that a program speaks Iris.
"""
