"""python3 neighbour.py FOLDER MARK: a process of the host that a step must not reach.

It listens on every kind of socket and answers whoever speaks with a text that nobody else knows, holds a shared
memory segment with that text, and notes every contact as a line of FOLDER/contacts, the continue signal too. It
prints where it is to be found as one line of JSON. It ends when its standard input does.
"""

import ctypes
import hashlib
import json
import os
import selectors
import signal
import socket
import sys

IPC_CREAT, IPC_EXCL, IPC_RMID = 0o1000, 0o2000, 0


def listener(family, kind, address, protocol=0):
    """A socket that listens; none where the machine has no such family or address."""
    try:
        plug = socket.socket(family, kind, protocol)
        plug.bind(address)
        if kind == socket.SOCK_STREAM:
            plug.listen(64)
        plug.setblocking(False)
        return plug
    except OSError:
        return None


def own_address():
    """The host's address towards the outside; none where it has only loopback. Sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plug:
        try:
            plug.connect(("192.0.2.1", 9))
        except OSError:
            return None
        address = plug.getsockname()[0]
    return None if address.startswith("127.") else address


def segment(text):
    """A System V shared memory segment with this text: its key and identity."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.shmat.restype = ctypes.c_void_p
    while True:
        key = int.from_bytes(os.urandom(4), "little") & 0x7FFFFFFF | 1
        identity = libc.shmget(key, len(text), IPC_CREAT | IPC_EXCL | 0o600)
        if identity >= 0:
            ctypes.memmove(libc.shmat(identity, None, 0), text, len(text))
            # Gone with its last user, this process, even if it is killed; until then the key would be hidden,
            # so that it is marked only at the end.
            return key, identity, libc


def main():
    folder, mark = sys.argv[1:]
    answer = os.urandom(24).hex().encode()
    contacts = open(os.path.join(folder, "contacts"), "ab", buffering=0)
    note = lambda text: contacts.write(text.encode() + b"\n")  # noqa: E731
    signal.signal(signal.SIGCONT, lambda *_: note("signal"))

    stream, datagram = socket.SOCK_STREAM, socket.SOCK_DGRAM
    path = lambda name: os.path.join(folder, name)  # noqa: E731
    plugs = {
        "tcp4": listener(socket.AF_INET, stream, ("127.0.0.1", 0)),
        "tcp6": listener(socket.AF_INET6, stream, ("::1", 0)),
        "udp4": listener(socket.AF_INET, datagram, ("127.0.0.1", 0)),
        "udp6": listener(socket.AF_INET6, datagram, ("::1", 0)),
        "tcp-any": listener(socket.AF_INET, stream, ("0.0.0.0", 0)),
        "udp-any": listener(socket.AF_INET, datagram, ("0.0.0.0", 0)),
        "path-stream": listener(socket.AF_UNIX, stream, path("stream")),
        "path-datagram": listener(socket.AF_UNIX, datagram, path("datagram")),
        "abstract-stream": listener(socket.AF_UNIX, stream, f"\0{mark}-stream"),
        "abstract-datagram": listener(socket.AF_UNIX, datagram, f"\0{mark}-datagram"),
    }
    key, identity, libc = segment(answer)
    facts = {
        "pid": os.getpid(),
        "mark": mark,
        "answer": hashlib.sha256(answer).hexdigest(),
        "answer-size": len(answer),
        "segment": key,
        "address": own_address(),
        "mptcp": listener(socket.AF_INET, stream, ("127.0.0.1", 0), 262) is not None,
    }
    for name, plug in plugs.items():
        if name.startswith("abstract"):
            facts[name] = f"{mark}-{name.split('-')[1]}"
        elif name.startswith("path"):
            facts[name] = path(name.split("-")[1])
        else:
            facts[name] = plug and plug.getsockname()[1]

    selector = selectors.DefaultSelector()
    for name, plug in plugs.items():
        if plug:
            selector.register(plug, selectors.EVENT_READ, name)
    selector.register(sys.stdin, selectors.EVENT_READ, "end")
    print(json.dumps(facts), flush=True)
    running = True
    while running:
        for event, _ in selector.select():
            name, plug = event.data, event.fileobj
            if name == "end":
                running = False
            elif plug.type == stream:
                note(name)
                caller, _ = plug.accept()
                with caller:
                    # One that comes and says nothing is not to keep the others waiting.
                    caller.settimeout(1)
                    try:
                        caller.recv(65536)
                        caller.sendall(answer)
                    except OSError:
                        note(f"{name} without a word")
            else:
                note(name)
                _, caller = plug.recvfrom(65536)
                if caller:
                    plug.sendto(answer, caller)
    libc.shmctl(identity, IPC_RMID, None)


main()
