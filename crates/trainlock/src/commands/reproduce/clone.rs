//! A stranger's repository, brought into an empty folder: one commit of it, and nothing of it is run.

use super::child::Watch;
use crate::exit::{Exit, Failure};
use crate::links::leads_inside;
use fs_err as fs;
use std::path::Path;
use std::process::{Command, Stdio};
use trainlock_types::masked;

/// Protocols that git may use: none that runs a command of the address's choice.
const PROTOCOLS: &str = "file:git:http:https:ssh";

/// What of the user's own configuration reaches git while it fetches: how to authenticate, and how to get out.
const KEPT: &str = r"^(credential\..*|http\..*|core\.sshcommand|ssh\.variant|safe\.directory)$";

/// What git is told in place of the user's configuration: no hook runs, and the files are the commit's, byte for byte.
const TOLD: &[(&str, &str)] = &[
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.autocrlf", "false"),
    ("core.attributesFile", "/dev/null"),
    ("core.symlinks", "true"),
    ("submodule.recurse", "false"),
    ("fetch.recurseSubmodules", "false"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
];

/// Variables by which a caller of trainlock (a hook, say) would lead git to another repository, or to other configuration.
pub(super) const FORGOTTEN: &[&str] = &[
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_ATTR_SOURCE",
    "GIT_CEILING_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_CONFIG",
    "GIT_CONFIG_PARAMETERS",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_INTERNAL_SUPER_PREFIX",
    "GIT_NAMESPACE",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_TEMPLATE_DIR",
    "GIT_WORK_TREE",
];

/// A repository's address, looked at before git sees it.
#[derive(Debug)]
pub(super) struct Address {
    /// As git gets it: a folder or file of this machine by its absolute path.
    git: String,
    /// As it is shown: without what authorises.
    pub(super) shown: String,
    /// The last part of it, with the characters that a file's name should have.
    pub(super) name: String,
}

/// A commit that is checked out.
#[derive(Debug)]
pub(super) struct Checkout {
    /// Its number, in hexadecimal digits.
    pub(super) commit: String,
    /// The submodules that it has, by their paths: they are not followed.
    pub(super) submodules: Vec<String>,
    /// How many files hold only a pointer of Git LFS.
    pub(super) pointers: usize,
}

impl Address {
    /// An address as the user gave it.
    pub(super) fn new(text: &str) -> Result<Address, Failure> {
        let refused = |why: &str| {
            Failure::new(Exit::Invalid, format!("`{}` is no repository to clone: {why}", redacted(text).escape_debug()))
        };
        // `NAME::REST` hands REST to the program git-remote-NAME; that of `ext` runs it.
        let helper = text.split_once("::").is_some_and(|(name, _)| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
        });
        if text.is_empty() || text.starts_with('-') || text.contains(char::is_control) {
            return Err(refused("it is no address"));
        }
        if helper {
            return Err(refused("an address may not name the program that fetches it"));
        }
        let scheme = text.split_once("://").map(|(scheme, _)| scheme);
        if scheme.is_some_and(|scheme| !PROTOCOLS.split(':').any(|known| known == scheme)) {
            return Err(refused("use https, ssh, a folder or a bundle"));
        }
        let path = Path::new(text);
        // What is there is meant, as git takes it; `HOST:PATH` is ssh where no such file is.
        let local = scheme.is_none() && (path.exists() || !text.contains(':'));
        let git = match local {
            false => text.to_owned(),
            true => match fs::canonicalize(path) {
                Ok(path) => path.to_str().ok_or_else(|| refused("its path is no text"))?.to_owned(),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(refused("it does not exist")),
                Err(error) => return Err(error.into()),
            },
        };
        let shown = redacted(&git);
        let last = shown.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
        let last = last.rsplit(['/', ':']).next().unwrap_or_default();
        let last = last.trim_end_matches(".git").trim_end_matches(".bundle");
        let plain = |c: char| if c.is_alphanumeric() || c == '-' || c == '_' { c } else { '-' };
        let name: String = last.chars().map(plain).take(60).collect();
        let name = if name.is_empty() { "repository".to_owned() } else { name };
        Ok(Address { git, shown, name })
    }
}

