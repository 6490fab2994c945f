"""The kernel's connection tracking: forget where a published UDP port led to before.

A client that goes on from one port belongs to one "connection" for minutes, so that without this its datagrams would
still go to a container that is gone. TCP's end with the container.
"""

import logging
import socket
from collections.abc import Iterable

log = logging.getLogger(__name__)


def forget_udp(ports: Iterable[int]) -> None:
    """Remove the entries of UDP connections to these ports of the host (blocks); what fails is said in the log."""
    wanted = sorted(set(ports))
    if not wanted:
        return
    from pyroute2.netlink.exceptions import NetlinkError  # noqa: PLC0415 - takes 11 MB

    for port in wanted:
        for family in (socket.AF_INET, socket.AF_INET6):
            try:
                _forget(family, port)
            except (NetlinkError, OSError) as error:
                log.warning("connections to UDP port %d may lead nowhere for a while: %s", port, error)


def _forget(family: int, port: int) -> None:
    from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple, NFCTSocket  # noqa: PLC0415

    with NFCTSocket(nfgen_family=family) as tracking:
        wanted = NFCTAttrTuple(family=family, proto=socket.IPPROTO_UDP, dport=port)
        for entry in list(tracking.dump(tuple_orig=wanted)):
            found = NFCTAttrTuple.from_netlink(family, entry.get_attr("CTA_TUPLE_ORIG"))
            if (found.proto, found.dport) == (socket.IPPROTO_UDP, port):  # an old kernel gives all
                tracking.entry("del", tuple_orig=found)
