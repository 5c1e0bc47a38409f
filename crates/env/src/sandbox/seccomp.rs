//! The filter of system calls that a step runs under.
//!
//! A list of what is refused, not of what is allowed: a training may call anything that computes. Refused is what gets
//! round the other walls (mounts, namespaces, io_uring, other processes' memory) or reaches parts of the kernel that no
//! training needs. The same program sends the calls that are watched to the init.

use libc::{c_long, sock_filter};

#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xC000_00B7;
#[cfg(target_arch = "riscv64")]
const ARCH: u32 = 0xC000_00F3;

/// System calls newer than the libc crate's list; new numbers are the same on all architectures.
const OPEN_TREE_ATTR: c_long = 467;
const FCHMODAT2: c_long = 452;

/// Refused with EPERM, whatever the arguments.
const REFUSED: &[c_long] = &[
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    OPEN_TREE_ATTR,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_bpf,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_fanotify_init,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_vhangup,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_uselib,
];

/// Refused as if the kernel did not know them, so that programs fall back to calls whose arguments can be looked at.
const UNKNOWN: &[c_long] = &[
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_clone3,
    libc::SYS_openat2,
];

/// Sent to the init when undeclared use is looked for.
const AUDITED: &[c_long] = &[
    libc::SYS_openat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_connect,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_bind,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_creat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
];

const SET_ID: u32 = libc::S_ISUID | libc::S_ISGID;
/// The namespace flags that clone(2) takes.
const NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u32;

/// What a filter depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Needs {
    /// Send calls that map code to the init.
    pub(super) watch: bool,
    /// Send calls that look for files and hosts too.
    pub(super) audit: bool,
    /// Only sockets of this machine's own programs (the Landlock tier without network).
    pub(super) local_only: bool,
}

/// The program.
pub(super) fn program(needs: Needs) -> Vec<sock_filter> {
    let mut p = Program(Vec::with_capacity(256));
    p.load(4);
    p.unless_equal(ARCH, |p| p.give(libc::SECCOMP_RET_KILL_PROCESS));
    p.load(0);
    #[cfg(target_arch = "x86_64")]
    p.if_at_least(0x4000_0000, |p| p.refuse(libc::EPERM));

    // The frequent ones with arguments to look at come first.
    p.on(libc::SYS_mmap, |p| {
        if needs.watch {
            p.argument(3);
            p.unless_any(libc::MAP_ANONYMOUS as u32, |p| {
                p.argument(2);
                p.if_any(libc::PROT_EXEC as u32, |p| p.give(libc::SECCOMP_RET_USER_NOTIF));
            });
        }
    });
    // A set-uid file that is made, not changed into one.
    p.on(libc::SYS_openat, |p| p.refuse_set_id_creation(2, 3, needs.audit));
    #[cfg(target_arch = "x86_64")]
    p.on(libc::SYS_open, |p| p.refuse_set_id_creation(1, 2, needs.audit));
    #[cfg(target_arch = "x86_64")]
    p.on(libc::SYS_creat, |p| p.refuse_bits(1, SET_ID, needs.audit));
    p.on(libc::SYS_ioctl, |p| {
        p.argument(1);
        for request in [libc::TIOCSTI as u32, 0x541C /* TIOCLINUX */] {
            p.if_equal(request, |p| p.refuse(libc::EPERM));
        }
    });
    p.on(libc::SYS_clone, |p| p.refuse_bits(0, NAMESPACES, false));
    #[cfg(target_arch = "x86_64")]
    p.on(libc::SYS_chmod, |p| p.refuse_bits(1, SET_ID, false));
    p.on(libc::SYS_fchmod, |p| p.refuse_bits(1, SET_ID, false));
    p.on(libc::SYS_fchmodat, |p| p.refuse_bits(2, SET_ID, false));
    p.on(FCHMODAT2, |p| p.refuse_bits(2, SET_ID, false));
    #[cfg(target_arch = "x86_64")]
    p.on(libc::SYS_mknod, |p| p.refuse_nodes(1));
    p.on(libc::SYS_mknodat, |p| p.refuse_nodes(2));
    p.on(libc::SYS_personality, |p| {
        p.argument(0);
        for allowed in [0, 0xFFFF_FFFF, libc::ADDR_NO_RANDOMIZE as u32] {
            p.if_equal(allowed, |p| p.give(libc::SECCOMP_RET_ALLOW));
        }
        p.refuse(libc::EPERM);
    });
    // vsock leads out of every network namespace, and the rest is of no use to a training.
    p.on(libc::SYS_socket, |p| {
        p.argument(0);
        let allowed: &[i32] = if needs.local_only {
            &[libc::AF_UNIX]
        } else {
            &[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK]
        };
        for family in allowed {
            p.if_equal(*family as u32, |p| p.give(libc::SECCOMP_RET_ALLOW));
        }
        p.refuse(libc::EAFNOSUPPORT);
    });
    if needs.watch {
        p.each(&[libc::SYS_execve, libc::SYS_execveat], libc::SECCOMP_RET_USER_NOTIF);
    }
    if needs.audit {
        p.each(AUDITED, libc::SECCOMP_RET_USER_NOTIF);
    }
    p.each(UNKNOWN, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32);
    p.each(REFUSED, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);
    p.give(libc::SECCOMP_RET_ALLOW);
    p.0
}

