//! A package index on loopback (PEP 503 and 691), with packages that the test makes, and uv out of the real one.

use crate::have;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;
use trainlock_testing::{Ran, TestContext, as_configured, skipped};
use trainlock_types::{Digest, Platform};

/// What an index says of a file, and what it gives for it.
#[derive(Clone)]
pub(crate) struct File {
    pub(crate) bytes: Arc<Vec<u8>>,
    /// The digest that the listing states.
    pub(crate) sha256: Option<String>,
    /// The size that the listing states.
    pub(crate) size: Option<usize>,
    /// Why it was withdrawn.
    pub(crate) yanked: Option<&'static str>,
}

#[derive(Default)]
struct State {
    /// Files by package and name.
    packages: BTreeMap<String, BTreeMap<String, File>>,
    /// `user:password`, where the index wants them.
    login: Option<String>,
    /// Whether it lists in HTML alone.
    html: bool,
    /// What was asked for.
    requests: Vec<String>,
    /// The bytes of files that were sent.
    sent: usize,
}

/// uv's wheel: its name and bytes.
pub(crate) type UvWheel = (String, Arc<Vec<u8>>);

/// A package index. It ends when it is dropped.
pub(crate) struct Index {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    ended: Arc<AtomicBool>,
    listener: Option<JoinHandle<()>>,
}

impl Index {
    /// One that has nothing but uv.
    pub(crate) fn start(uv: &UvWheel) -> Index {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = socket.local_addr().unwrap();
        let (state, ended) = (Arc::new(Mutex::new(State::default())), Arc::new(AtomicBool::new(false)));
        let (shared, stop) = (Arc::clone(&state), Arc::clone(&ended));
        let listener = std::thread::spawn(move || {
            for connection in socket.incoming() {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                let state = Arc::clone(&shared);
                std::thread::spawn(move || connection.map(|c| answer(c, &state)));
            }
        });
        let index = Index { address, state, ended, listener: Some(listener) };
        index.add("uv", &uv.0, Arc::clone(&uv.1));
        index
    }

    /// Its address, with `user:password@` in front of the host if there is one.
    pub(crate) fn url(&self, login: &str) -> String {
        format!("http://{login}{}/simple", self.address)
    }

    /// Its port, which no file may name.
    pub(crate) fn port(&self) -> String {
        self.address.port().to_string()
    }

    /// Adds a file, listed as it is.
    pub(crate) fn add(&self, package: &str, name: &str, bytes: Arc<Vec<u8>>) {
        let (sha256, size) = (Some(Digest::of(&bytes).to_hex()), Some(bytes.len()));
        self.put(package, name, File { bytes, sha256, size, yanked: None });
    }

    pub(crate) fn put(&self, package: &str, name: &str, file: File) {
        let mut state = self.state.lock().unwrap();
        state.packages.entry(package.to_owned()).or_default().insert(name.to_owned(), file);
    }

    /// Changes a file.
    pub(crate) fn change(&self, package: &str, name: &str, change: impl FnOnce(&mut File)) {
        change(self.state.lock().unwrap().packages.get_mut(package).unwrap().get_mut(name).unwrap());
    }

    /// Takes a file away.
    pub(crate) fn delete(&self, package: &str, name: &str) {
        self.state.lock().unwrap().packages.get_mut(package).unwrap().remove(name).unwrap();
    }

    /// Wants `user:password` from now on.
    pub(crate) fn lock_with(&self, login: &str) {
        self.state.lock().unwrap().login = Some(login.to_owned());
    }

    /// Lists in HTML alone, as simple indexes do.
    pub(crate) fn html_only(&self) {
        self.state.lock().unwrap().html = true;
    }

    /// What was asked for since the last question.
    pub(crate) fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }
}

impl Index {
    /// The bytes of files that were sent since the last question.
    pub(crate) fn sent(&self) -> usize {
        std::mem::take(&mut self.state.lock().unwrap().sent)
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // The listener looks up when someone comes.
        let _ = TcpStream::connect(self.address);
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}

/// Answers one request and closes.
fn answer(mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut lines = Vec::new();
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        match line.trim_end() {
            "" => break,
            text => lines.push(text.to_owned()),
        }
    }
    let head = lines.first().cloned().unwrap_or_default();
    let (method, path) = head.split_once(' ').unwrap_or_default();
    let path = path.split(' ').next().unwrap_or_default().to_owned();
    let header = |name: &str| {
        let found =
            lines.iter().filter_map(|line| line.split_once(':')).find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.trim().to_owned())
    };
    let (status, media, body) = {
        let mut state = state.lock().unwrap();
        state.requests.push(path.clone());
        let wanted = state.login.as_ref().map(|login| format!("Basic {}", base64(login.as_bytes())));
        if wanted.is_some() && header("authorization") != wanted {
            (401, "text/plain", Arc::new(Vec::new()))
        } else {
            page(&state, &path, header("accept").unwrap_or_default())
        }
    };
    // A part is given where one byte is asked for.
    let whole = body.len();
    let (status, body) = match header("range").as_deref() {
        Some("bytes=0-0") if status == 200 && whole > 1 => (206, Arc::new(body[..1].to_vec())),
        _ => (status, body),
    };
    if path.starts_with("/files/") && method != "HEAD" {
        state.lock().unwrap().sent += body.len();
    }
    let part = if status == 206 { format!("Content-Range: bytes 0-0/{whole}\r\n") } else { String::new() };
    let challenge = if status == 401 { "WWW-Authenticate: Basic realm=\"index\"\r\n" } else { "" };
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status} Told\r\nConnection: close\r\nContent-Type: {media}\r\nContent-Length: {length}\r\n{part}{challenge}\r\n"
    )?;
    if method != "HEAD" {
        stream.write_all(&body)?;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    // Unread bytes would turn the end into a reset.
    stream.read_to_end(&mut Vec::new()).map(drop)
}

