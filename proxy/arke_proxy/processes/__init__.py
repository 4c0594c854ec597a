"""The proxy's processes: master, supervisor, workers, their IPC and their listening sockets."""
