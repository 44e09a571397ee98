"""`omnihuman up` and `down`: a local Prefect server, a worker and an MLflow server, on 127.0.0.1 only."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import psutil

from omnihuman.errors import UserError
from omnihuman.pipeline.step_lock import open_lock, try_lock
from omnihuman.storage.files import publish
from omnihuman.storage.work import omnihuman_home

HOST = "127.0.0.1"
POOL = "omnihuman"
PROMOTION_LIMIT = "promote-omnihuman"
"""Prefect's limit of one promotion at a time, created when the services start."""
PREFECT_URL, MLFLOW_URL = "PREFECT_API_URL", "MLFLOW_TRACKING_URI"
_MARK = "OMNIHUMAN_SERVICES"
"""In the environment of every process that `up` starts, and of all that those start: their folder."""
_START_SECONDS, _STOP_SECONDS = 300.0, 15.0
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Ports:
    """Where the two servers listen on 127.0.0.1.

    Raises:
        UserError: both at one port.
    """

    prefect: int = 4200
    mlflow: int = 5000

    def __post_init__(self) -> None:
        if self.prefect == self.mlflow:
            raise UserError(
                f"port {self.prefect} cannot be both servers': give another by --prefect-port or --mlflow-port"
            )

    @property
    def addresses(self) -> dict[str, str]:
        """What later commands need in their environment to find the servers."""
        return {PREFECT_URL: f"http://{HOST}:{self.prefect}/api", MLFLOW_URL: f"http://{HOST}:{self.mlflow}"}


def up(root: Path, ports: Ports) -> tuple[Ports, bool]:
    """Starts what does not run yet: servers, work pool, limits, the deployments of `root`, a worker.

    Returns:
        The ports in use, which are those of the first start, and whether everything was up already.

    Raises:
        UserError: a port is taken, a service does not start, or another `up` or `down` is under way.
    """
    if not (root / "prefect.yaml").is_file():
        raise UserError(f"{root} has no prefect.yaml: run this in the project's folder")
    with _exclusive():
        known = running()
        if known:
            return known, True
        _end(_marked())
        for name, port in asdict(ports).items():
            _check_free(name, port)
        try:
            _start_all(root, ports)
        except BaseException:
            _end(_marked())
            raise
        with publish(_record()) as temporary:
            temporary.write_text(json.dumps(asdict(ports)) + "\n", encoding="utf-8")
        return ports, False


def down() -> int:
    """Ends every process that `up` started, flow runs and their steps included, and returns how many there were."""
    with _exclusive():
        _record().unlink(missing_ok=True)
        processes = _marked()
        _end(processes)
        return len(processes)


def running() -> Ports | None:
    """The ports of the services when all of them run."""
    if not _record().is_file():
        return None
    ports = Ports(**json.loads(_record().read_text(encoding="utf-8")))
    worker = any(_is_worker(process) for process in _marked())
    answer = all(_answers(address) for address in _health(ports))
    return ports if worker and answer else None


def server_address(env: Mapping[str, str] | None = None) -> str:
    """`$PREFECT_API_URL`; empty where a flow starts a temporary server of its own."""
    return (os.environ if env is None else env).get(PREFECT_URL, "")


def flow_environment(env: Mapping[str, str]) -> dict[str, str]:
    """The environment of a flow's process: on the server that `env` names, else on that of `up`, else on its own.

    Prefect keeps its state below `$OMNIHUMAN_HOME/services`, so that `up` shows earlier runs too.

    Raises:
        UserError: no server answers at the address that `env` names.
    """
    named = server_address(env)
    if named and not _answers(f"{named}/health"):
        raise UserError(
            f"{PREFECT_URL} is {named}, but no Prefect server answers there; start it (`omnihuman up` starts a local"
            " one), or unset the variable to run without"
        )
    ports = None if named else running()
    own = {PREFECT_URL: ports.addresses[PREFECT_URL]} if ports else {}
    folder().mkdir(parents=True, exist_ok=True)
    quiet = {"PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL"}  # short waits for SQLite would look like errors
    return {**_settings(), **quiet, **env, **own}


