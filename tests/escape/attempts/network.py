"""Reaching a listener of the host: by TCP, UDP and Unix sockets; and changing what the network is."""

import ctypes
import fcntl
import hashlib
import socket
import struct

import kernel
from table import NotHere, Stopped, attempt

WAIT = 1.0
RTM_DELROUTE, RTM_NEWLINK, NLM_F_REQUEST, NLM_F_ACK = 25, 16, 1, 4
SIOCGIFFLAGS, SIOCSIFFLAGS = 0x8913, 0x8914


def answered(targets, answer):
    """Whether this is the listener's own answer."""
    if hashlib.sha256(answer).hexdigest() != targets["neighbour"]["answer"]:
        raise Stopped(f"{len(answer)} bytes from someone else")
    return "its answer"


def ask(targets, family, kind, address):
    """Connects, says something and reads the answer."""
    with socket.socket(family, kind) as plug:
        plug.settimeout(WAIT)
        if family == socket.AF_UNIX and kind == socket.SOCK_DGRAM:
            # A datagram is answered only where the sender has a name.
            plug.bind("")
        plug.connect(address)
        plug.send(b"hello " + targets["nonce"].encode())
        return answered(targets, plug.recv(4096))


def loopback(name, guarantee, family, kind, host):
    @attempt(name, guarantee, "host")
    def run(targets):
        port = targets["neighbour"][name]
        if port is None:
            raise NotHere("the host has no such loopback address")
        return ask(targets, family, kind, (host, port))


loopback("tcp4", "tcp", socket.AF_INET, socket.SOCK_STREAM, "127.0.0.1")
loopback("tcp6", "tcp", socket.AF_INET6, socket.SOCK_STREAM, "::1")
loopback("udp4", "udp", socket.AF_INET, socket.SOCK_DGRAM, "127.0.0.1")
loopback("udp6", "udp", socket.AF_INET6, socket.SOCK_DGRAM, "::1")


def own_address(name, guarantee, kind, port):
    @attempt(name, guarantee, "host")
    def run(targets):
        address = targets["neighbour"]["address"]
        if address is None:
            raise NotHere("the host has no address but loopback")
        return ask(targets, socket.AF_INET, kind, (address, targets["neighbour"][port]))


own_address("tcp-host-address", "tcp", socket.SOCK_STREAM, "tcp-any")
own_address("udp-host-address", "udp", socket.SOCK_DGRAM, "udp-any")


@attempt("tcp-mapped-address", "tcp", "host")
def mapped(targets):
    with socket.socket(socket.AF_INET6) as probe:
        # Where the host has no IPv6 at all, this is no way to anywhere.
        probe.getsockname()
    return ask(targets, socket.AF_INET6, socket.SOCK_STREAM, ("::ffff:127.0.0.1", targets["neighbour"]["tcp4"]))


@attempt("tcp-fast-open", "tcp", "host")
def fast_open(targets):
    # Data with the first packet: no connect is called.
    with socket.socket() as plug:
        # The limit is the socket's own: with Python's the call would not wait for the connection.
        for way in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
            plug.setsockopt(socket.SOL_SOCKET, way, struct.pack("ll", int(WAIT), 0))
        plug.sendto(b"hello", socket.MSG_FASTOPEN, ("127.0.0.1", targets["neighbour"]["tcp4"]))
        return answered(targets, plug.recv(4096))


@attempt("mptcp", "tcp", "host")
def mptcp(targets):
    # Another protocol that speaks to a plain TCP listener.
    try:
        plug = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
    except OSError as error:
        if targets["neighbour"]["mptcp"]:
            raise
        raise NotHere("the host has no MPTCP") from error
    with plug:
        plug.settimeout(WAIT)
        plug.connect(("127.0.0.1", targets["neighbour"]["tcp4"]))
        plug.send(b"hello")
        return answered(targets, plug.recv(4096))


@attempt("udp-sendto", "udp", "host")
def sendto(targets):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plug:
        plug.settimeout(WAIT)
        plug.sendto(b"hello", ("127.0.0.1", targets["neighbour"]["udp4"]))
        return answered(targets, plug.recv(4096))


