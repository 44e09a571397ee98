"""C2PA manifests in rendered files: signed, and read back.

A manifest says that the video was made by a trained model, what of (the ingredients, by hash), and all that the sidecar
says; its signature breaks when a byte of pictures or sound changes. Nothing here uses a network: no time-stamp
server, no remote manifests, no revocation lists.
"""

import io
import json
import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import c2pa
from PIL import Image

from omnihuman.errors import UserError
from omnihuman.inference.certificate import CERTIFICATE_VARIABLE, SELF_MADE, SigningIdentity, own_root, signing_identity
from omnihuman.inference.provenance import ModelIdentity, Provenance
from omnihuman.storage.files import publish

ASSERTION = "org.omnihuman.render"
"""Label of what the sidecar says, as an assertion."""
_MADE_BY_A_MODEL = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
_UNTRUSTED = "signingCredential.untrusted"
_SETTINGS: dict[str, Any] = {
    # Larger files wait on disk: c2pa holds what it copies in memory otherwise.
    "core": {"backing_store_memory_threshold_in_mb": 32},
    "builder": {"thumbnail": {"enabled": False}},
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
}
_BROKEN = {
    "assertion.bmffHash.mismatch": "pictures, sound or index are not what was signed",
    "assertion.hashedURI.mismatch": "what the manifest says is not what was signed",
    "claimSignature.mismatch": "the signature does not fit",
    "claimSignature.outsideValidity": "the signer's certificate has ended",
}


@dataclass(frozen=True)
class Credentials:
    """A manifest that waits for its video, and who will sign it."""

    builder: c2pa.Builder
    identity: SigningIdentity

    def sign(self, video: Path) -> None:
        """Replaces an MP4 by the same with the signed manifest in it.

        Raises:
            OSError: it cannot be written.
        """
        signer = _signer(self.identity)
        try:
            with publish(video) as signed:
                self.builder.sign_file(video, signed, signer)
        except c2pa.C2paError as error:
            if isinstance(error, c2pa.C2paError.Io):
                raise OSError(str(error)) from error
            raise


def prepare(made_of: Provenance, files: Mapping[str, Path]) -> Credentials:
    """Everything but the signature, before a long rendering begins, so that a bad certificate is found then.

    Args:
        made_of: what the manifest is to say.
        files: the inputs by role. Where one of them has a manifest of its own, it is carried along.

    Raises:
        UserError: the certificate or its key cannot be used.
    """
    identity = signing_identity()
    _try_out(identity)
    builder = c2pa.Builder(_manifest(made_of), _context())
    for role, path in files.items():
        _add_ingredient(builder, role, path, made_of.inputs[role])
    return Credentials(builder, identity)


@dataclass(frozen=True)
class Manifest:
    """What the manifest in a file says, and whether it holds."""

    broken: tuple[str, ...]
    """What does not hold, in words; empty where file and manifest are as they were signed."""
    signer: str
    self_made: bool
    """Whether the certificate was made by this program, on whichever machine: it proves no identity."""
    ours: bool
    """Whether it was signed with the certificate made on this machine."""
    provenance: Provenance | None
    """None where another program made the manifest."""


def read_manifest(path: Path) -> Manifest | None:
    """Reads and checks the manifest of a file; None where it has none, or is of a kind that can have none."""
    try:
        with c2pa.Reader(path, context=_context(own_root())) as reader:
            told = json.loads(reader.json())
    except (c2pa.C2paError.ManifestNotFound, c2pa.C2paError.NotSupported):
        return None
    except c2pa.C2paError as error:
        return Manifest((f"the manifest cannot be read ({str(error).splitlines()[0]})",), "unknown", False, False, None)
    active = told["manifests"][told["active_manifest"]]
    failures = [failure["code"] for failure in told["validation_results"]["activeManifest"]["failure"]]
    broken = {_BROKEN.get(str(code), str(code)): None for code in failures if code != _UNTRUSTED}
    signature = active.get("signature_info", {})
    organisation, name = signature.get("issuer") or "", signature.get("common_name") or ""
    return Manifest(
        broken=tuple(broken),
        signer=organisation
        if organisation == SELF_MADE
        else ", ".join(filter(None, (name, organisation))) or "unknown",
        self_made=organisation == SELF_MADE,
        ours=bool(own_root()) and _UNTRUSTED not in failures,
        provenance=_provenance(active),
    )


def _provenance(manifest: dict[str, Any]) -> Provenance | None:
    for assertion in manifest.get("assertions", []):
        if assertion["label"] == ASSERTION:
            try:
                return Provenance.of(assertion["data"])
            except (TypeError, KeyError, ValueError, AttributeError):
                return None
    return None


def _manifest(made_of: Provenance) -> dict[str, Any]:
    created = {
        "action": "c2pa.created",
        "digitalSourceType": _MADE_BY_A_MODEL,
        "parameters": {"ingredientIds": list(made_of.inputs)},
    }
    name, _, version = made_of.made_by.partition(" ")
    return {
        "claim_generator_info": [{"name": name, "version": version}],
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": [created]}},
            {"label": ASSERTION, "data": made_of.told()},
        ],
    }


def _add_ingredient(builder: c2pa.Builder, role: str, path: Path, sha256: str) -> None:
    told = {"title": role, "label": role, "relationship": "inputTo", "description": f"sha256 {sha256}"}
    kind = mimetypes.guess_type(path.name)[0]
    with io.BytesIO() if path.is_dir() else path.open("rb") as file:  # a folder is told by its hash alone
        try:
            builder.add_ingredient(told, kind if kind in c2pa.Reader.get_supported_mime_types() else "", file)
        except c2pa.C2paError:  # the suffix lies, or what the file has is no manifest: without a look inside
            file.seek(0)
            builder.add_ingredient(told, "", file)


def _signer(identity: SigningIdentity) -> c2pa.Signer:
    return c2pa.Signer.from_info(c2pa.C2paSignerInfo(identity.algorithm, identity.chain, identity.key, None))


def _try_out(identity: SigningIdentity) -> None:
    """Signs one pixel: C2PA asks much of a certificate, and says so only then."""
    pixel, signed = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (1, 1)).save(pixel, "PNG")
    pixel.seek(0)
    try:
        manifest = _manifest(Provenance(ModelIdentity("", None, ""), {}, {}))
        c2pa.Builder(manifest, _context()).sign(_signer(identity), "image/png", pixel, signed)
    except c2pa.C2paError as error:
        raise UserError(
            f"certificate {CERTIFICATE_VARIABLE}: C2PA does not accept it ({str(error).splitlines()[0]}); it needs"
            " digitalSignature as its usage, e-mail protection, document signing or C2PA claim signing as its extended"
            " usage, and an issuer other than itself"
        ) from error


def _context(trusted_root: str = "") -> c2pa.Context:
    trust = {"trust": {"user_anchors": trusted_root}} if trusted_root else {}
    return c2pa.Context.from_dict({**_SETTINGS, **trust})