/// A program being written. Where a block is given, it runs on a condition, and the jump over it is filled in afterwards.
struct Program(Vec<sock_filter>);

impl Program {
    fn put(&mut self, code: u32, k: u32) -> usize {
        self.0.push(sock_filter { code: code as u16, jt: 0, jf: 0, k });
        self.0.len() - 1
    }

    /// Loads 4 bytes of `struct seccomp_data`: the call's number (0), the architecture (4).
    fn load(&mut self, offset: u32) {
        self.put(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset);
    }

    /// Loads the low half of an argument, which is all that the kernel itself looks at in these.
    fn argument(&mut self, number: u32) {
        self.load(16 + 8 * number);
    }

    fn give(&mut self, action: u32) {
        self.put(libc::BPF_RET | libc::BPF_K, action);
    }

    fn refuse(&mut self, errno: i32) {
        self.give(libc::SECCOMP_RET_ERRNO | errno as u32);
    }

    /// `block` runs if the test holds (`when`) or if it does not.
    fn test(&mut self, code: u32, k: u32, when: bool, block: impl FnOnce(&mut Program)) {
        let jump = self.put(libc::BPF_JMP | code | libc::BPF_K, k);
        block(self);
        let over = u8::try_from(self.0.len() - jump - 1).expect("a block is shorter than 256 instructions");
        if when {
            self.0[jump].jf = over;
        } else {
            self.0[jump].jt = over;
        }
    }

    fn if_equal(&mut self, k: u32, block: impl FnOnce(&mut Program)) {
        self.test(libc::BPF_JEQ, k, true, block);
    }

    fn unless_equal(&mut self, k: u32, block: impl FnOnce(&mut Program)) {
        self.test(libc::BPF_JEQ, k, false, block);
    }

    #[cfg(target_arch = "x86_64")]
    fn if_at_least(&mut self, k: u32, block: impl FnOnce(&mut Program)) {
        self.test(libc::BPF_JGE, k, true, block);
    }

    fn if_any(&mut self, bits: u32, block: impl FnOnce(&mut Program)) {
        self.test(libc::BPF_JSET, bits, true, block);
    }

    fn unless_any(&mut self, bits: u32, block: impl FnOnce(&mut Program)) {
        self.test(libc::BPF_JSET, bits, false, block);
    }

    /// What happens at one call; allowed if `block` does not say otherwise.
    fn on(&mut self, call: c_long, block: impl FnOnce(&mut Program)) {
        self.if_equal(call as u32, |p| {
            block(p);
            p.give(libc::SECCOMP_RET_ALLOW);
        });
    }

    /// The same at each of these calls.
    fn each(&mut self, calls: &[c_long], action: u32) {
        for call in calls {
            self.if_equal(*call as u32, |p| p.give(action));
        }
    }

    fn refuse_bits(&mut self, argument: u32, bits: u32, notify: bool) {
        self.argument(argument);
        self.if_any(bits, |p| p.refuse(libc::EPERM));
        if notify {
            self.give(libc::SECCOMP_RET_USER_NOTIF);
        }
    }

    /// open(2) looks at its mode only where it makes a file; else the argument is whatever the register holds.
    fn refuse_set_id_creation(&mut self, flags: u32, mode: u32, notify: bool) {
        self.argument(flags);
        self.if_any((libc::O_CREAT | (libc::O_TMPFILE & !libc::O_DIRECTORY)) as u32, |p| {
            p.argument(mode);
            p.if_any(SET_ID, |p| p.refuse(libc::EPERM));
        });
        if notify {
            self.give(libc::SECCOMP_RET_USER_NOTIF);
        }
    }

