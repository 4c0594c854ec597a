"""The processes of a proxy: master, workers, their IPC and their sockets."""
