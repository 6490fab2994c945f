"""The options of `logd run` and `logd create`: docker's names."""

from collections.abc import Callable
from typing import Any, Final

import click

from logd.cli.completion import CONTAINER, NETWORK
from logd.cli.limits import LIMITS

STREAMS: Final = ("stdin", "stdout", "stderr")
OPTIONS: Final = (
    click.option("-i", "--interactive", is_flag=True, help="Give it this command's standard input."),
    click.option(
        "-a", "--attach", multiple=True, type=click.Choice(STREAMS, case_sensitive=False), help="Attach this one only."
    ),
    click.option("-t", "--tty", is_flag=True, help="Give it a terminal."),
    click.option("--name", help="Name of the container (default: one is made up)."),
    click.option("--rm", "remove", is_flag=True, help="Remove the container and its log when it has ended."),
    click.option(
        "-e", "--env", multiple=True, metavar="KEY[=VALUE]", help="Set a variable; without a value, as it is here."
    ),
    click.option("--env-file", multiple=True, type=click.Path(), metavar="FILE", help="Set the variables in a file."),
    click.option("-u", "--user", metavar="USER[:GROUP]", help="Run as this user, by name or number."),
    click.option("-w", "--workdir", metavar="PATH", help="Working directory in the container."),
    click.option("-l", "--label", multiple=True, metavar="KEY[=VALUE]", help="Attach a label."),
    click.option("-h", "--hostname", help="Host name in the container."),
    click.option("--entrypoint", help="Program to run instead of the image's entry point."),
    click.option("--read-only", is_flag=True, help="Make its root file system read-only."),
    click.option("--tmpfs", multiple=True, metavar="PATH[:OPTIONS]", help="Mount a file system in memory."),
    click.option("--init", is_flag=True, help="Run a small init in it that reaps processes."),
    click.option("--stop-signal", metavar="SIGNAL", help="Signal that stops it."),
    click.option("--health-cmd", metavar="COMMAND", help="Shell command that checks whether it is healthy."),
    click.option("--health-interval", metavar="DURATION", help="Time between two checks, such as 30s."),
    click.option("--health-timeout", metavar="DURATION", help="How long a check may take."),
    click.option("--health-start-period", metavar="DURATION", help="Time to start, in which failures do not count."),
    click.option("--health-start-interval", metavar="DURATION", help="Time between two checks while it starts."),
    click.option("--health-retries", type=int, metavar="N", help="Failures in a row that make it unhealthy."),
    click.option("--no-healthcheck", is_flag=True, help="Do without the image's health check."),
    click.option("--log-driver", metavar="NAME", help="Log driver (default: the daemon's)."),
    click.option("--log-opt", multiple=True, metavar="KEY=VALUE", help="Option of the log driver: max-size=10m."),
    click.option("--label-file", multiple=True, type=click.Path(), metavar="FILE", help="Attach the labels in a file."),
    click.option("--cidfile", type=click.Path(), metavar="FILE", help="Write the container's id to this file."),
    click.option("--platform", metavar="OS/ARCH", help="Platform that the image must be for."),
    click.option(
        "--pull",
        type=click.Choice(["always", "missing", "never"]),
        default="missing",
        help="Take the image from its registry always, if it is missing (default), or never.",
    ),
    click.option("-q", "--quiet", is_flag=True, help="Say nothing of a pull."),
    click.option("-p", "--publish", multiple=True, metavar="[[ADDR:]PORT:]PORT", help="Publish a port or FIRST-LAST."),
    click.option("-P", "--publish-all", is_flag=True, help="Publish all exposed ports at random ports of the host."),
    click.option("--expose", multiple=True, metavar="PORT", help="Expose a port, or FIRST-LAST."),
    click.option(
        "--network",
        "--net",
        multiple=True,
        type=NETWORK,
        metavar="NAME",
        help="A network, none, host, or container:NAME.",
    ),
    click.option("--network-alias", multiple=True, metavar="NAME", help="One more name in its network."),
    click.option("--ip", metavar="ADDRESS", help="IPv4 address in its network."),
    click.option("--ip6", metavar="ADDRESS", help="IPv6 address in its network."),
    click.option("--link-local-ip", multiple=True, metavar="ADDRESS", help="Link-local address in its network."),
    click.option("--mac-address", metavar="ADDRESS", help="MAC address in its network."),
    click.option("--dns", multiple=True, metavar="ADDRESS", help="Name server."),
    click.option("--dns-option", multiple=True, metavar="OPTION", help="Option in resolv.conf."),
    click.option("--dns-search", multiple=True, metavar="DOMAIN", help="Domain in which names are sought."),
    click.option("--add-host", multiple=True, metavar="NAME:ADDRESS", help="Line in /etc/hosts (or host-gateway)."),
    click.option("--link", multiple=True, metavar="CONTAINER:NAME", help="A name of its own for another container."),
    click.option("--domainname", metavar="DOMAIN", help="NIS domain name in the container."),
    click.option("-v", "--volume", multiple=True, metavar="[HOST|VOLUME:]PATH[:ro]", help="Mount a folder, a volume."),
    click.option("--mount", multiple=True, metavar="KEY=VALUE,…", help="type=bind|volume|tmpfs,source=…,target=…."),
    click.option("--volume-driver", metavar="NAME", help="Driver of its volumes: local."),
    click.option(
        "--volumes-from",
        multiple=True,
        type=CONTAINER,
        metavar="CONTAINER[:ro]",
        help="Mount what that one has mounted.",
    ),
    *LIMITS,
    click.option("--memory-swappiness", type=int, metavar="0-100", help="How gladly its memory is swapped out."),
    click.option("--blkio-weight-device", multiple=True, metavar="DEVICE:N", help="The same for one disk."),
    click.option("--device-read-bps", multiple=True, metavar="DEVICE:SIZE", help="Bytes a second read from a disk."),
    click.option("--device-write-bps", multiple=True, metavar="DEVICE:SIZE", help="Bytes a second written to it."),
    click.option("--device-read-iops", multiple=True, metavar="DEVICE:N", help="Operations a second that read."),
    click.option("--device-write-iops", multiple=True, metavar="DEVICE:N", help="Operations a second that write."),
    click.option("--kernel-memory", metavar="SIZE", help="Limit of the kernel's own memory for it (obsolete)."),
    click.option("--shm-size", metavar="SIZE", help="Size of /dev/shm."),
    click.option("--ulimit", multiple=True, metavar="NAME=SOFT[:HARD]", help="Limit of a process: nofile=1024."),
    click.option("--sysctl", multiple=True, metavar="KEY=VALUE", help="Kernel parameter of its namespaces."),
    click.option("--device", multiple=True, metavar="HOST[:PATH][:rwm]", help="Give it a device of the host."),
    click.option("--device-cgroup-rule", multiple=True, metavar="RULE", help="Allow devices, such as 'c 13:* rwm'."),
    click.option("--privileged", is_flag=True, help="All capabilities and devices, no confinement."),
    click.option("--gpus", metavar="REQUEST", help="GPUs: the daemon refuses them."),
    click.option("--cap-add", multiple=True, metavar="NAME", help="Give it a capability."),
    click.option("--cap-drop", multiple=True, metavar="NAME", help="Take a capability from it."),
    click.option("--security-opt", multiple=True, metavar="OPTION", help="no-new-privileges, seccomp=FILE, …."),
    click.option("--group-add", multiple=True, metavar="GROUP", help="One more group, by name or number."),
    click.option("--pid", metavar="MODE", help="PID namespace: host, or container:NAME."),
    click.option("--ipc", metavar="MODE", help="IPC namespace: none, private, shareable, host, or container:NAME."),
    click.option("--uts", metavar="MODE", help="UTS namespace: host."),
    click.option("--userns", metavar="MODE", help="User namespace: host."),
    click.option("--cgroupns", metavar="MODE", help="Cgroup namespace: private or host."),
    click.option("--cgroup-parent", metavar="PATH", help="Cgroup in which its own is made."),
    click.option("--oom-kill-disable", is_flag=True, help="Never kill it for want of memory."),
    click.option("--oom-score-adj", type=int, metavar="N", help="How readily it is killed: -1000 to 1000."),
    click.option("--runtime", metavar="NAME", help="Runtime of the daemon's configuration."),
    click.option("--annotation", multiple=True, metavar="KEY=VALUE", help="Annotation for the runtime."),
    click.option("--isolation", metavar="NAME", help="default: there is no other on Linux."),
    click.option("--storage-opt", multiple=True, metavar="KEY=VALUE", help="Option of the storage driver."),
    click.option("--stop-timeout", type=int, metavar="SECONDS", help="How long a stop waits before SIGKILL."),
)
"""In the order in which help shows them."""


def create_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command all of them."""
    for option in reversed(OPTIONS):
        function = option(function)
    return function
