"""Killing the process at the other end of a connection, on this machine only."""

from __future__ import annotations

import ipaddress
import os
import signal

_INIT = 1


class ClientNotFoundError(Exception):
    """No single process holds the other end of a connection."""


def client_pid(client: tuple[str, int], server_port: int) -> int:
    """Return the process which holds the client's end of a TCP connection.

    Parameters
    ----------
    client
        Address and port from which the connection came.
    server_port
        The port that it came to.

    Raises
    ------
    ClientNotFoundError
        Where the client isn't on loopback, none or several processes hold the connection, or it
        is this process or the first one.
    """
    # Only this fault needs it, so a machine without it runs everything else.
    import psutil  # noqa: PLC0415

    host, port = client
    address = ipaddress.ip_address(host)
    mapped = getattr(address, "ipv4_mapped", None)
    if not (mapped or address).is_loopback:
        raise ClientNotFoundError(f"{host} is not this machine")
    holders = {
        connection.pid
        for connection in psutil.net_connections(kind="tcp")
        if connection.pid is not None
        and connection.laddr
        and connection.raddr
        and connection.laddr.port == port
        and connection.raddr.port == server_port
    }
    if len(holders) != 1:
        raise ClientNotFoundError(f"{len(holders)} processes hold port {port}")
    pid = holders.pop()
    if pid in (_INIT, os.getpid()):
        raise ClientNotFoundError(f"process {pid} is not to be killed")
    return int(pid)


def kill(pid: int) -> None:
    """Kill a process at once, without a chance to clean up."""
    os.kill(pid, signal.SIGKILL)
