"""What registered versions were trained on."""

from omnihuman.registry.store import MODEL_NAME, connect


def data_of_versions() -> dict[str, str]:
    """DVC's digest of the encoded clips by version, e.g. `omnihuman 3`; empty where it was not recorded."""
    found = connect().search_model_versions(f"name='{MODEL_NAME}'")
    ordered = sorted(found, key=lambda version: int(version.version))
    return {f"{MODEL_NAME} {version.version}": version.tags.get("data_md5", "") for version in ordered}
