"""Reading what was not declared: files of the caller, of the project, of the store, of other steps, of the host."""

import ctypes
import hashlib
import os
import stat

from table import NotHere, Prepared, Stopped, attempt

UP = "../" * 40
CANARIES = ["home", "ssh-key", "caller", "project", "other-step", "store-object", "tmp", "var-tmp", "shm"]


def content(targets, name, path):
    """Reads a path and says whether it is the canary of that name."""
    with open(path, "rb") as file:
        return recognised(targets, name, file.read())


def recognised(targets, name, data):
    """Whether these bytes are the canary of that name."""
    if hashlib.sha256(data).hexdigest() != targets["canaries"][name]["sha256"]:
        raise Stopped("another file's content")
    return "its content"


def where(targets, name):
    """The canary's path on the host."""
    return targets["canaries"][name]["path"]


def absolute(name):
    @attempt(f"read-{name}", "reads", "host")
    def run(targets):
        return content(targets, name, where(targets, name))


for canary in CANARIES:
    absolute(canary)


@attempt("read-by-dot-dot", "reads", "host")
def dot_dot(targets):
    return content(targets, "project", UP + where(targets, "project"))


@attempt("read-by-proc-1-root", "reads", "namespaces")
def proc_one_root(targets):
    return content(targets, "project", "/proc/1/root" + where(targets, "project"))


@attempt("read-by-proc-1-cwd", "reads", "namespaces")
def proc_one_cwd(targets):
    return content(targets, "project", "/proc/1/cwd/" + UP + where(targets, "project"))


@attempt("read-by-proc-self-root", "reads", "host")
def proc_self_root(targets):
    return content(targets, "project", "/proc/self/root" + where(targets, "project"))


@attempt("read-by-proc-self-cwd", "reads", "host")
def proc_self_cwd(targets):
    return content(targets, "project", "/proc/self/cwd/" + UP + where(targets, "project"))


@attempt("read-by-proc-parent-root", "reads", "host")
def proc_parent_root(targets):
    return content(targets, "project", f"/proc/{os.getppid()}/root" + where(targets, "project"))


@attempt("read-by-proc-neighbour-root", "reads", "host")
def proc_neighbour_root(targets):
    return content(targets, "project", f"/proc/{targets['neighbour']['pid']}/root" + where(targets, "project"))


@attempt("read-by-symlink", "reads", "host")
def symlink(targets):
    link = os.path.join(targets["work"], "read-symlink")
    with Prepared():
        os.symlink(where(targets, "project"), link)
    try:
        return content(targets, "project", link)
    finally:
        os.unlink(link)


@attempt("read-by-symlink-to-proc", "reads", "host")
def symlink_to_proc(targets):
    link = os.path.join(targets["work"], "read-proc-symlink")
    with Prepared():
        os.symlink("/proc/self/root", link)
    try:
        return content(targets, "project", link + where(targets, "project"))
    finally:
        os.unlink(link)


@attempt("read-by-hard-link", "reads", "host")
def hard_link(targets):
    link = os.path.join(targets["work"], "read-hard-link")
    os.link(where(targets, "project"), link)
    try:
        return content(targets, "project", link)
    finally:
        os.unlink(link)


@attempt("read-by-rename", "reads", "host")
def rename(targets):
    here = os.path.join(targets["work"], "read-rename")
    os.rename(where(targets, "project"), here)
    try:
        return content(targets, "project", here)
    finally:
        os.rename(here, where(targets, "project"))


@attempt("read-by-chdir", "reads", "host")
def chdir(targets):
    os.chdir(os.path.dirname(where(targets, "project")))
    return content(targets, "project", os.path.basename(where(targets, "project")))


@attempt("read-by-path-descriptor", "reads", "host")
def path_descriptor(targets):
    root = os.open("/", os.O_PATH)
    inner = os.open(where(targets, "project").lstrip("/"), os.O_RDONLY, dir_fd=root)
    with os.fdopen(inner, "rb") as file:
        return recognised(targets, "project", file.read())


