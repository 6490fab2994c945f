"""`logs`: read containers' logs. It only ever reads, and it starts fast: the standard library only, imported late."""

import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from logd.cli import terminal
from logd.cli.client import Client
from logd.cli.interrupts import Waiter
from logd.cli.options import Options, parse_options
from logd.cli.output import STDERR_FD, STDOUT_FD, Notices, Output, write_all
from logd.cli.printers import ExactPrinter, JsonPrinter, PrefixPrinter, Printer
from logd.cli.streams import Container, LogStream
from logd.errors import InvalidParameter, LogdError, NotFound

if TYPE_CHECKING:
    from logd.cli.arrivals import Arrivals
    from logd.cli.merge import Merger

MANY_STREAMS: Final = 500
HELP: Final = """\
Usage:  logs [OPTIONS] CONTAINER...

Show the logs of containers. Several containers are interleaved by time, each line with its container's name.

A CONTAINER is a name, an id or the beginning of one, or a glob such as 'web-*'.

Which lines:
  -f, --follow          Go on with what comes, until the containers end; with a glob, a label or
                        --all, containers that start later join in
  -n, --tail N          Only the last N lines of each container (default "all")
      --since TIME      Only what came at TIME or later
      --until TIME      Only what came before TIME
  -g, --grep RE         Only lines in which the pattern is found (RE2 syntax)
      --stream NAME     Only stdout, only stderr, or exec: only what logged execs have printed
      --after CURSOR    Go on exactly behind a line of --json (once for each container)

Which containers:
  -a, --all             Every container, running or not
  -l, --label LABEL     Those with the label: KEY or KEY=VALUE (again: all of them must fit)

How they look:
  -t, --timestamps      The time before each line
      --json            One JSON object a line: time, container, name, stream, line, cursor
      --raw             Let escape sequences through to the terminal (they can do harm there)
      --color WHEN      Colours of the names: auto, always or never (default "auto")

  -H, --host ADDRESS    Where the daemon listens (default: LOGD_HOST, DOCKER_HOST,
                        unix:///run/logd/logd.sock)
  -h, --help            This text
  -V, --version         The version

TIME is RFC 3339 (2026-01-02T15:04:05Z), a date (2026-01-02), a clock time of today (15:04), Unix seconds
(1767366245.5), or how long ago (90s, 10m, 1h30m).

In a pipe, one container's bytes come out exactly as they were written, stdout on stdout and stderr on stderr.

Examples:
  logs -f web                          Follow one container
  logs -f --since 10m 'web-*' db       Follow several, from ten minutes ago
  logs -n 100 --grep 'ERROR|panic' web The matching ones of the log, 100 at most
  logs -l app=shop --stream stderr     What the containers of an application complain about
  logs --json web | jq -r .line        For programs

Exit status: 0, 1 (the log could not be read to its end), 125 (wrong usage), 130 (Ctrl-C), 141 (closed pipe).
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # a closed pipe or Ctrl-C ends it as it ends cat: quietly,
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # and the shell sees 141 or 130
    try:
        options = parse_options(sys.argv[1:] if arguments is None else arguments)
        status = run(options)
    except InvalidParameter as error:
        complain(error)
        sys.stderr.write("\nUsage:  logs [OPTIONS] CONTAINER...\n\nRun 'logs --help' for more information\n")
        status = error.exit_code
    except LogdError as error:
        complain(error)
        status = 1
    except OSError as error:  # a full disk under stdout
        complain(f"write error: {error.strerror or error}")
        status = 1
    sys.exit(status)


def run(options: Options) -> int:
    """Do what the options say and return the exit status."""
    if options.action == "help":
        sys.stdout.write(HELP)
        return 0
    if options.action == "version":
        from importlib.metadata import version  # noqa: PLC0415  # slow, and for this alone

        sys.stdout.write(f"logs {version('logd')}\n")
        return 0
    client = Client(options.host)
    if options.action == "complete":
        return complete(client)
    if len(options.containers) == 1 and not (options.open_ended or options.as_json or options.after):
        name = options.containers[0]  # it is left to the daemon, which saves a request
        return show(client, options, [Container(name, "", name)], None)
    return show_chosen(client, options)


def show_chosen(client: Client, options: Options) -> int:
    """Find out which containers are meant, and show their logs."""
    from logd.cli.arrivals import Arrivals  # noqa: PLC0415  # brings json
    from logd.cli.pattern import Choice, choose  # noqa: PLC0415

    choice = Choice(options.containers, options.labels, options.every)
    if not options.follow or not options.open_ended or options.until_ns is not None:
        return show(client, options, choose(client, choice), None)
    arrivals = Arrivals(client, choice)
    arrivals.open()
    try:
        containers = choose(client, choice)
    except NotFound as error:
        complain(f"{error} yet: waiting")
        containers = []
    return show(client, options, containers, arrivals)


def show(client: Client, options: Options, containers: Sequence[Container], arrivals: "Arrivals | None") -> int:
    """Show the logs of the containers, and of those that arrive. Return the exit status."""

    def opened(container: Container, after: tuple[int, int] | None) -> LogStream:
        query = {name: value for name, value in options.query.items() if name != "tail"}
        stream = LogStream(client, container, query, after)
        stream.open()
        return stream

    streams = [LogStream(client, one, options.query, after) for one, after in starts(containers, options)]
    allow_descriptors(len(streams))
    output = Output()
    notices = Notices(output)
    printer = make_printer(options, containers, output, notices, several=len(containers) > 1 or arrivals is not None)
    for stream in streams:
        stream.open()
    waiter: Waiter | None = None
    if terminal_may_be_coloured(printer):
        waiter = Waiter()
        signal.signal(signal.SIGINT, lambda *_: interrupted(printer, output))
    try:
        if len(streams) == 1 and arrivals is None:
            show_one(streams[0], printer, output, waiter)
        else:
            from logd.cli.merge import Merger  # noqa: PLC0415  # for several only

            show_merged(Merger(streams, follow=options.follow, arrivals=arrivals, opener=opened), printer, output)
    finally:
        printer.finish()
        output.flush()
    return 1 if notices.failed else 0


def starts(containers: Sequence[Container], options: Options) -> list[tuple[Container, tuple[int, int] | None]]:
    """Return each container with the positions of its --after. Raises InvalidParameter for a cursor of another one."""
    places: dict[str, tuple[int, int]] = {}
    for owner, positions in options.after:
        found = [one for one in containers if owner in {"", one.name, one.id} or (one.id.startswith(owner))]
        if len(found) != 1:
            whose = f"of {owner!r}, which is not shown" if owner else "that does not say of which container it is"
            raise InvalidParameter(f"--after: a cursor {whose} (shown: {', '.join(one.name for one in containers)})")
        places[found[0].id] = positions
    return [(one, places.get(one.id)) for one in containers]


def make_printer(
    options: Options, containers: Sequence[Container], output: Output, notices: Notices, *, several: bool
) -> Printer:
    """Return the printer for the options."""
    if options.as_json:
        return JsonPrinter(output, notices)
    if several or options.timestamps:
        names = [one.name for one in containers] if several else None
        return PrefixPrinter(
            output, notices, names, timestamps=options.timestamps, raw=options.raw, colour=options.colour
        )
    return ExactPrinter(output, notices, raw=options.raw)


def show_one(stream: LogStream, printer: Printer, output: Output, waiter: Waiter | None) -> None:
    """Show one container's log as it arrives."""
    while not stream.ended:
        if waiter is not None:
            waiter.wait(stream)
        printer.show(stream, stream.receive())
        output.flush()


