"""A provider that runs pods as processes of this machine, for tests of the pods that wasmlet itself has in a cluster.

It is a container runtime as far as such pods can tell. Needs root, and Linux with overlayfs.

What it honours:

- images by name (`Image`): one that was built, with its files, variables, entry point and user, or this machine's own
  programs under a name;
- command and args, workingDir; variables with fieldRef, resourceFieldRef, config maps, secrets and services, the API
  server's address among them;
- volumes: emptyDir (medium Memory, too), configMap, secret, downwardAPI, projected with tokens of the service account;
  kept up to date; fsGroup;
- hostname, subdomain, /etc/hosts; an address (podIP) of 127.0.0.0/8;
- namespaces of mounts, processes, host name and IPC; a root that is read-only where the manifest says so;
- securityContext: runAsUser, runAsGroup, supplementalGroups, runAsNonRoot, allowPrivilegeEscalation. No process has a
  capability, whatever its manifest says;
- startup, liveness and readiness probes over the network; restartPolicy;
- deletion with its grace period (SIGTERM, then SIGKILL), logs.

What it does not: limits of memory and CPU, sizeLimit and seccompProfile are accepted and mean nothing; the network is
the machine's, and there is no DNS for Services. Anything else is refused by name.
"""

from tests.shared.pods_as_processes.images import Image
from tests.shared.pods_as_processes.node import linux_node
from tests.shared.pods_as_processes.provider import PodsAsProcesses

__all__ = ["Image", "PodsAsProcesses", "linux_node"]
