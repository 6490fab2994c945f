"""A registry on loopback (Debian's docker-registry), filled with images that are made once of this machine's files."""

import gzip
import hashlib
import http.client
import json
import os
import random
import shutil
import socket
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import urlsplit

MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG: Final = "application/vnd.docker.container.image.v1+json"
LAYER: Final = "application/vnd.docker.image.rootfs.diff.tar.gzip"
LAYERS: Final = 6
LAYER_BYTES: Final = 84_000_000
"""Of the files in a layer; six make 500 MB, of which the last is noise that does not compress."""
SMALL_FILES: Final = 100_000
LARGEST: Final = 20_000_000
"""A larger file would be a layer by itself."""

Fill = Callable[[tarfile.TarFile], None]


class Registry:
    """The registry of a folder, on a free port, and what it has."""

    def __init__(self, work: Path) -> None:
        program = shutil.which("docker-registry")
        if program is None:
            raise FileNotFoundError("docker-registry is not installed (Debian: docker-registry)")
        folder = work / "registry"
        folder.mkdir(parents=True, exist_ok=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        config = folder / "config.json"
        storage = {"filesystem": {"rootdirectory": str(folder / "data")}}
        http_ = {"addr": f"127.0.0.1:{self.port}"}
        config.write_text(json.dumps({"version": 0.1, "log": {"level": "error"}, "storage": storage, "http": http_}))
        with (folder / "log").open("wb") as log:
            argv = [program, "serve", str(config)]
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until = time.monotonic() + 30
        while True:
            try:
                self._ask("GET", "/v2/")
                break
            except OSError:
                if time.monotonic() > until or self.process.poll() is not None:
                    raise
                time.sleep(0.05)

    def image(self, name: str, fills: list[Fill]) -> None:
        """Have an image with a layer for each of `fills`, made if it is not there."""
        if self._manifest(name):
            return
        diff_ids, layers = [], []
        for fill in fills:
            diff_id, blob = _layer(fill)
            diff_ids.append(diff_id)
            layers.append({"mediaType": LAYER, **self._upload(name, blob)})
        self._enter(name, diff_ids, layers)

    def variant(self, name: str, number: int) -> str:
        """Have the same image with another small layer beneath and other digests; return its reference.

        So that it can be pulled again while its predecessor stays: ext4 is slow for minutes after a large removal.
        """
        new = f"{name}-{number}"
        reference = f"127.0.0.1:{self.port}/{new}:latest"
        if self._manifest(new):
            return reference
        manifest = self._manifest(name)
        diff_ids = json.loads(self._blob(name, manifest["config"]["digest"]))["rootfs"]["diff_ids"]
        diff_id, lowest = _layer(lambda tar: _add(tar, f"variant-{number}"))
        layers = [{"mediaType": LAYER, **self._upload(new, lowest)}]
        for layer in manifest["layers"]:
            blob = self._blob(name, layer["digest"])
            stamped = blob[:4] + (number + 1).to_bytes(4, "little") + blob[8:]  # the time in the gzip header
            layers.append({"mediaType": LAYER, **self._upload(new, stamped)})
        self._enter(new, [diff_id, *diff_ids], layers)
        return reference

    def _enter(self, name: str, diff_ids: list[str], layers: list[dict[str, object]]) -> None:
        config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
        described = {"mediaType": CONFIG, **self._upload(name, json.dumps(config).encode())}
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": layers}
        body, headers = json.dumps(manifest).encode(), {"Content-Type": MANIFEST}
        self._expect(201, self._ask("PUT", f"/v2/{name}/manifests/latest", body, headers))

    def _manifest(self, name: str) -> dict[str, Any]:
        """Return an image's manifest, {} if it is not there."""
        status, _, body = self._ask("GET", f"/v2/{name}/manifests/latest", headers={"Accept": MANIFEST})
        found: dict[str, Any] = json.loads(body) if status == 200 else {}
        return found

    def _blob(self, name: str, digest: str) -> bytes:
        status, _, body = self._ask("GET", f"/v2/{name}/blobs/{digest}")
        if status != 200:
            raise RuntimeError(f"the registry has no blob {digest}: {status}")
        return body

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)

    def _upload(self, name: str, blob: bytes) -> dict[str, object]:
        digest = f"sha256:{hashlib.sha256(blob).hexdigest()}"
        where = self._expect(202, self._ask("POST", f"/v2/{name}/blobs/uploads/"))["Location"]
        parts = urlsplit(where)
        target = f"{parts.path}?{parts.query}&digest={digest}"
        self._expect(201, self._ask("PUT", target, blob, {"Content-Type": "application/octet-stream"}))
        return {"digest": digest, "size": len(blob)}

    def _ask(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()
        finally:
            connection.close()

    def _expect(self, status: int, answer: tuple[int, dict[str, str], bytes]) -> dict[str, str]:
        if answer[0] != status:
            raise RuntimeError(f"the registry answered {answer[0]}: {answer[2][:500]!r}")
        return answer[1]


def host_image() -> list[Fill]:
    """500 MB in 6 layers: programs, libraries and texts of this machine's /usr, and a layer of noise."""
    files = _files_of_host()

    def from_host(tar: tarfile.TarFile) -> None:
        size = 0
        for path in files:
            tar.add(path, str(path).lstrip("/"), recursive=False)
            size += path.lstat().st_size
            if size > LAYER_BYTES:
                return

    def noise(tar: tarfile.TarFile) -> None:
        source = random.Random(1)
        for number in range(LAYER_BYTES // 1_000_000):
            _add(tar, f"noise/{number}", source.randbytes(1_000_000))

    return [*[from_host] * (LAYERS - 1), noise]


def _files_of_host() -> Iterator[Path]:
    for folder, folders, names in os.walk("/usr"):
        folders.sort()
        for name in sorted(names):
            path = Path(folder, name)
            if not path.is_symlink() and path.is_file() and path.stat().st_size < LARGEST:
                yield path


def small_files_image() -> list[Fill]:
    """One layer with 100,000 small files in 1,000 directories, among them links, owners, modes, attributes."""

    def fill(tar: tarfile.TarFile) -> None:
        source = random.Random(2)
        text = source.randbytes(2048).hex().encode()
        for number in range(SMALL_FILES):
            folder, name = f"d{number // 2000}/e{number // 100 % 20}", f"file-{number}"
            if number % 2000 == 0:  # what the archive does not name has the time of the pull
                _add(tar, f"d{number // 2000}", kind=tarfile.DIRTYPE, mode=0o750)
            if number % 100 == 0:
                _add(tar, folder, kind=tarfile.DIRTYPE, mode=0o755 | number % 8, mtime=1.6e9 + number)
            if number % 50 == 1:
                _add(tar, f"{folder}/{name}", kind=tarfile.SYMTYPE, link=f"file-{number - 1}")
            elif number % 50 == 2:
                _add(tar, f"{folder}/{name}", kind=tarfile.LNKTYPE, link=f"{folder}/file-{number - 2}")
            else:
                pax = {"SCHILY.xattr.user.number": str(number)} if number % 200 == 3 else {}
                mode = (0o644, 0o755, 0o4755, 0o600)[number % 4]
                owner = number % 7 * 1000
                content = text[: source.randrange(4096)]
                _add(tar, f"{folder}/{name}", content, mode=mode, owner=owner, mtime=1.6e9 + number + 0.125, pax=pax)

    return [fill]


def _add(
    tar: tarfile.TarFile,
    name: str,
    content: bytes = b"",
    *,
    kind: bytes = tarfile.REGTYPE,
    mode: int = 0o644,
    owner: int = 0,
    mtime: float = 1.6e9,
    link: str = "",
    pax: dict[str, str] | None = None,
) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.uid, entry.gid, entry.mtime = kind, mode, owner, owner, mtime
    entry.linkname, entry.size, entry.pax_headers = link, len(content), pax or {}
    tar.addfile(entry, BytesIO(content))


def _layer(fill: Fill) -> tuple[str, bytes]:
    """Return diff id and gzip of a layer."""
    out = BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=6, mtime=0) as packed:
        digesting = _Digesting(packed)
        with tarfile.open(fileobj=digesting, mode="w|", format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]
            fill(tar)
    return f"sha256:{digesting.digest.hexdigest()}", out.getvalue()


class _Digesting:
    """Digests what it passes on."""

    def __init__(self, target: IO[bytes]) -> None:
        self._target = target
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self._target.write(data)
