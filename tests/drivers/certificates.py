"""Certificates for tests, made by openssl."""

import subprocess
from pathlib import Path

KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def make_ca(folder: Path, name: str) -> Path:
    """Make a certificate authority: NAME.pem and NAME.key."""
    path = folder / f"{name}.pem"
    usage = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
    _openssl("req", "-x509", *KEY, "-keyout", path.with_suffix(".key"), "-out", path, "-subj", f"/CN={name}", *usage)
    return path


def make_certificate(ca: Path, name: str, *, days: int = 2, host: str = "localhost") -> Path:
    """Have an authority sign a certificate, expired with negative days: NAME.pem and NAME.key beside its own."""
    path = ca.with_name(f"{name}.pem")
    request, extensions = path.with_suffix(".csr"), path.with_suffix(".ext")
    extensions.write_text(f"subjectAltName=DNS:{host}\n")
    _openssl("req", *KEY, "-keyout", path.with_suffix(".key"), "-out", request, "-subj", f"/CN={name}")
    signer = ("-CA", ca, "-CAkey", ca.with_suffix(".key"), "-CAcreateserial", "-extfile", extensions)
    _openssl("x509", "-req", "-in", request, *signer, "-days", str(days), "-out", path)
    return path


def encrypt_key(certificate: Path) -> Path:
    """Return the file of a certificate's key, encrypted."""
    path = certificate.with_suffix(".encrypted")
    _openssl("ec", "-in", certificate.with_suffix(".key"), "-aes256", "-passout", "pass:secret", "-out", path)
    return path


def _openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
