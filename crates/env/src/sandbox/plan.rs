//! From a [`Sandbox`] to the list of mounts and rules that make it. Both backends work from the same list.

use super::channel::{Mode, Mount, Rules};
use super::{Bind, HOME, Sandbox, SetupError, Tier, USER};
use fs_err as fs;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Beyond this many, inputs in writable folders become private copies in place of mounts: a mount costs some
/// microseconds, and the kernel allows a namespace 100,000.
const MOST_MOUNTS: usize = 10_000;

/// What of the system's top level a program needs: programs, libraries, and where NixOS and Guix keep them.
const SYSTEM: &[&str] = &["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store"];

/// What of `/etc` programs read that says nothing of this machine's users, network or secrets.
const ETC: &[&str] = &[
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "alternatives",
    "ssl/certs",
    "ssl/openssl.cnf",
    "ssl/cert.pem",
    "pki/tls/certs",
    "pki/tls/openssl.cnf",
    "pki/ca-trust/extracted",
    "crypto-policies",
    "ca-certificates",
    "protocols",
    "services",
    "mime.types",
    "magic",
    "magic.mime",
    "fonts",
    "OpenCL",
    "vulkan",
    "glvnd",
    "R",
    "texmf",
    "xml",
    "sgml",
    "static",
];

/// What is read of the host's `/etc` where nothing can be put in its place.
const ETC_OF_HOST: &[&str] = &["passwd", "group", "nsswitch.conf", "hosts", "host.conf", "localtime"];

/// Files that trainlock writes into `/etc`, whatever the root.
const ETC_WRITTEN: &[&str] = &["passwd", "group", "nsswitch.conf", "hosts", "hostname", "resolv.conf"];

/// Another name of `/tmp`, which programs write to as well.
const LASTING: &str = "/var/tmp";

/// Devices that are the same on every machine.
const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom", "tty"];

/// What the sandbox is made of.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) mounts: Vec<Mount>,
    pub(super) rules: Rules,
    /// Folders that show all that the host has in them.
    pub(super) whole: Vec<OsString>,
    /// How many inputs became private copies.
    pub(super) copied: usize,
}

/// Lays it out. In the Landlock tier, which cannot protect a file inside a writable folder, and where there would be too
/// many mounts, hard links of the store in writable folders are replaced by copies: the store stays whole.
pub(super) fn plan(sandbox: &Sandbox) -> Result<Plan, SetupError> {
    let stage = fs::canonicalize(&sandbox.stage).map_err(|source| failed("find the stage", source))?;
    let mut staged = Staged::default();
    staged.look(&stage.join("root"), sandbox)?;
    let copies = sandbox.tier == Tier::Landlock || staged.protected.len() > MOST_MOUNTS;
    let mut plan = Plan::default();
    if copies {
        for path in &staged.protected {
            plan.copied += own_copy(path).map_err(|source| failed("copy an input", source))?;
        }
        staged.order.retain(|(_, mode)| *mode == Mode::Writable);
    }
    if sandbox.tier == Tier::Landlock {
        plan.rules = landlock_rules(sandbox, &stage, &staged);
        let given = sandbox.read_only.iter().map(|b| b.from.clone().into());
        plan.whole = SYSTEM.iter().map(OsString::from).chain(given).collect();
    } else {
        let mut mounts = Mounts { sandbox, stage, list: Vec::new() };
        mounts.all(&staged);
        plan.mounts = mounts.list;
        plan.whole = plan.mounts.iter().filter_map(|m| whole(m, sandbox)).collect();
        plan.rules.write = staged.writable.iter().map(|w| mounts_path(sandbox, w)).collect();
        plan.rules.write.extend(["/tmp", LASTING, HOME, "/dev"].map(OsString::from));
        plan.rules.write.extend(sandbox.shared.iter().map(|folder| folder.clone().into()));
    }
    Ok(plan)
}

/// Something that a step is given: where it lies, where it is seen, and whether the step may write to it.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) from: PathBuf,
    pub(super) to: PathBuf,
    pub(super) writable: bool,
}

/// What of the stage and the machine another program has to show a step, in the order in which it is mounted.
pub(super) fn given(sandbox: &Sandbox) -> Result<Vec<Given>, SetupError> {
    let stage = fs::canonicalize(&sandbox.stage).map_err(|source| failed("find the stage", source))?;
    let mut staged = Staged::default();
    staged.look(&stage.join("root"), sandbox)?;
    let mut mounts = Mounts { sandbox, stage, list: Vec::new() };
    mounts.given();
    mounts.project(&staged);
    let given = |mount| match mount {
        Mount::Bind { from, to, mode, .. } => {
            Some(Given { from: from.into(), to: to.into(), writable: mode == Mode::Writable })
        }
        _ => None,
    };
    let mut all: Vec<Given> = mounts.list.into_iter().filter_map(given).collect();
    // Engines take a place once: where the project's own folder is for outputs, that is what counts.
    let mut taken = BTreeSet::new();
    all.reverse();
    all.retain(|one| taken.insert(one.to.clone()));
    all.reverse();
    Ok(all)
}

