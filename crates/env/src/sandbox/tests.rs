//! The hard cases, in every tier that this machine offers.

use super::{Access, Bind, Guarantee, Hub, HubFile, Refusal, Repository, Sandbox, Tier, init, probe_all};
use crate::process::{Ended, Invocation, ProcessError, Stop, run};
use crate::{Cancel, Stage};
use fs_err as fs;
use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;
use trainlock_types::{Digest, RelPath};

/// Before the test harness begins, this program looks whether it is to be a step's init, as trainlock does in its `main`.
#[used]
#[unsafe(link_section = ".init_array")]
#[expect(unsafe_code, reason = "the harness owns main, and a program's constructors run before it")]
static ASKED: extern "C" fn(i32, *const *const libc::c_char) = {
    extern "C" fn asked(count: i32, arguments: *const *const libc::c_char) {
        if count > 0 {
            // SAFETY: the C library hands over argc and argv.
            let name = unsafe { CStr::from_ptr(*arguments) };
            init::main_if_named(Some(OsStr::from_bytes(name.to_bytes())));
        }
    }
    asked
};

/// The tiers with walls that work here.
fn tiers() -> &'static [Tier] {
    static TIERS: OnceLock<Vec<Tier>> = OnceLock::new();
    TIERS.get_or_init(|| {
        let scratch = tempfile::tempdir().unwrap();
        let probe = probe_all(scratch.path());
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
        let works = |t: &&super::Trial| t.stopped.is_none() && t.tier != Tier::None;
        let tiers: Vec<Tier> = probe.trials.iter().filter(works).map(|t| t.tier).collect();
        assert!(!tiers.is_empty(), "{probe:?}");
        tiers
    })
}

/// A project with an input, a hard link of an object of the store, in the folder of its output.
struct Place {
    folder: tempfile::TempDir,
    object: PathBuf,
    sandbox: Sandbox,
}

const OBJECT: &str = "from the store";

fn place(tier: Tier) -> Place {
    let folder = tempfile::Builder::new().prefix("a folder, größer\n").tempdir().unwrap();
    let work = folder.path().join("work");
    fs::create_dir(&work).unwrap();
    let object = folder.path().join("object");
    fs::write(&object, OBJECT).unwrap();
    fs::set_permissions(&object, PermissionsExt::from_mode(0o444)).unwrap();
    fs::write(folder.path().join("secret"), "secret").unwrap();
    let stage = Stage::new(work.clone(), &RelPath::root()).unwrap();
    let path = |p: &str| RelPath::parse(p).unwrap();
    for input in ["out/in put.txt", "data/ä.txt"] {
        fs::hard_link(&object, stage.place(&path(input)).unwrap()).unwrap();
    }
    fs::create_dir(stage.path(&path("out/sub"))).unwrap();
    fs::hard_link(&object, stage.path(&path("out/sub/x"))).unwrap();
    stage.write("params.json", "{}").unwrap();
    let mut sandbox = Sandbox::new(tier, work, "digits");
    sandbox.writable = vec![path("out")];
    Place { folder, object, sandbox }
}

impl Place {
    fn invocation(&self, program: &str, arguments: &[&str]) -> Invocation {
        let paths = self.sandbox.paths();
        let mut environment = paths.variables();
        environment.insert("SECRET".to_owned(), self.folder.path().join("secret").to_str().unwrap().to_owned());
        Invocation {
            program: program.into(),
            arguments: arguments.iter().map(|a| (*a).to_owned()).collect(),
            folder: paths.root,
            environment,
            timeout: Some(Duration::from_secs(60)),
            sandbox: Some(self.sandbox.clone()),
        }
    }

    fn sh(&self, script: &str) -> (Ended, String) {
        ended(&self.invocation("/bin/sh", &["-c", script]))
    }

    /// What the store's object is still.
    fn is_whole(&self) {
        assert_eq!(fs::read_to_string(&self.object).unwrap(), OBJECT);
        assert_eq!(fs::metadata(&self.object).unwrap().mode() & 0o7777, 0o444);
    }
}

