"""A SLURM of two nodes on this machine, with a munge of its own: Debian's `slurm-wlm` and `munge`, no root needed."""

import getpass
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.small_project import wait_until

PROGRAMS = ("munged", "mungekey", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol")
_SYSTEM = f"{os.environ['PATH']}{os.pathsep}/usr/sbin"
CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
KillWait=20
MinJobAge=10
SchedulerParameters=batch_sched_delay=1,sched_interval=2,bf_interval=2
InactiveLimit=0
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1
PartitionName=usual Nodes=n1,n2 Default=YES MaxTime=60 State=UP PriorityTier=1
PartitionName=urgent Nodes=n1,n2 MaxTime=60 State=UP PriorityTier=9
"""


def missing() -> list[str]:
    """Programs of a cluster that are not installed here."""
    return [name for name in PROGRAMS if not shutil.which(name, path=_SYSTEM)]


@contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Runs the cluster for the block and yields the environment of its clients."""
    folder.chmod(0o755)
    ports = _free_ports(3)
    conf = folder / "slurm.conf"
    conf.write_text(CONF.format(host=socket.gethostname(), user=getpass.getuser(), folder=folder, ports=ports))
    (folder / "state").mkdir()
    environment = {"SLURM_CONF": str(conf), "PATH": _SYSTEM}
    subprocess.run(["mungekey", "--create", f"--keyfile={folder / 'munge.key'}"], env=environment, check=True)
    munge = ["munged", "--foreground", "--force", "--num-threads=1", f"--key-file={folder / 'munge.key'}"]
    munge += [f"--{name}-file={folder}/munged.{name}" for name in ("log", "pid", "seed")]
    daemons = [
        [*munge, f"--socket={folder / 'munge.socket'}"],
        ["slurmctld", "-D", "-i"],
        ["slurmd", "-D", "-N", "n1"],
        ["slurmd", "-D", "-N", "n2"],
    ]
    running: list[subprocess.Popen[bytes]] = []
    try:
        for command in daemons:
            running.append(_start(command, environment, folder))
            if command[0] == "munged":
                assert wait_until((folder / "munge.socket").exists, 10), (folder / "munged.output").read_text()
        assert wait_until(lambda: _idle(environment), 30), _said(folder)
        yield environment
    finally:
        for process in reversed(running):
            process.terminate()
            process.wait(30)


def _start(command: Sequence[str], environment: dict[str, str], folder: Path) -> "subprocess.Popen[bytes]":
    with (folder / f"{command[0]}.output").open("ab") as output:
        return subprocess.Popen(command, env=os.environ | environment, stdout=output, stderr=subprocess.STDOUT)


def _idle(environment: dict[str, str]) -> bool:
    command = ["sinfo", "--noheader", "--partition=usual", "--states=idle", "--format=%D"]
    found = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    return found.stdout.strip() == "2"


def _said(folder: Path) -> str:
    return "\n".join(f"{path.name}: {path.read_text()[-2000:]}" for path in folder.glob("*.[lo]*[gt]"))


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
