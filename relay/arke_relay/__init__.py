"""The relay: one daemon per machine, which brings every program's messages to whoever serves them."""
