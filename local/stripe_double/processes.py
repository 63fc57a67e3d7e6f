"""Kill the process at the other end of a connection on this machine."""

from __future__ import annotations

import ipaddress
import os
import signal

_INIT = 1


class ClientNotFoundError(Exception):
    """Not exactly one process has the other end of a connection."""


def client_pid(client: tuple[str, int], server_port: int) -> int:
    """Return the id of the process that has the client's end of a TCP connection.

    Parameters
    ----------
    client
        Address and port of the client's end.
    server_port
        The port of the server's end.

    Raises
    ------
    ClientNotFoundError
        The client isn't on loopback, no or several processes have the connection, or it is this
        process or the init process.
    """
    # Only this fault needs psutil, so everything else works without it.
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
        raise ClientNotFoundError(f"{len(holders)} processes have port {port}")
    pid = holders.pop()
    if pid in (_INIT, os.getpid()):
        raise ClientNotFoundError(f"process {pid} must not be killed")
    return int(pid)


def kill(pid: int) -> None:
    """Kill a process at once, without clean-up."""
    os.kill(pid, signal.SIGKILL)
