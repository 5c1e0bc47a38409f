"""Raw system calls, for those that Python has no function for."""

import ctypes
import os
import platform

_NUMBERS = {
    # name: (x86-64, aarch64)
    "acct": (163, 89), "add_key": (248, 217), "bpf": (321, 280), "capset": (126, 91), "chroot": (161, 51),
    "clone": (56, 220), "clone3": (435, 435),
    "delete_module": (176, 106), "fanotify_init": (300, 262), "finit_module": (313, 273), "fsopen": (430, 430),
    "init_module": (175, 105), "io_uring_setup": (425, 425), "kexec_load": (246, 104),
    "keyctl": (250, 219), "mount": (165, 40), "mount_setattr": (442, 442),
    "move_mount": (429, 429), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    "open_tree": (428, 428), "perf_event_open": (298, 241), "personality": (135, 92), "pidfd_getfd": (438, 438),
    "pivot_root": (155, 41), "process_vm_readv": (310, 270),
    "ptrace": (101, 117), "reboot": (169, 142), "renameat2": (316, 276),
    "request_key": (249, 218), "setns": (308, 268),
    "shmget": (29, 194), "swapon": (167, 224), "syslog": (103, 116), "umount2": (166, 39),
    "unshare": (272, 97), "userfaultfd": (323, 282),
}
_COLUMN = {"x86_64": 0, "aarch64": 1}[platform.machine()]
_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.syscall.restype = ctypes.c_long

AT_FDCWD = -100
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWUSER = 0x20000, 0x4000000, 0x10000000
CLONE_NEWPID, CLONE_NEWNET = 0x20000000, 0x40000000
MNT_DETACH = 2
MS_REMOUNT, MS_BIND = 32, 4096


def number(name):
    """The number of a system call on this architecture."""
    return _NUMBERS[name][_COLUMN]


def call(name, *arguments):
    """Makes a system call, given by name or number; raises OSError as Python's own functions do."""
    code = name if isinstance(name, int) else number(name)
    plain = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = _LIBC.syscall(ctypes.c_long(code), *plain)
    if result == -1:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def path(text):
    """A path as system calls take it."""
    return ctypes.c_char_p(os.fsencode(text))


def capabilities():
    """The effective capabilities of this process, as a number."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("CapEff:"):
                return int(line.split()[1], 16)
    raise ValueError("no CapEff in /proc/self/status")
