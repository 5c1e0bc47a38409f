"""The kernel's own doors: namespaces, mounts, tracing, keys, programs in the kernel, devices, identities."""

import ctypes
import errno
import fcntl
import mmap
import os
import platform
import socket
import stat
import struct
import termios

import kernel
from table import NotHere, Prepared, Stopped, attempt
from writes import permitted

NULL_DEVICE = os.makedev(1, 3)
MEMORY_DEVICE = os.makedev(1, 1)
PR_GET_NO_NEW_PRIVS = 39


def simple(name, act, *errors, control="namespaces", signals=("SIGSYS",)):
    """Notes an attempt that is one call; `errors` are what it is refused with where the right is there."""

    @attempt(name, "kernel", control, signals)
    def run(targets):
        return permitted(lambda: act(targets), *errors)


def unshare(name, flags, control="host"):
    simple(f"unshare-{name}", lambda t: kernel.call("unshare", flags), control=control)


unshare("user", kernel.CLONE_NEWUSER)
unshare("user-and-net", kernel.CLONE_NEWUSER | kernel.CLONE_NEWNET)
unshare("user-and-mount", kernel.CLONE_NEWUSER | kernel.CLONE_NEWNS)
unshare("mount", kernel.CLONE_NEWNS, "namespaces")
unshare("net", kernel.CLONE_NEWNET, "namespaces")
unshare("pid", kernel.CLONE_NEWPID, "namespaces")
unshare("uts", kernel.CLONE_NEWUTS, "namespaces")


@attempt("root-by-user-namespace", "kernel", "host")
def root_by_namespace(targets):
    # The way to all rights over what the process can name.
    user, group = os.getuid(), os.getgid()
    kernel.call("unshare", kernel.CLONE_NEWUSER)
    for file, line in [("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")]:
        with open(f"/proc/self/{file}", "w", encoding="ascii") as opened:
            opened.write(line)
    return f"user {os.getuid()}"


@attempt("uid-map", "kernel")
def uid_map(targets):
    with open("/proc/self/uid_map", "w", encoding="ascii") as file:
        file.write("0 0 4294967295")
    return "all users mapped"


def cloned(*arguments, call="clone"):
    """Makes a process by a raw call; the new one ends at once."""
    child = kernel.call(call, *arguments)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return child


SIGCHLD = 17


def clone3(flags):
    # struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls.
    arguments = struct.pack("8Q", flags, 0, 0, 0, SIGCHLD, 0, 0, 0)
    return cloned(ctypes.create_string_buffer(arguments, 64), 64, call="clone3")


simple("clone-user", lambda t: cloned(kernel.CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0), control="host")
simple("clone-mount", lambda t: cloned(kernel.CLONE_NEWNS | SIGCHLD, 0, 0, 0, 0))
simple("clone3-user", lambda t: clone3(kernel.CLONE_NEWUSER), control="host")
simple("clone3-mount", lambda t: clone3(kernel.CLONE_NEWNS))


def setns(name, of):
    simple(f"setns-{name}", lambda t: kernel.call("setns", os.open(f"/proc/{of(t)}/ns/{name}", os.O_RDONLY), 0))


setns("mnt", lambda t: 1)
setns("net", lambda t: 1)


def mount(targets, source, kind, flags=0):
    place = os.path.join(targets["work"], "mount")
    with Prepared():
        os.makedirs(place, exist_ok=True)
    kernel.call("mount", kernel.path(source), kernel.path(place), kernel.path(kind), flags, None)
    kernel.call("umount2", kernel.path(place), kernel.MNT_DETACH)


simple("mount-tmpfs", lambda t: mount(t, "none", "tmpfs"))
simple("mount-proc", lambda t: mount(t, "none", "proc"))
simple("mount-bind", lambda t: mount(t, t["work"], "none", kernel.MS_BIND))
simple("fsopen", lambda t: kernel.call("fsopen", kernel.path("tmpfs"), 0))
simple("open-tree", lambda t: kernel.call("open_tree", kernel.AT_FDCWD, kernel.path("/usr"), 1))
simple(
    "mount-setattr",
    lambda t: kernel.call(
        "mount_setattr", kernel.AT_FDCWD, kernel.path("."), 0, ctypes.create_string_buffer(struct.pack("4Q", 0, 1, 0, 0)), 32
    ),
    "EINVAL",
)
simple(
    "move-mount",
    lambda t: kernel.call("move_mount", kernel.AT_FDCWD, kernel.path("/proc"), kernel.AT_FDCWD, kernel.path("/proc"), 0),
    "EINVAL",
    "ELOOP",
)
simple("unmount-proc", lambda t: kernel.call("umount2", kernel.path(t["work"]), kernel.MNT_DETACH), "EINVAL")
simple(
    "pivot-root", lambda t: kernel.call("pivot_root", kernel.path(t["work"]), kernel.path(t["work"])), "EINVAL", "EBUSY"
)


