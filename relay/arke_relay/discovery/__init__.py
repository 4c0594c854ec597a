"""Who might be out there: mDNS and static seeds. Hints, never trusted: admission decides."""
