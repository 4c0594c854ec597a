"""Candidate peers, from mDNS and static seeds. Hints are never trusted: admission decides."""
