"""The relay: one daemon per machine, which brings messages to whoever serves them."""
