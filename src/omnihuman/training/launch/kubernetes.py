"""A job of Kubernetes: one rendered file with an Indexed Job, a pod a node, and the headless service they meet by."""

import json
import logging
import os
import shutil
import subprocess
from typing import Any

import yaml

from omnihuman.errors import UserError
from omnihuman.storage.files import publish
from omnihuman.storage.work import omnihuman_home
from omnihuman.training.launch.job import ENDED_FROM_OUTSIDE, JOB_VARIABLE, MEETING, Job, JobRecord

log = logging.getLogger(__name__)
_PORT = 29400
_RETRIES_PER_NODE = 3
_USERS_MISTAKE = 2
_HANDED_ON = (
    "OMNIHUMAN_SHARDS", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION", "OMNIHUMAN_GPU_HOUR_PRICE",
    "OMNIHUMAN_PEAK_TFLOPS",
)  # fmt: skip
"""Variables that a pod needs as they are here: to read shards from where the checks did, and to say what training
costs. None of them is secret."""


class KubernetesLauncher:
    """Applies, looks at and deletes one Job by kubectl. Checkout and work folder lie on a volume that pods and this
    machine have at the same place."""

    poll_seconds = 5.0

    def __init__(self, job: Job) -> None:
        assert job.placement.kubernetes
        self._job, self._place = job, job.placement.kubernetes
        self._file = job.work / "job.yaml"

    def find(self) -> str | None:
        """The Job's name, which says whose work it is.

        Raises:
            UserError: the cluster does not answer; a new Job might be a second one.
        """
        if not shutil.which("kubectl"):
            return None
        found = self._get()
        if found == {}:
            raise UserError("kubectl could not ask the cluster for the job, see above: call again when it answers")
        return self._job.name if found and _ended(found) is None else None

    def submit(self) -> JobRecord:
        """Renders the file and applies it; a Job of this name that has ended goes first.

        Raises:
            UserError: a folder is not on the volume, or there is no kubectl here, or it refuses.
        """
        self._job.exit_file.unlink(missing_ok=True)
        with publish(self._file) as temporary:
            temporary.write_text(self.text())
        if not shutil.which("kubectl"):
            raise UserError(
                f"there is no kubectl here; the Job is rendered in {self._file}: install kubectl and call again, or"
                f" run `kubectl apply -f {self._file}` where there is one, and call again once it is complete"
            )
        self.kill(self._job.name)
        applied = self._kubectl("apply", f"--filename={self._file}")
        if applied.returncode:
            raise UserError(f"kubectl refused {self._file}: {applied.stderr.strip()}")
        log.info("what it prints: kubectl --namespace=%s logs -f job/%s", self._place.namespace, self._job.name)
        return JobRecord.now(self._job, self._job.name, ["kubectl", "apply", f"--filename={self._file}"])

    def exit_code(self, job_id: str) -> int | None:
        """None while pods run or are to run again."""
        found = self._get()
        if found is None:
            return ENDED_FROM_OUTSIDE
        ended = _ended(found)
        return (self._job.exit_code() or 1) if ended == "Failed" else 0 if ended else None

    def end(self, job_id: str) -> None:
        """Deletes the Job; its pods get TERM and the time to save."""
        patience = self._job.placement.save_seconds + 60
        self._delete("--cascade=foreground", f"--timeout={patience}s")

    def kill(self, job_id: str) -> None:
        """Deletes the Job and its pods at once."""
        self._delete("--cascade=foreground", "--grace-period=1", "--timeout=60s")

    def text(self) -> str:
        """The file's content.

        Raises:
            UserError: a folder is not on the volume.
        """
        for path in (self._job.checkout, self._job.work, self._job.encoded, self._job.models):
            if not path.is_relative_to(self._place.mount):
                raise UserError(
                    f"{path} is not below OMNIHUMAN_KUBERNETES_MOUNT ({self._place.mount}), so that pods would not see"
                    " it: put checkout and OMNIHUMAN_HOME on the volume"
                )
        return yaml.safe_dump_all([self._service(), self._indexed_job()], sort_keys=False)

    def _service(self) -> dict[str, Any]:
        spec = {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,  # pods meet before any of them is ready
            "selector": {"job-name": self._job.name},
            "ports": [{"name": "rendezvous", "port": _PORT}],
        }
        return {"apiVersion": "v1", "kind": "Service", "metadata": self._metadata(), "spec": spec}

    def _indexed_job(self) -> dict[str, Any]:
        nodes = self._job.placement.nodes
        rules = [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [_USERS_MISTAKE]}},
            {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [ENDED_FROM_OUTSIDE]}},
        ]
        spec = {
            "completionMode": "Indexed",
            "completions": nodes,
            "parallelism": nodes,
            "backoffLimit": _RETRIES_PER_NODE * nodes,
            "podFailurePolicy": {"rules": rules},
            "template": {"metadata": {"labels": {"job-name": self._job.name}}, "spec": self._pod()},
        }
        return {"apiVersion": "batch/v1", "kind": "Job", "metadata": self._metadata(), "spec": spec}

    def _metadata(self) -> dict[str, Any]:
        labels = {"app.kubernetes.io/name": "omnihuman", "app.kubernetes.io/component": "training"}
        return {"name": self._job.name, "namespace": self._place.namespace, "labels": labels}

    def _pod(self) -> dict[str, Any]:
        job = self._job
        environment = {
            JOB_VARIABLE: str(job.work),
            "OMNIHUMAN_HOME": str(omnihuman_home()),
            "PYTHONPATH": str(job.checkout / "src"),
            "PET_RDZV_ENDPOINT": f"{job.name}-0.{job.name}:{_PORT}",
            "PET_RDZV_ID": job.name,
            **{name: os.environ[name] for name in _HANDED_ON if os.environ.get(name)},
        }
        container = {
            "name": "node",
            "image": self._place.image,
            "workingDir": str(job.checkout),
            "command": job.torchrun(MEETING, python="python"),
            "env": [{"name": name, "value": value} for name, value in environment.items()],
            "volumeMounts": [
                {"name": "work", "mountPath": self._place.mount},
                {"name": "memory", "mountPath": "/dev/shm"},  # the default of 64 MB is too little between ranks
            ],
        }
        if self._place.secret:
            container["envFrom"] = [{"secretRef": {"name": self._place.secret}}]
        if job.accelerator == "cuda":
            container["resources"] = {"limits": {"nvidia.com/gpu": job.placement.processes}}
        return {
            "subdomain": job.name,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": job.placement.save_seconds + 30,
            "containers": [container],
            "volumes": [
                {"name": "work", "persistentVolumeClaim": {"claimName": self._place.claim}},
                {"name": "memory", "emptyDir": {"medium": "Memory"}},
            ],
        }

    def _get(self) -> dict[str, Any] | None:
        """The Job as it is; a cluster that does not answer says nothing about it, so {}."""
        found = self._kubectl("get", f"job/{self._job.name}", "--ignore-not-found", "--output=json")
        if found.returncode:
            log.warning("kubectl: %s", found.stderr.strip())
            return {}
        return json.loads(found.stdout) if found.stdout.strip() else None

    def _delete(self, *options: str) -> None:
        names = (f"job/{self._job.name}", f"service/{self._job.name}")
        self._kubectl("delete", *names, "--ignore-not-found", "--wait", *options)

    def _kubectl(self, verb: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        command = ["kubectl", f"--namespace={self._place.namespace}", verb, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)


def _ended(job: dict[str, Any]) -> str | None:
    """`Complete` or `Failed`, as the Job's conditions say."""
    conditions = job.get("status", {}).get("conditions", [])
    ended = (each["type"] for each in conditions if each["status"] == "True")
    return next((kind for kind in ended if kind in ("Complete", "Failed")), None)
