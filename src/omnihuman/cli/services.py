"""Verbs of the local services: up, down."""

import argparse
from pathlib import Path

from omnihuman.cli.parsing import Adder


def add_verbs(add: Adder) -> None:
    """Adds `omnihuman up` and `down`."""
    parser = add("up", _up, "start a local Prefect server with the deployments, a worker and an MLflow server")
    parser.add_argument("--prefect-port", type=_port, default=4200, help="of 127.0.0.1 (default: %(default)s)")
    parser.add_argument("--mlflow-port", type=_port, default=5000, help="of 127.0.0.1 (default: %(default)s)")
    add("down", _down, "stop all that `omnihuman up` started, flow runs included")


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, give 1 to 65535")
    return int(text)


def _up(args: argparse.Namespace) -> int:
    from omnihuman.pipeline.services import Ports, folder, up

    ports, already = up(Path.cwd(), Ports(args.prefect_port, args.mlflow_port))
    print("The services are up already:" if already else "The services are up:")
    print(f"  flow runs and schedules  http://127.0.0.1:{ports.prefect}")
    print(f"  runs, figures, models    http://127.0.0.1:{ports.mlflow}")
    print(f"  logs and state           {folder()}")
    print("For other commands, in each shell that is to use them:")
    print("\n".join(f"export {name}={value}" for name, value in ports.addresses.items()))
    return 0


def _down(_: argparse.Namespace) -> int:
    from omnihuman.pipeline.services import down

    count = down()
    print(f"stopped {count} processes" if count else "nothing is running")
    return 0
