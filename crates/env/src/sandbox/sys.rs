//! System calls that no safe wrapper offers, each made safe here. All but [`pid_exists`] and [`own_libraries`] are for the init, which has one thread.

#![expect(unsafe_code, reason = "fork, exec, seccomp, mount_setattr and their like have no safe wrapper")]

use libc::{c_int, c_long, c_ulong};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ffi::{CStr, CString, OsStr};
use std::io::Error;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

type Result<T> = std::io::Result<T>;

/// The result of a call that gives -1 and sets errno.
fn check(result: c_long) -> Result<c_long> {
    if result < 0 { Err(Error::last_os_error()) } else { Ok(result) }
}

/// A descriptor that a call has just made.
fn owned(result: c_long) -> Result<OwnedFd> {
    // SAFETY: the kernel made this descriptor for the caller, and nothing else knows of it.
    check(result).map(|fd| unsafe { OwnedFd::from_raw_fd(fd as c_int) })
}

/// Closes every descriptor from `first` on: what the caller of trainlock left open does not reach a step.
pub(super) fn close_from(first: u32) {
    // SAFETY: the init calls this before it owns any descriptor from `first` on, the hub's server when it has let go of all.
    unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
}

/// The files of the libraries that this program is made of, as its loader knows them, which is among them. A static program has
/// none.
pub(super) fn own_libraries() -> Vec<PathBuf> {
    unsafe extern "C" fn each(info: *mut libc::dl_phdr_info, _: libc::size_t, found: *mut libc::c_void) -> c_int {
        // SAFETY: the loader hands over a structure of its own, whose name is a string or null, and what it was given below.
        let (name, found) = unsafe { ((*info).dlpi_name, &mut *found.cast::<Vec<PathBuf>>()) };
        if !name.is_null() {
            // SAFETY: see above.
            let name = unsafe { CStr::from_ptr(name) };
            found.push(OsStr::from_bytes(name.to_bytes()).into());
        }
        0
    }
    let mut found = Vec::new();
    // SAFETY: the function is called before this call returns, with a pointer to what lives longer.
    unsafe { libc::dl_iterate_phdr(Some(each), (&raw mut found).cast()) };
    // Neither the program itself nor what the kernel maps.
    let is_library = |path: &PathBuf| path.is_absolute() && path.to_string_lossy().contains(".so");
    found.retain(is_library);
    found
}

/// Leaves the namespaces of these kinds for new ones.
pub(super) fn unshare(flags: c_int) -> Result<()> {
    // SAFETY: `flags` holds namespaces only, so that no memory or descriptors change.
    check(unsafe { libc::unshare(flags) }.into()).map(drop)
}

/// A child process; none in the child. With `share`, the two share their table of descriptors until the child executes a
/// program.
pub(super) fn fork(share: bool) -> Result<Option<c_int>> {
    let flags = (libc::SIGCHLD | if share { libc::CLONE_FILES } else { 0 }) as c_ulong;
    // SAFETY: the process has one thread, so that the child finds every lock free; without CLONE_VM its memory is its own.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) })?;
    Ok((pid != 0).then_some(pid as c_int))
}

/// Executes a program; returns only if that fails.
pub(super) fn execute(program: &CStr, arguments: &[CString], environment: &[CString]) -> Error {
    let list = |words: &[CString]| -> Vec<*const libc::c_char> {
        words.iter().map(|w| w.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (arguments, environment) = (list(arguments), list(environment));
    // SAFETY: both lists end with a null and point to strings that live longer than the call.
    unsafe { libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    Error::last_os_error()
}

/// Sets attributes of a mount and of all below it.
pub(super) fn mount_attributes(mount: BorrowedFd<'_>, set: u64) -> Result<()> {
    let attributes = libc::mount_attr { attr_set: set, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | libc::AT_RECURSIVE;
    // SAFETY: the path is a constant string, and the structure lives and has the size that is given.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of_val(&attributes),
        )
    })
    .map(drop)
}

/// The same of one mount alone, by its path.
pub(super) fn mount_read_only(path: &CStr) -> Result<()> {
    let attributes = libc::mount_attr { attr_set: libc::MOUNT_ATTR_RDONLY, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: the path and the structure live, and the structure has the size that is given.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            0,
            &raw const attributes,
            size_of_val(&attributes),
        )
    })
    .map(drop)
}

