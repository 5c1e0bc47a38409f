"""Writing to inputs, by every way that reaches a file's bytes, name or attributes, and to what is no output."""

import ctypes
import errno
import fcntl
import mmap
import os
import shutil

import kernel
from table import NotHere, Prepared, Stopped, attempt

# `linked` is a file of the store behind a hard link or a bind mount; `beside` lies in a folder of outputs.
INPUTS = ["linked", "beside"]
FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_NOATIME_FL = 0x80086601, 0x40086602, 0x80
RENAME_EXCHANGE = 2
FALLOC_FL_KEEP_SIZE_PUNCH_HOLE = 3

_LIBC = ctypes.CDLL(None, use_errno=True)


def to_input(way, control="host"):
    """Notes an attempt on each of the inputs; the function gets the targets and the input's path."""

    def note(function):
        for which in INPUTS:

            @attempt(f"{way}-{which}-input", "writes", control)
            def run(targets, which=which):
                return function(targets, targets["inputs"][which])

        return function

    return note


def scribble(descriptor):
    """Writes through an open file."""
    return f"{os.pwrite(descriptor, b'escaped', 0)} bytes written"


def opened(path):
    """A file, open for reading."""
    with Prepared():
        return os.open(path, os.O_RDONLY)


def again(path):
    """The same file opened a second time for writing, by its open descriptor."""
    return os.open(f"/proc/self/fd/{opened(path)}", os.O_RDWR)


@to_input("write", "root")
def write(targets, path):
    return scribble(os.open(path, os.O_WRONLY))


@to_input("append", "root")
def append(targets, path):
    return f"{os.write(os.open(path, os.O_WRONLY | os.O_APPEND), b'escaped')} bytes written"


@to_input("truncate", "root")
def truncate(targets, path):
    os.truncate(path, 0)
    return "emptied"


@to_input("open-truncate", "root")
def open_truncate(targets, path):
    os.open(path, os.O_RDONLY | os.O_TRUNC)
    return "emptied"


@to_input("chmod-write")
def chmod_write(targets, path):
    os.chmod(path, 0o666)
    return scribble(os.open(path, os.O_WRONLY))


@to_input("fchmod")
def fchmod(targets, path):
    os.fchmod(opened(path), 0o600)
    return "mode changed"


@to_input("chown")
def chown(targets, path):
    os.chown(path, os.getuid(), os.getgid())
    return "owner set"


@to_input("unlink")
def unlink(targets, path):
    os.unlink(path)
    return "removed"


@to_input("rename-away")
def rename_away(targets, path):
    os.rename(path, path + ".away")
    os.unlink(path + ".away")
    return "moved away"


@to_input("rename-over")
def rename_over(targets, path):
    other = path + ".other"
    with open(other, "w", encoding="ascii") as file:
        file.write("escaped")
    try:
        os.rename(other, path)
    except OSError:
        os.unlink(other)
        raise
    return "replaced"


@to_input("rename-exchange")
def rename_exchange(targets, path):
    other = path + ".other"
    with open(other, "w", encoding="ascii") as file:
        file.write("escaped")
    try:
        kernel.call(
            "renameat2", kernel.AT_FDCWD, kernel.path(other), kernel.AT_FDCWD, kernel.path(path), RENAME_EXCHANGE
        )
    finally:
        os.unlink(other)
    return "exchanged"


@to_input("rename-folder-of")
def rename_folder(targets, path):
    folder = os.path.dirname(path)
    os.rename(folder, folder + "-away")
    os.rename(folder + "-away", folder)
    return "its folder moved"


@to_input("link-write")
def link_write(targets, path):
    alias = path + ".alias"
    os.link(path, alias)
    try:
        os.chmod(alias, 0o666)
        return scribble(os.open(alias, os.O_WRONLY))
    finally:
        os.unlink(alias)


@to_input("link-to-output")
def link_to_output(targets, path):
    alias = os.path.join(targets["work"], "alias")
    os.link(path, alias)
    try:
        os.chmod(alias, 0o666)
        return scribble(os.open(alias, os.O_WRONLY))
    finally:
        os.unlink(alias)


@to_input("symlink-write", "root")
def symlink_write(targets, path):
    link = os.path.join(targets["work"], "write-symlink")
    with Prepared():
        os.symlink(os.path.abspath(path), link)
    try:
        return scribble(os.open(link, os.O_WRONLY))
    finally:
        os.unlink(link)


