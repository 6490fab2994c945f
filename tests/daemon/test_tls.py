"""TCP: who is served with which certificate, what the others are told, and new certificates without a restart."""

import http.client
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
EXPIRED = ("-startdate", "20240101000000Z", "-enddate", "20240201000000Z")
SETTINGS = """
[ca]
default_ca = settings
[settings]
database = {folder}/index
serial = {folder}/serial
new_certs_dir = {folder}
default_md = sha256
policy = names
unique_subject = no
x509_extensions = extensions
[names]
commonName = supplied
[extensions]
subjectAltName = IP:127.0.0.1
basicConstraints = critical,CA:FALSE
"""


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two authorities, a certificate for 127.0.0.1 of each of them, and an expired one of the first."""
    folder = tmp_path_factory.mktemp("tls")
    (folder / "settings").write_text(SETTINGS.format(folder=folder))
    (folder / "index").touch()
    (folder / "serial").write_text("01\n")
    for name in ("ours", "foreign"):
        files = ("-keyout", f"{folder}/{name}-ca.key", "-out", f"{folder}/{name}-ca.pem")
        openssl("req", "-x509", *CURVE, "-days", "2", "-subj", f"/CN={name}", *files)
    for name, authority, dates in (
        ("ours", "ours", ("-days", "2")),
        ("foreign", "foreign", ("-days", "2")),
        ("expired", "ours", EXPIRED),
    ):
        request = f"{folder}/{name}.csr"
        openssl("req", *CURVE, "-subj", f"/CN={name}", "-keyout", f"{folder}/{name}.key", "-out", request)
        signer = ("-cert", f"{folder}/{authority}-ca.pem", "-keyfile", f"{folder}/{authority}-ca.key")
        out = ("-out", f"{folder}/{name}.pem", "-notext")
        openssl("ca", "-batch", "-config", f"{folder}/settings", *signer, "-in", request, *out, *dates)
    return folder


class Served:
    """A daemon on TCP, with `ours` as certificate and authority."""

    def __init__(self, make_daemon: Callable[..., Any], certificates: Path, folder: Path) -> None:
        self.certificates = certificates
        self.folder = folder
        self.use("ours")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        files = {"--tlscacert": "ca.pem", "--tlscert": "server.pem", "--tlskey": "server.key"}
        flags = [part for flag, name in files.items() for part in (flag, str(folder / name))]
        self.daemon = make_daemon("--tlsverify", *flags, "-H", f"tcp://127.0.0.1:{self.port}", "-H", "unix://").start()

    def use(self, name: str) -> None:
        for source, target in (("-ca.pem", "ca.pem"), (".pem", "server.pem"), (".key", "server.key")):
            shutil.copy(self.certificates / f"{name}{source}", self.folder / target)

    def ping(self, certificate: str | None, *, trusted: str = "ours", newest: ssl.TLSVersion | None = None) -> bytes:
        context = ssl.create_default_context(cafile=self.certificates / f"{trusted}-ca.pem")
        if newest:
            context.maximum_version = newest
        if certificate:
            context.load_cert_chain(self.certificates / f"{certificate}.pem", self.certificates / f"{certificate}.key")
        return fetch(http.client.HTTPSConnection("127.0.0.1", self.port, context=context, timeout=10))

    def says(self, words: str) -> None:
        deadline = time.monotonic() + 20
        while words not in self.daemon.log():
            assert time.monotonic() < deadline, self.daemon.log()
            time.sleep(0.02)


def fetch(connection: http.client.HTTPConnection) -> bytes:
    try:
        connection.request("GET", "/_ping")
        return connection.getresponse().read()
    finally:
        connection.close()


@pytest.fixture
def served(make_daemon: Callable[..., Any], certificates: Path, tmp_path: Path) -> Served:
    return Served(make_daemon, certificates, tmp_path)


def test_only_clients_with_a_certificate_of_the_authority_are_served_and_others_are_told_why(served: Served) -> None:
    for newest in (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2):
        assert served.ping("ours", newest=newest) == b"OK"
        for certificate, alert, words in (
            ("foreign", "UNKNOWN_CA", "unable to get local issuer certificate"),
            ("expired", "CERTIFICATE_EXPIRED", "certificate has expired"),
            (None, "CERTIFICATE_REQUIRED|HANDSHAKE_FAILURE", "peer did not return a certificate"),
        ):
            with pytest.raises(ssl.SSLError, match=alert):
                served.ping(certificate, newest=newest)
            served.says(f'level=info msg="TLS client refused: {words}"')
    assert served.ping("ours") == b"OK"


def test_without_tls_or_with_an_old_one_nobody_is_served(served: Served) -> None:
    with pytest.raises((OSError, http.client.HTTPException)):
        fetch(http.client.HTTPConnection("127.0.0.1", served.port, timeout=10))
    served.says("TLS client refused: http request")
    context = ssl.create_default_context(cafile=served.certificates / "ours-ca.pem")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(OSError, match=r"(?i)version|protocol|alert|EOF|reset"):
        fetch(http.client.HTTPSConnection("127.0.0.1", served.port, context=context, timeout=10))
    assert served.ping("ours") == b"OK"


def test_a_reload_takes_new_certificates_and_lets_go_of_the_old_authority(served: Served) -> None:
    assert served.ping("ours") == b"OK"
    served.use("foreign")
    served.daemon.process.send_signal(signal.SIGHUP)
    served.says("settings reloaded")
    assert served.ping("foreign", trusted="foreign") == b"OK"
    with pytest.raises(ssl.SSLError, match="UNKNOWN_CA"):
        served.ping("ours", trusted="foreign")
    with pytest.raises(ssl.SSLCertVerificationError):
        served.ping("ours")


def test_a_reload_with_a_file_that_is_no_certificate_keeps_the_old_ones(served: Served) -> None:
    (served.folder / "server.pem").write_text("no certificate")
    served.daemon.process.send_signal(signal.SIGHUP)
    served.says('level=error msg="settings not reloaded: tlscert, tlskey: ')
    assert served.ping("ours") == b"OK"
