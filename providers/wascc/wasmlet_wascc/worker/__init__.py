"""What runs in the processes of actors: loaded by path, under the engine's interpreter (see `guest`)."""
