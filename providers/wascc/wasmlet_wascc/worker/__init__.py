"""The code in an actor's own process. The worker loads `guest` by its path, under the interpreter of the engine."""
