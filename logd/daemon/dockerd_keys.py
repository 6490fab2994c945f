"""dockerd's keys of daemon.json that do nothing here: accepted with one notice, or refused with the reason.

Those that have an effect are the fields of DaemonConfig. Together the three lists are every key of dockerd's
reference (https://docs.docker.com/reference/cli/dockerd/#daemon-configuration-file), each in one list, so that a
daemon.json can be carried over: what would change a container or the API's safety is never ignored.
"""

from typing import Any, Final, NamedTuple


class Foreign(NamedTuple):
    """A key without effect. `only`: the values that are taken; for an accepted key, empty means any value."""

    shape: str
    reason: str
    flag: str = ""
    only: tuple[Any, ...] = ()


_NO_NETWORKS: Final = "logd's networks have no such setting"
_NO_PULL: Final = "logd pushes all layers that an image has"
_NO_SWARM: Final = "there is no swarm mode"
_NO_CONTAINERD: Final = "containerd is not used"
_NO_BUILDER: Final = "there is no builder"


def _network(*keys: str, shape: str = "text") -> dict[str, Foreign]:
    return {key: Foreign(shape, _NO_NETWORKS) for key in keys}


ACCEPTED: Final[dict[str, Foreign]] = {
    "live-restore": Foreign("bool", "containers always outlive the daemon"),
    "raw-logs": Foreign("bool", "the daemon's log never has colours"),
    "experimental": Foreign("bool", "nothing is hidden behind it"),
    "features": Foreign("map", "none of dockerd's features can be switched here", "feature"),
    "storage-driver": Foreign("text", "overlayfs is used", only=("", "overlay2", "overlay", "overlayfs")),
    "default-ipc-mode": Foreign("text", "each container has its own", only=("", "private")),
    "default-cgroupns-mode": Foreign("text", "each container has its own", only=("", "private")),
    "containerd": Foreign("text", _NO_CONTAINERD),
    "containerd-namespace": Foreign("text", _NO_CONTAINERD),
    "containerd-plugins-namespace": Foreign("text", _NO_CONTAINERD),
    "cri-containerd": Foreign("bool", _NO_CONTAINERD),
    "allow-nondistributable-artifacts": Foreign("list", _NO_PULL),
    "builder": Foreign("map", _NO_BUILDER, "-"),
    "cdi-spec-dirs": Foreign("list", "devices are given by path", "cdi-spec-dir"),
    "nri-opts": Foreign("map", "there is no node resource interface"),
    "node-generic-resources": Foreign("list", _NO_SWARM, "node-generic-resource"),
    "swarm-default-advertise-addr": Foreign("text", _NO_SWARM),
    "swarm-raft-heartbeat-tick": Foreign("int", _NO_SWARM),
    "swarm-raft-election-tick": Foreign("int", _NO_SWARM),
    **_network("ip-forward-no-drop", "ip6tables", shape="bool"),
    "userland-proxy": Foreign("bool", "the kernel leads packets to published ports, the host's own too"),
    "userland-proxy-path": Foreign("text", "there is no userland proxy"),
    "firewall-backend": Foreign("text", "nftables is used", only=("", "nftables", "iptables")),
    **_network("allow-direct-routing", shape="bool"),
    **_network("bridge-accept-fwmark"),
    **_network("network-control-plane-mtu", "network-diagnostic-port", shape="int"),
    "default-network-opts": Foreign("map", _NO_NETWORKS, "default-network-opt"),
    "host-gateway-ips": Foreign("list", _NO_NETWORKS, "-"),
}
"""Taken without effect, with one notice in the log."""

REFUSED: Final[dict[str, Foreign]] = {
    "bridge": Foreign("text", "the default bridge is made by logd; networks can have any other", only=("",)),
    "authorization-plugins": Foreign("list", "there are no authorization plugins", "authorization-plugin", ([],)),
    "api-cors-header": Foreign("text", "web pages get no access to the API", only=("",)),
    "selinux-enabled": Foreign("bool", "SELinux labels are not set", only=(False,)),
    "storage-opts": Foreign("list", "overlayfs takes no options here", "storage-opt", ([],)),
    "min-api-version": Foreign("text", "API versions 1.24 to 1.47 are served", only=("", "1.24")),
    "cpu-rt-period": Foreign("int", "real-time scheduling is not set up", only=(0,)),
    "cpu-rt-runtime": Foreign("int", "real-time scheduling is not set up", only=(0,)),
    "oom-score-adjust": Foreign("int", "set OOMScoreAdjust in the service's unit", only=(0,)),
    "default-init": Foreign("text", "the key is init-path", "-", ("",)),
    "graph": Foreign("text", "the key is data-root", "graph", ("",)),
}
"""Refused at the start, unless set to a value that asks for nothing (`only`)."""
