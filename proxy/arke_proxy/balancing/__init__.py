"""Load balancing: routes to clusters, the choice of a backend, backend health, retries."""
