//! Data of git repositories from real servers: git's own http backend behind nginx, with TLS and a password, and sshd.

use crate::servers::{certificates, free_ports};
use crate::{have, write_manifest};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use trainlock_testing::{Ran, TestContext};
use trainlock_types::Digest;

const PASSWORD: &str = "p4ss-w0rd-of-no-one";

/// A server that ends when it is dropped.
pub(crate) struct Server(Child);

impl Server {
    pub(crate) fn start(command: &mut Command) -> Server {
        Server(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
    }

    /// Waits until it listens, or has made its socket.
    pub(crate) fn ready(&mut self, log: &Path, is_ready: impl Fn() -> bool) {
        let begin = Instant::now();
        while !is_ready() {
            let log = || fs_err::read_to_string(log).unwrap_or_default();
            assert!(self.0.try_wait().unwrap().is_none(), "the server ended: {}", log());
            assert!(begin.elapsed() < Duration::from_secs(60), "the server does not listen: {}", log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn listens(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}

pub(crate) fn git(folder: &Path, args: &[&str]) -> String {
    let mut command = Command::new("git");
    command.args(["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"]);
    command.args(args).current_dir(folder).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    Ran::of(&mut command).expect(0).stdout.trim().to_owned()
}

/// A repository that is served, and where its owner works.
struct Upstream {
    bare: PathBuf,
    work: PathBuf,
}

impl Upstream {
    fn new(folder: &Path) -> Upstream {
        let (bare, work) = (folder.join("repos/lexicon.git"), folder.join("work"));
        for folder in [&bare, &work] {
            fs_err::create_dir_all(folder).unwrap();
        }
        git(&bare, &["init", "-q", "--bare"]);
        git(&work, &["init", "-q"]);
        git(&work, &["remote", "add", "origin", &bare.to_string_lossy()]);
        Upstream { bare, work }
    }

    /// Publishes this text on `main`, after what is there or in its place; the commit.
    fn publish(&self, text: &str, rewrites: bool) -> String {
        fs_err::create_dir_all(self.work.join("en")).unwrap();
        fs_err::write(self.work.join("en/words.txt"), text).unwrap();
        fs_err::write(self.work.join("other.txt"), "not wanted\n").unwrap();
        git(&self.work, &["add", "-A"]);
        let how: &[&str] = if rewrites { &["commit", "-q", "--amend", "-m"] } else { &["commit", "-q", "-m"] };
        git(&self.work, &[how, &[text]].concat());
        git(&self.work, &["push", "-q", "--force", "origin", "main"]);
        git(&self.work, &["rev-parse", "HEAD"])
    }

    /// Forgets what no branch leads to.
    fn forget(&self) {
        git(&self.bare, &["reflog", "expire", "--expire=now", "--all"]);
        git(&self.bare, &["gc", "-q", "--prune=now"]);
    }
}

/// Locks the repository at `url`, and follows it through what its owner does.
fn story(context: &TestContext, upstream: &Upstream, url: &str, run: &dyn Fn(&[&str]) -> Ran) {
    let first = upstream.publish("one\n", false);
    write_manifest(context, &format!("[data]\nlexicon = {{ url = \"{url}\", rev = \"main\", files = [\"en/**\"] }}\n"));
    let empty = || fs_err::remove_dir_all(context.store()).unwrap();
    let fetched = |text: &str| {
        empty();
        run(&["fetch", "--locked", "--link"]).expect(0);
        assert_eq!(context.read("data/lexicon/en/words.txt"), text);
        assert!(!context.has("data/lexicon/other.txt"));
    };

    run(&["lock"]).expect(0);
    let lock = context.read("train.lock");
    assert!(lock.contains(&first) && lock.contains("en/words.txt") && !lock.contains("other.txt"), "{lock}");
    fetched("one\n");
    // Locked again from nothing, it is the same.
    fs_err::remove_file(context.project().join("train.lock")).unwrap();
    empty();
    run(&["lock"]).expect(0);
    assert_eq!(context.read("train.lock"), lock);
    let audit = run(&["audit"]).expect(0);
    assert!(audit.stdout.contains("1 address answers as is locked"), "{}", audit.stdout);

    // The branch moves: nothing changes until it is asked for.
    let second = upstream.publish("two\n", false);
    run(&["lock", "--check"]).expect(0);
    fetched("one\n");
    let outdated = run(&["outdated"]).expect(0);
    let words = format!("{} -> {}", &first[..12], &second[..12]);
    assert!(outdated.stdout.contains(&words), "{}{}", outdated.stdout, outdated.stderr);
    run(&["update", "lexicon"]).expect(0);
    assert!(context.read("train.lock").contains(&second));
    fetched("two\n");

    // Its history is rewritten, and what was locked is gone.
    let third = upstream.publish("three\n", true);
    upstream.forget();
    empty();
    let gone = run(&["fetch", "--locked"]).expect(1);
    for words in ["`lexicon`", "no longer has commit", &second, "trainlock update lexicon"] {
        assert!(gone.stderr.contains(words), "{words}\n{}", gone.stderr);
    }
    let audit = run(&["audit", "--strict"]).expect(1);
    assert!(audit.stdout.contains("no longer has commit"), "{}", audit.stdout);
    run(&["update", "lexicon"]).expect(0);
    assert!(context.read("train.lock").contains(&third));
    fetched("three\n");
}

#[test]
fn git_over_https_with_a_password_and_an_authority_of_ones_own() {
    if !have(&["nginx", "openssl", "git", "/usr/sbin/fcgiwrap"]) {
        return;
    }
    let place = TestContext::new("openssl");
    let folder = place.project();
    certificates(&place);
    let hash = place.run(["passwd", "-apr1", PASSWORD]).expect(0).stdout;
    place.write("passwords", format!("ada:{hash}"));
    let upstream = Upstream::new(&folder);
    let [port] = free_ports();
    let backend = format!("{}/git-http-backend", git(&folder, &["--exec-path"]));
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("{what}_temp_path {}/tmp-{what};\n", folder.display()))
        .concat();
    let at = folder.display();
    place.write(
        "nginx.conf",
        format!(
            "daemon off; master_process off; worker_processes 1; pid {at}/nginx.pid; error_log {at}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log {at}/access.log;
  {temporary}
  server {{
    listen 127.0.0.1:{port} ssl; ssl_certificate {at}/server.pem; ssl_certificate_key {at}/server.key;
    location ~ ^/git(/.*)$ {{
      auth_basic \"members\"; auth_basic_user_file {at}/passwords;
      fastcgi_pass unix:{at}/backend.sock;
      fastcgi_param SCRIPT_FILENAME {backend};
      fastcgi_param GIT_PROJECT_ROOT {at}/repos;
      fastcgi_param GIT_HTTP_EXPORT_ALL 1;
      fastcgi_param PATH_INFO $1;
      fastcgi_param QUERY_STRING $query_string;
      fastcgi_param REQUEST_METHOD $request_method;
      fastcgi_param CONTENT_TYPE $content_type;
      fastcgi_param CONTENT_LENGTH $content_length;
      fastcgi_param HTTP_CONTENT_ENCODING $http_content_encoding;
      fastcgi_param HTTP_GIT_PROTOCOL $http_git_protocol;
      fastcgi_param REMOTE_USER $remote_user;
    }}
  }}
}}
"
        ),
    );
    let socket = folder.join("backend.sock");
    let log = folder.join("error.log");
    let mut wrap = Command::new("/usr/sbin/fcgiwrap");
    // One process: the others of several would outlive the one that is ended.
    wrap.args(["-s", &format!("unix:{}", socket.display())]).env("HOME", &folder);
    let mut wrap = Server::start(&mut wrap);
    wrap.ready(&log, || socket.exists());
    let mut nginx = Command::new("nginx");
    nginx.args(["-e", "error.log", "-c", "nginx.conf", "-p"]).arg(&folder);
    let mut nginx = Server::start(&mut nginx);
    nginx.ready(&log, || listens(port));

    let context = TestContext::new(env!("CARGO_BIN_EXE_trainlock"));
    let run = |args: &[&str]| context.run(args);
    let url = format!("git+https://localhost:{port}/git/lexicon.git");
    upstream.publish("zero\n", false);
    write_manifest(&context, &format!("[data]\nlexicon = {{ url = \"{url}\", rev = \"main\" }}\n"));
    // An authority that nobody knows, then a server that wants a password: refused, and nobody is asked at a terminal.
    let refused = run(&["lock"]).expect(1);
    assert!(refused.stderr.contains("certificate"), "{}", refused.stderr);
    let trust = format!("[http]\n\tsslCAInfo = {}\n", folder.join("ca.pem").display());
    fs_err::write(context.home().join(".gitconfig"), trust).unwrap();
    let refused = run(&["lock"]).expect(1);
    assert!(refused.stderr.contains("could not read Username"), "{}", refused.stderr);
    assert!(!context.has("train.lock"));

    let netrc = context.home().join(".netrc");
    fs_err::write(&netrc, format!("machine localhost login ada password {PASSWORD}\n")).unwrap();
    story(&context, &upstream, &url, &run);
    let log = fs_err::read_to_string(folder.join("access.log")).unwrap();
    assert!(log.contains("- ada [") && log.contains("git-upload-pack"), "{log}");
    assert!(!context.read("train.lock").contains(PASSWORD) && !context.read("train.lock").contains("ada"));
    for args in [&["outdated", "--json"][..], &["audit", "--json"], &["metadata"]] {
        let ran = run(args);
        assert!(!ran.stdout.contains(PASSWORD) && !ran.stderr.contains(PASSWORD), "{args:?}");
    }

    // A description whose files lie in it.
    let page = format!("https://localhost:{port}/git/lexicon.git/tree/main");
    let describe = |includes: &str, more: &str| {
        let text = format!(
            r#"{{"distribution": [
  {{"@type": "cr:FileObject", "@id": "repo", "contentUrl": "{page}", "encodingFormat": "git+https"}},
  {{"@type": "cr:FileSet", "@id": "set", "containedIn": {{"@id": "repo"}}, "includes": "{includes}", "excludes": "*other*"}}{more}]}}"#
        );
        context.write("lexicon.json", text);
    };
    let file = |hash: &str| {
        format!(
            r#", {{"@type": "cr:FileObject", "@id": "words", "containedIn": {{"@id": "repo"}}, "contentUrl": "en/words.txt", {hash}}}"#
        )
    };
    let sha256 = |text: &str| format!("\"sha256\": \"{}\"", Digest::of(text.as_bytes()).to_hex());
    let fourth = upstream.publish("four\n", false);
    write_manifest(&context, "[data]\nlexicon = { croissant = \"lexicon.json\" }\n");
    describe("*.txt", "");
    run(&["lock"]).expect(0);
    let lock = context.read("train.lock");
    assert!(
        lock.contains(&format!("{url}@{fourth}")) && lock.contains("words.txt") && !lock.contains("other"),
        "{lock}"
    );
    let fifth = upstream.publish("five\n", false);
    fs_err::remove_dir_all(context.store()).unwrap();
    run(&["fetch", "--locked", "--link"]).expect(0);
    assert_eq!(context.read("data/lexicon/en/words.txt"), "four\n");
    let outdated = run(&["outdated"]).expect(0);
    assert!(outdated.stdout.contains(&format!("{} -> {}", &fourth[..12], &fifth[..12])), "{}", outdated.stdout);
    run(&["update"]).expect(0);
    assert!(context.read("train.lock").contains(&fifth));
    // What it states of a file is checked.
    for (hash, code, words) in [
        (sha256("five\n"), 0, ""),
        (sha256("four\n"), 4, "expected sha256"),
        ("\"md5\": \"d861877da56b8b4ceb35c8cbfdf65bb4\"".to_owned(), 1, "states an MD5 alone"),
    ] {
        describe("*.txt", &file(&hash));
        let ran = run(&["lock"]).expect(code);
        assert!(ran.stderr.contains(words), "{words}\n{}", ran.stderr);
    }
    describe("*.csv", "");
    let ran = run(&["lock"]).expect(1);
    assert!(ran.stderr.contains("no file matches *.csv"), "{}", ran.stderr);
}