fn ended(it: &Invocation) -> (Ended, String) {
    let mut text = Vec::new();
    let ended = run(it, &Cancel::new().unwrap(), |bytes| text.extend_from_slice(bytes)).unwrap();
    (ended, String::from_utf8_lossy(&text).into_owned())
}

fn namespaced() -> Vec<Tier> {
    tiers().iter().copied().filter(|t| *t != Tier::Landlock).collect()
}

#[test]
fn what_there_is() {
    for tier in namespaced() {
        let it = place(tier);
        let (end, text) = it.sh(
            "cat 'out/in put.txt' data/*; echo; pwd; id -un; id -u; id -gn; hostname; umask; echo $HOME; ls -A $HOME /tmp; ls /; \
             cat /trainlock/.params.json; ls /proc | grep -c '^[0-9]'; grep -c . /proc/net/dev; grep Cap.*: /proc/self/status | sort -u -k2; \
             grep -E 'NoNewPrivs|Seccomp:' /proc/self/status; ls -A /trainlock /home /var; echo x >out/made; echo x >/tmp/t; echo x >~/h; echo x >/dev/shm/s; echo x >/dev/null; readlink /proc/self/fd/0",
        );
        assert_eq!(end.stop, Stop::Exited(0), "{text}");
        let top: Vec<&str> = text.lines().skip_while(|l| *l != "bin").take_while(|l| !l.starts_with('{')).collect();
        for absent in ["sys", "root", "opt", "work", "srv", "mnt", "boot", "media"] {
            assert!(!top.contains(&absent), "{tier}: {text}");
        }
        assert!(
            text.starts_with(&format!(
                "{OBJECT}{OBJECT}\n/trainlock/digits\ntrainlock\n1000\ntrainlock\ntrainlock\n0022\n/home/trainlock\n"
            )),
            "{text}"
        );
        assert!(text.contains("NoNewPrivs:\t1\nSeccomp:\t2\n"), "{text}");
        assert!(text.contains("\n3\nCapInh:\t0000000000000000\n"), "only lo, and no capability: {text}");
        assert!(text.ends_with("/dev/null\n"));
        assert!(it.sandbox.stage.join("root/out/made").is_file() && it.sandbox.stage.join("tmp/t").is_file());
        it.is_whole();
        let report = end.sandbox.unwrap();
        assert!(report.isolation.is_hermetic(), "{}", report.isolation);
        assert!(report.mapped.iter().any(|p| p.to_string_lossy().contains("libc.so")), "{:?}", report.mapped);
        assert!(report.mapped.iter().any(|p| p.to_string_lossy().contains("/ld-linux")), "{:?}", report.mapped);
        assert!(report.mapped.iter().any(|p| p.ends_with("grep")), "{:?}", report.mapped);
        assert_eq!(report.lost, None);
        assert!(end.peak_memory > 100_000 && end.cpu > Duration::ZERO);
    }
}

