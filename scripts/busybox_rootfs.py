"""Write a root file system made of the host's static busybox to standard output, as a tar for `logd import`.

The same busybox gives the same bytes: times and owners are fixed.
"""

import io
import shutil
import subprocess
import sys
import tarfile
from typing import Final

FOLDERS: Final = {"bin": 0o755, "dev": 0o755, "etc": 0o755, "home": 0o755, "proc": 0o755, "root": 0o700}
MORE_FOLDERS: Final = {"sbin": 0o755, "sys": 0o755, "tmp": 0o1777, "usr": 0o755, "usr/bin": 0o755, "usr/sbin": 0o755}
LAST_FOLDERS: Final = {"var": 0o755, "var/tmp": 0o1777, "var/spool": 0o755, "var/spool/mail": 0o755}
FILES: Final = {
    "etc/passwd": (
        "root:x:0:0:root:/root:/bin/sh\n"
        "daemon:x:1:1:daemon:/usr/sbin:/bin/false\n"
        "bin:x:2:2:bin:/bin:/bin/false\n"
        "www-data:x:33:33:www-data:/var/www:/bin/false\n"
        "nobody:x:65534:65534:nobody:/home:/bin/false\n"
    ),
    "etc/group": "root:x:0:\ndaemon:x:1:\nbin:x:2:\ntty:x:5:\nwww-data:x:33:\nusers:x:100:nobody\nnogroup:x:65534:\n",
    "etc/shadow": "root:*:::::::\n",
}
MODES: Final = {"etc/shadow": 0o600}


def main() -> int:
    """Write the tar; return 1 when there is no busybox."""
    busybox = shutil.which("busybox", path="/bin:/usr/bin:/usr/local/bin")
    if busybox is None:
        sys.stderr.write("no busybox on this machine (apt-get install busybox-static)\n")
        return 1
    listing = subprocess.run([busybox, "--list-full"], check=True, capture_output=True, text=True).stdout
    with open(busybox, "rb") as file:
        program = file.read()
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for name, mode in (FOLDERS | MORE_FOLDERS | LAST_FOLDERS).items():
            archive.addfile(_entry(name, tarfile.DIRTYPE, mode))
        for name, text in FILES.items():
            _add_file(archive, name, text.encode(), MODES.get(name, 0o644))
        _add_file(archive, "bin/busybox", program, 0o755)
        for applet in sorted(set(listing.split()) - {"bin/busybox"}):
            if applet.rpartition("/")[0] in FOLDERS | MORE_FOLDERS:
                archive.addfile(_link(applet))
    return 0


def _entry(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = kind, mode
    entry.uname = entry.gname = "root"
    return entry


def _add_file(archive: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    entry = _entry(name, tarfile.REGTYPE, mode)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


def _link(name: str) -> tarfile.TarInfo:
    entry = _entry(name, tarfile.LNKTYPE, 0o755)
    entry.linkname = "bin/busybox"
    return entry


if __name__ == "__main__":
    sys.exit(main())
