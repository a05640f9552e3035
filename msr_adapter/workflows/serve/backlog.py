"""What the kernel has of clients that the server has not read yet, and how a stopping server leaves nothing there.

A listening socket that is closed resets the connections of its backlog, whose clients have sent requests already: they
cannot tell whether those were carried out. So first no new connection is let in, then what is there is read and
answered.
"""

import ctypes
import select
import socket
import struct
import sys
from collections.abc import Iterable
from typing import Any

_SO_ATTACH_FILTER = 26
_DROP_SYN = [
    (0x30, 0, 0, 13),  # load the byte of the TCP header that holds the flags
    (0x54, 0, 0, 0x12),  # keep SYN and ACK
    (0x15, 0, 1, 0x02),  # SYN alone asks for a new connection:
    (0x06, 0, 0, 0),  # drop it
    (0x06, 0, 0, 0xFFFFFFFF),  # let all else pass, the end of a handshake above all
]
"""A program of the kernel's packet filter: code, jump if true, jump if false, operand."""


def let_nobody_in(listening: socket.socket) -> bool:
    """Have the kernel ignore new connections while those under way still get in; say whether it does (Linux).

    A client that is ignored knocks again after a second, and is then refused: nothing of its request was read.
    """
    if sys.platform != "linux":
        return False
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in _DROP_SYN))
    program = struct.pack("HL", len(_DROP_SYN), ctypes.addressof(code))
    try:
        listening.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
    except OSError:
        return False
    return True


def is_unread(connections: Iterable[Any], listening: Iterable[socket.socket]) -> bool:
    """Say whether anybody waits: in the backlog, with bytes that are not read, or with a request not answered.

    ``connections`` are uvicorn's, over h11.
    """
    open_now = [one for one in connections if not one.transport.is_closing()]
    for one in open_now:
        if one.conn.trailing_data[0] or (one.cycle is not None and not one.cycle.response_complete):
            return True
    files = [one.transport.get_extra_info("socket").fileno() for one in open_now]
    waiting = select.poll() if hasattr(select, "poll") else None
    if waiting is None:
        return False
    for file in [*files, *(one.fileno() for one in listening)]:
        waiting.register(file, select.POLLIN)
    # A client that closed its side can be read too, but has nothing to say: its connection ends by itself.
    return bool(waiting.poll(0))