#[test]
fn inputs_keep_their_bytes_and_modes() {
    for &tier in tiers() {
        let it = place(tier);
        // Each line tries one thing, and says its number if it could.
        let tries = [
            "echo x >'out/in put.txt'",
            "chmod u+w 'out/in put.txt' && echo x >'out/in put.txt'",
            "chmod 777 data/ä.txt; echo x >data/ä.txt",
            "echo y >new && mv new data/ä.txt",
            "rm -f data/ä.txt",
            "echo x >data/new",
            "echo x >new",
            "ln data/ä.txt out/link && chmod u+w out/link && echo x >out/link",
            "exec 3<data/ä.txt && echo x >/proc/self/fd/3",
            "exec 3<'out/in put.txt' && : >/proc/self/fd/3",
            "echo x >/etc/passwd",
            "echo x >/usr/x",
            "echo x >/x",
            "mkdir /trainlock/x",
            "echo x >../x",
            "cat \"$SECRET\"",
            "echo x >\"$SECRET\"",
            "truncate -s 0 out/sub/x",
        ];
        let script: String = tries.iter().enumerate().map(|(i, t)| format!("( {t} ) && echo could {i}\n")).collect();
        let (end, text) = it.sh(&format!("exec 2>/dev/null\n{script}true"));
        assert_eq!(end.stop, Stop::Exited(0), "{text}");
        let could: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("could ")).collect();
        if tier == Tier::Landlock {
            // Beside an output, an input is a copy of the step's own, and so it is told.
            assert!(could.iter().all(|n| ["0", "1", "9", "17"].contains(n)), "{could:?}");
            assert!(
                matches!(end.sandbox.unwrap().isolation.writes, Guarantee::Partial { why } if why.starts_with("2 inputs"))
            );
        } else {
            assert_eq!(could, [] as [&str; 0], "{tier}");
            let (_, text) = it.sh(
                "mv out/sub out/other; rm -rf out/sub; mv 'out/in put.txt' out/b; rm -f 'out/in put.txt'; chmod 777 'out/in put.txt'; \
                 ls out; mkdir out/new && echo x >out/new/x && mv out/new/x out/y && echo fine",
            );
            assert!(text.ends_with("in put.txt\nsub\nfine\n"), "{text}");
            for word in ["busy", "Read-only"] {
                assert!(text.contains(word), "{text}");
            }
        }
        if tier == Tier::Landlock {
            // Nothing there holds a mode.
            assert_eq!(fs::read_to_string(&it.object).unwrap(), OBJECT);
        } else {
            it.is_whole();
        }
        assert_eq!(fs::read_to_string(it.folder.path().join("secret")).unwrap(), "secret");
    }
}

#[test]
fn ends() {
    for &tier in tiers() {
        let it = place(tier);
        assert_eq!(it.sh("exit 7").0.stop, Stop::Exited(7));
        assert_eq!(it.sh("kill -9 $$").0.stop, Stop::Signaled(9));
        assert_eq!(it.sh("kill -TERM $$").0.stop, Stop::Signaled(15), "signals are at their default");
        let error = run(&it.invocation("/no/such/program", &[]), &Cancel::new().unwrap(), |_| {}).unwrap_err();
        assert_eq!(error.to_string(), "can't start `/no/such/program`");
        assert!(matches!(error, ProcessError::Start { source, .. } if source.raw_os_error() == Some(libc::ENOENT)));
        let script = it.sandbox.paths().root.join("data/ä.txt");
        let error = run(&it.invocation(script.to_str().unwrap(), &[]), &Cancel::new().unwrap(), |_| {}).unwrap_err();
        assert!(matches!(error, ProcessError::Start { source, .. } if source.raw_os_error() == Some(libc::EACCES)));
        let mut nowhere = it.invocation("/bin/true", &[]);
        nowhere.folder.push("nowhere");
        let error = run(&nowhere, &Cancel::new().unwrap(), |_| {}).unwrap_err();
        let ProcessError::Sandbox(error) = error else { panic!("{error}") };
        assert!(error.operation.starts_with("enter the folder ") && error.reason() == "ENOENT");
    }
}

#[test]
fn nothing_outlives_a_step() {
    std::thread::scope(|threads| {
        for &tier in tiers() {
            threads.spawn(move || nothing_outlives_a_step_in(tier));
        }
    });
}

fn nothing_outlives_a_step_in(tier: Tier) {
    let it = place(tier);
    // A mark that no other process has in its arguments.
    let mark = format!("{}.{}", 6000 + std::process::id(), tier as u32 + 1);
    let alive = || {
        let all = fs::read_dir("/proc").unwrap().flatten();
        all.filter(|e| fs::read(e.path().join("cmdline")).is_ok_and(|c| c == format!("sleep\0{mark}\0").as_bytes()))
            .count()
    };
    let (end, text) = it.sh(&format!("(setsid sleep {mark} >/dev/null 2>&1 &) ; sleep {mark} & echo done"));
    assert_eq!((end.stop, text.as_str(), alive()), (Stop::Exited(0), "done\n", 0), "{tier}");
    // One that ignores SIGTERM; the time-out is that of the test, the kill that of the switch.
    let cancel = Cancel::new().unwrap();
    let stubborn = format!("trap '' TERM; setsid sleep {mark} & echo ready; sleep {mark}; sleep {mark}; sleep {mark}");
    let mut output = Vec::new();
    let end = run(&it.invocation("/bin/sh", &["-c", &stubborn]), &cancel, |text| {
        output.extend_from_slice(text);
        if output == b"ready\n" {
            cancel.throw();
        }
    });
    assert_eq!((end.unwrap().stop, alive()), (Stop::Cancelled, 0), "{tier}");
    let mut short = it.invocation("/bin/sh", &["-c", &format!("setsid sleep {mark} & sleep {mark}")]);
    short.timeout = Some(Duration::from_millis(300));
    assert_eq!((ended(&short).0.stop, alive()), (Stop::TimedOut, 0), "{tier}");
    let bomb = format!("for i in $(seq 100); do setsid sleep {mark} & done; kill -9 $$");
    assert_eq!((it.sh(&bomb).0.stop, alive()), (Stop::Signaled(9), 0), "{tier}");
}