/// Makes no mount of this namespace pass on to another.
pub(super) fn mounts_private() -> Result<()> {
    // SAFETY: the strings are constants; no source, type or data is used.
    let flags = libc::MS_REC | libc::MS_PRIVATE;
    check(unsafe { libc::mount(std::ptr::null(), c"/".as_ptr(), std::ptr::null(), flags, std::ptr::null()) }.into())
        .map(drop)
}

/// Takes the loopback device of a new network namespace up.
pub(super) fn loopback_up() -> Result<()> {
    // SAFETY: plain numbers.
    let socket = owned(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) }.into())?;
    // SAFETY: ifreq is plain old data, for which all-zero bytes are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads an ifreq, which lives.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) }.into()).map(drop)
}

/// Gives up every capability for good.
pub(super) fn drop_capabilities() -> Result<()> {
    // Without the right to do it (no user namespace) there is nothing in the bounding set that could be gained either:
    // no new privileges are to be had.
    // SAFETY: plain numbers; a capability that the kernel does not know ends the loop.
    for capability in 0..64 {
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } < 0 {
            break;
        }
    }
    let none = rustix::thread::CapabilitySet::empty();
    let sets = rustix::thread::CapabilitySets { effective: none, permitted: none, inheritable: none };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

/// Lets the kernel end this process when the one that started it ends.
pub(super) fn die_with_parent() -> Result<()> {
    // SAFETY: plain numbers.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) }.into()).map(drop)
}

/// Makes this process the parent of all its descendants that lose theirs.
pub(super) fn adopt_orphans() -> Result<()> {
    // SAFETY: plain numbers.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }.into()).map(drop)
}

/// Closes this process to the eyes of others of the same user.
pub(super) fn be_closed() -> Result<()> {
    // SAFETY: plain numbers.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) }.into()).map(drop)
}

/// Sets what a step's process has the same on every machine: no core dumps, all signals at their default, none blocked.
pub(super) fn plain_process() {
    // SAFETY: the structures are plain old data and live; SIG_DFL runs no code of ours.
    unsafe {
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut empty: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut empty);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const empty, std::ptr::null_mut());
    }
}

/// Blocks these signals and gives a descriptor that they are read from. A blocked signal reaches even a namespace's
/// first process, which the kernel otherwise shields from signals without a handler.
pub(super) fn signals(list: &[c_int]) -> Result<OwnedFd> {
    // SAFETY: the set is plain old data, made empty before it is filled, and lives.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in list {
            libc::sigaddset(&raw mut set, *signal);
        }
        check(libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()).into())?;
        owned(libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK).into())
    }
}

/// The next signal that waits, if any.
pub(super) fn next_signal(fd: &OwnedFd) -> Option<c_int> {
    let mut bytes = [0u8; size_of::<libc::signalfd_siginfo>()];
    match rustix::io::read(fd, &mut bytes) {
        Ok(n) if n == bytes.len() => Some(u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as c_int),
        _ => None,
    }
}

/// Sends a signal; to every process but itself where `pid` is -1.
pub(super) fn kill(pid: c_int, signal: c_int) {
    // SAFETY: plain numbers. A process that is gone already is no error here.
    unsafe { libc::kill(pid, signal) };
}

/// Takes a child that ended: its id and wait status. Waits for one if `block`. None when there is none (yet).
pub(super) fn reap(block: bool) -> Option<(c_int, c_int)> {
    let mut status = 0;
    loop {
        // SAFETY: the pointer is to a live variable.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, if block { 0 } else { libc::WNOHANG }) };
        match pid {
            1.. => return Some((pid, status)),
            0 => return None,
            _ if Error::last_os_error().kind() == std::io::ErrorKind::Interrupted => {}
            _ => return None,
        }
    }
}

