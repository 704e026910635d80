"""A JobSet for Kubernetes: one pod a process, all started again together.

The kind is ``jobset.x-k8s.io/v1alpha2`` (https://jobset.sigs.k8s.io). On TPUs of GKE, JAX finds its
peers by what GKE sets; elsewhere the command line tells them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from resnorm_jax.launching.statuses import FINAL

PORT = 8476  # of the coordinator; any that is free in the first pod
GPU, TPU = "nvidia.com/gpu", "google.com/tpu"
WORKERS = "workers"


@dataclass(frozen=True)
class JobSet:
    """What is asked of Kubernetes.

    Attributes:
      arguments: of ``resnorm``, from ``train`` on.
      processes: pods, each on a machine of its own.
      image: of the container; ``resnorm`` is installed in it.
      accelerator: resource of a container: `GPU`, `TPU` or none.
      count: of accelerators of a pod.
      tpu: kind of the TPU's machines, e.g. ``tpu-v5p-slice``.
      topology: of the TPU, e.g. ``2x2x4``.
      claim: name of a PersistentVolumeClaim that all pods can write, mounted at ``mount``.
      mount: where; the run's directory must lie in it.
      restarts: how often all pods are started again.
      name: of the JobSet.
    """

    arguments: Sequence[str]
    processes: int
    image: str
    claim: str
    accelerator: str | None = None
    count: int = 0
    tpu: str | None = None
    topology: str | None = None
    mount: str = "/runs"
    restarts: int = 100
    name: str = "resnorm"

    def text(self) -> str:
        """Return the file."""
        return yaml.safe_dump(self.manifest(), sort_keys=False, width=100)

    def manifest(self) -> dict[str, Any]:
        """Return the JobSet."""
        return {
            "apiVersion": "jobset.x-k8s.io/v1alpha2",
            "kind": "JobSet",
            "metadata": {"name": self.name},
            "spec": {
                "network": {"enableDNSHostnames": True},
                # A status that a restart does not help fails the job by its pods' policy below.
                "failurePolicy": {
                    "maxRestarts": self.restarts,
                    "rules": [
                        {
                            "name": "final",
                            "action": "FailJobSet",
                            "onJobFailureReasons": ["PodFailurePolicy"],
                        }
                    ],
                },
                "replicatedJobs": [
                    {"name": WORKERS, "replicas": 1, "template": {"spec": self.job()}}
                ],
            },
        }

    def job(self) -> dict[str, Any]:
        """Return what a Job says (``batch/v1``): the pods have numbers, and one that fails ends it."""
        final = {"containerName": "resnorm", "operator": "In", "values": sorted(FINAL)}
        return {
            "parallelism": self.processes,
            "completions": self.processes,
            "completionMode": "Indexed",
            "backoffLimit": 0,
            "podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": final}]},
            "template": {"spec": self._pod()},
        }

    def _pod(self) -> dict[str, Any]:
        pod: dict[str, Any] = {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 120,  # in which the run saves, after SIGTERM
            "containers": [self._container()],
            "volumes": [{"name": "runs", "persistentVolumeClaim": {"claimName": self.claim}}],
        }
        if self.tpu is not None:
            pod["nodeSelector"] = {
                "cloud.google.com/gke-tpu-accelerator": self.tpu,
                "cloud.google.com/gke-tpu-topology": self.topology,
            }
        return pod

    def _container(self) -> dict[str, Any]:
        container: dict[str, Any] = {
            "name": "resnorm",
            "image": self.image,
            "command": ["resnorm"],
            "args": [*self.arguments, *self._place()],
            "ports": [{"containerPort": PORT}],
            "volumeMounts": [{"name": "runs", "mountPath": self.mount}],
        }
        if self.accelerator is not None:
            container["resources"] = {"limits": {self.accelerator: self.count}}
        return container

    def _place(self) -> list[str]:
        """Return where the coordinator is: the first pod, by the name that JobSet gives it.

        Kubernetes puts the variable's value into the argument.
        """
        if self.accelerator == TPU:
            return []
        first = f"{self.name}-{WORKERS}-0-0.{self.name}:{PORT}"
        place = [f"--coordinator={first}", f"--processes={self.processes}"]
        return [*place, "--process-id=$(JOB_COMPLETION_INDEX)"]
