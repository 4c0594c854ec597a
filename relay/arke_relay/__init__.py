"""The relay: one daemon per machine, which delivers messages to the members of clusters."""