/// What the reaped children used: microseconds of processor time, and the largest resident size in bytes.
pub(super) fn children_usage() -> (u64, u64) {
    // SAFETY: rusage is plain old data, and lives.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage);
        usage
    };
    let micros = |t: libc::timeval| t.tv_sec as u64 * 1_000_000 + t.tv_usec as u64;
    (micros(usage.ru_utime) + micros(usage.ru_stime), usage.ru_maxrss as u64 * 1024)
}

/// Ends this process at once, without what a return from `main` would do.
pub(super) fn exit(code: c_int) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(code) }
}

/// Installs a seccomp program; with `listen`, gives the descriptor that its notifications come from.
pub(super) fn seccomp(program: &[libc::sock_filter], listen: bool) -> Result<Option<OwnedFd>> {
    let length = u16::try_from(program.len()).map_err(Error::other)?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    let install = |flags: c_ulong| {
        // SAFETY: the program lives, and the kernel copies it without writing to it.
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) }
    };
    if !listen {
        return check(install(0)).map(|_| None);
    }
    // Since Linux 5.19 a notified call can be shielded from signals that do not kill: a program with a busy timer
    // would restart it for ever.
    const WAIT_KILLABLE: c_ulong = 1 << 5;
    match owned(install(libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | WAIT_KILLABLE)) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            owned(install(libc::SECCOMP_FILTER_FLAG_NEW_LISTENER)).map(Some)
        }
        other => other.map(Some),
    }
}

/// `_IOWR('!', 0, struct seccomp_notif)`, `_IOWR('!', 1, struct seccomp_notif_resp)` and `_IOW('!', 4, __u64)`.
const fn notify_request(direction: u32, number: u32, size: usize) -> u32 {
    direction << 30 | (size as u32) << 16 | (b'!' as u32) << 8 | number
}

/// Wakes the listener on the processor of the one that waits for it (since Linux 6.6): half the latency.
pub(super) fn notify_quickly(listener: &OwnedFd) {
    // SAFETY: plain numbers; a kernel that does not know it refuses.
    unsafe { libc::ioctl(listener.as_raw_fd(), notify_request(1, 4, 8) as _, 1u64) };
}

/// The next notification. Blocks unless the listener is readable.
pub(super) fn notification(listener: &OwnedFd) -> Result<libc::seccomp_notif> {
    // SAFETY: the kernel wants the structure zeroed; it is plain old data, and lives.
    unsafe {
        let mut got: libc::seccomp_notif = std::mem::zeroed();
        let request = notify_request(3, 0, size_of_val(&got));
        check(libc::ioctl(listener.as_raw_fd(), request as _, &raw mut got).into())?;
        Ok(got)
    }
}

/// Lets a notified call go on as if nothing had been.
pub(super) fn let_go_on(listener: &OwnedFd, id: u64) {
    let mut answer = libc::seccomp_notif_resp { id, val: 0, error: 0, flags: 1 };
    let request = notify_request(3, 1, size_of_val(&answer));
    // SAFETY: the structure lives. A process that was killed meanwhile needs no answer.
    unsafe { libc::ioctl(listener.as_raw_fd(), request as _, &raw mut answer) };
}

/// Reads another process's memory: how much could be read.
pub(super) fn read_memory(pid: c_int, address: u64, buffer: &mut [u8]) -> Result<usize> {
    let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let remote = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: buffer.len() };
    // SAFETY: `local` is the buffer; `remote` is an address of the other process, which the kernel checks.
    check(unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) } as c_long)
        .map(|n| n as usize)
}

/// Puts the descriptor into the place of another.
pub(super) fn put_at(fd: impl AsFd, place: c_int) -> Result<()> {
    // SAFETY: plain numbers; the init owns no descriptor at the places that it gives (0 to 2), which are the standard ones.
    check(unsafe { libc::dup2(fd.as_fd().as_raw_fd(), place) }.into()).map(drop)
}
