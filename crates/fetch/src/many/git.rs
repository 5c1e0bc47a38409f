//! `git+https://…`, `git+ssh://…`, `git+file://…`: files of a git repository at a commit.
//!
//! The git program brings the one commit into a bare repository that is thrown away afterwards, and its files go from there
//! into the store as they are in git: nothing is checked out, so no filter, line ending or hook has a say. The user's git
//! configuration counts for what it takes to get there: credential helpers, proxies, certificates, ssh. `source = "git+…@COMMIT"`.

use super::now::revision;
use super::{Chosen, Files, Found, ManyWanted, Question, Source, contents, put_error, store};
use crate::error::FetchError;
use crate::settings::Cancel;
use crate::standing::{Answer, Found as Says, Standing};
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use trainlock_store::Tree;
use trainlock_types::{RelPath, SourceUrl, masked, nearest};
use url::Url;

/// What a file begins with that git LFS keeps elsewhere.
const LFS: &[u8] = b"version https://git-lfs.github.com/spec/";

/// A pointer of LFS is no larger.
const LFS_SIZE: u64 = 1024;

/// A repository.
pub(crate) struct Git<'a> {
    /// `git+https://…` and its like.
    pub(crate) address: &'a Url,
    /// Branch, tag or commit.
    pub(crate) rev: Option<&'a str>,
}

/// A commit, and the ref that it was found by.
struct At {
    commit: String,
    by: Option<String>,
}

/// A file of a commit.
struct Blob {
    oid: String,
    mode: String,
    size: u64,
    path: RelPath,
}

impl Source for Git<'_> {
    fn look(&self, question: &Question<'_>) -> Result<Found, FetchError> {
        let at = match question.locked {
            Some(_) => At::locked(question)?,
            None => self.find(question)?,
        };
        let folder = question.session.work_dir("git").map_err(|e| store(question.name, e))?;
        let tree = self.bring(question, &folder, &at, false).and_then(|()| self.tree(question, &folder, &at.commit));
        question.session.discard(&folder).map_err(|e| store(question.name, e))?;
        let resolved = Some(format!("{}@{}", SourceUrl::Git(self.address.clone().into()).redacted(), at.commit));
        Ok(Found { resolved, by: None, files: Files::Whole(tree?) })
    }

    fn standing(&self, question: &Question<'_>, wanted: &ManyWanted) -> Result<Standing, FetchError> {
        let locked = wanted.resolved.as_deref().map_or("", revision);
        Ok(Standing::of_revision("commit", locked, &self.find(question)?.commit))
    }

    fn answers(&self, question: &Question<'_>, wanted: &ManyWanted) -> Result<Vec<Answer>, FetchError> {
        let at = At::locked(question)?;
        let folder = question.session.work_dir("git").map_err(|e| store(question.name, e))?;
        let brought = self.bring(question, &folder, &at, true);
        question.session.discard(&folder).map_err(|e| store(question.name, e))?;
        brought?;
        Ok(vec![Answer { url: wanted.resolved.clone().unwrap_or_default(), found: Says::Agrees("commit") }])
    }
}

impl At {
    /// The commit that is locked.
    fn locked(question: &Question<'_>) -> Result<At, FetchError> {
        let resolved = question.locked.as_ref().and_then(|locked| locked.resolved);
        let commit = resolved.map(revision).filter(|commit| is_commit(commit)).ok_or_else(|| {
            let hint = Some(format!("run `trainlock update {}`", question.name));
            contents(question.name, "the lock names no commit", hint)
        })?;
        Ok(At { commit: commit.to_owned(), by: None })
    }
}

fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