/// A text without the credentials of the addresses in it: no user, no password, no query.
pub(super) fn redacted(text: &str) -> String {
    let text = masked(text);
    let mut parts = text.split("://");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let address = &part[..part.find([' ', '\'', '"', '\n']).unwrap_or(part.len())];
        let host = address.find(['/', '?', '#']).unwrap_or(address.len());
        let query = address.find('?').unwrap_or(address.len());
        out.push_str("://");
        out.push_str(address[..host].rsplit('@').next().unwrap_or_default());
        out.push_str(&address[host.min(query)..query]);
        out.push_str(if query < address.len() { "?…" } else { "" });
        out.push_str(&part[address.len()..]);
    }
    out
}

/// Checks out one commit of a repository in an empty folder.
pub(super) fn clone(address: &Address, rev: Option<&str>, folder: &Path, watch: &Watch) -> Result<Checkout, Failure> {
    if let Some(rev) = rev.filter(|rev| !is_revision(rev)) {
        return Err(Failure::new(Exit::Invalid, format!("`{}` is no revision", rev.escape_debug())));
    }
    let git = Git { folder, watch };
    git.done(&["init", "--quiet", "--template="])?;
    let commit = git.fetched(address, rev)?;
    let mut submodules = Vec::new();
    for entry in git.done(&["ls-tree", "-r", "-z", &commit])?.split('\0') {
        let Some((facts, path)) = entry.split_once('\t') else { continue };
        if facts.starts_with("160000 ") {
            submodules.push(path.to_owned());
        }
        // There trainlock keeps what it did and what it knows of files. A repository that brings such a folder could say that
        // steps are done that nobody ran.
        if path.split('/').any(|part| part.eq_ignore_ascii_case(".trainlock")) {
            return Err(Failure::new(Exit::Failed, format!("the repository brings its own `{}`", path.escape_debug()))
                .hint("that folder is a machine's own: whoever owns the repository can take it out with `git rm -r --cached .trainlock`"));
        }
    }
    git.done(&["checkout", "--quiet", "--detach", &commit])?;
    stays_inside(folder)?;
    let pointers = git.done(&["ls-files", "-z", "--", ":(attr:filter=lfs)"])?.matches('\0').count();
    Ok(Checkout { commit, submodules, pointers })
}

/// Whether git takes this for one revision and nothing else.
fn is_revision(rev: &str) -> bool {
    let odd = |c: char| c.is_control() || c.is_whitespace() || ":?*[\\".contains(c);
    !rev.is_empty() && !rev.starts_with(['-', '+', '^']) && !rev.contains(odd) && !rev.contains("..")
}

/// git in one folder.
struct Git<'a> {
    folder: &'a Path,
    watch: &'a Watch,
}