@to_input("proc-fd", "root")
def proc_fd(targets, path):
    return scribble(again(path))


@to_input("proc-1-root", None)
def proc_one_root(targets, path):
    return scribble(os.open("/proc/1/root" + os.path.abspath(path), os.O_RDWR))


@to_input("proc-self-root", "root")
def proc_self_root(targets, path):
    return scribble(os.open("/proc/self/root" + os.path.abspath(path), os.O_RDWR))


@to_input("mmap", "root")
def mapped(targets, path):
    with mmap.mmap(os.open(path, os.O_RDWR), 0, mmap.MAP_SHARED) as memory:
        memory[0:1] = b"E"
    return "written through the mapping"


@to_input("mprotect", None)
def mprotect(targets, path):
    _LIBC.mmap.restype = ctypes.c_void_p
    length = ctypes.c_size_t(4096)
    address = _LIBC.mmap(None, length, mmap.PROT_READ, mmap.MAP_SHARED, opened(path), ctypes.c_long(0))
    if _LIBC.mprotect(ctypes.c_void_p(address), length, mmap.PROT_READ | mmap.PROT_WRITE) < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    ctypes.memmove(address, b"E", 1)
    return "written through the mapping"


@to_input("copy-file-range", "root")
def copy_file_range(targets, path):
    target = again(path)
    return f"{os.copy_file_range(os.open(__file__, os.O_RDONLY), target, 7, 0, 0)} bytes copied"


@to_input("sendfile", "root")
def sendfile(targets, path):
    target = again(path)
    return f"{os.sendfile(target, os.open(__file__, os.O_RDONLY), 0, 7)} bytes sent"


@to_input("punch-hole", "root")
def punch_hole(targets, path):
    target = again(path)
    if _LIBC.fallocate(target, FALLOC_FL_KEEP_SIZE_PUNCH_HOLE, ctypes.c_long(0), ctypes.c_long(4096)) < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return "a hole in it"


@to_input("utime")
def utime(targets, path):
    os.utime(path, (1, 1))
    return "times changed"


@to_input("futime")
def futime(targets, path):
    os.utime(opened(path), (1, 1))
    return "times changed"


@to_input("setxattr", "root")
def setxattr(targets, path):
    os.setxattr(path, "user.trainlock", b"escaped")
    os.removexattr(path, "user.trainlock")
    return "an attribute set"


@to_input("fsetxattr", "root")
def fsetxattr(targets, path):
    descriptor = opened(path)
    os.setxattr(descriptor, "user.trainlock", b"escaped")
    os.removexattr(descriptor, "user.trainlock")
    return "an attribute set"


@to_input("set-flags")
def set_flags(targets, path):
    descriptor = opened(path)
    flags = bytearray(8)
    fcntl.ioctl(descriptor, FS_IOC_GETFLAGS, flags)
    word = int.from_bytes(flags[:4], "little")
    fcntl.ioctl(descriptor, FS_IOC_SETFLAGS, (word ^ FS_NOATIME_FL).to_bytes(8, "little"))
    fcntl.ioctl(descriptor, FS_IOC_SETFLAGS, word.to_bytes(8, "little"))
    return "a flag changed"


@to_input("unmount", "namespaces")
def unmount(targets, path):
    # Where the right is there and no mount, the answer is EINVAL.
    return permitted(lambda: kernel.call("umount2", kernel.path(path), kernel.MNT_DETACH), "EINVAL")


@to_input("remount", "namespaces")
def remount(targets, path):
    flags = kernel.MS_REMOUNT | kernel.MS_BIND
    return permitted(
        lambda: kernel.call("mount", kernel.path("none"), kernel.path(path), kernel.path("none"), flags, None), "EINVAL"
    )


@to_input("mount-over", "namespaces")
def mount_over(targets, path):
    cover = os.path.join(targets["work"], "cover")
    with Prepared():
        open(cover, "wb").close()
    kernel.call(
        "mount", kernel.path(cover), kernel.path(path), kernel.path("none"), kernel.MS_BIND, None
    )
    kernel.call("umount2", kernel.path(path), kernel.MNT_DETACH)
    return "another file over it"


def permitted(act, *errors):
    """Does what is refused, where the right to it is there, with one of these errors alone."""
    try:
        act()
    except OSError as error:
        name = errno.errorcode.get(error.errno)
        if name not in errors:
            raise
        return f"allowed ({name})"
    return "done"


