"""The command lines `docker` and `logd`, as a script uses them, and a terminal in tmux at which a person does."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
WAIT_S = 60
POLL_S = 0.05
PRESS_S = 0.3
PROMPT = "someone> "
FORK = """
import json, os, sys
from logd.cli.main import main
for line in sys.stdin:
    arguments, folder = json.loads(line)
    child = os.fork()
    if not child:
        for descriptor, name in enumerate(("in", "out", "err")):
            os.dup2(os.open(f"{folder}/{name}", os.O_RDWR), descriptor)
        main(arguments)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Runs `logd` once for each line: importing what it is made of takes longer than most of its commands."""


def soon(condition: Callable[[], Any], what: Callable[[], object]) -> Any:
    """Return the first result that holds. `what` tells what is there instead."""
    deadline = time.monotonic() + WAIT_S
    while not (found := condition()):
        assert time.monotonic() < deadline, what()
        time.sleep(POLL_S)
    return found


class CommandLine:
    """One of the two on a daemon's socket: `run` gives what it prints, and fails if it does."""

    def __init__(self, name: str, daemon: Any, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.environment = {**daemon.environment, "LOGD_HOST": daemon.host, "PATH": path(), "PYTHONPATH": str(ROOT)}
        self._forker: subprocess.Popen[str] | None = None

    def __call__(self, *arguments: str, stdin: bytes = b"") -> str:
        code, out, err = self.outcome(*arguments, stdin=stdin)
        assert code == 0, f"{self.name} {' '.join(arguments)}: {code}\n{out}{err}"
        return out

    def lines(self, *arguments: str) -> list[str]:
        return self(*arguments).splitlines()

    def refused(self, *arguments: str) -> str:
        """Return what it says on stderr as it fails."""
        code, out, err = self.outcome(*arguments)
        assert code != 0, f"{self.name} {' '.join(arguments)}: {code}\n{out}{err}"
        return err

    def outcome(self, *arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
        """Return exit code, stdout and stderr."""
        if self.name == "logd":
            return self._forked(arguments, stdin)
        command = [self.name, *arguments]
        done = subprocess.run(
            command, check=False, env=self.environment, input=stdin, capture_output=True, timeout=WAIT_S
        )
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    def _forked(self, arguments: Sequence[str], stdin: bytes) -> tuple[int, str, str]:
        if self._forker is None:
            command = [sys.executable, "-c", FORK]
            pipe = subprocess.PIPE
            options: Any = {"stdin": pipe, "stdout": pipe, "text": True, "start_new_session": True}
            self._forker = subprocess.Popen(command, env=self.environment, **options)
        assert self._forker.stdin is not None
        assert self._forker.stdout is not None
        for name, content in (("in", stdin), ("out", b""), ("err", b"")):
            (self.folder / name).write_bytes(content)
        self._forker.stdin.write(json.dumps([arguments, str(self.folder)]) + "\n")
        self._forker.stdin.flush()
        code = int(self._forker.stdout.readline())
        return code, (self.folder / "out").read_bytes().decode(), (self.folder / "err").read_bytes().decode()

    def close(self) -> None:
        if self._forker is not None:
            os.killpg(self._forker.pid, signal.SIGKILL)  # a command may be running yet if a test has failed
            self._forker.communicate()


class Terminal:
    """A terminal in tmux with a shell, and what a person sees and does there."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._server = ["tmux", "-S", str(folder / "tmux"), "-f", "/dev/null"]
        outer = {name: value for name, value in environment.items() if name != "TMUX"}
        shell = ["env", f"PS1={PROMPT}", "ENV=", "sh"]  # tmux starts it from a shell, which drops PS1
        subprocess.run([*self._server, "new-session", "-d", "-x", "120", "-y", "40", *shell], env=outer, check=True)

    def type(self, text: str) -> None:
        """Type a line."""
        self._tmux("send-keys", "-l", text)
        self._tmux("send-keys", "Enter")

    def press(self, *keys: str) -> None:
        """Press keys by tmux's names for them, such as C-c."""
        self._tmux("send-keys", *keys)

    def ask(self, text: str, answer: str) -> None:
        """Type a line and wait until what comes after it is matched; ^ and $ are the ends of lines."""
        before = self.screen().count(text)
        self.type(text)

        def answered() -> bool:
            screen = self.screen()
            return (
                screen.count(text) > before and re.search(answer, screen.rpartition(text)[2], re.MULTILINE) is not None
            )

        soon(answered, lambda: f"no {answer!r}:\n{self.screen()}")

    def leave(self, *keys: str) -> None:
        """Press keys, and find the shell's prompt at the end of the screen."""
        if keys:
            self.press(*keys)
        self.see(rf"{PROMPT.strip()}\Z")

    def see(self, pattern: str) -> None:
        """Wait until the screen has what is matched; ^ and $ are the ends of lines."""
        soon(lambda: re.search(pattern, self.screen(), re.MULTILINE), lambda: f"no {pattern!r}:\n{self.screen()}")

    def interrupt(self) -> None:
        """Press Ctrl-C until the shell's prompt is back: some of docker's commands want it three times."""
        self.press_until("C-c", rf"{PROMPT.strip()}\Z")

    def press_until(self, key: str, pattern: str) -> None:
        """Press a key until the screen has what is matched."""
        pressed = 0.0

        def found() -> bool:
            nonlocal pressed
            if time.monotonic() - pressed > PRESS_S:
                self.press(key)
                pressed = time.monotonic()
            return re.search(pattern, self.screen(), re.MULTILINE) is not None

        soon(found, self.screen)

    def screen(self) -> str:
        return self._tmux("capture-pane", "-p", "-J", "-S", "-").rstrip()

    def resize(self, columns: int, rows: int) -> None:
        self._tmux("resize-window", "-x", str(columns), "-y", str(rows))

    def close(self) -> None:
        subprocess.run([*self._server, "kill-server"], check=False)

    def _tmux(self, *arguments: str) -> str:
        done = subprocess.run([*self._server, *arguments], check=True, capture_output=True, text=True)
        return done.stdout


def path() -> str:
    """Return the search path of a shell that has the two."""
    docker = shutil.which("docker")
    assert docker is not None, "the tests need the docker command line (make test fetches it)"
    return os.pathsep.join([str(Path(sys.executable).parent), str(Path(docker).parent), os.environ["PATH"]])