@attempt("chroot-escape", "kernel", "namespaces")
def chroot_escape(targets):
    # The classic: a second root below the first, and up from a folder that was left outside.
    with Prepared():
        inner = os.path.join(targets["work"], "inner")
        os.makedirs(inner, exist_ok=True)
    outside = os.open(".", os.O_RDONLY)
    os.chroot(inner)
    os.fchdir(outside)
    for _ in range(64):
        os.chdir("..")
    os.chroot(".")
    return f"a root with {len(os.listdir('/'))} names"


simple("sethostname", lambda t: socket.sethostname(socket.gethostname()))
simple("swapon", lambda t: kernel.call("swapon", kernel.path(__file__), 0), "EINVAL", control=None)
simple("init-module", lambda t: kernel.call("init_module", kernel.path("no module"), 9, kernel.path("")), "ENOEXEC", control=None)
simple("finit-module", lambda t: kernel.call("finit_module", os.open(__file__, os.O_RDONLY), kernel.path(""), 0), "ENOEXEC", control=None)
simple("delete-module", lambda t: kernel.call("delete_module", kernel.path("no_such_module"), os.O_NONBLOCK), "ENOENT", control=None)
# Wrong magic numbers, so that nothing but the right to it is asked.
simple("reboot", lambda t: kernel.call("reboot", 1, 2, 3, None), "EINVAL", control=None)
simple("kexec-load", lambda t: kernel.call("kexec_load", 0, 0, None, 0xFFFF), "EINVAL", control=None)
simple("acct", lambda t: kernel.call("acct", kernel.path("/no/such/file")), "ENOENT", control=None)
simple("kernel-log", lambda t: kernel.call("syslog", 10, None, 0), control="root")
simple("fanotify", lambda t: kernel.call("fanotify_init", 0, 0), control="root")


@attempt("set-clock", "kernel")
def set_clock(targets):
    import time

    # To what it shows.
    time.clock_settime_ns(time.CLOCK_REALTIME, time.clock_gettime_ns(time.CLOCK_REALTIME))
    return "set"


def io_uring():
    return kernel.call("io_uring_setup", 1, ctypes.create_string_buffer(120))


simple("io-uring", lambda t: io_uring(), control="host")
simple("add-key", lambda t: kernel.call("add_key", kernel.path("user"), kernel.path("trainlock"), kernel.path("x"), 1, -2), control="host")
simple("request-key", lambda t: kernel.call("request_key", kernel.path("user"), kernel.path("trainlock-no-such-key"), None, -2), "ENOKEY", control="host")
simple("keyctl", lambda t: kernel.call("keyctl", 0, -3, 1), control="host")
# BPF_MAP_CREATE of an array: type 2, key 4, value 4, one entry.
simple("bpf", lambda t: kernel.call("bpf", 0, ctypes.create_string_buffer(struct.pack("4I", 2, 4, 4, 1), 120), 120), control="root")
simple("userfaultfd", lambda t: kernel.call("userfaultfd", 0), control="root")


@attempt("perf-event", "kernel", "root")
def perf_event(targets):
    # A software counter (type 1, the size of the first version) of this process.
    attributes = ctypes.create_string_buffer(struct.pack("IIQ", 1, 64, 0), 64)
    return f"descriptor {kernel.call('perf_event_open', attributes, 0, -1, -1, 0)}"


# READ_IMPLIES_EXEC: what is mapped for reading can then be run.
simple("personality", lambda t: kernel.call("personality", 0x0400000), control="host")


@attempt("open-by-handle", "kernel", "root")
def open_by_handle(targets):
    # A file by its number in the file system: no path, so that no mount hides it.
    handle = ctypes.create_string_buffer(struct.pack("Ii", 128, 0), 136)
    identity = ctypes.c_int()
    inner = os.path.abspath(targets["inputs"]["linked"])
    kernel.call("name_to_handle_at", kernel.AT_FDCWD, kernel.path(inner), handle, ctypes.byref(identity), 0)
    around = os.open(os.path.dirname(inner), os.O_RDONLY)
    return f"descriptor {kernel.call('open_by_handle_at', around, handle, os.O_RDONLY)}"


def node(name, kind, device):
    @attempt(name, "kernel", "root")
    def run(targets):
        path = os.path.join(targets["work"], name)
        try:
            os.mknod(path, kind | 0o600, device)
            return "a device"
        finally:
            if os.path.lexists(path):
                os.unlink(path)