def opening(name, find, control="host", flags=os.O_WRONLY):
    """Notes an attempt to open for writing; `find` gives the path from the targets."""

    @attempt(name, "writes", control)
    def run(targets):
        path = find(targets)
        os.close(os.open(path, flags))
        return f"`{path}` open for writing"


def making(name, find, control="host"):
    """Notes an attempt to make a file."""

    @attempt(name, "writes", control)
    def run(targets):
        path = os.path.join(find(targets), f"made-{targets['nonce']}")
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        os.unlink(path)
        return f"`{path}` made"


opening("write-lock", lambda t: t["lock"])
opening("write-manifest", lambda t: os.path.join(t["project"], "train.toml"))
opening("write-project-file", lambda t: t["canaries"]["project"]["path"])
opening("write-other-step", lambda t: t["canaries"]["other-step"]["path"])
opening("write-home-file", lambda t: t["canaries"]["ssh-key"]["path"])
opening("write-store-object", lambda t: t["canaries"]["store-object"]["path"], "root")
opening("write-shm-file", lambda t: t["canaries"]["shm"]["path"])
opening("write-own-program", lambda t: os.path.abspath(__file__))
opening("write-etc-passwd", lambda t: "/etc/passwd", None)
opening("write-usr-program", lambda t: shutil.which("env"), None)
opening("write-loader", lambda t: "/etc/ld.so.cache", None)
making("make-in-project", lambda t: t["project"])
making("make-in-home", lambda t: t["home"])
making("make-in-store", lambda t: t["store"])
making("make-in-step-folder", lambda t: ".")
making("make-by-dot-dot", lambda t: "..")
making("make-beside-input", lambda t: os.path.dirname(t["inputs"]["linked"]))
making("make-in-usr", lambda t: "/usr/lib", None)
making("make-in-etc", lambda t: "/etc", None)
making("make-in-var", lambda t: "/var/lib", None)
making("make-in-proc-1-root", lambda t: "/proc/1/root" + t["project"], "namespaces")
making("make-by-symlink", lambda t: linked_folder(t))


def linked_folder(targets):
    """A link among the outputs that names the project's folder."""
    link = os.path.join(targets["work"], "folder-symlink")
    with Prepared():
        if not os.path.lexists(link):
            os.symlink(targets["project"], link)
    return link


@attempt("chmod-store-object", "writes", "host")
def chmod_store(targets):
    path = targets["canaries"]["store-object"]["path"]
    os.chmod(path, 0o444)
    return "mode set"


@attempt("remove-project-file", "writes", "host")
def remove_project(targets):
    # Moved and moved back, so that a success leaves it there.
    path = targets["canaries"]["project"]["path"]
    os.rename(path, path + ".away")
    os.rename(path + ".away", path)
    return "moved"


@attempt("touch-project-file", "writes", "host")
def touch_project(targets):
    path = targets["canaries"]["project"]["path"]
    times = os.stat(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    return "times set"


@attempt("overwrite-trainlock", "writes")
def overwrite_trainlock(targets):
    # The running program of proc 1 is on the host; ETXTBSY would mean that only its running is in the way.
    return permitted(lambda: os.close(os.open("/proc/1/exe", os.O_WRONLY)), "ETXTBSY")


@attempt("write-host-device", "writes")
def host_device(targets):
    if not targets["devices"]:
        raise NotHere("the host shows no disks")
    failed = None
    for path in targets["devices"]:
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
            return path
        except OSError as error:
            failed = error
    raise failed


def setting(name):
    """Notes an attempt to open a setting of the kernel for writing."""

    @attempt(f"set-{name.replace('/', '-').replace('_', '-')}", "kernel")
    def run(targets):
        path = f"/proc/{name}"
        if not os.path.exists(path):
            raise Stopped("not there")
        os.close(os.open(path, os.O_WRONLY))
        return f"`{path}` open for writing"


for setting_name in [
    "sys/kernel/core_pattern",
    "sys/kernel/hostname",
    "sys/kernel/domainname",
    "sys/kernel/modprobe",
    "sys/vm/drop_caches",
    "sys/net/ipv4/ip_forward",
    "sys/user/max_user_namespaces",
    "sysrq-trigger",
    "irq/default_smp_affinity",
    "1/mem",
]:
    setting(setting_name)
