"""A real rsyslogd for tests: everything it can listen at, on loopback; what it understood goes to a file as JSON."""

import contextlib
import json
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

TIMEOUT_S = 20.0
PROPERTIES = {
    "facility": 'name="syslogfacility-text"',
    "severity": 'name="syslogseverity"',
    "time": 'name="timereported" dateFormat="rfc3339"',
    "host": 'name="hostname"',
    "app": 'name="app-name"',
    "pid": 'name="procid"',
    "msgid": 'name="msgid"',
    "msg": 'name="msg"',
}
CONFIG = """
global(workDirectory="{folder}" {tls})
module(load="imudp")
module(load="imptcp")
module(load="imtcp" {tls_stream})
module(load="imuxsock" SysSock.Use="off")
input(type="imudp" address="127.0.0.1" port="{udp}")
input(type="imptcp" address="127.0.0.1" port="{ptcp}")
input(type="imptcp" path="{folder}/stream.sock" unlink="on")
input(type="imtcp" address="127.0.0.1" port="{tcp}")
input(type="imuxsock" Socket="{folder}/log.sock" IgnoreTimestamp="off" UseSpecialParser="off" ParseHostname="on")
template(name="json" type="list" option.jsonf="on") {{
{properties}
}}
action(type="omfile" file="{folder}/out.json" template="json")
"""


def free_port(kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


class Rsyslog:
    """`address` says where it listens: udp, tcp (imptcp), imtcp (tcp+tls if it has a certificate), unix, unixgram."""

    def __init__(
        self, folder: Path, *, ca: Path | None = None, certificate: Path | None = None, auth: str = ""
    ) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        ports = {"udp": socket.SOCK_DGRAM, "tcp": socket.SOCK_STREAM, "ptcp": socket.SOCK_STREAM}
        self.ports = {name: free_port(kind) for name, kind in ports.items()}
        tls = tls_stream = ""
        if certificate:
            tls = (
                f'defaultNetstreamDriver="gtls" defaultNetstreamDriverCAFile="{ca}" '
                f'defaultNetstreamDriverCertFile="{certificate}" '
                f'defaultNetstreamDriverKeyFile="{certificate.with_suffix(".key")}"'
            )
            tls_stream = f'StreamDriver.Name="gtls" StreamDriver.Mode="1" StreamDriver.AuthMode="{auth or "anon"}"'
        properties = "\n".join(f'property(outname="{name}" {one} format="jsonf")' for name, one in PROPERTIES.items())
        self._config = folder / "rsyslog.conf"
        self._config.write_text(
            CONFIG.format(folder=folder, tls=tls, tls_stream=tls_stream, properties=properties, **self.ports)
        )
        self._tls = "tcp+tls" if certificate else "tcp"
        self.process: subprocess.Popen[bytes] | None = None
        self._read = 0
        self._found: list[dict[str, str]] = []

    def address(self, how: str) -> str:
        return {
            "udp": f"udp://127.0.0.1:{self.ports['udp']}",
            "tcp": f"tcp://127.0.0.1:{self.ports['ptcp']}",
            "imtcp": f"{self._tls}://localhost:{self.ports['tcp']}",
            "tcp+tls": f"tcp+tls://localhost:{self.ports['tcp']}",
            "unix": f"unix://{self.folder}/stream.sock",
            "unixgram": f"unixgram://{self.folder}/log.sock",
        }[how]

    def start(self) -> "Rsyslog":
        out = self.folder / "out.json"
        if out.exists() and not out.read_bytes().endswith(b"\n"):  # it was killed while it wrote
            with out.open("ab") as torn:
                torn.write(b"\n")
        with (self.folder / "errors").open("ab") as errors:
            command = ["rsyslogd", "-n", "-C", "-f", str(self._config), "-i", str(self.folder / "pid")]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors)
        self._wait_until(self._listens)
        return self

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process:
            self.process.send_signal(how)
            self.process.wait(TIMEOUT_S)
            self.process = None

    def messages(self, app: str) -> list[dict[str, str]]:
        """What has come so far with a tag. Bytes that are no UTF-8 are surrogates."""
        with contextlib.suppress(FileNotFoundError), (self.folder / "out.json").open("rb") as out:
            out.seek(self._read)
            data = out.read()
            end = data.rfind(b"\n") + 1
            self._read += end
            for line in data[:end].decode(errors="surrogateescape").split("\n")[:-1]:
                with contextlib.suppress(json.JSONDecodeError):  # torn when it was killed
                    self._found.append(json.loads(line))
        return [one for one in self._found if one["app"] == app]

    def wait_for(self, app: str, count: int) -> list[dict[str, str]]:
        """Wait until there are that many messages with a tag."""
        found: list[dict[str, str]] = []

        def have() -> bool:
            found[:] = self.messages(app)
            return len(found) >= count

        try:
            self._wait_until(have)
        except AssertionError:
            raise AssertionError(f"{len(found)} of {count} messages came: {found[-3:]}") from None
        return found

    def errors(self) -> str:
        return (self.folder / "errors").read_text(errors="replace")

    def _listens(self) -> bool:
        unix = [(self.folder / "stream.sock", socket.SOCK_STREAM), (self.folder / "log.sock", socket.SOCK_DGRAM)]
        places: list[tuple[int, int, Any]] = [(socket.AF_UNIX, kind, str(path)) for path, kind in unix]
        places += [(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", self.ports[one])) for one in ("tcp", "ptcp")]
        try:
            for family, kind, address in places:
                with socket.socket(family, kind) as one:
                    one.connect(address)
        except OSError:
            return False
        return f"{self.ports['udp']:04X}" in Path("/proc/net/udp").read_text()

    def _wait_until(self, condition: Any) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            assert self.process is None or self.process.poll() is None, f"rsyslogd ended:\n{self.errors()}"
            assert time.monotonic() < deadline, f"rsyslogd:\n{self.errors()}"
            time.sleep(0.01)
