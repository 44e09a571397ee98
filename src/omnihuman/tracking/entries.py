"""What a run says it is made from: parameters, data, a parent."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnihuman.errors import UserError
from omnihuman.tracking.server import tracking_uri
from omnihuman.tracking.values import flat_parameters

if TYPE_CHECKING:
    from mlflow import MlflowClient

PARENT_VARIABLE = "OMNIHUMAN_PARENT_RUN"
PARENT_TAG = "mlflow.parentRunId"
_PARAMETERS_PER_CALL = 100  # MLflow's limit


def open_client() -> "MlflowClient":
    """MLflow's client of the store that `server.prepare` made ready."""
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri())


def parent_tags(client: "MlflowClient") -> dict[str, str]:
    """The tag of a child of `$OMNIHUMAN_PARENT_RUN`; none where it is not set.

    Raises:
        UserError: no such run is in the store.
    """
    from mlflow.exceptions import MlflowException

    parent = os.environ.get(PARENT_VARIABLE, "")
    if not parent:
        return {}
    try:
        client.get_run(parent)
    except MlflowException as error:
        raise UserError(f"{PARENT_VARIABLE} is {parent}: no such run in {tracking_uri()}; unset it") from error
    return {PARENT_TAG: parent}


def log_parameters(client: "MlflowClient", run_id: str, settings: Mapping[str, Any]) -> None:
    """Adds nested settings, flat, as far as the run lacks them: a parameter logged again with another value raises."""
    from mlflow.entities import Param

    known = client.get_run(run_id).data.params
    missing = [Param(key, value) for key, value in flat_parameters(settings).items() if key not in known]
    for start in range(0, len(missing), _PARAMETERS_PER_CALL):
        client.log_batch(run_id, params=missing[start : start + _PARAMETERS_PER_CALL])


def log_data(client: "MlflowClient", run_id: str, folder: Path, digest: str) -> None:
    """The folder that a run reads as its dataset; MLflow keeps one of equal name and digest."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = json.dumps({"uri": str(folder.absolute())})
    dataset = Dataset(str(folder), digest, "local", source)
    client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])
