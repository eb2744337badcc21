"""The life cycle of pods and of their containers.

`pod` runs one pod, and `order` decides which container is next. `container` holds the state of one container, and
`container_runner` keeps it running. A start is done by `plan` and `launch`; `starting` handles failed starts. `probes`,
`hooks`, `resizer` and `ending` work on a container that runs.
"""
