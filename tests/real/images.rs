//! Container images with a real registry (docker's, over TLS, with passwords) and real engines.

use crate::servers::{certificates, free_ports};
use crate::{have, project, write_manifest};
use std::collections::BTreeMap;
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Component, Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use trainlock_testing::{Ran, TestContext, copy_program, skipped, write_program};
use trainlock_types::Digest;

const PROGRAMS: &[&str] =
    &["docker-registry", "skopeo", "umoci", "mmdebstrap", "htpasswd", "openssl", "podman", "runc", "dockerd"];

/// Where Debian has them all, docker's own too.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// `nobody` on every Unix.
const NOBODY: u32 = 65534;

/// A registry, ended with the test.
struct Registry {
    process: Child,
    context: TestContext,
    port: u16,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Registry {
    /// With a user `u` and the password `p4ss-word`.
    fn start() -> Registry {
        let context = TestContext::new("openssl");
        certificates(&context);
        let passwords = run(Command::new("htpasswd").args(["-Bbn", "u", "p4ss-word"]));
        context.write("passwords", passwords.stdout);
        let [port] = free_ports();
        let at = context.project();
        let at = at.display();
        context.write(
            "registry.yml",
            format!(
                "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {at}/blobs}}}}\nhttp: {{addr: '127.0.0.1:{port}', tls: {{certificate: {at}/server.pem, key: {at}/server.key}}}}\nauth: {{htpasswd: {{realm: test, path: {at}/passwords}}}}\n"
            ),
        );
        let mut command = Command::new("docker-registry");
        command.args(["serve", "registry.yml"]).current_dir(context.project());
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let begin = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begin.elapsed() < Duration::from_secs(20), "the registry does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        Registry { process, context, port }
    }

    fn reference(&self) -> String {
        format!("localhost:{}/test/py:3.11", self.port)
    }

    /// Puts the image of a layout there.
    fn push(&self, layout: &Path) {
        let (from, to) = (format!("oci:{}:py", layout.display()), format!("docker://{}", self.reference()));
        run(Command::new("skopeo").args([
            "copy",
            "--quiet",
            "--dest-tls-verify=false",
            "--dest-creds=u:p4ss-word",
            &from,
            &to,
        ]));
    }
}

/// docker's daemon with everything of its own in one folder, ended with the test.
struct Daemon {
    process: Child,
    folder: tempfile::TempDir,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Asked to end, it ends what it started.
        if let Some(pid) = rustix::process::Pid::from_raw(self.process.id().cast_signed()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(30) {
            if !matches!(self.process.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Daemon {
    /// Without networks and rules for them, which are the machine's. None, with the reason told, where it can't run.
    fn start() -> Option<Daemon> {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs_err::write(at("daemon.json"), "{}").unwrap();
        let log = fs_err::File::create(at("log")).unwrap().into_file();
        let mut command = Command::new("/usr/sbin/dockerd");
        for (option, name) in
            [("config-file", "daemon.json"), ("data-root", "data"), ("exec-root", "exec"), ("pidfile", "pid")]
        {
            command.arg(format!("--{option}")).arg(at(name));
        }
        command.args(["--storage-driver=vfs", "--iptables=false", "--ip6tables=false", "--bridge=none"]);
        command.arg("--host").arg(format!("unix://{}", at("socket").display()));
        command.env("PATH", PATH).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut daemon = Daemon { process: command.spawn().unwrap(), folder };
        let begin = Instant::now();
        while !daemon.docker(&["version"]).status.success() {
            let log = || fs_err::read_to_string(daemon.folder.path().join("log")).unwrap_or_default();
            if daemon.process.try_wait().unwrap().is_some() {
                skipped(&format!("dockerd does not run here: {}", log().lines().last().unwrap_or_default()), true);
                return None;
            }
            assert!(begin.elapsed() < Duration::from_secs(60), "dockerd does not listen: {}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(daemon)
    }

    fn host(&self) -> String {
        format!("unix://{}", self.folder.path().join("socket").display())
    }

    fn docker(&self, args: &[&str]) -> std::process::Output {
        let mut command = Command::new("/usr/bin/docker");
        command.args(args).env("DOCKER_HOST", self.host()).env("HOME", self.folder.path());
        command.output().unwrap()
    }
}

fn run(command: &mut Command) -> Ran {
    Ran::of(command).expect(0)
}

/// Debian's Python as an image: a base, and a layer over it that takes a program away.
fn image(folder: &Path, word: &str) -> PathBuf {
    let root = folder.join("rootfs");
    if !root.exists() {
        let mut command = Command::new("mmdebstrap");
        command.args([
            "--quiet",
            "--variant=extract",
            "--include=python3-minimal,libpython3.11-stdlib,dash,coreutils",
            "bookworm",
        ]);
        run(command.arg(&root));
        for part in ["doc", "man", "locale"] {
            let _ = fs_err::remove_dir_all(root.join("usr/share").join(part));
        }
        // As an image of python packages has it: compiled, of sources with the times that they will have.
        let sources = root.join("usr/lib/python3.11");
        let touch = "find \"$0\" -name '*.py' -exec touch -d @1700000000 {} +";
        run(Command::new("sh").args(["-c", touch]).arg(&sources));
        if rustix::process::geteuid().is_root() {
            let line = ["python3", "-m", "compileall", "-q", "/usr/lib/python3.11/json"];
            run(Command::new("chroot").arg(&root).args(line));
        }
    }
    let over = folder.join("over");
    fs_err::create_dir_all(over.join("usr/bin")).unwrap();
    fs_err::create_dir_all(over.join("opt/empty")).unwrap();
    fs_err::create_dir_all(over.join("usr/share")).unwrap();
    for (name, text) in [("usr/bin/.wh.b2sum", ""), ("usr/share/.wh..wh..opq", ""), ("usr/share/new", "new")] {
        fs_err::write(over.join(name), text).unwrap();
    }
    for (name, to) in [("opt/python", "/usr/bin/python3"), ("opt/up", "../../../../etc"), ("opt/loop", "loop")] {
        let _ = fs_err::os::unix::fs::symlink(to, over.join(name));
    }
    fs_err::write(over.join("opt/word"), word).unwrap();
    let layout = folder.join(format!("layout-{word}"));
    let umoci = |line: &str| {
        run(Command::new("umoci").args(line.split(' ')).current_dir(folder).env("SOURCE_DATE_EPOCH", "1700000000"));
    };
    let at = format!("{}:py", layout.file_name().unwrap().to_str().unwrap());
    umoci(&format!("init --layout layout-{word}"));
    umoci(&format!("new --image {at}"));
    for (part, tar) in [(&root, "base.tar"), (&over, "over.tar")] {
        let mut command = Command::new("tar");
        command.args(["--sort=name", "--mtime=@1700000000", "--owner=0", "--group=0", "--numeric-owner", "-C"]);
        run(command.arg(part).arg("-cf").arg(folder.join(tar)).arg("."));
        umoci(&format!("raw add-layer --image {at} {tar}"));
    }
    umoci(&format!(
        "config --image {at} --config.env PATH=/usr/bin:/bin --config.env GREETING=hello --os linux --architecture amd64"
    ));
    layout
}

/// What there is at and below a folder: files with a digest and whether they are programs, folders, and where links lead.
/// Devices are left out, and what Python compiled, which names a time.
fn contents(root: &Path, folder: &Path, found: &mut BTreeMap<PathBuf, String>) {
    for entry in fs_err::read_dir(folder).unwrap().map(Result::unwrap) {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        let what = if kind.is_dir() {
            contents(root, &path, found);
            "folder".to_owned()
        } else if kind.is_symlink() {
            let inside = folder.strip_prefix(root).unwrap().join(fs_err::read_link(&path).unwrap());
            let mut way = Vec::new();
            for part in inside.components() {
                match part {
                    Component::Normal(name) => way.push(name.to_owned()),
                    Component::ParentDir => drop(way.pop()),
                    Component::RootDir => way.clear(),
                    _ => {}
                }
            }
            format!("link to {}", way.iter().collect::<PathBuf>().display())
        } else if kind.is_file() && path.extension().is_none_or(|end| end != "pyc") {
            let program = entry.metadata().unwrap().mode() & 0o100 != 0;
            format!("{} {program}", Digest::of(&fs_err::read(&path).unwrap()))
        } else {
            continue;
        };
        found.insert(path.strip_prefix(root).unwrap().to_owned(), what);
    }
}

/// The image's file system in the store is what another program makes of the same layers.
fn is_unpacked_alike(context: &TestContext, folder: &Path) {
    let mut umoci = Command::new("umoci");
    umoci.args(["unpack", "--rootless", "--image", "layout-first:py", "bundle"]);
    run(umoci.current_dir(folder));
    let below = |folder: &Path| fs_err::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    let tree = below(&below(&context.store().join("trees")));
    let [mut ours, mut theirs] = [BTreeMap::new(), BTreeMap::new()];
    contents(&tree, &tree, &mut ours);
    let rootfs = folder.join("bundle/rootfs");
    contents(&rootfs, &rootfs, &mut theirs);
    // What stands for a device where none can be made.
    theirs.retain(|path, _| !path.starts_with("dev/"));
    ours.retain(|path, _| !path.starts_with("dev/"));
    assert!(
        ours.len() > 1000 && ours[Path::new("opt/empty")] == "folder" && ours[Path::new("opt/up")] == "link to etc"
    );
    let differ = |(path, what): &(&PathBuf, &String)| theirs.get(*path) != Some(*what);
    assert_eq!(ours.iter().filter(differ).collect::<Vec<_>>(), []);
    assert_eq!(theirs.len(), ours.len());
}

const STEP: &str = r#"
[steps.s]
run = "python3 -c 'import sys, os, json; print(sys.version, os.environ[\"GREETING\"], os.getcwd(), sorted(os.listdir(\"/usr/bin\")))' > out/text; python3 -v -c 'import json' 2>&1 | python3 -c 'import sys; print(sum(\"json/__pycache__\" in line and \"matches\" in line for line in sys.stdin))' >> out/text; cat /opt/word src/in >> out/text; echo top > top; test ! -e /usr/bin/b2sum; test ! -e /etc/shadow || cat /etc/shadow >> out/text"
inputs = ["src/in"]
outputs = ["out/text", "top"]
"#;

/// The binary with the registry's certificate; as `nobody` with a copy that it can reach, if `plain`.
fn trainlock(context: &TestContext, registry: &Registry, plain: bool, args: &[&str]) -> Ran {
    let mut command = context.command(args);
    if plain {
        let binary = context.root().join("trainlock");
        if !binary.exists() {
            copy_program(command.get_program(), &binary);
        }
        fs_err::set_permissions(context.root(), PermissionsExt::from_mode(0o755)).unwrap();
        run(Command::new("chown").args(["-R", "nobody"]).arg(context.root()));
        chown(context.root(), Some(NOBODY), None).unwrap();
        let mut other = Command::new(&binary);
        other.args(args).current_dir(context.project()).env_clear();
        other.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command = other;
        command.uid(NOBODY).gid(NOBODY);
    }
    fs_err::set_permissions(registry.context.root(), PermissionsExt::from_mode(0o755)).unwrap();
    command.env("PATH", format!("{}:/usr/bin:/bin", context.root().join("bin").display()));
    Ran::of(command.env("SSL_CERT_FILE", registry.context.project().join("ca.pem")))
}

#[test]
fn a_private_registry_pins_an_image_that_every_user_and_engine_runs_alike() {
    if !have(PROGRAMS) {
        return;
    }
    let registry = Registry::start();
    let folder = tempfile::tempdir().unwrap();
    registry.push(&image(folder.path(), "first"));
    let context = project("");
    let in_image = |steps: &str| steps.replace("run =", &format!("image = \"{}\"\nrun =", registry.reference()));
    write_manifest(&context, &in_image(STEP));
    context.write("src/in", "input\n");
    let as_root = |args: &[&str]| trainlock(&context, &registry, false, args);

    let refused = as_root(&["lock"]).expect(1).stderr;
    assert!(refused.contains("docker login localhost"), "{refused}");
    // The login as skopeo writes it, for docker's and podman's use.
    let login = ["login", "--tls-verify=false", "-u", "u", "-p", "p4ss-word"];
    let file = context.home().join(".docker/config.json");
    fs_err::create_dir_all(file.parent().unwrap()).unwrap();
    run(Command::new("skopeo")
        .args(login)
        .arg(format!("localhost:{}", registry.port))
        .env("REGISTRY_AUTH_FILE", &file));
    as_root(&["lock"]).expect(0);
    let lock = context.read("train.lock");
    let digest = "{{.Digest}}";
    let to = format!("docker://{}", registry.reference());
    let told = run(Command::new("skopeo").args([
        "inspect",
        "--tls-verify=false",
        "--creds=u:p4ss-word",
        "--format",
        digest,
        &to,
    ]));
    let hex = told.stdout.trim().strip_prefix("sha256:").unwrap().to_owned();
    assert!(lock.contains(&format!("digest = \"{hex}\"")) && !lock.contains("p4ss-word"), "{lock}");
    as_root(&["train"]).expect(0);
    let text = context.read("out/text");
    // What was compiled in the image is used, and not compiled anew.
    let compiled = if rustix::process::geteuid().is_root() { 4 } else { 0 };
    assert!(
        text.starts_with("3.11")
            && text.contains("hello /trainlock/t")
            && text.ends_with(&format!("\n{compiled}\nfirstinput\n")),
        "{text}"
    );

    is_unpacked_alike(&context, folder.path());

    // Another tag's content behind the same tag: what is locked stays, for an empty store too.
    registry.push(&image(folder.path(), "second"));
    fs_err::remove_dir_all(context.store()).unwrap();
    fs_err::remove_dir_all(context.project().join("out")).unwrap();
    // This time a helper program has the login.
    let bin = context.root().join("bin");
    fs_err::create_dir_all(&bin).unwrap();
    write_program(
        &bin.join("docker-credential-test"),
        "#!/bin/sh\nread server; test \"$1\" = get && echo \"{\\\"ServerURL\\\": \\\"$server\\\", \\\"Username\\\": \\\"u\\\", \\\"Secret\\\": \\\"p4ss-word\\\"}\"\n",
    );
    fs_err::write(&file, format!("{{\"credHelpers\": {{\"localhost:{}\": \"test\"}}}}", registry.port)).unwrap();
    as_root(&["train", "--locked"]).expect(0);
    assert_eq!(context.read("out/text"), text);

    // As engines run it.
    let run_by = |engine: &str, command: &mut Command| {
        let ran = Ran::of(command).expect(0);
        assert_eq!(context.read("out/text"), text, "{engine}: {}", ran.stderr);
    };
    let mut runc = context.command(["train", "--force", "--engine", "runc"]);
    run_by("runc", runc.env("PATH", PATH));
    let podman = context.root().join("podman");
    fs_err::create_dir_all(&podman).unwrap();
    let conf = "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\nruntime = \"runc\"\n";
    fs_err::write(podman.join("containers.conf"), conf).unwrap();
    let at = podman.display();
    let storage = format!("[storage]\ndriver = \"vfs\"\ngraphroot = \"{at}/root\"\nrunroot = \"{at}/run\"\n");
    fs_err::write(podman.join("storage.conf"), storage).unwrap();
    let with = |command: &mut Command| {
        command.env("PATH", PATH);
        command.env("CONTAINERS_CONF", podman.join("containers.conf"));
        command.env("CONTAINERS_STORAGE_CONF", podman.join("storage.conf"));
    };
    if rustix::process::geteuid().is_root() {
        let mut command = context.command(["train", "--force", "--engine", "podman"]);
        with(&mut command);
        run_by("podman", &mut command);
        let record = context.run(["runs", "show", "--json"]).expect(0).stdout;
        assert!(record.contains("podman runs it"), "{record}");
        let mut left = Command::new("podman");
        left.args(["ps", "--all", "--quiet"]);
        with(&mut left);
        assert_eq!(run(&mut left).stdout, "");

        if let Some(daemon) = Daemon::start() {
            let docker = |args: &[&str]| {
                let mut command = context.command([&["train", "--force", "--engine", "docker"], args].concat());
                command.env("PATH", PATH).env("DOCKER_HOST", daemon.host());
                command
            };
            // It fetches what it runs by itself, with the login that it keeps (here, that a helper program has).
            let refused = Ran::of(&mut docker(&["--offline"])).expect(1).stderr;
            assert!(refused.contains("the network is off") && refused.contains("docker pull localhost"), "{refused}");
            let with_helper = format!("{}:{PATH}", bin.display());
            run_by("docker", docker(&["s"]).env("PATH", &with_helper));
            run_by("docker", &mut docker(&["s", "--offline"]));
            let record = context.run(["runs", "show", "--json"]).expect(0).stdout;
            assert!(record.contains("docker runs it"), "{record}");
            // A step that is ended leaves no container, and touches none of another project's step of this name.
            let image = String::from_utf8(daemon.docker(&["images", "--quiet"]).stdout).unwrap();
            assert!(daemon.docker(&["create", "--name", "trainlock-slow-0", image.trim(), "sleep"]).status.success());
            let slow = "[steps.slow]\nrun = \"sleep 600\"\noutputs = [\"slow\"]\ntimeout = \"1s\"\n";
            write_manifest(&context, &in_image(&format!("{STEP}\n{slow}")));
            let ended = Ran::of(&mut docker(&["slow"])).expect(1).stderr;
            assert!(ended.contains("timeout"), "{ended}");
            assert_eq!(daemon.docker(&["ps", "--all", "--format", "{{.Names}}"]).stdout, b"trainlock-slow-0\n");
            write_manifest(&context, &in_image(STEP));
        }

        // And as a user without rights, from nothing.
        fs_err::remove_dir_all(context.store()).unwrap();
        fs_err::remove_dir_all(context.project().join("out")).unwrap();
        fs_err::remove_dir_all(context.project().join(".trainlock")).unwrap();
        trainlock(&context, &registry, true, &["train", "--locked"]).expect(0);
        assert_eq!(context.read("out/text"), text);
    } else {
        skipped("not root: podman and another user", false);
    }
}