def show_merged(merger: "Merger", printer: Printer, output: Output) -> None:
    """Show several containers' logs by time."""
    for batch in merger.batches():
        for stream, event in batch:
            printer.show(stream, (event,))
        output.flush()


def allow_descriptors(count: int) -> None:
    """Raise our limit of open files, which is 1024 by default, as far as is allowed: each stream needs one."""
    if count < MANY_STREAMS:
        return
    import resource  # noqa: PLC0415  # for very many only

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def terminal_may_be_coloured(printer: Printer) -> bool:
    """Say whether an interrupt may leave a container's colours on."""
    return isinstance(printer, ExactPrinter) and any(map(terminal.is_terminal, (STDOUT_FD, STDERR_FD)))


def interrupted(printer: Printer, output: Output) -> None:
    """Leave the terminal as it was, then die of SIGINT, so that a shell's loop ends too."""
    printer.finish()
    output.flush()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.raise_signal(signal.SIGINT)


def complain(problem: object) -> None:
    """Say on stderr what is wrong."""
    write_all(STDERR_FD, f"logs: {terminal.visible(str(problem))}\n".encode())


def complete(client: Client) -> int:
    """Print the names of all containers, for the shell's completion; nothing at all if that fails."""
    try:
        names = [
            name.removeprefix("/")
            for one in client.json("GET", "/containers/json", {"all": True})
            for name in one["Names"]
        ]
    except LogdError:
        return 1
    sys.stdout.write("".join(f"{name}\n" for name in sorted(names)))
    return 0


if __name__ == "__main__":
    main()
