//! Watches what a step maps as code and, if asked, what it looks for in vain.
//!
//! The kernel stops a call, tells the init, and lets it go on when the init says so; nothing is decided here. What is
//! seen can be changed by the step before the kernel uses it: it is a witness of honest programs, not a wall.

use super::Access;
use super::access::{self, Call};
use super::channel::{Description, Rules};
use super::rules::covers;
use super::sys;
use rustix::event::PollFlags;
use rustix::fd::OwnedFd;
use std::collections::{BTreeSet, HashSet};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// How many attempts are kept.
const MOST_ATTEMPTS: usize = 8192;

pub(super) struct Watcher {
    pub(super) listener: Option<OwnedFd>,
    rules: Rules,
    network: bool,
    /// Folders that show all that the host has in them: what is not there is nowhere.
    whole: Vec<OsString>,
    /// Processes that have just executed a program.
    fresh: HashSet<u32>,
    /// Programs whose loader is known.
    programs: HashSet<OsString>,
    mapped: BTreeSet<OsString>,
    known: HashSet<(Access, OsString)>,
    attempts: Vec<(Access, OsString)>,
    lost: Option<String>,
    /// Whether a socket was connected to a name server.
    asks_names: bool,
}

/// What a watcher saw: mapped files, attempts, and why something may be lacking.
pub(super) type Seen = (Vec<OsString>, Vec<(Access, OsString)>, Option<String>);

impl Watcher {
    pub(super) fn new(description: &Description) -> Watcher {
        Watcher {
            listener: None,
            rules: description.rules.clone(),
            network: description.network,
            whole: description.whole.clone(),
            fresh: HashSet::new(),
            programs: HashSet::new(),
            mapped: BTreeSet::new(),
            known: HashSet::new(),
            attempts: Vec::new(),
            lost: None,
            asks_names: false,
        }
    }

    pub(super) fn lose(&mut self, why: String) {
        self.lost.get_or_insert(why);
    }

    pub(super) fn take(&mut self) -> Seen {
        let mapped = std::mem::take(&mut self.mapped).into_iter().collect();
        (mapped, std::mem::take(&mut self.attempts), self.lost.take())
    }

    /// Takes one notification, looks, and lets the call go on.
    pub(super) fn handle(&mut self, ready: PollFlags) {
        let Some(listener) = self.listener.take() else { return };
        if !ready.contains(PollFlags::IN) {
            // Nobody is left that could be notified of.
            return;
        }
        // A process that was killed meanwhile has nothing to tell.
        if let Ok(got) = sys::notification(&listener) {
            self.look(got.pid, i64::from(got.data.nr), got.data.args);
            sys::let_go_on(&listener, got.id);
        }
        self.listener = Some(listener);
    }

    fn look(&mut self, pid: u32, call: i64, arguments: [u64; 6]) {
        if call == libc::SYS_mmap {
            return self.map(pid, arguments[4] as i32);
        }
        match access::call(pid, call, arguments) {
            Call::Path(Access::Execute, path) => {
                self.fresh.insert(pid);
                if executable(&path) {
                    self.mapped.insert(real(&path));
                } else {
                    self.attempt(Access::Execute, path);
                }
            }
            Call::Path(access, path) => {
                if self.is_lacking(access, &path) {
                    self.attempt(access, path);
                }
            }
            Call::Sockets(list) => {
                for socket in list {
                    self.socket(socket);
                }
            }
            Call::Other => {}
        }
    }

    /// A file was mapped as code.
    fn map(&mut self, pid: u32, fd: i32) {
        if let Ok(path) = access::link(&format!("/proc/{pid}/fd/{fd}")) {
            self.mapped.insert(path);
        }
        // The kernel itself maps a program and its loader; both are there when the loader maps the first library.
        if self.fresh.remove(&pid)
            && let Ok(program) = access::link(&format!("/proc/{pid}/exe"))
            && self.programs.insert(program)
        {
            let maps = fs_err::read(format!("/proc/{pid}/maps")).unwrap_or_default();
            self.mapped.extend(access::code_of(&maps));
        }
    }

    fn socket(&mut self, socket: access::Socket) {
        if socket.access == Access::Connect && socket.is_name_server() {
            self.asks_names = true;
        }
        if (socket.is_name_server() || socket.address.is_none() && self.asks_names)
            && let Some(name) = access::asked_name(&socket.payload)
        {
            self.attempt(Access::Resolve, name.into());
        }
        if socket.is_name_server() {
            return;
        }
        match socket.address {
            Some(access::Address::Internet(address))
                if !(address.ip().is_loopback() || address.ip().is_unspecified() && socket.access == Access::Bind) =>
            {
                self.attempt(socket.access, address.to_string().into());
            }
            // Every look-up of a user or host asks for this one first.
            Some(access::Address::Local(path))
                if socket.access == Access::Connect
                    && !path.as_bytes().ends_with(b"/nscd/socket")
                    && (path.as_bytes().starts_with(b"@") && !self.network || self.is_lacking(Access::Stat, &path)) =>
            {
                self.attempt(socket.access, path);
            }
            _ => {}
        }
    }

    /// Whether something can't succeed. Asked with the same user's rights in the same file system.
    fn is_lacking(&self, access: Access, path: &OsString) -> bool {
        use rustix::fs::Access as Right;
        let can = |path: &Path, right| rustix::fs::access(path, right).is_ok();
        let at = Path::new(path);
        if access != Access::Write && covers(&self.whole, at) {
            return false;
        }
        if let Some(read) = &self.rules.read {
            // A link may lead to what is allowed; what can't be followed is judged by its name.
            let real = fs_err::canonicalize(at).unwrap_or_else(|_| at.to_owned());
            let allowed = covers(&self.rules.write, &real) || access != Access::Write && covers(read, &real);
            return !allowed || access != Access::Write && !can(at, Right::EXISTS);
        }
        match access {
            Access::Write if can(at, Right::EXISTS) => !can(at, Right::WRITE_OK),
            Access::Write => !at.parent().is_some_and(|above| can(above, Right::WRITE_OK)),
            Access::Read => !can(at, Right::READ_OK),
            _ => !can(at, Right::EXISTS),
        }
    }

    fn attempt(&mut self, access: Access, what: OsString) {
        if self.attempts.len() >= MOST_ATTEMPTS {
            return self.lose(format!("more than {MOST_ATTEMPTS} files and hosts were looked for in vain"));
        }
        let attempt = (access, what);
        if self.known.insert(attempt.clone()) {
            self.attempts.push(attempt);
        }
    }
}

fn executable(path: &OsString) -> bool {
    rustix::fs::access(path.as_bytes(), rustix::fs::Access::EXEC_OK).is_ok()
        && fs_err::metadata(path).is_ok_and(|m| m.is_file())
}

fn real(path: &OsString) -> OsString {
    fs_err::canonicalize(path).map_or_else(|_| path.clone(), OsString::from)
}