#[test]
fn a_killed_init_is_no_success() {
    for &tier in tiers() {
        let it = place(tier);
        let cancel = Cancel::new().unwrap();
        let script = "echo ready; while :; do sleep 1; done";
        let end = run(&it.invocation("/bin/sh", &["-c", script]), &cancel, |_| cancel.kill()).unwrap();
        assert_eq!(end.stop, Stop::Signaled(9), "{tier}");
    }
    // The same where the inner process alone is killed, as the kernel does for want of memory.
    for tier in namespaced() {
        let it = place(tier);
        let mut output = Vec::new();
        let call = it.invocation("/bin/sh", &["-c", "echo ready; while :; do :; done"]);
        let end = run(&call, &Cancel::new().unwrap(), |text| {
            output.extend_from_slice(text);
            if output == b"ready\n" {
                // The step's process is the only one whose folder is seen as its project's.
                let all = fs::read_dir("/proc").unwrap().flatten().map(|e| e.path());
                let steps = all.filter(|p| {
                    let root = fs::metadata(p.join("cwd/.")).map(|m| (m.dev(), m.ino())).ok();
                    let own = fs::metadata(it.sandbox.stage.join("root")).unwrap();
                    root == Some((own.dev(), own.ino()))
                });
                let status: Vec<String> = steps.filter_map(|p| fs::read_to_string(p.join("status")).ok()).collect();
                assert_eq!(status.len(), 1, "{tier}: {status:?}");
                let parent = status[0].lines().find_map(|l| l.strip_prefix("PPid:\t")).unwrap();
                super::sys::kill(parent.parse().unwrap(), libc::SIGKILL);
            }
        });
        assert_eq!((end.unwrap().stop, &output[..]), (Stop::Signaled(9), &b"ready\n"[..]), "{tier}");
    }
}

#[test]
fn a_host_that_is_out_of_reach() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    for &tier in tiers() {
        let mut it = place(tier);
        let tries = format!(
            "bash -c 'echo >/dev/tcp/127.0.0.1/{port}' 2>/dev/null && echo tcp; bash -c 'echo >/dev/udp/192.0.2.1/9' 2>/dev/null && echo udp; true"
        );
        assert_eq!(it.sh(&tries).1, "", "{tier}");
        it.sandbox.network = true;
        let (end, text) = it.sh(&tries);
        assert!(text.starts_with("tcp\n"), "{tier}: {text}");
        let isolation = end.sandbox.unwrap().isolation;
        assert_eq!(isolation.tcp, Guarantee::NotEnforced { why: "the step declares network".to_owned() });
    }
}

#[test]
fn huge_and_strange_words() {
    for &tier in tiers() {
        let it = place(tier);
        let mut call =
            it.invocation("/bin/sh", &["-c", "printf '%s|%s|%s' \"${#BIG}\" \"$STRANGE\" \"$1\"", "sh", "a\nb 'ö'"]);
        for i in 0..15 {
            call.environment.insert(format!("BIG{i}"), "x".repeat(100_000));
        }
        call.environment.insert("BIG".to_owned(), "x".repeat(100_000));
        call.environment.insert("STRANGE".to_owned(), "é\n=\"".to_owned());
        assert_eq!(ended(&call).1, "100000|é\n=\"|a\nb 'ö'");
    }
}

