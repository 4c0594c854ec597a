"""The native protocol: MessagePack messages of programs that use the Arke SDK."""
