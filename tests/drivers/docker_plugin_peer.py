"""A Docker log plugin: a process with a socket, whose messages are parsed by Google's protobuf package, not by ours.

Run as a program it is the plugin: `python docker_plugin_peer.py SOCKET FOLDER`. In the folder it notes each call in
calls.jsonl and each entry that it has read in entries.jsonl, before it reads the next; the file `mood` there says how
it behaves: well, refuse WORDS, fail (HTTP 500), hold (reads nothing), shut (never opens the pipe), mute (no answer).
"""

import base64
import contextlib
import json
import os
import signal
import socketserver
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SOCKETS = Path("/run/docker/plugins")
TIMEOUT_S = 30.0
LOOK_S = 0.005
HOLDS = "holds"
"""Noted beside the calls when it has stopped reading a pipe: everything that it has read is noted."""
NO_ERROR: dict[str, Any] = {"Err": ""}
FIELDS = {
    "PartialLogEntryMetadata": [("last", 1, "BOOL"), ("id", 2, "STRING"), ("ordinal", 3, "INT32")],
    "LogEntry": [
        ("source", 1, "STRING"),
        ("time_nano", 2, "INT64"),
        ("line", 3, "BYTES"),
        ("partial", 4, "BOOL"),
        ("partial_log_metadata", 5, "MESSAGE"),
    ],
}


def message_types() -> dict[str, Any]:
    """Return the classes of the messages, made from a description of Docker's entry.proto."""
    file = descriptor_pb2.FileDescriptorProto(name="entry.proto", syntax="proto3")
    for name, fields in FIELDS.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            type_number = descriptor_pb2.FieldDescriptorProto.Type.Value(f"TYPE_{kind}")
            of = {"type_name": ".PartialLogEntryMetadata"} if kind == "MESSAGE" else {}
            message.field.add(name=field, number=number, type=type_number, label=1, **of)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(name)) for name in FIELDS}


LogEntry = message_types()["LogEntry"]


def parse(frame: bytes) -> dict[str, Any]:
    """Return a message as JSON has it. Raises what the package raises for one that is malformed, or has more in it."""
    entry = LogEntry.FromString(frame)
    entry.DiscardUnknownFields()
    assert len(entry.SerializeToString()) == len(frame), "fields that nobody knows, or defaults that are written out"
    found = {
        "source": entry.source,
        "time_nano": entry.time_nano,
        "line": base64.b64encode(entry.line).decode(),
        "partial": entry.partial,
    }
    if entry.HasField("partial_log_metadata"):
        part = entry.partial_log_metadata
        found["part"] = {"last": part.last, "id": part.id, "ordinal": part.ordinal}
    return found


class DockerPlugin:
    """The plugin, seen from the test. With a name only it is where Docker looks for sockets."""

    def __init__(self, folder: Path, name: str, socket_path: Path | None = None) -> None:
        self.folder = folder
        self.name = name
        self.socket = socket_path or SOCKETS / f"{name}.sock"
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def start(self) -> "DockerPlugin":
        self.socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        ready, theirs = os.pipe()
        command = [sys.executable, __file__, str(self.socket), str(self.folder), str(theirs)]
        self.process = subprocess.Popen(command, pass_fds=[theirs], stdin=subprocess.DEVNULL)
        os.close(theirs)
        with open(ready, "rb") as pipe:
            assert pipe.read() == b"ready", "the plugin did not start"
        return self

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(TIMEOUT_S)

    def stop(self) -> None:
        """End it, and take its socket away."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.kill()
        self.socket.unlink(missing_ok=True)

    def behave(self, mood: str) -> None:
        new = self.folder / "mood.new"
        new.write_text(mood)
        new.rename(self.folder / "mood")

    def calls(self, method: str = "") -> list[dict[str, Any]]:
        """Return what it was asked: {"method", "body"}, in this order."""
        return [one for one in self._noted("calls") if method in one["method"]]

    def entries(self, container: str = "") -> list[dict[str, Any]]:
        """Return what it has read, of one container, with lines as bytes."""
        return [
            {**one, "line": base64.b64decode(one["line"])}
            for one in self._noted("entries")
            if container in one["container"]
        ]

    def count(self) -> int:
        """Return how many entries it has read."""
        try:
            return (self.folder / "entries.jsonl").read_bytes().count(b"\n")
        except FileNotFoundError:
            return 0

    def lines(self, container: str = "") -> list[bytes]:
        return [one["line"] for one in self.entries(container)]

    def texts(self, container: str = "") -> list[str]:
        return [line.decode() for line in self.lines(container)]

    def _noted(self, what: str) -> list[dict[str, Any]]:
        try:
            raw = (self.folder / f"{what}.jsonl").read_bytes()
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in raw.split(b"\n")[:-1]]


class Notes:
    """A file of JSON lines, whole ones: one write(2) each."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def add(self, value: Any) -> None:
        os.write(self._fd, json.dumps(value).encode() + b"\n")


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, path: str, folder: Path) -> None:
        super().__init__(path, Handler)
        self.folder = folder
        self.calls = Notes(folder / "calls.jsonl")
        self.entries = Notes(folder / "entries.jsonl")

    def mood(self) -> str:
        try:
            return (self.folder / "mood").read_text()
        except FileNotFoundError:
            return "well"

    def log_from(self, path: str, container: str) -> None:
        """Read a pipe to its end."""
        while self.mood() == "shut":
            time.sleep(LOOK_S)
        fd = os.open(path, os.O_RDONLY)
        while True:
            if self.mood() == "hold":
                self.calls.add({"method": HOLDS, "body": path})
                while self.mood() == "hold":
                    time.sleep(LOOK_S)
            head = read_exactly(fd, 4)
            body = read_exactly(fd, int.from_bytes(head, "big")) if len(head) == 4 else b""
            if len(head) < 4 or len(body) < int.from_bytes(head, "big"):
                os.close(fd)
                return
            self.entries.add({"container": container, "pipe": path, **parse(body)})


def read_exactly(fd: int, size: int) -> bytes:
    """Return so many bytes; less at the end."""
    data = b""
    while len(data) < size and (more := os.read(fd, size - len(data))):
        data += more
    return data


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        method = self.path.removeprefix("/")
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = json.loads(raw) if raw else None
        assert self.headers["Accept"] == "application/vnd.docker.plugins.v1.2+json"
        self.server.calls.add({"method": method, "body": body})
        mood, _, words = self.server.mood().partition(" ")
        while mood == "mute":
            time.sleep(LOOK_S)
            mood = self.server.mood()
        if method == "Plugin.Activate":
            self._answer({"Implements": ["VolumeDriver"] if mood == "volume" else ["LogDriver"]})
        elif mood == "fail":
            self._answer({"Err": "out of order"}, 500)
        elif method == "LogDriver.StartLogging":
            self._start(body, words if mood == "refuse" else "")
        elif method == "LogDriver.StopLogging":
            self._answer(NO_ERROR)
        else:
            self._answer({"Err": f"{method} is not known"}, 404)

    def _start(self, body: dict[str, Any], words: str) -> None:
        if words:
            self._answer({"Err": words})
            return
        arguments = (body["File"], body["Info"]["ContainerID"])
        threading.Thread(target=self.server.log_from, args=arguments, daemon=True).start()
        self._answer(NO_ERROR)

    def _answer(self, said: dict[str, Any], status: int = 200) -> None:
        raw = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/vnd.docker.plugins.v1.1+json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)


def main() -> None:
    path, folder, ready = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    with Server(path, folder) as server:
        with open(ready, "wb") as pipe:
            pipe.write(b"ready")
        server.serve_forever()


if __name__ == "__main__":
    main()