def unix(name, kind, key):
    @attempt(name, "processes", "host")
    def run(targets):
        address = targets["neighbour"][key]
        return ask(targets, socket.AF_UNIX, kind, "\0" + address if key.startswith("abstract") else address)


unix("unix-path-stream", socket.SOCK_STREAM, "path-stream")
unix("unix-path-datagram", socket.SOCK_DGRAM, "path-datagram")
unix("unix-abstract-stream", socket.SOCK_STREAM, "abstract-stream")
unix("unix-abstract-datagram", socket.SOCK_DGRAM, "abstract-datagram")


@attempt("unix-through-proc-root", "processes", "namespaces")
def through_proc(targets):
    return ask(targets, socket.AF_UNIX, socket.SOCK_STREAM, "/proc/1/root" + targets["neighbour"]["path-stream"])


def service(name, *paths):
    @attempt(name, "processes")
    def run(targets):
        failed = None
        for path in paths:
            with socket.socket(socket.AF_UNIX) as plug:
                try:
                    plug.connect(path)
                    return f"connected to `{path}`"
                except OSError as error:
                    failed = error
        raise failed


service("docker-socket", "/run/docker.sock", "/var/run/docker.sock")
service("containerd-socket", "/run/containerd/containerd.sock", "/run/podman/podman.sock")
service("system-bus", "/run/dbus/system_bus_socket", "/run/systemd/private")


@attempt("raw-socket", "kernel", "namespaces")
def raw(targets):
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()
    return "a raw socket"


@attempt("packet-socket", "kernel", "namespaces")
def packet(targets):
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)).close()
    return "a packet socket"


@attempt("vsock", "kernel")
def vsock(targets):
    # No network namespace holds these: they reach the hypervisor and its other machines.
    socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).close()
    return "a socket to the hypervisor"


def netlink(kind, body):
    """Asks the kernel to change its network; the error it gives, as an OSError."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as plug:
        plug.settimeout(WAIT)
        plug.send(struct.pack("IHHII", 16 + len(body), kind, NLM_F_REQUEST | NLM_F_ACK, 1, 0) + body)
        answer = plug.recv(4096)
    error = -struct.unpack_from("i", answer, 16)[0]
    if error:
        raise OSError(error, "netlink")


@attempt("netlink-route", "kernel", "namespaces")
def route(targets):
    # A route that no machine has (192.0.2.1/32): ESRCH says that only the route was missing.
    body = struct.pack("BBBBBBBBI", socket.AF_INET, 32, 0, 0, 254, 4, 0, 1, 0)
    body += struct.pack("HH4s", 8, 1, socket.inet_aton("192.0.2.1"))
    try:
        netlink(RTM_DELROUTE, body)
    except ProcessLookupError:
        return "allowed (ESRCH)"
    return "done"


@attempt("netlink-link", "kernel", "namespaces")
def link(targets):
    # Changes nothing of interface 1, the loopback one.
    netlink(RTM_NEWLINK, struct.pack("BBHiII", 0, 0, 0, 1, 0, 0))
    return "an interface set"


@attempt("interface-flags", "kernel", "namespaces")
def flags(targets):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plug:
        request = bytearray(struct.pack("16sH22x", b"lo", 0))
        fcntl.ioctl(plug, SIOCGIFFLAGS, request)
        fcntl.ioctl(plug, SIOCSIFFLAGS, request)
    return "an interface set"


@attempt("shared-memory-segment", "processes", "host")
def segment(targets):
    # System V shared memory knows keys, not paths.
    identity = kernel.call("shmget", targets["neighbour"]["segment"], 0, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.shmat.restype = ctypes.c_void_p
    address = libc.shmat(identity, None, 0o10000)
    if address in (None, ctypes.c_void_p(-1).value):
        error = ctypes.get_errno()
        raise OSError(error, "shmat")
    return answered(targets, ctypes.string_at(address, targets["neighbour"]["answer-size"]))