#[test]
fn git_over_ssh() {
    if !have(&["/usr/sbin/sshd", "ssh", "ssh-keygen", "git"]) {
        return;
    }
    let place = TestContext::new("ssh-keygen");
    let folder = place.project();
    for key in ["host_key", "user_key"] {
        place.run(["-q", "-t", "ed25519", "-N", "", "-f", key]).expect(0);
    }
    let upstream = Upstream::new(&folder);
    let [port] = free_ports();
    let at = folder.display();
    place.write("authorized_keys", place.read("user_key.pub"));
    place.write(
        "sshd_config",
        format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {at}/host_key\nAuthorizedKeysFile {at}/authorized_keys\nPidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\n"
        ),
    );
    let host = place.read("host_key.pub");
    place.write("known_hosts", format!("[127.0.0.1]:{port} {host}"));
    // ssh looks for its files in the account's own home folder, whatever HOME says.
    let ssh = |key: &str| {
        format!(
            "ssh -F none -o BatchMode=yes -o IdentitiesOnly=yes -o UserKnownHostsFile={at}/known_hosts -i {at}/{key}"
        )
    };
    // Run by root, sshd wants an empty folder of its own, which the service makes; another user's does without.
    let _ = fs_err::create_dir("/run/sshd");
    let log = folder.join("sshd.log");
    let mut command = Command::new("/usr/sbin/sshd");
    command.args(["-D", "-f"]).arg(folder.join("sshd_config")).arg("-E").arg(&log);
    let mut server = Server::start(&mut command);
    server.ready(&log, || listens(port));

    let context = TestContext::new(env!("CARGO_BIN_EXE_trainlock"));
    let run_with = |key: &str, args: &[&str]| Ran::of(context.command(args).env("GIT_SSH_COMMAND", ssh(key)));
    let user = Ran::of(Command::new("id").arg("-un")).expect(0).stdout;
    let url = format!("git+ssh://{}@127.0.0.1:{port}{}", user.trim(), upstream.bare.display());
    upstream.publish("zero\n", false);
    write_manifest(&context, &format!("[data]\nlexicon = {{ url = \"{url}\", rev = \"main\" }}\n"));
    // A key that the server does not know.
    let refused = run_with("host_key", &["lock"]).expect(1);
    assert!(refused.stderr.contains("Permission denied"), "{}", refused.stderr);
    story(&context, &upstream, &url, &|args| run_with("user_key", args));
}