fn page(state: &State, path: &str, accept: String) -> (u16, &'static str, Arc<Vec<u8>>) {
    let missing = (404, "text/plain", Arc::new(Vec::new()));
    if let Some(package) = path.strip_prefix("/simple/") {
        let Some(files) = state.packages.get(package.trim_end_matches('/')) else { return missing };
        if accept.contains("json") && !state.html {
            let file = |(name, file): (&String, &File)| {
                let mut listed = serde_json::json!({ "filename": name, "url": format!("/files/{name}"), "hashes": {} });
                if let Some(sha256) = &file.sha256 {
                    listed["hashes"]["sha256"] = sha256.clone().into();
                }
                if let Some(size) = file.size {
                    listed["size"] = size.into();
                }
                listed["yanked"] = file.yanked.map_or(false.into(), Into::into);
                listed
            };
            let files: Vec<_> = files.iter().map(file).collect();
            let listing = serde_json::json!({ "meta": { "api-version": "1.1" }, "name": "x", "files": files });
            return (200, "application/vnd.pypi.simple.v1+json", Arc::new(listing.to_string().into_bytes()));
        }
        let link = |(name, file): (&String, &File)| {
            let hash = file.sha256.as_ref().map(|hex| format!("#sha256={hex}")).unwrap_or_default();
            let yanked = file.yanked.map(|why| format!(" data-yanked=\"{why}\"")).unwrap_or_default();
            format!("<a href=\"../../files/{name}{hash}\"{yanked}>{name}</a>\n")
        };
        let links: String = files.iter().map(link).collect();
        return (
            200,
            "text/html",
            Arc::new(format!("<!DOCTYPE html><html><body>\n{links}</body></html>").into_bytes()),
        );
    }
    let name = path.strip_prefix("/files/").map(|name| name.replace("%2B", "+")).unwrap_or_default();
    match state.packages.values().find_map(|files| files.get(&name)) {
        Some(file) => (200, "application/octet-stream", Arc::clone(&file.bytes)),
        None => missing,
    }
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0_u32, |bits, b| bits << 8 | u32::from(*b)) << (8 * (3 - group.len()));
        for i in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * i)) as usize & 63] as char;
            text.push(if i <= group.len() { letter } else { '=' });
        }
    }
    text
}

/// A wheel with this name whose module (the package's own) says its version; `requires` are its dependencies.
pub(crate) fn wheel(folder: &Path, file: &str, requires: &[&str]) -> Arc<Vec<u8>> {
    const MAKE: &str = r#"
import base64, hashlib, sys, zipfile
path, file, requires = sys.argv[1], sys.argv[2], sys.argv[3:]
name, version, tags = file[:-4].split('-', 2)
info = f'{name}-{version}.dist-info'
needs = ''.join(f'Requires-Dist: {r}\n' for r in requires)
files = {
    f'{name}/__init__.py': f'__version__ = {version!r}\n',
    f'{info}/METADATA': f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}',
    f'{info}/WHEEL': f'Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tags}\n',
    f'{info}/entry_points.txt': f'[console_scripts]\nsay-{name} = {name}:__version__.__str__\n',
}
record = ''
with zipfile.ZipFile(path, 'w') as archive:
    for at, text in files.items():
        archive.writestr(zipfile.ZipInfo(at), text)
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip('=')
        record += f'{at},sha256={digest},{len(text)}\n'
    archive.writestr(zipfile.ZipInfo(f'{info}/RECORD'), record + f'{info}/RECORD,,\n')
"#;
    let path = folder.join(file);
    let made = Command::new("python3").args(["-c", MAKE]).arg(&path).arg(file).args(requires).status().unwrap();
    assert!(made.success());
    Arc::new(fs_err::read(path).unwrap())
}

/// uv's wheel for this machine, out of the real package index as the machine is configured for it; none (and said so) where
/// that can't be reached.
pub(crate) fn uv() -> Option<UvWheel> {
    static UV: OnceLock<Option<UvWheel>> = OnceLock::new();
    if !have(&["python3"]) {
        return None;
    }
    let found = UV.get_or_init(|| {
        let context = TestContext::new(env!("CARGO_BIN_EXE_trainlock"));
        let host = Platform::host();
        let manifest = format!("[project]\nname = \"u\"\n[workspace]\nplatforms = [\"{host}\"]\n[tools]\nuv = \"*\"\n");
        context.write("train.toml", manifest);
        let mut command = context.command(["lock"]);
        as_configured(&mut command);
        let ran = Ran::of(&mut command);
        if ran.code != Some(0) {
            return None;
        }
        let lock = trainlock_lock::Lock::load(&context.project().join("train.lock")).unwrap().unwrap();
        let file = &lock.tools[0].artifacts[&host].file;
        let store = trainlock_store::Store::open(&context.store()).unwrap();
        let object = store.object(&file.sha256, Some(file.size)).unwrap().unwrap();
        Some((file.file.clone(), Arc::new(fs_err::read(object).unwrap())))
    });
    if found.is_none() {
        skipped("no package index can be reached to get uv from", true);
    }
    found.clone()
}