impl Git<'_> {
    /// Fetches a revision; the number of its commit. Of the history as little as the other side can leave out.
    fn fetched(&self, address: &Address, rev: Option<&str>) -> Result<String, Failure> {
        let own = self.own_configuration()?;
        let fetch = |what: &[&str], refs: &str| {
            let args = [&["fetch", "--quiet", "--no-recurse-submodules"], what, &["--", &address.git, refs]].concat();
            self.run(&args, &own)
        };
        let first = fetch(&["--depth=1", "--no-tags"], rev.unwrap_or("HEAD"))?;
        if first.good {
            return self.commit("FETCH_HEAD").ok_or_else(|| no_revision(rev.unwrap_or("HEAD"), &[]));
        }
        // No branch or tag of that name, and no whole number of a commit: the beginning of one, or `main~2`; or a
        // bundle that does not say which branch is its own.
        if !["couldn't find remote ref", "invalid refspec"].iter().any(|words| first.errors.contains(words)) {
            return Err(failed("fetch", &first.errors));
        }
        let all = fetch(&["--tags"], "+refs/heads/*:refs/remotes/origin/*")?;
        if !all.good {
            return Err(failed("fetch", &all.errors));
        }
        let branches = self.done(&["for-each-ref", "--format=%(refname:lstrip=3)", "refs/remotes/origin"])?;
        let branches: Vec<&str> = branches.lines().collect();
        match (rev, &branches[..]) {
            (Some(rev), _) => ["refs/remotes/origin/", "refs/tags/", ""]
                .iter()
                .find_map(|place| self.commit(&format!("{place}{rev}")))
                .ok_or_else(|| no_revision(rev, &branches)),
            (None, []) => Err(Failure::new(Exit::Failed, "the repository has no commit")),
            (None, [one]) => self.commit(&format!("refs/remotes/origin/{one}")).ok_or_else(|| no_revision(one, &[])),
            (None, several) => Err(Failure::new(Exit::Failed, "the repository does not say which branch is its own")
                .hint(format!("choose one with --rev: {}", several.join(", ").escape_debug()))),
        }
    }

    fn commit(&self, name: &str) -> Option<String> {
        let name = format!("{name}^{{commit}}");
        let found = self.run(&["rev-parse", "--verify", "--quiet", "--end-of-options", &name], &[]).ok()?;
        found.good.then(|| found.text.trim().to_owned())
    }

    /// What the user has configured, outside of any repository, for fetching.
    fn own_configuration(&self) -> Result<Vec<(String, String)>, Failure> {
        let mut command = Command::new("git");
        command.args(["config", "--show-scope", "--null", "--get-regexp", KEPT]).current_dir("/").stdin(Stdio::null());
        for name in FORGOTTEN.iter().filter(|name| !name.starts_with("GIT_CONFIG")) {
            command.env_remove(name);
        }
        let output = self.watch.output(&mut command).map_err(|error| cannot_start(&error))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // `SCOPE\0KEY\nVALUE\0`; a key without a value is true.
        let fields: Vec<&str> = text.split('\0').collect();
        let pair = |pair: &[&str]| match pair {
            ["system" | "global" | "command", field] => {
                let (key, value) = field.split_once('\n').unwrap_or((field, "true"));
                Some((key.to_owned(), value.to_owned()))
            }
            _ => None,
        };
        Ok(fields.chunks(2).filter_map(pair).collect())
    }

    /// What git prints; an error if it fails.
    fn done(&self, args: &[&str]) -> Result<String, Failure> {
        let ran = self.run(args, &[])?;
        if ran.good { Ok(ran.text) } else { Err(failed(args[0], &ran.errors)) }
    }

    /// Runs git with no configuration but what it is told here, in variables: a command line can be seen by all.
    fn run(&self, args: &[&str], configuration: &[(String, String)]) -> Result<Ran, Failure> {
        let mut command = Command::new("git");
        command.args(args).current_dir(self.folder).stdin(Stdio::null());
        for name in FORGOTTEN {
            command.env_remove(name);
        }
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_ATTR_NOSYSTEM", "1");
        command.env("GIT_ALLOW_PROTOCOL", PROTOCOLS).env("GIT_LFS_SKIP_SMUDGE", "1").env("LC_ALL", "C");
        let told = TOLD.iter().map(|(key, value)| (*key, *value));
        let own = configuration.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let all: Vec<(&str, &str)> = own.chain(told).collect();
        command.env("GIT_CONFIG_COUNT", all.len().to_string());
        for (i, (key, value)) in all.into_iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{i}"), key).env(format!("GIT_CONFIG_VALUE_{i}"), value);
        }
        let output = self.watch.output(&mut command).map_err(|error| cannot_start(&error))?;
        if self.watch.is_interrupted() {
            return Err(Failure::new(Exit::Interrupted, "interrupted"));
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Ran { good: output.status.success(), text: text(&output.stdout), errors: text(&output.stderr) })
    }
}

/// How a run of git ended.
struct Ran {
    good: bool,
    text: String,
    errors: String,
}

fn cannot_start(error: &std::io::Error) -> Failure {
    match error.kind() {
        std::io::ErrorKind::Interrupted => Failure::new(Exit::Interrupted, "interrupted"),
        std::io::ErrorKind::NotFound => Failure::new(Exit::Failed, "there is no git on PATH").hint("install git"),
        _ => Failure::new(Exit::Failed, format!("can't start git: {error}")),
    }
}

fn failed(command: &str, errors: &str) -> Failure {
    let lines: Vec<String> = redacted(errors.trim()).lines().map(|line| line.escape_debug().to_string()).collect();
    Failure::new(Exit::Failed, format!("git {command} failed: {}", lines.join("\n  ")))
}

fn no_revision(rev: &str, branches: &[&str]) -> Failure {
    let failure = Failure::new(Exit::Failed, format!("the repository has no revision `{rev}`"));
    match trainlock_types::nearest(rev, branches.iter().copied()) {
        Some(near) => failure.hint(format!("did you mean `{}`?", near.escape_debug())),
        None => failure,
    }
}