@attempt("read-by-exec", "reads", "host")
def execute(targets):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writer, 1)
        try:
            os.execv("/bin/cat", ["cat", where(targets, "project")])
        finally:
            os._exit(127)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        data = file.read()
    os.waitpid(child, 0)
    if not data:
        raise Stopped("cat read nothing")
    return recognised(targets, "project", data)


@attempt("stat-project", "reads", "host")
def look(targets):
    return f"{os.stat(where(targets, 'project')).st_size} bytes"


@attempt("watch-project", "reads", "host")
def watch(targets):
    libc = ctypes.CDLL(None, use_errno=True)
    queue = libc.inotify_init1(0)
    if libc.inotify_add_watch(queue, os.fsencode(where(targets, "project")), 1) < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return "told of every read of it"


def listing(name, key):
    @attempt(f"list-{name}", "reads", "host")
    def run(targets):
        return f"{len(os.listdir(targets[key]))} names"


for folder in ("project", "home", "store"):
    listing(folder, folder)


@attempt("list-users-home", "reads")
def users_home(targets):
    if not targets["users-home"]:
        raise NotHere("the caller has no home")
    names = os.listdir(targets["users-home"])
    if not names:
        raise Stopped("an empty folder")
    return f"{len(names)} names"


@attempt("list-temporary-files", "reads", "host")
def temporary(targets):
    name = os.path.basename(where(targets, "tmp"))
    if name not in os.listdir(os.path.dirname(where(targets, "tmp"))):
        raise Stopped("another folder")
    return f"`{name}`"


@attempt("list-host-devices", "reads", "host")
def sys_devices(targets):
    names = os.listdir("/sys/class/net")
    return f"the host's interfaces: {names}"


@attempt("list-var", "reads", "host")
def var(targets):
    names = os.listdir("/var/lib")
    if not names:
        raise Stopped("an empty folder")
    return f"{len(names)} names"


@attempt("read-host-device", "reads")
def host_device(targets):
    if not targets["devices"]:
        raise NotHere("the host shows no disks")
    failed = None
    for path in targets["devices"]:
        try:
            os.close(os.open(path, os.O_RDONLY))
            return path
        except OSError as error:
            failed = error
    raise failed


def special(name, path, flags):
    @attempt(name, "reads")
    def run(targets):
        os.close(os.open(path, flags))
        return path


for special_name, special_path in [
    ("read-kernel-memory", "/dev/mem"),
    ("read-kernel-core", "/proc/kcore"),
    ("read-kernel-messages", "/dev/kmsg"),
    ("read-firmware", "/sys/firmware/memmap"),
]:
    special(special_name, special_path, os.O_RDONLY)


@attempt("inherited-descriptors", "reads", "host")
def inherited(targets):
    if not targets["inherited"]:
        raise Stopped("none but the standard streams")
    return ", ".join(os.readlink(f"/proc/self/fd/{fd}") for fd in targets["inherited"])


@attempt("descriptors-of-proc-1", "reads")
def descriptors_of_init(targets):
    found = []
    for name in os.listdir("/proc/1/fd"):
        try:
            opened = os.open(f"/proc/1/fd/{name}", os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            continue
        kind = os.fstat(opened).st_mode
        if stat.S_ISDIR(kind) or stat.S_ISREG(kind):
            found.append(os.readlink(f"/proc/1/fd/{name}"))
        os.close(opened)
    if not found:
        raise Stopped("no file and no folder among them")
    return ", ".join(found)


@attempt("memory-of-proc-1", "reads")
def memory_of_init(targets):
    with open("/proc/1/maps", encoding="utf-8", errors="replace") as maps:
        first = maps.readline()
    if not first:
        raise Stopped("nothing is mapped")
    with open("/proc/1/mem", "rb", buffering=0) as memory:
        memory.seek(int(first.split("-", 1)[0], 16))
        return f"{len(memory.read(16))} bytes"
