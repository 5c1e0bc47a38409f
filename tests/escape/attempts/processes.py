"""Other processes and the caller's environment: seeing them, reading them, signalling them, outliving the step."""

import ctypes
import hashlib
import os
import signal
import socket
import sys
import time

import kernel
from table import NotHere, Outer, Prepared, Stopped, attempt

PTRACE_SEIZE, PTRACE_ATTACH = 0x4206, 16
SLEEPER = "import sys, time; time.sleep(60)"


def pids():
    """The processes that can be seen here."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def command_line(pid):
    """A process's command line; nothing where it may not be read."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except OSError:
        return b""


def neighbour(targets):
    """The host's process, unless its number is another process's here."""
    pid = targets["neighbour"]["pid"]
    seen = command_line(pid)
    if seen and targets["neighbour"]["mark"].encode() not in seen:
        raise Stopped("another process has its number here")
    return pid


def holds(targets, environment):
    """Whether the caller's secret is in the bytes of an environment."""
    name = targets["secret"]["name"].encode() + b"="
    for variable in environment.split(b"\0"):
        if variable.startswith(name):
            value = variable[len(name) :]
            return hashlib.sha256(value).hexdigest() == targets["secret"]["sha256"]
    return False


def secret(targets, environment):
    """Says that the secret is in the environment, or that it isn't."""
    if not holds(targets, environment):
        raise Stopped("not in it")
    return "the caller's secret"


@attempt("own-environment", "environment", "host")
def own_environment(targets):
    return secret(targets, b"\0".join(k + b"=" + v for k, v in os.environb.items()))


@attempt("own-first-environment", "environment", "host")
def first_environment(targets):
    with open("/proc/self/environ", "rb") as file:
        return secret(targets, file.read())


def environment_of(name, find, control):
    @attempt(name, "environment", control)
    def run(targets):
        with open(f"/proc/{find(targets)}/environ", "rb") as file:
            return secret(targets, file.read())


environment_of("environment-of-parent", lambda t: os.getppid(), "host")
environment_of("environment-of-proc-1", lambda t: 1, None)
environment_of("environment-of-neighbour", neighbour, "host")


@attempt("environment-of-anyone", "environment", "host")
def environment_of_anyone(targets):
    for pid in pids():
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                if holds(targets, file.read()):
                    return f"the caller's secret, of process {pid}"
        except OSError:
            continue
    raise Stopped("in none that can be read")


@attempt("host-name", "environment", "host")
def host_name(targets):
    if socket.gethostname() != targets["host-name"]:
        raise Stopped(f"it is `{socket.gethostname()}`")
    return "the host's"


@attempt("secret-in-memory-of-proc-1", "environment")
def secret_in_memory(targets):
    with open("/proc/1/maps", encoding="utf-8", errors="replace") as maps:
        ranges = [line.split()[0].split("-") for line in maps if "[stack]" in line or "[heap]" in line]
    if not ranges:
        raise Stopped("nothing is mapped")
    name = targets["secret"]["name"].encode() + b"="
    with open("/proc/1/mem", "rb", buffering=0) as memory:
        for first, last in ranges:
            memory.seek(int(first, 16))
            if name in memory.read(int(last, 16) - int(first, 16)):
                return "the caller's secret"
    raise Stopped("not in its stack and heap")


@attempt("see-neighbour", "processes", "host")
def see(targets):
    mark = targets["neighbour"]["mark"].encode()
    found = [pid for pid in pids() if mark in command_line(pid)]
    if not found:
        raise Stopped(f"not among {len(pids())} processes")
    return f"process {found[0]}"


@attempt("signal-neighbour", "processes", "host")
def signal_neighbour(targets):
    os.kill(neighbour(targets), signal.SIGCONT)
    return "signalled"


@attempt("signal-everyone", "processes", "host")
def signal_everyone(targets):
    os.kill(-1, signal.SIGCONT)
    raise Outer("signals")


@attempt("signal-by-pidfd", "processes", "host")
def signal_by_pidfd(targets):
    signal.pidfd_send_signal(os.pidfd_open(neighbour(targets)), signal.SIGCONT)
    return "signalled"


@attempt("priority-of-neighbour", "processes", "host")
def priority(targets):
    pid = neighbour(targets)
    os.setpriority(os.PRIO_PROCESS, pid, os.getpriority(os.PRIO_PROCESS, pid))
    return "priority set"