/// An error if a link of the checkout leads out of it: outputs would be written, and inputs read, where it leads.
fn stays_inside(folder: &Path) -> Result<(), Failure> {
    let top = fs::canonicalize(folder)?;
    let mut open = vec![top.clone()];
    while let Some(here) = open.pop() {
        for entry in fs::read_dir(&here)? {
            let entry = entry?;
            let (kind, path) = (entry.file_type()?, entry.path());
            if kind.is_dir() && path != top.join(".git") {
                open.push(path);
            } else if kind.is_symlink() && !leads_inside(&top, &path) {
                let shown = path.strip_prefix(&top).unwrap_or(&path).display().to_string();
                return Err(Failure::new(
                    Exit::Failed,
                    format!("the repository's link `{}` leads out of it", shown.escape_debug()),
                )
                .hint("what it leads to is not in the commit, and belongs to this machine: nothing was run"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_are_refused_before_git_sees_them() {
        for bad in [
            "",
            "-x",
            "--upload-pack=touch x",
            "ext::sh -c touch% x",
            "fd::3",
            "a-b+c.d::x",
            "ext::ssh://h/p",
            "ftp://h/p",
            "transport://h/p",
            "https://h/\np",
            "/does/not/exist",
            "nowhere",
        ] {
            assert_eq!(Address::new(bad).expect_err(bad).code, Exit::Invalid, "{bad}");
        }
        for good in
            ["https://h/p.git", "ssh://git@[::1]:22/p", "git@h:p.git", "[::1]:p", "file:///srv/p.git", "git://h/p"]
        {
            assert_eq!(Address::new(good).expect(good).git, good);
        }
    }

    #[test]
    fn names_and_secrets_of_addresses() {
        for (address, name, shown) in [
            ("https://user:secret@h.org/team/digits.git/", "digits", "https://h.org/team/digits.git/"),
            ("https://h.org/d.git?token=secret", "d", "https://h.org/d.git?…"),
            ("https://secret@h.org", "h-org", "https://h.org"),
            ("git@h.org:digits.git", "digits", "git@h.org:digits.git"),
            ("https://h.org/Zahlen%20ü.git", "Zahlen-20ü", "https://h.org/Zahlen%20ü.git"),
            ("https://h.org/..", "--", "https://h.org/.."),
        ] {
            let made = Address::new(address).unwrap();
            assert_eq!(made.shown, shown);
            assert_eq!(made.name, name);
        }
        let words = "fatal: unable to access 'https://u:p@h.org/a?sig=x': refused by https://v:q@i.org";
        assert_eq!(redacted(words), "fatal: unable to access 'https://h.org/a?…': refused by https://i.org");
    }

    #[test]
    fn revisions() {
        for good in ["main", "v1.0", "feature/x", "0123abc", "main~2", "HEAD^", "ä"] {
            assert!(is_revision(good), "{good}");
        }
        for bad in ["", "-x", "--all", "+a:b", "a:b", "refs/heads/*", "^a", "a b", "a\nb", "a..b", "a[", "\\"] {
            assert!(!is_revision(bad), "{bad}");
        }
    }

    #[test]
    fn links_that_lead_out() {
        let folder = tempfile::tempdir().unwrap();
        let top = fs::canonicalize(folder.path()).unwrap().join("top");
        fs::create_dir_all(top.join("a/b")).unwrap();
        fs::create_dir_all(top.join(".git")).unwrap();
        fs::write(top.join("a/file"), "").unwrap();
        let link = |target: &str| {
            let link = top.join("a/link");
            let _ = fs::remove_file(&link);
            fs_err::os::unix::fs::symlink(target, &link).unwrap();
            leads_inside(&top, &link)
        };
        fs_err::os::unix::fs::symlink("../..", top.join("a/b/up")).unwrap();
        fs_err::os::unix::fs::symlink(".", top.join("dot")).unwrap();
        for inside in ["file", "b", "../a/file", "not/there", "b/up", "../dot/a/file", "b/up/a"] {
            assert!(link(inside), "{inside}");
        }
        for outside in
            ["/etc", "../..", "../../elsewhere", "b/up/..", "../dot/../x", "/", "../.git/config", "b/../../../top/a"]
        {
            assert!(!link(outside), "{outside}");
        }
    }
}
