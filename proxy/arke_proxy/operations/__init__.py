"""How the proxy runs day after day: its processes, what they log, and what they tell operators."""
