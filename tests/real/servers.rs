//! nginx, with http, https and HTTP/2.

use crate::{have, project};
use std::collections::HashSet;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use trainlock_testing::{Ran, TestContext};
use trainlock_types::Digest;

const PASSWORD: &str = "p4ss-w0rd-of-no-one";

/// An nginx that serves its own temporary folder's `data`. It ends when it is dropped.
struct Nginx {
    context: TestContext,
    process: Child,
    http: u16,
    https: u16,
    http2: u16,
}

impl Nginx {
    fn start() -> Nginx {
        let context = TestContext::new("openssl");
        let folder = context.project();
        fs_err::create_dir(folder.join("data")).unwrap();
        certificates(&context);
        let hash = context.run(["passwd", "-apr1", PASSWORD]).expect(0).stdout;
        context.write("passwords", format!("ada:{hash}"));
        let [http, https, http2] = free_ports();
        context.write("nginx.conf", configuration(&folder, [http, https, http2]));
        let mut command = Command::new("nginx");
        command.args(["-e", "error.log", "-c", "nginx.conf", "-p"]).arg(&folder).stdin(Stdio::null());
        let mut process = command.spawn().unwrap();
        let begin = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, https)).is_err() {
            let log = || fs_err::read_to_string(folder.join("error.log")).unwrap_or_default();
            assert!(process.try_wait().unwrap().is_none(), "nginx ended: {}", log());
            assert!(begin.elapsed() < Duration::from_secs(20), "nginx does not listen: {}", log());
            std::thread::yield_now();
        }
        Nginx { context, process, http, https, http2 }
    }

    fn serve(&self, name: &str, body: impl AsRef<[u8]>) {
        self.context.write(&format!("data/{name}"), body);
    }

    fn http(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.http)
    }

    fn https(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.https)
    }

    fn authority(&self) -> PathBuf {
        self.context.project().join("ca.pem")
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Ports of the loopback interface that nobody has at this moment.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

/// An authority of the test's own, and a server's certificate signed by it.
pub(crate) fn certificates(context: &TestContext) {
    let key = |name: &str| format!("-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key");
    let openssl = |line: &str| drop(context.run(line.split(' ')).expect(0));
    openssl(&format!("req -x509 {} -out ca.pem -days 2 -subj /CN=authority", key("ca")));
    openssl(&format!("req {} -out server.csr -subj /CN=localhost", key("server")));
    context.write("names", "subjectAltName=DNS:localhost,IP:127.0.0.1\n");
    openssl("x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 2 -extfile names");
}

fn configuration(folder: &Path, [http, https, http2]: [u16; 3]) -> String {
    let folder = folder.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("{what}_temp_path {folder}/tmp-{what};\n"))
        .concat();
    format!(
        "daemon off; master_process off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
  log_format own '$connection $server_protocol $status \"$request\"';
  access_log {folder}/access.log own; default_type application/octet-stream; root {folder}/data;
  {temporary}
  server {{
    listen 127.0.0.1:{http};
    location /up/ {{ return 302 https://localhost:{https}/raw.csv; }}
  }}
  server {{
    listen 127.0.0.1:{https} ssl; ssl_certificate {folder}/server.pem; ssl_certificate_key {folder}/server.key;
    location /auth/ {{ alias {folder}/data/; auth_basic \"members\"; auth_basic_user_file {folder}/passwords; }}
    location /down/ {{ return 302 http://127.0.0.1:{http}/raw.csv; }}
    location /here/ {{ return 301 /raw.csv; }}
  }}
  server {{
    listen 127.0.0.1:{http2} ssl http2; ssl_certificate {folder}/server.pem; ssl_certificate_key {folder}/server.key;
    keepalive_requests 100;
  }}
}}
"
    )
}

/// A project whose one step copies one data set.
fn one(url: &str) -> TestContext {
    project(&format!(
        "[data]\nraw = {{ url = \"{url}\", to = \"data/raw.csv\" }}\n[steps.s]\nrun = \"cp {{data.raw}} out\"\ninputs = [\"data/raw.csv\"]\noutputs = [\"out\"]\n"
    ))
}

#[test]
fn locked_fetched_by_a_teammate_and_changed_upstream() {
    if !have(&["nginx", "openssl"]) {
        return;
    }
    let nginx = Nginx::start();
    let body: Vec<u8> = (0..3_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    nginx.serve("raw.csv", &body);
    let context = one(&nginx.http("/raw.csv"));
    context.run(["lock"]).expect(0);
    let lock = context.read("train.lock");
    assert!(lock.contains(&Digest::of(&body).to_hex()) && lock.contains("size = 3000000"), "{lock}");
    fs_err::remove_dir_all(context.store()).unwrap();
    context.run(["fetch", "--locked"]).expect(0);
    context.run(["train", "--frozen"]).expect(0);
    assert!(context.read_bytes("out") == body);
    let log = || nginx.context.read("access.log");
    assert_eq!(log().lines().filter(|line| line.contains("GET /raw.csv")).count(), 2, "{}", log());

    let mut changed = body.clone();
    changed[1_500_000] ^= 1;
    nginx.serve("raw.csv", &changed);
    fs_err::remove_dir_all(context.store()).unwrap();
    fs_err::remove_file(context.project().join("out")).unwrap();
    let failed = context.run(["train", "--locked"]).expect(4);
    for words in ["`raw`", &Digest::of(&body).to_hex(), &Digest::of(&changed).to_hex(), &nginx.http("/raw.csv")] {
        assert!(failed.stderr.contains(words), "{words}\n{}", failed.stderr);
    }
    assert!(!context.has("out"));
    context.run(["store", "verify"]).expect(0);
    nginx.serve("raw.csv", &body);
    context.run(["train", "--locked"]).expect(0);

    let gone = one(&nginx.http("/none.csv"));
    let failed = gone.run(["lock"]).expect(1);
    assert!(failed.stderr.contains("404"), "{}", failed.stderr);
}

#[test]
fn certificates_and_redirects() {
    if !have(&["nginx", "openssl"]) {
        return;
    }
    let nginx = Nginx::start();
    nginx.serve("raw.csv", "1,2,3\n");
    let trusting =
        |context: &TestContext, args: &[&str]| Ran::of(context.command(args).env("SSL_CERT_FILE", nginx.authority()));
    let context = one(&nginx.https("/raw.csv"));
    let failed = context.run(["lock", "--config", "fetch.retries=0"]).expect(1);
    assert!(failed.stderr.to_lowercase().contains("certificate"), "{}", failed.stderr);
    assert!(!context.has("train.lock"));
    trusting(&context, &["train"]).expect(0);
    assert_eq!(context.read("out"), "1,2,3\n");

    for (url, code) in [(nginx.http("/up/x"), 0), (nginx.https("/here/x"), 0), (nginx.https("/down/x"), 1)] {
        let context = one(&url);
        let ran = trusting(&context, &["train", "--config", "fetch.retries=0"]).expect(code);
        assert!(code == 0 || ran.stderr.contains("http://127.0.0.1"), "{}", ran.stderr);
        assert_eq!(context.has("out"), code == 0, "{url}");
        // What is locked is the address that was asked for, not where it led.
        assert!(code != 0 || context.read("train.lock").contains(&format!("\"{url}\"")), "{url}");
    }
}

#[test]
fn a_password_from_netrc_goes_to_the_server_and_nowhere_else() {
    if !have(&["nginx", "openssl"]) {
        return;
    }
    let nginx = Nginx::start();
    nginx.serve("raw.csv", "1,2,3\n");
    let context = one(&nginx.https("/auth/raw.csv"));
    let run = |args: &[&str]| Ran::of(context.command(args).env("SSL_CERT_FILE", nginx.authority()));
    let failed = run(&["lock"]).expect(1);
    assert!(failed.stderr.contains("401") && failed.stderr.contains("netrc"), "{}", failed.stderr);
    let netrc = context.home().join(".netrc");
    fs_err::write(&netrc, "machine localhost login ada password wrong\n").unwrap();
    let failed = run(&["lock"]).expect(1);
    assert!(failed.stderr.contains("401") && !failed.stderr.contains("wrong"), "{}", failed.stderr);
    fs_err::write(&netrc, format!("machine localhost login ada password {PASSWORD}\n")).unwrap();
    let mut printed = String::new();
    for args in [&["-v", "train"][..], &["-v", "train", "--force", "--json"], &["runs", "show"], &["metadata"]] {
        let ran = run(args).expect(0);
        printed.push_str(&(ran.stdout + &ran.stderr));
    }
    nginx.serve("raw.csv", "changed");
    fs_err::remove_dir_all(context.store()).unwrap();
    printed.push_str(&run(&["fetch", "--locked"]).expect(4).stderr);
    assert!(!printed.contains(PASSWORD), "{printed}");
    fs_err::remove_file(netrc).unwrap();
    for file in files(context.root()) {
        let bytes = fs_err::read(&file).unwrap();
        let found = bytes.windows(PASSWORD.len()).any(|window| window == PASSWORD.as_bytes());
        assert!(!found, "the password is in {}", file.display());
    }
}

#[test]
fn many_files_share_a_connection_that_speaks_http_2() {
    if !have(&["nginx", "openssl"]) {
        return;
    }
    let nginx = Nginx::start();
    let body = |i: usize| format!("{i}\n").repeat(1 + i * 40);
    let mut manifest = "[data]\n".to_owned();
    for i in 0..300 {
        nginx.serve(&format!("{i}.csv"), body(i));
        let url = format!("https://localhost:{}/{i}.csv", nginx.http2);
        manifest.push_str(&format!("d{i} = {{ url = \"{url}\", to = \"data/{i}.csv\" }}\n"));
    }
    let context = project(&manifest);
    let run = |args: &[&str]| Ran::of(context.command(args).env("SSL_CERT_FILE", nginx.authority()));
    run(&["lock"]).expect(0);
    fs_err::remove_dir_all(context.store()).unwrap();
    nginx.context.write("access.log", "");
    run(&["fetch", "--locked", "--link"]).expect(0);
    for i in 0..300 {
        assert!(context.read(&format!("data/{i}.csv")) == body(i), "{i}");
    }
    let log = nginx.context.read("access.log");
    assert!(log.lines().all(|line| line.contains(" HTTP/2.0 200 ")), "{log}");
    // The server ends a connection after 100 answers, which costs none of the files.
    assert!(log.lines().count() >= 300, "{log}");
    let connections: HashSet<&str> = log.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(connections.len() <= 40, "{} connections", connections.len());
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let below = |entry: fs_err::DirEntry| {
        if entry.path().is_dir() { files(&entry.path()) } else { vec![entry.path()] }
    };
    fs_err::read_dir(folder).unwrap().flat_map(|entry| below(entry.unwrap())).collect()
}