impl Git<'_> {
    /// The address as git has it.
    fn url(&self) -> &str {
        self.address.as_str().trim_start_matches("git+")
    }

    /// git, with nothing of the caller's repository, for this address alone.
    fn git(&self, folder: Option<&Path>) -> Command {
        let mut command = Command::new("git");
        for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE"] {
            command.env_remove(name);
        }
        command.env("GIT_TERMINAL_PROMPT", "0").env("LC_ALL", "C").stdin(Stdio::null());
        if let Some(folder) = folder {
            command.arg("--git-dir").arg(folder);
        }
        let scheme = self.url().split(':').next().unwrap_or_default();
        let allowed = format!("protocol.{scheme}.allow=always");
        let settings =
            ["protocol.allow=never", &allowed, "core.hooksPath=/dev/null", "transfer.fsckObjects=true", "gc.auto=0"];
        command.args(settings.iter().flat_map(|setting| ["-c", setting]));
        command
    }

    /// The commit that the revision stands for now.
    fn find(&self, question: &Question<'_>) -> Result<At, FetchError> {
        if question.fetcher.settings.offline && self.address.scheme() != "git+file" {
            return Err(FetchError::Offline { name: question.name.to_owned(), url: self.address.to_string() });
        }
        if let Some(commit) = self.rev.filter(|rev| is_commit(rev)) {
            return Ok(At { commit: commit.to_ascii_lowercase(), by: None });
        }
        let mut command = self.git(None);
        command.args(["ls-remote", "--", self.url()]);
        let listed = self.run(question, command)?;
        let refs: Vec<(&str, &str)> =
            listed.lines().filter_map(|line| line.split_once('\t').map(|(oid, name)| (name, oid))).collect();
        let rev = self.rev.unwrap_or("HEAD");
        // Of an annotated tag the commit behind it, which stands beside it.
        let names =
            [format!("refs/tags/{rev}^{{}}"), format!("refs/tags/{rev}"), format!("refs/heads/{rev}"), rev.to_owned()];
        let found = names.iter().find_map(|name| refs.iter().find(|(n, _)| n == name));
        let Some((name, commit)) = found.filter(|(_, oid)| is_commit(oid)) else {
            let short = |name: &str| {
                let name = name.strip_prefix("refs/heads/").or_else(|| name.strip_prefix("refs/tags/"))?;
                (!name.ends_with("^{}")).then(|| name.to_owned())
            };
            let there: Vec<String> = refs.iter().filter_map(|(name, _)| short(name)).collect();
            let near = nearest(rev, there.iter().map(String::as_str)).map(|near| format!("did you mean `{near}`? "));
            let some = there.iter().take(10).cloned().collect::<Vec<_>>().join(", ");
            let hint = match there.is_empty() {
                true => "the repository is empty".to_owned(),
                false => format!("{}it has {some}; a commit is named by all its 40 digits", near.unwrap_or_default()),
            };
            return Err(contents(question.name, format!("the repository has no branch or tag `{rev}`"), Some(hint)));
        };
        Ok(At { commit: (*commit).to_owned(), by: Some(name.trim_end_matches("^{}").to_owned()) })
    }

    /// Brings the commit into a new repository; `bare`: without its files, where the server can leave them out.
    fn bring(&self, question: &Question<'_>, folder: &Path, at: &At, bare: bool) -> Result<(), FetchError> {
        let mut command = self.git(None);
        command.args(["init", "--quiet", "--bare", "--template="]).arg(folder);
        self.run(question, command)?;
        let fetch = |depth: bool, what: &[&str]| {
            let mut command = self.git(Some(folder));
            command.args(["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules"]);
            if depth {
                command.args(["--depth", "1"]);
            }
            if bare {
                command.arg("--filter=tree:0");
            }
            command.args(["--", self.url()]).args(what);
            self.run(question, command)
        };
        let is_there = || {
            let mut command = self.git(Some(folder));
            command.args(["cat-file", "-e", &format!("{}^{{commit}}", at.commit)]);
            self.run(question, command).is_ok()
        };
        let first = fetch(true, &[&at.commit]);
        if first.is_ok() && is_there() {
            return Ok(());
        }
        if let Err(error @ FetchError::Interrupted { .. }) = first {
            return Err(error);
        }
        // Some servers give no commit by its name: then by the ref's, and at last all that there is.
        if let Some(by) = &at.by
            && fetch(true, &[by]).is_ok()
            && is_there()
        {
            return Ok(());
        }
        fetch(false, &["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"])?;
        if is_there() {
            return Ok(());
        }
        let hint = match question.locked {
            Some(_) => format!(
                "its history was rewritten, perhaps; to take what is there now: trainlock update {}",
                question.name
            ),
            None => "name a branch or tag, or another commit".to_owned(),
        };
        Err(contents(question.name, format!("the repository no longer has commit {}", at.commit), Some(hint)))
    }

    /// The chosen files of a commit, as a tree of the store.
    fn tree(&self, question: &Question<'_>, folder: &Path, commit: &str) -> Result<Tree, FetchError> {
        let name = question.name;
        let mut command = self.git(Some(folder));
        command.args(["ls-tree", "-r", "-z", "--long", "--full-tree", commit]);
        let listed = self.run(question, command)?;
        let blobs = chosen(name, &listed, question.chosen)?;
        let broken = |what: String| contents(name, format!("git's answer can't be used: {what}"), None);
        let io = |e: std::io::Error| broken(e.to_string());
        let mut tree = question.session.tree().map_err(|e| store(name, e))?;
        let mut command = self.git(Some(folder));
        command.args(["cat-file", "--batch"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = Ended(command.spawn().map_err(io)?);
        let (Some(mut asks), Some(answers)) = (child.0.stdin.take(), child.0.stdout.take()) else {
            return Err(broken("it has no output".to_owned()));
        };
        let mut answers = BufReader::with_capacity(256 << 10, answers);
        for blob in &blobs {
            if question.fetcher.settings.cancel.is_thrown() {
                return Err(FetchError::Interrupted { name: name.to_owned() });
            }
            writeln!(asks, "{}", blob.oid).and_then(|()| asks.flush()).map_err(io)?;
            let mut head = String::new();
            answers.read_line(&mut head).map_err(io)?;
            let size: u64 = head.trim_end().rsplit(' ').next().and_then(|size| size.parse().ok()).unwrap_or(u64::MAX);
            if size != blob.size || !head.starts_with(&blob.oid) {
                return Err(broken(format!("`{}` for {}", head.trim_end(), blob.path)));
            }
            let mut content = (&mut answers).take(size);
            if blob.mode == "120000" {
                let mut target = String::new();
                content.read_to_string(&mut target).map_err(io)?;
                tree.add_symlink(&blob.path, &target).map_err(|e| put_error(name, e))?;
            } else if size <= LFS_SIZE {
                let mut bytes = Vec::new();
                content.read_to_end(&mut bytes).map_err(io)?;
                if bytes.starts_with(LFS) {
                    let hint = "leave it out by `files`, or name the file's own address: large files of git LFS are not fetched";
                    let reason = format!("`{}` is a pointer of git LFS, not the file itself", blob.path);
                    return Err(contents(name, reason, Some(hint.to_owned())));
                }
                tree.add_file(&blob.path, blob.mode == "100755", &mut bytes.as_slice())
                    .map_err(|e| put_error(name, e))?;
            } else {
                tree.add_file(&blob.path, blob.mode == "100755", &mut content).map_err(|e| put_error(name, e))?;
            }
            let mut end = [0];
            answers.read_exact(&mut end).map_err(io)?;
        }
        tree.finish(None).map_err(|e| put_error(name, e))
    }

    /// Runs git to its end; what it prints.
    fn run(&self, question: &Question<'_>, mut command: Command) -> Result<String, FetchError> {
        let name = question.name;
        let spawned = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = Ended(spawned.map_err(|error| {
            let hint = Some("install git, and have it on PATH".to_owned());
            contents(name, format!("`git` does not start: {error}"), hint)
        })?);
        let read = |pipe: Option<Box<dyn Read + Send>>| {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                let _ = pipe.map(|mut pipe| pipe.read_to_end(&mut bytes));
                bytes
            })
        };
        let out = read(child.0.stdout.take().map(|p| Box::new(p) as _));
        let err = read(child.0.stderr.take().map(|p| Box::new(p) as _));
        let status = child.wait(&question.fetcher.settings.cancel);
        let Some(status) = status.map_err(|e| contents(name, e.to_string(), None))? else {
            return Err(FetchError::Interrupted { name: name.to_owned() });
        };
        let (out, err) = (out.join().unwrap_or_default(), err.join().unwrap_or_default());
        if status.success() {
            return Ok(String::from_utf8_lossy(&out).into_owned());
        }
        // It shows an address of a proxy as it came, and what servers say.
        let text = masked(&String::from_utf8_lossy(&err));
        let text = text.replace(|c: char| c.is_control() && c != '\n', " ");
        let mut lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        lines.drain(..lines.len().saturating_sub(5));
        let reason = if lines.is_empty() { status.to_string() } else { lines.join("; ") };
        Err(contents(name, format!("git says of {}: {reason}", self.url()), None))
    }
}