fn failed(operation: &str, source: std::io::Error) -> SetupError {
    SetupError { operation: operation.to_owned(), source }
}

/// A mount that shows all of a folder of the host, or of the kernel.
fn whole(mount: &Mount, sandbox: &Sandbox) -> Option<OsString> {
    let paths = sandbox.paths();
    let (Mount::Bind { to, staged: false, folder: true, .. } | Mount::Processes { to }) = mount else { return None };
    let own = [paths.root, paths.tmp, paths.home, paths.bin];
    (!own.iter().any(|p| p == Path::new(to))).then(|| to.clone())
}

/// Where a folder of the stage's root is seen.
fn mounts_path(sandbox: &Sandbox, relative: &Path) -> OsString {
    let root = sandbox.paths().root;
    if relative.as_os_str().is_empty() { root.into() } else { root.join(relative).into() }
}

/// The stage's writable folders, and what in them is protected.
#[derive(Debug, Default)]
struct Staged {
    /// Relative to the root; none lies in another, unless something protected lies between.
    writable: Vec<PathBuf>,
    /// As they lie on the host; each with what lies below.
    protected: Vec<PathBuf>,
    /// In the order in which they are mounted: an outer one before what lies in it.
    order: Vec<(PathBuf, Mode)>,
}

impl Staged {
    fn look(&mut self, root: &Path, sandbox: &Sandbox) -> Result<(), SetupError> {
        let writable: BTreeSet<PathBuf> = sandbox.writable.iter().map(|w| w.on(Path::new(""))).collect();
        for folder in &writable {
            let place = root.join(folder);
            let real = fs::canonicalize(&place).map_err(|source| failed("find a writable folder", source))?;
            // Path comparison goes by components, so that a trailing slash is no difference.
            if real != place {
                let operation = format!("a folder for outputs, `{}`, lies behind a symbolic link", folder.display());
                return Err(SetupError { operation, source: rustix::io::Errno::LOOP.into() });
            }
        }
        self.walk(root, Path::new(""), false, &writable).map_err(|source| failed("read the stage", source))
    }

    /// Looks at a folder of the stage that lies in a mount that is writable or not.
    fn walk(&mut self, root: &Path, folder: &Path, inside: bool, all: &BTreeSet<PathBuf>) -> std::io::Result<()> {
        let writable = all.contains(folder);
        if writable && !inside {
            self.order.push((folder.to_owned(), Mode::Writable));
            self.writable.push(folder.to_owned());
        } else if inside && !writable {
            self.protect(root, folder);
        }
        if !writable {
            // Only what leads to a writable folder is of interest.
            let inner: BTreeSet<PathBuf> = all
                .iter()
                .filter_map(|w| w.strip_prefix(folder).ok()?.components().next())
                .map(|c| folder.join(c))
                .collect();
            return inner.iter().try_for_each(|next| self.walk(root, next, false, all));
        }
        let mut entries: Vec<fs::DirEntry> = fs::read_dir(root.join(folder))?.collect::<Result<_, _>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = folder.join(entry.file_name());
            let kind = entry.file_type()?;
            let leads_on = kind.is_dir() && all.iter().any(|w| w.starts_with(&path));
            if leads_on {
                self.walk(root, &path, true, all)?;
            } else if !kind.is_symlink() {
                // Nothing can be mounted over a link; it holds no bytes of the store.
                self.protect(root, &path);
            }
        }
        Ok(())
    }

    fn protect(&mut self, root: &Path, path: &Path) {
        self.order.push((path.to_owned(), Mode::ReadOnly));
        self.protected.push(root.join(path));
    }
}

/// Makes copies of the hard links at and below a path; how many.
fn own_copy(path: &Path) -> std::io::Result<usize> {
    let data = fs::symlink_metadata(path)?;
    if data.is_dir() {
        let mut copied = 0;
        for entry in fs::read_dir(path)? {
            copied += own_copy(&entry?.path())?;
        }
        return Ok(copied);
    }
    if !data.is_file() || data.nlink() < 2 {
        return Ok(usize::from(data.is_file()));
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".trainlock-copy");
    let copy = path.with_file_name(name);
    fs::copy(path, &copy)?;
    let file = fs::File::options().read(true).open(&copy)?;
    file.file().set_modified(data.modified()?)?;
    file.file().set_permissions(PermissionsExt::from_mode(data.mode() & 0o7777))?;
    fs::rename(&copy, path)?;
    Ok(1)
}

