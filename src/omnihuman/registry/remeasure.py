"""Figures of a registered version on the data that another was measured on, so that the two can be compared."""

import json
import logging
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from omnihuman.config.load import load_params, read_yaml
from omnihuman.config.schema.evaluate import Sampling
from omnihuman.config.strict import instantiate
from omnihuman.errors import UserError
from omnihuman.registry.gate import Measured
from omnihuman.registry.origin import ENCODED, PARAMS, Origin, evaluation_set
from omnihuman.registry.store import MODEL_NAME, find
from omnihuman.registry.versions import ModelVersion, as_version, params_of
from omnihuman.tracking.values import folder_md5

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)


def recorded_figures(client: "MlflowClient", version: int) -> Measured:
    """The figures that were recorded when the version was registered.

    Raises:
        UserError: there are none, because the version came by another way.
    """
    tags = find(client, str(version)).tags
    if "evaluation" not in tags:
        raise UserError(
            f"version {version} of {MODEL_NAME} has no figures to compare with: it was not made by"
            " `omnihuman registry register`; register the model that way, or take its alias away in MLflow"
        )
    return Measured(json.loads(tags["evaluation"]), Origin.from_tags(tags).evaluation_set)


def figures_on(client: "MlflowClient", version: int, wanted_set: str, root: Path) -> Measured:
    """The version's figures on an evaluation set, measured once and kept as a tag; else those on its own set.

    Args:
        root: a checkout that may hold the encoded clips of the wanted set.
    """
    recorded = recorded_figures(client, version)
    if recorded.evaluation_set == wanted_set:
        return recorded
    found = find(client, str(version))
    tag = f"evaluation/{wanted_set}"
    if tag not in found.tags:
        figures = _remeasure(as_version(client, found), wanted_set, root)
        if figures is None:
            return recorded
        client.set_model_version_tag(MODEL_NAME, str(version), tag, json.dumps(figures))
        return Measured(figures, wanted_set)
    return Measured(json.loads(found.tags[tag]), wanted_set)


def _remeasure(version: ModelVersion, wanted_set: str, root: Path) -> dict | None:
    """Evaluates a version, with its own sampling, on the encoded clips of a checkout.

    Returns:
        Figures as reports/evaluation.json holds them; None where the checkout does not hold the wanted evaluation set,
        or its clips were encoded by other encoders than the version knows.

    Raises:
        UserError: params.yaml of the checkout cannot be read.
    """
    from omnihuman.data.shards import Encoders  # here, because the list of versions needs no torch
    from omnihuman.evaluation.run import evaluate
    from omnihuman.model.checkpoint import load_model

    encoded = root / ENCODED
    if not encoded.is_dir() or evaluation_set(folder_md5(encoded), read_yaml(root / PARAMS)) != wanted_set:
        return None
    if load_model(version.folder)[1].encoders != Encoders.load(encoded / "encoders.json"):
        return None
    log.info("version %d was measured on other data: it is measured again on %s", version.version, encoded)
    params = load_params(root / PARAMS)
    sampling = instantiate(Sampling, params_of(version.version)["sampling"], "sampling")
    with tempfile.TemporaryDirectory() as name:
        metrics, pictures = Path(name) / "evaluation.json", Path(name) / "pictures"
        evaluate(
            replace(params.evaluate, metrics=()), sampling, params.seed, encoded, version.folder, metrics, pictures
        )
        return json.loads(metrics.read_text(encoding="utf-8"))