#[test]
fn undeclared_use_is_told() {
    for &tier in tiers() {
        let mut it = place(tier);
        it.sandbox.audit = true;
        let (end, _) = it.sh(
            "cat src/util.py ../digits/./conf.toml; test -e lib/mod.py; echo x >top.txt; cat data/ä.txt; \
             nosuchdir/prog; bash -c 'echo >/dev/tcp/192.0.2.7/443'; bash -c 'echo >/dev/tcp/data.example.org/80'; true",
        );
        let root = it.sandbox.paths().root;
        let report = end.sandbox.unwrap();
        let has = |access, path: PathBuf| report.attempts.iter().any(|a| a.access == access && a.what == path);
        assert!(has(Access::Read, root.join("src/util.py")), "{tier}: {:?}", report.attempts);
        assert!(has(Access::Stat, root.join("lib/mod.py")), "{tier}: {:?}", report.attempts);
        assert!(has(Access::Write, root.join("top.txt")), "{tier}: {:?}", report.attempts);
        assert!(!report.attempts.iter().any(|a| a.what.ends_with("ä.txt")), "{tier}: {:?}", report.attempts);
        assert!(!report.attempts.iter().any(|a| a.what.starts_with("/usr")), "{tier}: {:?}", report.attempts);
        if tier != Tier::Landlock {
            assert!(has(Access::Read, root.join("conf.toml")), "{tier}: {:?}", report.attempts);
            assert!(has(Access::Connect, "192.0.2.7:443".into()), "{tier}: {:?}", report.attempts);
            assert!(has(Access::Resolve, "data.example.org".into()), "{tier}: {:?}", report.attempts);
        }
        assert_eq!(report.lost, None);
    }
}

/// A hub with the input as a file of the model `o/m`.
fn with_hub(tier: Tier) -> Place {
    let mut it = place(tier);
    let path = |p: &str| RelPath::parse(p).unwrap();
    let file = HubFile { path: path("ä.txt"), size: OBJECT.len() as u64, sha256: Digest::of(OBJECT.as_bytes()) };
    let gone = HubFile { path: path("ö.txt"), ..file.clone() };
    let repository = Repository {
        id: "o/m".to_owned(),
        commit: "1".repeat(40),
        revision: "v1".to_owned(),
        at: path("data"),
        files: vec![file, gone],
    };
    it.sandbox.hub = Some(Hub { repositories: vec![repository] });
    it
}

/// Defines `ask REQUEST…`, which sends these requests over one connection and prints all that comes.
const ASK: &str = r#"
    ask() { exec 3<>/dev/tcp/127.0.0.1/4343; for r; do printf '%b\r\nConnection: keep-alive\r\n\r\n' "$r" >&3; done
            printf 'GET /end HTTP/1.0\r\n\r\n' >&3; tr -d '\r' <&3; echo; exec 3>&-; }
"#;

#[test]
fn a_hub_on_the_steps_own_loopback() {
    for tier in namespaced() {
        let it = with_hub(tier);
        let script = format!(
            "{ASK} ask 'GET /o/m/resolve/main/%c3%a4.txt HTTP/1.1\\r\\nRange: bytes=5-' 'HEAD /o/m/resolve/v1/%c3%a4.txt HTTP/1.1' \
             'GET /o/m/resolve/v1/%c3%b6.txt HTTP/1.1' 'GET /o/m/resolve/v1/x HTTP/1.1' 'GET /api/models/o/n HTTP/1.1' 'GET /api/models/o/n HTTP/1.1'"
        );
        let (end, text) = ended(&it.invocation("/bin/bash", &["-c", &script]));
        assert_eq!(end.stop, Stop::Exited(0), "{text}");
        let statuses: Vec<&str> = text.split("HTTP/1.1 ").skip(1).filter_map(|l| l.get(..3)).collect();
        assert_eq!(statuses, ["206", "200", "500", "404", "404", "404", "404"], "{tier}: {text}");
        assert!(text.contains("Content-Range: bytes 5-13/14\n") && text.contains("\n\nthe store"), "{tier}: {text}");
        assert!(text.contains(&format!("X-Repo-Commit: {}\n", "1".repeat(40))), "{tier}: {text}");
        // What the step asked for in vain is told, each once; a page of no repository is none.
        let refusal = |repository: &str, revision: Option<&str>, path: Option<&str>| Refusal {
            repository: repository.to_owned(),
            revision: revision.map(str::to_owned),
            path: path.map(str::to_owned),
        };
        let refusals = end.sandbox.unwrap().refusals;
        assert_eq!(refusals, [refusal("o/m", Some("v1"), Some("x")), refusal("o/n", None, None)], "{tier}");
        it.is_whole();
    }
}