@attempt("affinity-of-neighbour", "processes", "host")
def affinity(targets):
    pid = neighbour(targets)
    os.sched_setaffinity(pid, os.sched_getaffinity(pid))
    return "cores set"


@attempt("limits-of-neighbour", "processes", "host")
def limits(targets):
    import resource

    resource.prlimit(neighbour(targets), resource.RLIMIT_CORE)
    return "limits read"


def read_memory(pid):
    """Reads a byte of a process's memory at address 0: EFAULT says that only the address was wrong."""

    class Vector(ctypes.Structure):
        _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]

    here = ctypes.create_string_buffer(1)
    local = Vector(ctypes.cast(here, ctypes.c_void_p), 1)
    remote = Vector(None, 1)
    try:
        kernel.call("process_vm_readv", pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)
    except OSError as error:
        if error.strerror != os.strerror(14):
            raise
    return "allowed"


@attempt("memory-of-neighbour", "processes", "host")
def memory_of_neighbour(targets):
    return read_memory(neighbour(targets))


@attempt("vm-read-of-proc-1", "kernel")
def vm_read_of_init(targets):
    return read_memory(1)


@attempt("vm-read-of-sibling", "kernel", "host")
def vm_read_of_sibling(targets):
    return with_child(read_memory)


def with_child(act):
    """Does something to a child that waits for it."""
    with Prepared():
        child = os.fork()
    if child == 0:
        time.sleep(30)
        os._exit(0)
    try:
        return act(child)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@attempt("ptrace-sibling", "kernel", "host")
def ptrace_sibling(targets):
    def seize(child):
        kernel.call("ptrace", PTRACE_SEIZE, child, None, None)
        return "traced"

    return with_child(seize)


@attempt("ptrace-neighbour", "kernel", "root")
def ptrace_neighbour(targets):
    kernel.call("ptrace", PTRACE_SEIZE, neighbour(targets), None, None)
    return "traced"


@attempt("descriptor-of-neighbour", "processes", "root")
def descriptor_of_neighbour(targets):
    return f"descriptor {kernel.call('pidfd_getfd', os.pidfd_open(neighbour(targets)), 0, 0)}"


def left(name, control="host"):
    """Notes an attempt to leave a process behind; the function becomes that process, of the given mark."""

    def note(function):
        @attempt(f"leave-{name}", "processes", control)
        def run(targets):
            mark = f"{targets['nonce']}-leave-{name}"
            with Prepared():
                child = os.fork()
            if child == 0:
                try:
                    function(mark)
                finally:
                    os._exit(1)
            raise Outer(mark)

        return function

    return note


def sleep_on(mark):
    """Becomes a sleeping program that shows the mark in its command line."""
    os.execv(sys.executable, ["python3", "-I", "-c", SLEEPER, mark])


def silence():
    """Lets go of the standard streams."""
    null = os.open("/dev/null", os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)


@left("child")
def child(mark):
    silence()
    sleep_on(mark)


@left("daemon")
def daemon(mark):
    silence()
    os.setsid()
    if os.fork() == 0:
        sleep_on(mark)


@left("holding-streams")
def holding(mark):
    os.setsid()
    if os.fork() == 0:
        sleep_on(mark)


@left("deaf")
def deaf(mark):
    silence()
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    if os.fork() == 0:
        sleep_on(mark)


@left("stopped")
def stopped(mark):
    silence()
    os.setsid()
    if os.fork() == 0:
        program = "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)"
        os.execv(sys.executable, ["python3", "-I", "-c", program, mark])


@left("hopping", None)
def hopping(mark):
    # A process that is never the same for long; it ends by itself where nothing else ends it.
    silence()
    os.setsid()
    program = "\n".join(
        ["import os, time", "end = time.monotonic() + 15", "while time.monotonic() < end:"]
        + ["    if os.fork():", "        os._exit(0)", "    time.sleep(0.001)"]
    )
    os.execv(sys.executable, ["python3", "-I", "-c", program, mark])


@attempt("write-to-terminal-of-caller", "processes")
def terminal(targets):
    try:
        opened = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError as error:
        if error.errno == 6:
            raise NotHere("the step has no terminal") from error
        raise
    os.close(opened)
    return "the caller's terminal"
