"""Commands in containers, and their streams: exec, attach, and what probes and hooks run."""
