"""The lives of pods and of their containers.

`pod` drives one pod, `order` says which container is next, `container` has what is known of one, and `container_runner`
keeps it running: `plan` and `launch` are a start, `starting` a failed one, `probes`, `hooks`, `resizer` and `ending`
what comes after it.
"""
