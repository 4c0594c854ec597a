"""The `arke` command: one module for each subcommand or group of subcommands."""
