"""Connections to back ends."""
