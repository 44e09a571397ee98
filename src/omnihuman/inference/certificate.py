"""Who signs a rendered file: a certificate made here, which proves no identity, or the user's own."""

import datetime
import os
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from omnihuman.errors import UserError
from omnihuman.storage.files import publish_folder
from omnihuman.storage.work import held, omnihuman_home

SELF_MADE = "OmniHuman local, self-made, proves no identity"
"""The organisation in every certificate made here; validators show it as the signer."""
CERTIFICATE_VARIABLE, KEY_VARIABLE = "OMNIHUMAN_C2PA_CERTIFICATE", "OMNIHUMAN_C2PA_KEY"
_CHAIN, _KEY = "certificates.pem", "key.pem"
_VALID_DAYS = 3650
_CLAIM_SIGNING = x509.ObjectIdentifier("1.3.6.1.4.1.62558.2.1")
"""C2PA 2.x, sec. 14.5.1; validators of 1.x look for e-mail protection."""
_CURVES = {256: "es256", 384: "es384", 521: "es512"}


@dataclass(frozen=True)
class SigningIdentity:
    """A certificate with its key."""

    chain: bytes  # PEM, the signer's own first
    key: bytes = field(repr=False)  # PEM, PKCS 8
    algorithm: str  # C2PA's name


def signing_identity() -> SigningIdentity:
    """The user's, if the environment names one, else the one made here, which is made once.

    Raises:
        UserError: the certificate or the key cannot be used.
    """
    places = [os.environ.get(name, "") for name in (CERTIFICATE_VARIABLE, KEY_VARIABLE)]
    if not any(places):
        return _read(*self_made_files())
    if not all(places):
        named, other = (CERTIFICATE_VARIABLE, KEY_VARIABLE) if places[0] else (KEY_VARIABLE, CERTIFICATE_VARIABLE)
        raise UserError(f"{named} is set and {other} is not: set both, or neither for a certificate made here")
    return _read(Path(places[0]), Path(places[1]))


def own_root() -> str:
    """PEM of the root that signed what was rendered with this machine's certificate; empty where there is none."""
    chain = _folder() / _CHAIN
    if not chain.is_file():
        return ""
    return x509.load_pem_x509_certificates(chain.read_bytes())[-1].public_bytes(Encoding.PEM).decode()


def self_made_files() -> tuple[Path, Path]:
    """Chain and key below `$OMNIHUMAN_HOME`, made by the first call on a machine."""
    folder = _folder()
    with held(folder):
        if not (folder / _KEY).is_file():
            with publish_folder(folder) as made:
                _make(made)
    return folder / _CHAIN, folder / _KEY


def _folder() -> Path:
    return omnihuman_home() / "content_credentials"


def _make(folder: Path) -> None:
    """A root and a signer below it. The root's key is never written, so that it signs nothing else."""
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root_name, name = _name("OmniHuman local root"), _name("OmniHuman local signer")
    root = _certificate(root_name, root_name, root_key, root_key, is_root=True)
    signer = _certificate(name, root_name, key, root_key, is_root=False)
    (folder / _CHAIN).write_bytes(signer.public_bytes(Encoding.PEM) + root.public_bytes(Encoding.PEM))
    with os.fdopen(os.open(folder / _KEY, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(_pem(key))


def _name(common: str) -> x509.Name:
    organisation = x509.NameAttribute(NameOID.ORGANIZATION_NAME, SELF_MADE)
    return x509.Name([organisation, x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    is_root: bool,
) -> x509.Certificate:
    """As C2PA's profile of certificates asks for it (C2PA 2.x, sec. 14.5.1)."""
    now = datetime.datetime.now(datetime.UTC)
    usage = x509.KeyUsage(
        digital_signature=not is_root, key_cert_sign=is_root, crl_sign=is_root, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    builder = (
        x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # for clocks that differ
        .not_valid_after(now + datetime.timedelta(days=_VALID_DAYS))
        .add_extension(x509.BasicConstraints(ca=is_root, path_length=0 if is_root else None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if not is_root:
        purposes = x509.ExtendedKeyUsage([_CLAIM_SIGNING, ExtendedKeyUsageOID.EMAIL_PROTECTION])
        builder = builder.add_extension(purposes, critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _read(chain: Path, key: Path) -> SigningIdentity:
    """Reads both and checks what the user can mend; never tells anything of the key."""
    try:
        certificates = x509.load_pem_x509_certificates(chain.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"certificate {chain}: cannot be read ({_reason(error)}); give PEM, your own first") from error
    try:
        private = load_pem_private_key(key.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:  # TypeError: it is encrypted
        raise UserError(f"key {key}: cannot be read ({_reason(error)}); give PEM without a password") from error
    own = certificates[0]
    if _public(own.public_key()) != _public(private.public_key()):
        raise UserError(f"key {key} is not that of the first certificate in {chain}: give the two that belong together")
    if own.not_valid_after_utc < datetime.datetime.now(datetime.UTC):
        remedy = "remove its folder to have a new one made" if chain.parent == _folder() else "have it renewed"
        raise UserError(f"certificate {chain} ended on {own.not_valid_after_utc:%Y-%m-%d}: {remedy}")
    pems = b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)
    return SigningIdentity(pems, _pem(private), _algorithm(private, key))


def _reason(error: Exception) -> str:
    """The first sentence; OpenSSL's go on with codes."""
    return getattr(error, "strerror", None) or str(error).split(".")[0]


def _algorithm(key: PrivateKeyTypes, path: Path) -> str:
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.key_size in _CURVES:
        return _CURVES[key.curve.key_size]
    if isinstance(key, rsa.RSAPrivateKey):
        return "ps256"
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    raise UserError(f"key {path}: C2PA signs with ECDSA (P-256, P-384, P-521), RSA or Ed25519, give one of these")


def _public(key: object) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # pyright: ignore[reportAttributeAccessIssue]


def _pem(key: PrivateKeyTypes) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
