"""Streams of containers and commands in them: exec, attach, port-forward, and the commands of probes and hooks."""