#[test]
fn a_hub_keeps_on_and_ends_with_its_step() {
    for tier in namespaced() {
        let it = with_hub(tier);
        // The server is started right after the init. It can't be looked into, and has the step's walls.
        let script = format!(
            "{ASK} exec 2>/dev/null; server=2; readlink /proc/$server/fd/0 && echo seen
             grep -E 'NoNewPrivs|Seccomp:|CapEff' /proc/$server/status | tr -d '\t'; cat /proc/$server/environ && echo environ
             kill $server; kill -INT $server; exec 4<>/dev/tcp/127.0.0.1/4343; exec 5<>/dev/tcp/127.0.0.1/4343; printf 'GET / HT' >&5
             for n in $(seq 20); do exec 6<>/dev/tcp/127.0.0.1/4343; printf 'nonsense\\r\\n\\r\\n' >&6; cat <&6 | head -1; done | sort -u
             ask 'GET /o/m/resolve/main/%c3%a4.txt HTTP/1.1' | grep -o 'from the store'"
        );
        let (end, text) = ended(&it.invocation("/bin/bash", &["-c", &script]));
        assert_eq!(end.stop, Stop::Exited(0), "{tier}: {text}");
        let text = text.replace('\r', "");
        assert_eq!(
            text, "CapEff:0000000000000000\nNoNewPrivs:1\nSeccomp:2\nHTTP/1.1 400 Bad Request\nfrom the store\n",
            "{tier}"
        );
    }
}

#[test]
fn a_hub_takes_a_network_of_the_steps_own() {
    for &tier in tiers() {
        let mut it = with_hub(tier);
        it.sandbox.network = tier != Tier::Landlock;
        let error = run(&it.invocation("/bin/true", &[]), &Cancel::new().unwrap(), |_| {}).unwrap_err();
        assert!(matches!(&error, ProcessError::Sandbox(e) if e.operation.contains("serve a hub")), "{tier}: {error:?}");
    }
}

#[test]
fn walls_inside() {
    for &tier in tiers() {
        let it = place(tier);
        let (_, text) = it.sh(
            "exec 2>/dev/null; unshare -U true && echo userns; unshare -m true && echo mounts; mount -t tmpfs x /tmp && echo mount; \
             cd \"$TMPDIR\"; cp /bin/true t; chmod 4755 t && echo suid; mknod n c 1 3 && echo node; mkfifo fifo || echo nofifo; \
             echo 1 >/proc/sys/kernel/printk && echo sysctl; cat /proc/1/environ && echo environ; cat /proc/$PPID/environ && echo parent; \
             kill -9 1 && echo killed; echo end",
        );
        let text = if tier == Tier::Landlock { text.replace("killed\n", "") } else { text };
        assert_eq!(text, "end\n", "{tier}");
    }
}

#[test]
fn binds_and_devices() {
    for tier in namespaced() {
        let mut it = place(tier);
        let tool = it.folder.path().join("tool");
        fs::create_dir(&tool).unwrap();
        fs::write(tool.join("t"), "tool").unwrap();
        it.sandbox.read_only =
            vec![Bind::same(&tool), Bind { from: it.object.clone(), to: "/opt/x/data".into() }, Bind::same("/usr/bin")];
        it.sandbox.devices = vec!["/dev/zero".into()];
        let (end, text) = it.sh(&format!("cat '{}/t' /opt/x/data; echo x >/opt/x/data; ls /opt", tool.display()));
        assert!(
            text.starts_with("toolfrom the store") && text.contains("Read-only") && text.ends_with("x\n"),
            "{tier}: {text}"
        );
        assert_eq!(end.stop, Stop::Exited(0));
    }
}

