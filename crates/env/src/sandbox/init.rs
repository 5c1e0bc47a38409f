//! A step's init: sets the walls up, starts the step behind them, watches it, and ends all that it left behind.
//!
//! In the namespaces tier there are three processes: the *outer* one, which trainlock started and which makes the
//! namespaces; the *inner* one, the namespaces' first process; and the step's. With bwrap, bwrap takes the place of the
//! outer one; in the Landlock tier the inner one is all there is beside the step. A step with a hub has one more process
//! beside it, the hub's server.

use super::channel::{Description, Job, Message, TERMINATE};
use super::hub::Server;
use super::mounts::{During, Failure};
use super::seccomp::Needs;
use super::watch::Watcher;
use super::{INIT, Tier, USER, channel, mounts, probe, rules, seccomp, sys};
use fs_err as fs;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use std::ffi::{CString, OsStr, OsString};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether this program can be started as an init.
static ANSWERS: AtomicBool = AtomicBool::new(false);

/// Signals that ask a program to end.
const ENDING: [i32; 4] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT];

/// The first thing that a program with steps in a sandbox does in its `main`, while it has one thread: if it was started
/// as a step's init it is that, and does not return.
pub fn main_if_asked() {
    main_if_named(std::env::args_os().next().as_deref());
}

/// The same, told the name that the program was started by.
pub(super) fn main_if_named(name: Option<&OsStr>) {
    ANSWERS.store(true, Ordering::Relaxed);
    if name == Some(OsStr::new(INIT)) {
        run();
        sys::exit(0);
    }
}

/// Whether this program called [`main_if_asked`]. One that did not must never be started as an init: it would do what it
/// does otherwise, and so start itself again and again.
pub(super) fn is_answered() -> bool {
    ANSWERS.load(Ordering::Relaxed)
}

fn run() {
    sys::close_from(3);
    rustix::process::umask(Mode::from_raw_mode(0o022));
    // The socket gives its place to the step's standard input.
    let Ok(socket) = rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 3) else { return };
    let mut socket = UnixStream::from(socket);
    let Ok(description) = channel::receive(&socket) else { return };
    let message = match description.tier {
        Tier::Namespaces => match outer(&description) {
            Ok(Role::Outer(inner)) => {
                drop(socket);
                return forward(inner);
            }
            Ok(Role::Inner) => inner(&description, &socket),
            Err(failure) => Err(failure),
        },
        Tier::Bwrap => match &description.job {
            Job::Bwrap { program, arguments } => become_bwrap(program, arguments),
            _ => inner(&description, &socket),
        },
        Tier::Landlock => {
            sys::adopt_orphans().during(|| "adopt orphans".to_owned()).and_then(|()| inner(&description, &socket))
        }
        Tier::None => return,
    };
    let message = message.unwrap_or_else(|f| Message::Failed { operation: f.operation, errno: f.errno });
    // Trainlock may be gone.
    if let Ok(bytes) = postcard::to_stdvec(&message) {
        let _ = socket.write_all(&bytes);
    }
}

/// Executes bwrap, which has this process's standard input, the socket, and hands it on.
fn become_bwrap(program: &OsStr, arguments: &[OsString]) -> Result<Message, Failure> {
    let c = |word: &OsStr| CString::new(word.as_bytes()).map_err(std::io::Error::from);
    let words = [program].into_iter().chain(arguments.iter().map(|a| &**a)).map(c);
    let execute = || {
        let words = words.collect::<Result<Vec<_>, _>>()?;
        Err(sys::execute(&words[0], &words, &[]))
    };
    execute().during(|| format!("execute {}", program.to_string_lossy()))
}

enum Role {
    Outer(i32),
    Inner,
}