    /// Devices, and set-uid files made by mknod(2).
    fn refuse_nodes(&mut self, mode: u32) {
        self.refuse_bits(mode, SET_ID, false);
        self.put(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, libc::S_IFMT);
        for kind in [libc::S_IFCHR, libc::S_IFBLK] {
            self.if_equal(kind, |p| p.refuse(libc::EPERM));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the program answers to a call, by interpreting it.
    fn answer(program: &[sock_filter], arch: u32, call: c_long, arguments: [u64; 6]) -> u32 {
        let mut data = Vec::new();
        data.extend((call as u32).to_ne_bytes());
        data.extend(arch.to_ne_bytes());
        data.extend([0; 8]);
        data.extend(arguments.iter().flat_map(|a| a.to_le_bytes()));
        let (mut a, mut at) = (0, 0);
        loop {
            let i = program[at];
            at += 1;
            let class = u32::from(i.code) & 7;
            let jump = |holds: bool| usize::from(if holds { i.jt } else { i.jf });
            match (class, u32::from(i.code) & 0xf0) {
                (libc::BPF_LD, _) => {
                    let k = i.k as usize;
                    a = u32::from_ne_bytes(data[k..k + 4].try_into().unwrap());
                }
                (libc::BPF_RET, _) => return i.k,
                (libc::BPF_ALU, libc::BPF_AND) => a &= i.k,
                (libc::BPF_JMP, libc::BPF_JEQ) => at += jump(a == i.k),
                (libc::BPF_JMP, libc::BPF_JGE) => at += jump(a >= i.k),
                (libc::BPF_JMP, libc::BPF_JSET) => at += jump(a & i.k != 0),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn every_call_gets_its_answer() {
        let plain = program(Needs { watch: true, audit: false, local_only: false });
        let audit = program(Needs { watch: true, audit: true, local_only: true });
        assert!(plain.len() < 4096 && audit.len() < 4096);
        let ask = |call, arguments| answer(&plain, ARCH, call, arguments);
        let eperm = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
        let (allow, notify) = (libc::SECCOMP_RET_ALLOW, libc::SECCOMP_RET_USER_NOTIF);
        for call in REFUSED {
            assert_eq!(ask(*call, [0; 6]), eperm, "{call}");
        }
        for call in UNKNOWN {
            assert_eq!(ask(*call, [0; 6]), libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32);
        }
        assert_eq!(ask(libc::SYS_read, [0; 6]), allow);
        assert_eq!(answer(&plain, 0x4000_0003, libc::SYS_read, [0; 6]), libc::SECCOMP_RET_KILL_PROCESS);
        // Code of a file is watched; data, and code without a file, are not.
        assert_eq!(ask(libc::SYS_mmap, [0, 0, 5, 2, 3, 0]), notify);
        assert_eq!(ask(libc::SYS_mmap, [0, 0, 1, 2, 3, 0]), allow);
        assert_eq!(ask(libc::SYS_mmap, [0, 0, 5, 0x22, 3, 0]), allow);
        // A mode counts only where a file is made.
        assert_eq!(ask(libc::SYS_openat, [0, 0, 0, 0o4755, 0, 0]), allow);
        assert_eq!(ask(libc::SYS_openat, [0, 0, libc::O_CREAT as u64, 0o4755, 0, 0]), eperm);
        assert_eq!(ask(libc::SYS_openat, [0, 0, libc::O_TMPFILE as u64, 0o4755, 0, 0]), eperm);
        assert_eq!(ask(libc::SYS_openat, [0, 0, libc::O_DIRECTORY as u64, 0o4755, 0, 0]), allow);
        assert_eq!(ask(libc::SYS_openat, [0, 0, libc::O_CREAT as u64, 0o755, 0, 0]), allow);
        assert_eq!(ask(libc::SYS_fchmodat, [0, 0, 0o2755, 0, 0, 0]), eperm);
        assert_eq!(ask(libc::SYS_fchmodat, [0, 0, 0o755, 0, 0, 0]), allow);
        assert_eq!(ask(libc::SYS_mknodat, [0, 0, 0o060644, 0, 0, 0]), eperm);
        assert_eq!(ask(libc::SYS_mknodat, [0, 0, 0o010644, 0, 0, 0]), allow);
        // Only the low half counts, as in the kernel.
        assert_eq!(ask(libc::SYS_ioctl, [0, 1 << 32 | libc::TIOCSTI, 0, 0, 0, 0]), eperm);
        assert_eq!(ask(libc::SYS_clone, [libc::CLONE_NEWUSER as u64, 0, 0, 0, 0, 0]), eperm);
        assert_eq!(ask(libc::SYS_clone, [libc::SIGCHLD as u64, 0, 0, 0, 0, 0]), allow);
        assert_eq!(ask(libc::SYS_personality, [libc::ADDR_NO_RANDOMIZE as u64, 0, 0, 0, 0, 0]), allow);
        assert_eq!(ask(libc::SYS_personality, [8, 0, 0, 0, 0, 0]), eperm);
        let family = libc::SECCOMP_RET_ERRNO | libc::EAFNOSUPPORT as u32;
        assert_eq!(ask(libc::SYS_socket, [libc::AF_INET as u64, 0, 0, 0, 0, 0]), allow);
        assert_eq!(ask(libc::SYS_socket, [libc::AF_VSOCK as u64, 0, 0, 0, 0, 0]), family);
        let ask = |call, arguments| answer(&audit, ARCH, call, arguments);
        assert_eq!(ask(libc::SYS_socket, [libc::AF_INET as u64, 0, 0, 0, 0, 0]), family);
        assert_eq!(ask(libc::SYS_openat, [0; 6]), notify);
        assert_eq!(ask(libc::SYS_openat, [0, 0, libc::O_CREAT as u64, 0o4755, 0, 0]), eperm);
        assert_eq!(ask(libc::SYS_connect, [0; 6]), notify);
    }
}