#[test]
fn an_image_takes_the_systems_place() {
    for tier in namespaced() {
        let image = tempfile::tempdir().unwrap();
        let at = |p: &str| image.path().join(p);
        for folder in ["etc", "proc", "var/lib", "var/tmp", "mnt", "home/jo", "home/trainlock"] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        fs::write(at("home/jo/model"), "").unwrap();
        fs::write(at("home/trainlock/hidden"), "").unwrap();
        fs::write(at("etc/issue"), "image").unwrap();
        fs::write(at("etc/passwd"), "root:x:0:0::/root:/bin/sh").unwrap();
        fs::os::unix::fs::symlink("/usr/lib", at("lib")).unwrap();
        fs::os::unix::fs::symlink("usr/lib64", at("lib64")).unwrap();
        fs::os::unix::fs::symlink("usr/bin", at("bin")).unwrap();
        fs::create_dir(at("usr")).unwrap();
        let mut it = place(tier);
        // The image has no programs of its own: the host's are bound into its folder.
        it.sandbox.root = Some(image.path().to_owned());
        for folder in ["/usr/lib", "/usr/lib64", "/usr/bin"] {
            fs::create_dir(at(&folder[1..])).unwrap();
            it.sandbox.read_only.push(Bind::same(folder));
        }
        let (end, text) = it.sh(
            "cat /etc/issue; id -un; ls -d /mnt /home/* /home/*/* /var/*; echo x >/var/tmp/x; cat /tmp/x; echo x >/etc/issue",
        );
        assert_eq!(end.stop, Stop::Exited(2), "{tier}: {text}");
        let there = "imagetrainlock\n/home/jo\n/home/jo/model\n/home/trainlock\n/mnt\n/var/lib\n/var/tmp\nx\n";
        assert!(text.starts_with(there) && text.contains("Read-only"), "{text}");
        assert_eq!(fs::read_to_string(at("etc/issue")).unwrap(), "image");
    }
}

#[test]
fn an_image_need_have_no_c_library() {
    for tier in namespaced() {
        let image = tempfile::tempdir().unwrap();
        fs::create_dir(image.path().join("bin")).unwrap();
        let source = image.path().join("p.c");
        fs::write(&source, "#include <unistd.h>\nint main(void) { return write(1, \"alone\\n\", 6) != 6; }\n").unwrap();
        let mut compiler = std::process::Command::new("cc");
        compiler.arg("-static").arg(&source).arg("-o").arg(image.path().join("bin/p"));
        assert!(compiler.status().unwrap().success());
        fs::create_dir(image.path().join("etc")).unwrap();
        fs::write(image.path().join("etc/ld.so.preload"), "/bin/p\n").unwrap();
        let mut it = place(tier);
        it.sandbox.root = Some(image.path().to_owned());
        let (end, text) = ended(&it.invocation("/bin/p", &[]));
        assert_eq!((end.stop, text.as_str()), (Stop::Exited(0), "alone\n"), "{tier}");
    }
}

#[test]
fn a_link_in_the_stage_leads_nowhere() {
    for &tier in tiers() {
        let mut it = place(tier);
        let outside = it.folder.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::os::unix::fs::symlink(&outside, it.sandbox.stage.join("root/away")).unwrap();
        it.sandbox.writable.push(RelPath::parse("away").unwrap());
        let error = run(&it.invocation("/bin/true", &[]), &Cancel::new().unwrap(), |_| {}).unwrap_err();
        let ProcessError::Sandbox(error) = error else { panic!("{error}") };
        assert_eq!(error.operation, "a folder for outputs, `away`, lies behind a symbolic link");
    }
}

#[test]
fn the_projects_own_folder_is_for_outputs() {
    for tier in namespaced() {
        let mut it = place(tier);
        it.sandbox.writable = vec![RelPath::root(), RelPath::parse("data/deep/out").unwrap()];
        fs::create_dir_all(it.sandbox.stage.join("root/data/deep/out")).unwrap();
        let (_, text) = it.sh(
            "exec 2>/dev/null; echo x >model && mkdir new && mv model new/m && echo made; echo x >data/deep/out/y && echo deep; \
             echo x >data/deep/z && echo wrong; echo x >out/z && echo wrong; rm -r out data && echo wrong; ls",
        );
        assert_eq!(text, "made\ndeep\ndata\nnew\nout\n", "{tier}");
        it.is_whole();
    }
}