node("make-null-device", stat.S_IFCHR, NULL_DEVICE)
node("make-memory-device", stat.S_IFCHR, MEMORY_DEVICE)
node("make-disk", stat.S_IFBLK, os.makedev(259, 0))


@attempt("set-user-id-bit", "kernel", "host")
def set_user_id(targets):
    path = os.path.join(targets["work"], "set-user-id")
    with Prepared():
        open(path, "wb").close()
    try:
        os.chmod(path, 0o4755)
        if not os.stat(path).st_mode & stat.S_ISUID:
            raise Stopped("the bit was taken off")
        return "a set-user-id file"
    finally:
        os.unlink(path)


@attempt("file-capabilities", "kernel", "namespaces")
def file_capabilities(targets):
    path = os.path.join(targets["work"], "capable")
    with Prepared():
        open(path, "wb").close()
    try:
        os.setxattr(path, "security.capability", struct.pack("<5I", 0x02000001, 0xFFFFFFFF, 0, 0xFFFFFFFF, 0))
        return "a file with capabilities"
    finally:
        os.unlink(path)


@attempt("new-privileges", "kernel", "host")
def new_privileges(targets):
    if ctypes.CDLL(None).prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1:
        raise Stopped("the kernel gives none")
    return "a set-user-id program would give them"


@attempt("capabilities", "kernel", "namespaces")
def own_capabilities(targets):
    if kernel.capabilities() == 0:
        raise Stopped("none")
    return f"{kernel.capabilities():x}"


@attempt("setuid-0", "kernel", "namespaces")
def setuid(targets):
    os.setuid(0)
    if kernel.capabilities() == 0:
        raise Stopped("user 0 with no rights")
    return f"user 0 with {kernel.capabilities():x}"


@attempt("capset", "kernel", "namespaces")
def capset(targets):
    # Version 3, this process, CAP_SYS_ADMIN in all three sets.
    header = ctypes.create_string_buffer(struct.pack("Ii", 0x20080522, 0), 8)
    bit = 1 << 21
    data = ctypes.create_string_buffer(struct.pack("6I", bit, bit, bit, 0, 0, 0), 24)
    kernel.call("capset", header, data)
    return "CAP_SYS_ADMIN"


@attempt("raise-limits", "kernel")
def raise_limits(targets):
    import resource

    # Above the hard limit; where there is none, nothing can be raised.
    _, hard = resource.getrlimit(resource.RLIMIT_NICE)
    if hard == resource.RLIM_INFINITY:
        raise NotHere("no limit")
    try:
        resource.setrlimit(resource.RLIMIT_NICE, (hard, hard + 1))
    except ValueError as error:
        raise Stopped("not above the hard limit") from error
    return "a limit raised"


def type_into_terminal(descriptor):
    fcntl.ioctl(descriptor, termios.TIOCSTI, b"x")


simple("type-into-standard-input", lambda t: type_into_terminal(0), control=None)


@attempt("type-into-terminal", "kernel")
def type_into_own(targets):
    try:
        _, line = os.openpty()
    except OSError as error:
        raise Stopped("no terminals: " + errno.errorcode.get(error.errno, "")) from error
    os.setsid()
    with Prepared():
        fcntl.ioctl(line, termios.TIOCSCTTY, 0)
    type_into_terminal(line)
    return "a line typed"


def foreign(name, code, *arguments):
    """Notes an attempt by the 32-bit entry of an x86-64 kernel, where the numbers are others."""

    @attempt(f"32-bit-{name}", "kernel", "host", signals=("SIGSYS", "SIGSEGV"))
    def run(targets):
        if platform.machine() != "x86_64":
            raise NotHere("no such entry on this architecture")
        # push rbx; mov eax, code; mov ebx, edi; mov ecx, esi; int 0x80; pop rbx; ret (edx is in its place).
        program = b"\x53\xb8" + struct.pack("<I", code) + b"\x89\xfb\x89\xf1\xcd\x80\x5b\xc3"
        memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        memory.write(program)
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        function = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int)(address)
        result = function(*arguments)
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        return f"it answered {result}"


foreign("keyctl", 288, 0, -3, 1)
foreign("unshare", 310, kernel.CLONE_NEWUSER, 0, 0)


@attempt("x32-unshare", "kernel")
def x32(targets):
    if platform.machine() != "x86_64":
        raise NotHere("no such numbers on this architecture")
    kernel.call(0x40000000 | kernel.number("unshare"), kernel.CLONE_NEWUSER)
    return "unshared"