/// Makes the namespaces and their first process.
fn outer(description: &Description) -> Result<Role, Failure> {
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let mut flags = libc::CLONE_NEWUSER
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP;
    if !description.network {
        flags |= libc::CLONE_NEWNET;
    }
    // Root takes its other groups' rights with it if it does not give them up before; others may not, and have them anyway.
    let _ = rustix::thread::set_thread_groups(&[]);
    sys::unshare(flags).during(|| "unshare namespaces".to_owned())?;
    let maps = [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("{USER} {user} 1")),
        ("gid_map", format!("{USER} {group} 1")),
    ];
    for (name, text) in maps {
        fs::write(format!("/proc/self/{name}"), text).during(|| format!("write {name}"))?;
    }
    sys::die_with_parent().during(|| "bind to trainlock's life".to_owned())?;
    match sys::fork(false).during(|| "fork".to_owned())? {
        Some(inner) => Ok(Role::Outer(inner)),
        None => Ok(Role::Inner),
    }
}

/// Passes signals on until the inner process ends, with all that is in its namespaces.
fn forward(inner: i32) {
    let list = [&ENDING[..], &[libc::SIGCHLD]].concat();
    let Ok(signals) = sys::signals(&list) else { return sys::kill(inner, libc::SIGKILL) };
    // It may have ended before its signal could be seen.
    while sys::reap(false).is_none() {
        let mut fds = [PollFd::new(&signals, PollFlags::IN)];
        let _ = poll(&mut fds, None);
        while let Some(signal) = sys::next_signal(&signals) {
            if signal != libc::SIGCHLD {
                sys::kill(inner, signal);
            }
        }
    }
}

/// Sets up what is inside, starts the step and watches it.
fn inner(description: &Description, socket: &UnixStream) -> Result<Message, Failure> {
    if description.tier == Tier::Namespaces {
        sys::die_with_parent().during(|| "bind to trainlock's life".to_owned())?;
        mounts::set_up(&description.mounts)?;
        rustix::system::sethostname(description.hostname.as_bytes()).during(|| "set the host name".to_owned())?;
        if !description.network {
            sys::loopback_up().during(|| "take the loopback device up".to_owned())?;
        }
    }
    let null = rustix::fs::open(c"/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    null.map_err(std::io::Error::from).and_then(|null| sys::put_at(null, 0)).during(|| "open /dev/null".to_owned())?;
    sys::drop_capabilities().during(|| "drop capabilities".to_owned())?;
    rustix::thread::set_no_new_privs(true).during(|| "give up new privileges".to_owned())?;
    let signals = sys::signals(&[&ENDING[..], &[libc::SIGCHLD]].concat()).during(|| "block signals".to_owned())?;
    let server = match &description.hub {
        Some((hub, root)) => Some(Server::start(hub, root.as_ref())?),
        None => None,
    };
    let (says, say) = crate::cancel::pipe().during(|| "make a pipe".to_owned())?;
    let start = Start::new(description)?;
    let Some(step) = sys::fork(true).during(|| "fork".to_owned())? else {
        start.go(&say);
    };
    // The step must not look into the init, which is of the same user.
    sys::be_closed().during(|| "close the init".to_owned())?;
    let mut supervisor = Supervisor {
        step,
        alone: rustix::process::getpid().is_init(),
        signals,
        says,
        watcher: Watcher::new(description),
        server,
    };
    supervisor.run(socket)
}

/// What the step's process tells the init before it becomes the step.
#[derive(Serialize, Deserialize)]
enum Says {
    /// Calls are notified on this descriptor, which the two share.
    Listener(i32),
    /// They are not, for this reason.
    Unwatched(i32),
    /// A wall could not be set up.
    Failed(String, i32),
    /// The program can't be executed.
    NotStarted(i32),
}

/// What the step's process needs, made before the fork.
struct Start<'a> {
    description: &'a Description,
    program: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    filter: [Vec<libc::sock_filter>; 2],
}