#[test]
fn memory_is_limited_or_said_not_to_be() {
    for &tier in tiers() {
        let mut it = place(tier);
        it.sandbox.memory = Some(64 << 20);
        let (end, _) = it.sh("x=$(head -c 300000000 /dev/zero | tr '\\0' x); echo ${#x}");
        let report = end.sandbox.unwrap();
        match &report.isolation.memory {
            Guarantee::Enforced => assert!(report.out_of_memory, "{tier}: {:?}", end.stop),
            Guarantee::NotEnforced { why } => assert!(why.contains("cgroup") && end.stop == Stop::Exited(0), "{why}"),
            Guarantee::Partial { why } => panic!("{why}"),
        }
    }
}

/// Not a test: a process that starts a step, to be killed by the next test.
#[test]
#[ignore = "started by the test below"]
fn a_trainlock_to_kill() {
    let tier = *tiers().first().unwrap();
    for tier in [tier, Tier::Landlock] {
        if !tiers().contains(&tier) {
            continue;
        }
        std::thread::spawn(move || {
            let it = place(tier);
            let mark = format!("{}.5", 6000 + std::process::id());
            let script = format!("trap '' TERM HUP; setsid sleep {mark} >/dev/null & sleep {mark}");
            let _ = run(&it.invocation("/bin/sh", &["-c", &script]), &Cancel::new().unwrap(), |_| {});
        });
    }
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn trainlock_killed_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let me = std::env::current_exe().unwrap();
    let mut child = std::process::Command::new(me)
        .args(["--ignored", "--exact", "sandbox::tests::a_trainlock_to_kill"])
        // It leaves its temporary folders behind.
        .env("TMPDIR", folder.path())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let argument = format!("sleep\0{}.5\0", 6000 + child.id());
    let count = || {
        let all = fs::read_dir("/proc").unwrap().flatten();
        all.filter(|e| fs::read(e.path().join("cmdline")).is_ok_and(|c| c == argument.as_bytes())).count()
    };
    let wanted = if tiers().contains(&Tier::Landlock) && tiers().len() > 1 { 4 } else { 2 };
    let until = |n: usize| {
        let begin = std::time::Instant::now();
        while count() != n {
            assert!(begin.elapsed() < Duration::from_secs(30), "{} of {n} processes", count());
            std::thread::yield_now();
        }
    };
    until(wanted);
    child.kill().unwrap();
    child.wait().unwrap();
    until(0);
}

/// Not a test: says which tiers work where it is started.
#[test]
#[ignore = "started by the test below"]
fn says_the_tiers() {
    let scratch = tempfile::tempdir().unwrap();
    fs::write(Path::new(".").join("tiers"), format!("{:?}", probe_all(scratch.path()))).unwrap();
}

#[test]
fn without_namespaces_there_is_landlock() {
    if !tiers().contains(&Tier::Namespaces) || !tiers().contains(&Tier::Landlock) {
        return;
    }
    let me = std::env::current_exe().unwrap();
    for (limit, errno) in [("max_user_namespaces", "ENOSPC"), ("max_net_namespaces", "ENOSPC")] {
        let folder = tempfile::tempdir().unwrap();
        let script =
            format!("echo 0 >/proc/sys/user/{limit}; exec \"$0\" --ignored --exact sandbox::tests::says_the_tiers");
        let done = std::process::Command::new("unshare")
            .args(["-Ur", "sh", "-c", &script, me.to_str().unwrap()])
            .current_dir(folder.path())
            .output()
            .unwrap();
        let text = fs::read_to_string(folder.path().join("tiers"))
            .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&done.stdout)));
        let wanted = format!("tier: Namespaces, stopped: Some(\"unshare namespaces: {errno}\")");
        assert!(text.contains(&wanted) && text.contains("tier: Landlock, stopped: None"), "{text}");
    }
}
