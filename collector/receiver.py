"""Many datagrams by one system call: recvmmsg(2), which Python does not offer; one call instead of one for each."""

import ctypes
import errno
import mmap
import os
import socket
import struct
import sys
from functools import lru_cache

import numpy as np

#: The largest payload that UDP can carry is 65,507 bytes.
LARGEST = 1 << 16
#: `sockaddr_in6`, the longer one.
_NAME = 28
#: Where the address stands in `sockaddr_in` and `sockaddr_in6`; in the latter with the number of the interface.
_ADDRESS = {socket.AF_INET: slice(4, 8), socket.AF_INET6: slice(8, 28)}
_RAW_INET6 = 16
#: Numbers of 32 bits about the memory of a socket, <linux/sock_diag.h>: the ninth counts what was dropped.
_SO_MEMINFO = 55
_DROPS = 8 * 4
_WRAP = 1 << 32

_libc = ctypes.CDLL(None, use_errno=True)


#: `struct iovec`, `struct msghdr`, `struct mmsghdr`: recvmsg(2), recvmmsg(2).
_IOVEC = np.dtype([("base", np.uintp), ("length", np.uintp)], align=True)
_HEADER = np.dtype(
    [
        ("name", np.uintp),
        ("name_length", np.uint32),
        ("iovec", np.uintp),
        ("iovec_count", np.uintp),
        ("control", np.uintp),
        ("control_length", np.uintp),
        ("flags", np.intc),
    ],
    align=True,
)
_MESSAGE = np.dtype([("header", _HEADER), ("received", np.uintc)], align=True)


class Receiver:
    """Receives from a socket that does not block, up to `most` datagrams at once.

    It has room for the longest, 64 KB each, of which the system gives memory as far as datagrams were ever long.
    """

    def __init__(self, sock: socket.socket, most: int) -> None:
        self._socket = sock
        self._most = most
        self._drops = 0
        self._data = mmap.mmap(-1, most * LARGEST)
        self._names = np.zeros((most, _NAME), dtype=np.uint8)
        self._iovecs = np.zeros(most, dtype=_IOVEC)
        self._iovecs["base"] = np.frombuffer(self._data, dtype=np.uint8).ctypes.data + np.arange(most) * LARGEST
        self._iovecs["length"] = LARGEST
        self._messages = np.zeros(most, dtype=_MESSAGE)
        self._headers = self._messages["header"]
        self._headers["name"] = self._names.ctypes.data + np.arange(most) * _NAME
        self._headers["iovec"] = self._iovecs.ctypes.data + np.arange(most) * _IOVEC.itemsize
        self._headers["iovec_count"] = 1

    def receive(self) -> list[tuple[str, list[bytes]]]:
        """Return what has arrived, by the address of the sender; nothing when nothing has. Raises OSError."""
        self._headers["name_length"] = _NAME
        messages = ctypes.c_void_p(self._messages.ctypes.data)
        count = _libc.recvmmsg(self._socket.fileno(), messages, self._most, socket.MSG_DONTWAIT, None)
        if count < 0:
            code = ctypes.get_errno()
            if code in (errno.EAGAIN, errno.EINTR):
                return []
            raise OSError(code, os.strerror(code))
        data = self._data
        ends = (np.arange(count) * LARGEST + self._messages["received"][:count]).tolist()
        frames = [data[start:end] for start, end in zip(range(0, count * LARGEST, LARGEST), ends, strict=True)]
        return self._by_peer(frames)

    def lost(self) -> int:
        """Return how many datagrams the kernel has dropped since it was asked for the last time, for want of room.

        0 where the kernel does not say: before Linux 4.12, and in some sandboxes.
        """
        try:
            drops = struct.unpack_from("I", self._socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 64), _DROPS)[0]
        except (OSError, struct.error):
            return 0
        lost, self._drops = (drops - self._drops) % _WRAP, drops
        return int(lost)

    def _by_peer(self, frames: list[bytes]) -> list[tuple[str, list[bytes]]]:
        family = self._socket.family
        names = np.ascontiguousarray(self._names[: len(frames), _ADDRESS[family]])
        if (names == names[:1]).all():
            return [(_text(family, names[0].tobytes()), frames)] if frames else []
        by_peer: dict[bytes, list[bytes]] = {}
        for name, frame in zip(names.view(f"V{names.shape[1]}").ravel().tolist(), frames, strict=True):
            by_peer.setdefault(name, []).append(frame)
        return [(_text(family, name), some) for name, some in by_peer.items()]


@lru_cache(maxsize=4096)
def _text(family: int, name: bytes) -> str:
    """Write an address as `recvfrom` does."""
    if family == socket.AF_INET:
        return socket.inet_ntop(family, name)
    address, scope = socket.inet_ntop(family, name[:_RAW_INET6]), int.from_bytes(name[_RAW_INET6:], sys.byteorder)
    return socket.getnameinfo((address, 0, 0, scope), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)[0]