impl<'a> Start<'a> {
    fn new(description: &'a Description) -> Result<Start<'a>, Failure> {
        let c = |bytes: &[u8]| {
            CString::new(bytes)
                .map_err(|_| Failure { operation: "pass a zero byte to a program".to_owned(), errno: libc::EINVAL })
        };
        let needs = |watch| Needs {
            watch,
            audit: watch && description.audit,
            local_only: description.tier == Tier::Landlock && !description.network,
        };
        let filter = [seccomp::program(needs(true)), seccomp::program(needs(false))];
        let Job::Step { program, arguments, environment, .. } = &description.job else {
            let (program, arguments, environment) = Default::default();
            return Ok(Start { description, program, arguments, environment, filter });
        };
        let program = c(program.as_bytes())?;
        let words = std::iter::once(Ok(program.clone())).chain(arguments.iter().map(|a| c(a.as_bytes())));
        let variables = environment.iter().map(|(name, value)| c(format!("{name}={value}").as_bytes()));
        Ok(Start {
            description,
            arguments: words.collect::<Result<_, _>>()?,
            environment: variables.collect::<Result<_, _>>()?,
            program,
            filter,
        })
    }

    /// Becomes the step. The descriptors are shared with the init until then, so that none is closed here.
    fn go(&self, say: &OwnedFd) -> ! {
        let tell = |says: &Says| {
            if let Ok(bytes) = postcard::to_stdvec(says) {
                let _ = rustix::io::write(say, &bytes);
            }
        };
        let watched = match self.walls() {
            Ok(watched) => watched,
            Err(failure) => {
                tell(&Says::Failed(failure.operation, failure.errno));
                sys::exit(1)
            }
        };
        match watched {
            Ok(listener) => {
                tell(&Says::Listener(listener.as_raw_fd()));
                // The init takes it over.
                std::mem::forget(listener);
            }
            Err(errno) => tell(&Says::Unwatched(errno)),
        }
        if let Job::Probe { canary, port } = &self.description.job {
            sys::exit(probe::attempts_to_get_out(canary, *port));
        }
        let error = sys::execute(&self.program, &self.arguments, &self.environment);
        tell(&Says::NotStarted(error.raw_os_error().unwrap_or(libc::EIO)));
        sys::exit(1)
    }

    /// The last walls; the descriptor of notifications, or why there is none.
    fn walls(&self) -> Result<Result<OwnedFd, i32>, Failure> {
        let it = self.description;
        if it.tier == Tier::Landlock {
            sys::die_with_parent().during(|| "bind to the init's life".to_owned())?;
        } else {
            // No terminal: what runs behind the walls must not type into the one in front.
            rustix::process::setsid().during(|| "start a session".to_owned())?;
        }
        sys::plain_process();
        rustix::process::umask(Mode::from_raw_mode(it.umask));
        if let Job::Step { folder, .. } = &it.job {
            rustix::process::chdir(folder.as_bytes())
                .during(|| format!("enter the folder {}", folder.to_string_lossy()))?;
        }
        rules::apply(&it.rules, it.network).map_err(|e| Failure {
            operation: "apply Landlock's rules".to_owned(),
            errno: e.raw_os_error().unwrap_or(libc::EOPNOTSUPP),
        })?;
        let mut why = libc::EOPNOTSUPP;
        if let Job::Step { .. } = it.job {
            match sys::seccomp(&self.filter[0], true) {
                Ok(Some(listener)) => return Ok(Ok(listener)),
                Ok(None) => {}
                // Another listener stands further out, as it does where one sandbox runs in another.
                Err(error) => why = error.raw_os_error().unwrap_or(why),
            }
        }
        sys::seccomp(&self.filter[1], false).during(|| "install the seccomp filter".to_owned())?;
        Ok(Err(why))
    }
}

/// Stays until the step's process ends.
struct Supervisor {
    step: i32,
    /// Whether this is the first process of a namespace, so that all others are the step's.
    alone: bool,
    signals: OwnedFd,
    says: OwnedFd,
    watcher: Watcher,
    /// The server of the step's hub. It is one of the processes that are ended with the step.
    server: Option<Server>,
}

impl Supervisor {
    fn run(&mut self, socket: &UnixStream) -> Result<Message, Failure> {
        let mut trainlock = true;
        let status = loop {
            let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN), PollFd::new(&self.says, PollFlags::IN)];
            if let Some(listener) = &self.watcher.listener {
                fds.push(PollFd::new(listener, PollFlags::IN));
            }
            let watched = fds.len() > 2;
            if trainlock {
                fds.push(PollFd::new(socket, PollFlags::IN));
            }
            if poll(&mut fds, None).is_err() {
                continue;
            }
            let ready: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
            drop(fds);
            if !ready[1].is_empty()
                && let Some(message) = self.hear()?
            {
                return Ok(message);
            }
            if watched && !ready[2].is_empty() {
                self.watcher.handle(ready[2]);
            }
            if trainlock && ready.last().is_some_and(|r| !r.is_empty()) {
                trainlock = self.obey(socket);
            }
            if !ready[0].is_empty()
                && let Some(status) = self.signalled()
            {
                break status;
            }
        };
        self.end_all();
        // What it said last may still be in the pipe.
        if rustix::io::ioctl_fionread(&self.says).is_ok_and(|n| n > 0)
            && let Some(message) = self.hear()?
        {
            return Ok(message);
        }
        let (cpu, peak) = sys::children_usage();
        let (mapped, attempts, lost) = self.watcher.take();
        let refusals = self.server.take().map(Server::refusals).unwrap_or_default();
        Ok(Message::Ended { status, cpu, peak, mapped, attempts, lost, refusals })
    }

    /// Hears what the step's process says; a message if that ends it.
    fn hear(&mut self) -> Result<Option<Message>, Failure> {
        let mut buffer = [0; 4096];
        let n = rustix::io::read(&self.says, &mut buffer).during(|| "hear the step's process".to_owned())?;
        let mut rest = &buffer[..n];
        while !rest.is_empty() {
            let Ok((says, after)) = postcard::take_from_bytes::<Says>(rest) else { break };
            rest = after;
            match says {
                Says::Listener(fd) => {
                    let listener = shared(fd);
                    sys::notify_quickly(&listener);
                    self.watcher.listener = Some(listener);
                }
                Says::Unwatched(errno) => self
                    .watcher
                    .lose(format!("what the step maps can't be watched: {}", super::report::errno_name(errno))),
                Says::Failed(operation, errno) => return Ok(Some(Message::Failed { operation, errno })),
                Says::NotStarted(errno) => return Ok(Some(Message::NotStarted { errno })),
            }
        }
        Ok(None)
    }

    /// Does what trainlock asks; false when it is gone or wants the end.
    fn obey(&mut self, mut socket: &UnixStream) -> bool {
        let mut byte = [0];
        match socket.read(&mut byte) {
            Ok(1) if byte[0] == TERMINATE => {
                self.signal_all(libc::SIGTERM);
                true
            }
            Ok(1) => true,
            _ => {
                self.signal_all(libc::SIGKILL);
                false
            }
        }
    }

    /// Takes signals; the step's status if its process ended.
    fn signalled(&mut self) -> Option<i32> {
        while let Some(signal) = sys::next_signal(&self.signals) {
            if signal != libc::SIGCHLD {
                self.signal_all(signal);
            }
        }
        let mut ended = None;
        while let Some((pid, status)) = sys::reap(false) {
            if pid == self.step {
                ended = Some(status);
            }
        }
        ended
    }

    /// Sends a signal to all processes of the step.
    fn signal_all(&self, signal: i32) {
        if self.alone {
            sys::kill(-1, signal);
        } else {
            for pid in descendants(rustix::process::getpid().as_raw_nonzero().get()) {
                sys::kill(pid, signal);
            }
        }
    }

    /// Ends all processes of the step and waits for them. Orphans become children of this process, so that it is over
    /// when there is none left; who forks on meanwhile is met in the next turn.
    fn end_all(&self) {
        loop {
            self.signal_all(libc::SIGKILL);
            if sys::reap(true).is_none() {
                break;
            }
            while sys::reap(false).is_some() {}
        }
    }
}

/// A descriptor that the step's process opened in the shared table.
fn shared(fd: RawFd) -> OwnedFd {
    // SAFETY: the step's process gave up its ownership, and its own copy is closed when it executes the program.
    #[expect(unsafe_code, reason = "a descriptor is taken over from another process")]
    unsafe {
        OwnedFd::from_raw_fd(fd)
    }
}

/// All processes below one, as they are now.
fn descendants(pid: i32) -> Vec<i32> {
    let mut found = Vec::new();
    let mut next = vec![pid];
    while let Some(pid) = next.pop() {
        // Every thread has its own children.
        for thread in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let list = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            let children = list.split_whitespace().filter_map(|p| p.parse::<i32>().ok());
            for child in children {
                found.push(child);
                next.push(child);
            }
        }
    }
    found
}