/// The files of `git ls-tree -r -z --long` that are chosen.
fn chosen(name: &str, listed: &str, chosen: &Chosen) -> Result<Vec<Blob>, FetchError> {
    let wrong = |reason: String, hint: Option<String>| contents(name, reason, hint);
    let mut blobs = Vec::new();
    let mut others = Vec::new();
    for entry in listed.split('\0').filter(|entry| !entry.is_empty()) {
        let fields = entry.split_once('\t').map(|(head, path)| (head.split_whitespace().collect::<Vec<_>>(), path));
        let Some(([mode, kind, oid, size], path)) = fields.as_ref().map(|(head, path)| (&head[..], *path)) else {
            return Err(wrong(format!("git's listing has the line `{}`", entry.escape_debug()), None));
        };
        let parsed = RelPath::parse(path);
        let is_chosen = |path: &RelPath| chosen.has(path);
        if *kind == "commit" {
            // A submodule: what would be in it is chosen by what is chosen below it.
            let inside = parsed
                .as_ref()
                .is_ok_and(|p| is_chosen(p) || RelPath::parse(&format!("{path}/x")).is_ok_and(|p| is_chosen(&p)));
            if inside {
                let hint = "leave it out by `files`, or make the other repository a data set of its own".to_owned();
                return Err(wrong(format!("`{path}` is a submodule, which is not fetched"), Some(hint)));
            }
            continue;
        }
        match parsed {
            Ok(path) if chosen.has(&path) => {
                let size = size.parse().map_err(|_| wrong(format!("git states no size of `{path}`"), None))?;
                blobs.push(Blob { oid: (*oid).to_owned(), mode: (*mode).to_owned(), size, path });
            }
            Ok(path) => others.push(path),
            Err(error) => return Err(wrong(format!("it has a file `{}`: {error}", path.escape_debug()), None)),
        }
    }
    if blobs.is_empty() {
        return Err(chosen.nothing(name, others.iter().map(RelPath::as_str)));
    }
    Ok(blobs)
}

/// A program that ends with its owner.
struct Ended(Child);

impl Ended {
    /// How it ended; nothing, if the user interrupted and it was ended.
    fn wait(&mut self, cancel: &Cancel) -> std::io::Result<Option<ExitStatus>> {
        let mut pause = Duration::from_millis(1);
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(Some(status));
            }
            if cancel.wait(pause) {
                return Ok(None);
            }
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            let _ = self.0.kill();
        }
        let _ = self.0.wait();
    }
}