def _settings() -> dict[str, str]:
    return {
        "PREFECT_HOME": str(folder() / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_EXTRA_LOGGERS": "omnihuman",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "300",
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "10",  # a new schedule waits for up to two of them
        "PREFECT_WORKER_QUERY_SECONDS": "5",
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eleven processes fewer
    }


def folder() -> Path:
    """Where the services keep state and logs."""
    return omnihuman_home().absolute() / "services"


def _record() -> Path:
    return folder() / "ports.json"


def _health(ports: Ports) -> list[str]:
    return [f"{address}/health" for address in ports.addresses.values()]


@contextmanager
def _exclusive() -> Iterator[None]:
    with open_lock(folder() / "up.lock") as descriptor:
        if not try_lock(descriptor):
            raise UserError("another `omnihuman up` or `down` is under way: wait for it")
        yield


def _check_free(name: str, port: int) -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError as error:
            raise UserError(
                f"port {port} of {HOST}, for {name}, cannot be used ({error.strerror}): stop what listens there, or"
                f" give another by --{name}-port"
            ) from error


def _start_all(root: Path, ports: Ports) -> None:
    env = {
        **_settings(),
        **os.environ,
        **ports.addresses,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "OMNIHUMAN_HOME": str(omnihuman_home().absolute()),
        _MARK: str(folder()),
    }
    store = _prepared_store(root)
    servers = {
        "prefect": _start("prefect", ["prefect", "server", "start", "--host", HOST, "--port", str(ports.prefect)], env),
        "mlflow": _start("mlflow", _mlflow_command(ports, store), {**env, MLFLOW_URL: store}),
    }
    for (name, process), address in zip(servers.items(), _health(ports), strict=True):
        _wait_for(name, process, partial(_answers, address))
    _bootstrap(root, env)
    begin = datetime.now(UTC)
    worker = _start("worker", ["prefect", "worker", "start", "--pool", POOL, "--name", "local"], env, root)
    _wait_for("worker", worker, partial(_heartbeat_since, begin, ports.addresses[PREFECT_URL]))


def _prepared_store(root: Path) -> str:
    """MLflow's SQLite file, initialised; an address that an earlier `up` left in the environment does not count."""
    env = dict(os.environ)
    if env.get(MLFLOW_URL, "").startswith("http"):
        del env[MLFLOW_URL]
    program = "from omnihuman.tracking import server; server.prepare(); print(server.tracking_uri())"
    result = subprocess.run([sys.executable, "-c", program], cwd=root, env=env, capture_output=True, text=True)
    if result.returncode:
        raise UserError(f"MLflow's store cannot be made ready: {(result.stderr.strip().splitlines() or [''])[-1]}")
    return result.stdout.split()[-1]


def _mlflow_command(ports: Ports, store: str) -> list[str]:
    artifacts = omnihuman_home().absolute() / "mlflow/artifacts"
    places = ["--backend-store-uri", store, "--artifacts-destination", str(artifacts)]
    return ["mlflow", "server", "--host", HOST, "--port", str(ports.mlflow), "--workers", "1", *places]


def _start(name: str, command: Sequence[str], env: Mapping[str, str], cwd: Path | None = None) -> "psutil.Popen":
    """Starts a service that outlives this process. SIGINT is restored: a worker that ignores it survives TERM too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # becomes the default in a new program
    with (folder() / f"{name}.log").open("ab") as log:
        return psutil.Popen(
            [sys.executable, "-m", *command],
            cwd=cwd or folder(),
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _wait_for(name: str, process: "psutil.Popen", is_up: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not is_up():
        if process.poll() is not None or time.monotonic() > deadline:
            raise UserError(f"{name} does not start, see {folder() / name}.log")
        time.sleep(_POLL_SECONDS)


def _bootstrap(root: Path, env: Mapping[str, str]) -> None:
    command = [sys.executable, "-m", "omnihuman.pipeline.bootstrap"]
    with (folder() / "bootstrap.log").open("ab") as log:
        code = subprocess.run(command, cwd=root, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log).returncode
    if code:
        raise UserError(f"the deployments of prefect.yaml cannot be applied, see {log.name}")


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return answer.status == 200
    except (OSError, ValueError):
        return False


def _heartbeat_since(begin: datetime, server: str) -> bool:
    """Whether the pool's worker has reported to the server; it keeps what earlier workers of this name reported."""
    content = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{server}/work_pools/{POOL}/workers/filter", b"{}", content)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            beats = [worker["last_heartbeat_time"] for worker in json.load(answer)]
    except (OSError, ValueError):
        return False
    return any(beat and datetime.fromisoformat(beat) >= begin for beat in beats)


def _is_worker(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return "worker" in process.cmdline()
    return False


def _marked() -> list[psutil.Process]:
    """Every living process of the services of this home."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(_MARK) == str(folder()) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _end(processes: Sequence[psutil.Process]) -> None:
    """Asks, waits, and kills what is left, with what was started meanwhile."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    psutil.wait_procs(processes, timeout=_STOP_SECONDS)
    while left := _marked():
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=_STOP_SECONDS)
