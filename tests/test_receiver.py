"""Many datagrams by one system call: the same datagrams and senders as recvfrom gives."""

import socket
from collections.abc import Iterator

import pytest

from logagg.collector.receiver import LARGEST, Receiver


@pytest.fixture(params=["127.0.0.1", "::1"])
def sockets(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, list[socket.socket]]]:
    """One that listens, and two that send to it, from two addresses where there are two."""
    host: str = request.param
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as listening:
        listening.bind((host, 0))
        listening.setblocking(False)
        senders = [socket.socket(family, socket.SOCK_DGRAM) for _ in range(2)]
        for sender, own in zip(senders, (host, host if ":" in host else "127.0.0.2"), strict=True):
            sender.bind((own, 0))
            sender.connect(listening.getsockname())
        yield listening, senders
        for sender in senders:
            sender.close()


def test_by_sender_and_in_order(sockets: tuple[socket.socket, list[socket.socket]]) -> None:
    listening, senders = sockets
    receiver = Receiver(listening, 10)
    assert receiver.receive() == []
    sent: dict[str, list[bytes]] = {}
    for number in range(8):
        sender = senders[number % 3 == 0]
        frame = b"%d " % number * number  # the first one is empty
        sender.send(frame)
        sent.setdefault(sender.getsockname()[0], []).append(frame)
    assert dict(receiver.receive()) == sent
    assert receiver.receive() == []


def test_no_more_than_there_is_room_for_and_the_largest_whole(
    sockets: tuple[socket.socket, list[socket.socket]],
) -> None:
    listening, (sender, _) = sockets
    largest = b"x" * (LARGEST - 29)
    receiver = Receiver(listening, 2)
    for frame in (b"a", largest, b"b", b"c"):
        sender.send(frame)
    peer = sender.getsockname()[0]
    assert receiver.receive() == [(peer, [b"a", largest])]
    assert receiver.receive() == [(peer, [b"b", b"c"])]  # what was in the room before is gone
    assert receiver.receive() == []


def test_what_the_kernel_drops_is_counted_once(sockets: tuple[socket.socket, list[socket.socket]]) -> None:
    listening, (sender, _) = sockets
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    receiver = Receiver(listening, 1000)
    for _ in range(200):
        sender.send(b"x" * 1000)
    received = sum(len(frames) for _, frames in receiver.receive())
    assert 0 < received < 200
    assert receiver.lost() == 200 - received
    assert receiver.lost() == 0


def test_an_address_with_an_interface_is_written_as_recvfrom_does() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as listening:
        listening.bind(("::", 0))
        listening.setblocking(False)
        receiver = Receiver(listening, 4)
        where = listening.getsockname()[1]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"4", ("127.0.0.1", where))
        assert receiver.receive() == [("::ffff:127.0.0.1", [b"4"])]


def test_a_socket_that_is_closed_is_an_error(sockets: tuple[socket.socket, list[socket.socket]]) -> None:
    listening, _ = sockets
    receiver = Receiver(listening, 4)
    listening.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        receiver.receive()
    assert receiver.lost() == 0  # as where the kernel does not say
