"""Packets between daemon, keeper and shims."""

import os
import socket

from logd.runtime import packets


def test_the_last_words_of_a_peer_that_left_a_packet_unread_are_heard() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    reading, writing = os.pipe()
    with ours:
        with theirs:
            packets.send(ours, b"never read")
            packets.send(theirs, b"release", [writing])
            packets.send(theirs, b"bye")
        raw, (received,) = packets.receive(ours)
        os.close(writing)
        assert raw == b"release"
        assert packets.receive(ours) == (b"bye", [])
        assert packets.receive(ours) == (b"", [])
        os.write(received, b"x")
        assert os.read(reading, 1) == b"x"
    os.close(received)
    os.close(reading)