struct Mounts<'a> {
    sandbox: &'a Sandbox,
    stage: PathBuf,
    list: Vec<Mount>,
}

impl Mounts<'_> {
    fn all(&mut self, staged: &Staged) {
        match &self.sandbox.root {
            Some(image) => self.image(image),
            None => self.system(),
        }
        self.files();
        self.devices();
        self.list.push(Mount::Processes { to: "/proc".into() });
        self.given();
        self.project(staged);
        for folder in &self.sandbox.shared {
            self.bind(folder, folder, Mode::Writable);
        }
    }

    /// The stage's own folders, and what of this machine the step is given.
    fn given(&mut self) {
        let paths = self.sandbox.paths();
        let host = super::Paths::of_stage(&self.stage);
        // Before what else is bound, which may lie in a temporary folder of the host's.
        self.bind(&host.tmp, &paths.tmp, Mode::Writable);
        let image = self.sandbox.root.as_ref().map(|image| image.join(&LASTING[1..]));
        if image.is_some_and(|folder| fs::symlink_metadata(folder).is_ok_and(|data| data.is_dir())) {
            self.bind(&host.tmp, Path::new(LASTING), Mode::Writable);
        }
        self.bind(&host.home, &paths.home, Mode::Writable);
        for Bind { from, to } in &self.sandbox.read_only {
            // What the system's folders show is not mounted again.
            let shown = self.sandbox.root.is_none() && SYSTEM.iter().any(|s| to.starts_with(s)) && from == to;
            if !shown {
                self.bind(from, to, Mode::ReadOnly);
            }
        }
    }

    fn bind(&mut self, from: &Path, to: &Path, mode: Mode) {
        let folder = fs::metadata(from).is_ok_and(|m| m.is_dir());
        self.list.push(Mount::Bind { from: from.into(), to: to.into(), mode, folder, staged: false });
    }

    /// As it is at the top level: a link as a link.
    fn same(&mut self, from: &Path, to: &Path) {
        match fs::symlink_metadata(from) {
            Ok(data) if data.is_symlink() => {
                if let Ok(target) = fs::read_link(from) {
                    self.list.push(Mount::Link { to: to.into(), target: target.into() });
                }
            }
            Ok(data) if data.is_dir() || data.is_file() => self.bind(from, to, Mode::ReadOnly),
            _ => {}
        }
    }

    fn system(&mut self) {
        for path in SYSTEM.iter().chain(&["/run/current-system"]).map(Path::new) {
            self.same(path, path);
        }
        for name in ETC {
            let path = Path::new("/etc").join(name);
            if fs::metadata(&path).is_ok() {
                self.bind(&path, &path, Mode::ReadOnly);
            }
        }
        if fs::metadata("/usr/lib/os-release").is_ok() {
            self.list.push(Mount::Link { to: "/etc/os-release".into(), target: "../usr/lib/os-release".into() });
        }
        self.list.push(Mount::Link { to: LASTING.into(), target: "/tmp".into() });
    }

    /// An image's tree in the place of the system's folders: entry by entry, so that the sandbox's own can stand beside.
    fn image(&mut self, image: &Path) {
        let names = |folder: &Path, without: &[&str]| -> Vec<OsString> {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            let mut names: Vec<OsString> = entries.map(|e| e.file_name()).collect();
            names.retain(|n| !without.iter().any(|w| n == *w));
            names.sort();
            names
        };
        for name in names(image, &["etc", "proc", "sys", "dev", "tmp", "home", "trainlock"]) {
            self.around(&image.join(&name), &Path::new("/").join(&name));
        }
        // Of these the sandbox has something of its own, and the image the rest.
        for (folder, own) in [("etc", ETC_WRITTEN), ("home", &["trainlock"])] {
            let (from, to) = (image.join(folder), Path::new("/").join(folder));
            for name in names(&from, own) {
                // The init starts behind bwrap's walls, and must not be made to load what is not its own.
                if self.sandbox.tier == Tier::Bwrap && name == "ld.so.preload" {
                    continue;
                }
                self.around(&from.join(&name), &to.join(&name));
            }
        }
        for (at, target) in &self.sandbox.links {
            self.list.push(Mount::Link { to: at.into(), target: target.into() });
        }
    }

    /// A folder of an image as it is; where something of this machine is to be seen in it, entry by entry.
    fn around(&mut self, from: &Path, to: &Path) {
        let links = &self.sandbox.links;
        let places = || self.sandbox.read_only.iter().map(|b| &b.to).chain(links.iter().map(|(at, _)| at));
        if places().any(|place| place == to) {
            return;
        }
        if !places().any(|place| place.starts_with(to)) || !fs::symlink_metadata(from).is_ok_and(|m| m.is_dir()) {
            return self.same(from, to);
        }
        let mut names: Vec<OsString> =
            fs::read_dir(from).into_iter().flatten().flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        for name in names {
            self.around(&from.join(&name), &to.join(&name));
        }
    }

    /// The files that trainlock writes.
    fn files(&mut self) {
        let host = &self.sandbox.hostname;
        // Without a network, the name server is a port where nobody listens: a name fails at once, and can be seen.
        let resolver = match self.sandbox.network.then(|| fs::read("/etc/resolv.conf")) {
            Some(Ok(text)) => text,
            _ => b"nameserver 127.0.0.1\noptions timeout:1 attempts:1\n".to_vec(),
        };
        let files = [
            (
                "passwd",
                format!(
                    "root:x:0:0:root:/:/usr/sbin/nologin\ntrainlock:x:{USER}:{USER}:trainlock:{HOME}:/bin/sh\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n"
                )
                .into_bytes(),
            ),
            ("group", format!("root:x:0:\ntrainlock:x:{USER}:\nnogroup:x:65534:\n").into_bytes()),
            ("nsswitch.conf", b"passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n".to_vec()),
            ("hosts", format!("127.0.0.1 localhost {host}\n::1 localhost\n").into_bytes()),
            ("hostname", format!("{host}\n").into_bytes()),
            ("resolv.conf", resolver),
        ];
        for (name, content) in files {
            self.list.push(Mount::File { to: Path::new("/etc").join(name).into(), content });
        }
    }

    fn devices(&mut self) {
        for path in DEVICES.iter().map(|name| Path::new("/dev").join(name)) {
            if fs::metadata(&path).is_ok() {
                self.bind(&path, &path, Mode::Device);
            }
        }
        for path in &self.sandbox.devices {
            self.bind(path, path, Mode::Device);
        }
        for (name, target) in [("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")] {
            let (to, target) = (format!("/dev/{name}"), format!("/proc/self/fd{target}"));
            self.list.push(Mount::Link { to: to.into(), target: target.into() });
        }
        self.list.push(Mount::Memory { to: "/dev/shm".into() });
    }

    fn project(&mut self, staged: &Staged) {
        let paths = self.sandbox.paths();
        let host = super::Paths::of_stage(&self.stage);
        self.bind(&host.root, &paths.root, Mode::ReadOnly);
        for (relative, mode) in &staged.order {
            let from = if relative.as_os_str().is_empty() { host.root.clone() } else { host.root.join(relative) };
            let folder = fs::symlink_metadata(&from).is_ok_and(|m| m.is_dir());
            let to = mounts_path(self.sandbox, relative);
            self.list.push(Mount::Bind { from: from.into(), to, mode: *mode, folder, staged: true });
        }
        for (from, to) in [(&host.bin, &paths.bin), (&host.params, &paths.params)] {
            if fs::metadata(from).is_ok() {
                self.bind(from, to, Mode::ReadOnly);
            }
        }
    }
}

/// What may be read and written where everything stays where it is.
fn landlock_rules(sandbox: &Sandbox, stage: &Path, staged: &Staged) -> Rules {
    let host = super::Paths::of_stage(stage);
    let etc = |name: &&str| Path::new("/etc").join(name).into();
    let mut read: Vec<OsString> = SYSTEM.iter().map(OsString::from).collect();
    read.extend(ETC.iter().chain(ETC_OF_HOST).map(etc));
    read.extend(sandbox.network.then(|| OsString::from("/etc/resolv.conf")));
    read.push("/proc".into());
    read.extend(sandbox.read_only.iter().map(|b| b.from.clone().into()));
    read.extend([host.root.clone(), host.bin, host.params].map(OsString::from));
    let mut write: Vec<OsString> = staged.writable.iter().map(|w| host.root.join(w).into()).collect();
    write.extend([host.tmp, host.home].map(OsString::from));
    write.extend(DEVICES.iter().chain(&["shm"]).map(|name| Path::new("/dev").join(name).into()));
    write.extend(sandbox.shared.iter().map(|folder| folder.clone().into()));
    write.extend(sandbox.devices.iter().map(|d| d.clone().into()));
    Rules { read: Some(read), write }
}
