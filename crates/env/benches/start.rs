//! What a step's sandbox costs: `cargo bench -p trainlock-env`.
//!
//! Each figure is the median of as many starts of `/bin/true`, by turns: in trainlock's sandbox, by bwrap alone with the same kinds of
//! mounts, in trainlock's sandbox set up by bwrap, and without any. The first is to take at most 1.5 times what bwrap takes.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use fs_err as fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;
use trainlock_env::sandbox::{Sandbox, Tier, main_if_asked};
use trainlock_env::{Cancel, Invocation, Stop, run};
use trainlock_types::RelPath;

const STARTS: usize = 300;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    main_if_asked();
    let folder = tempfile::Builder::new().prefix("start").tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let stage = folder.path().join("stage");
    for name in ["root/build", "tmp", "home"] {
        fs::create_dir_all(stage.join(name))?;
    }
    let cancel = Cancel::new()?;
    let mut times: [Vec<f64>; 4] = Default::default();
    for _ in 0..STARTS {
        times[0].push(timed(|| ours(Some(Tier::Namespaces), &stage, &cancel))?);
        times[1].push(timed(|| bwrap(&stage))?);
        times[2].push(timed(|| ours(Some(Tier::Bwrap), &stage, &cancel))?);
        times[3].push(timed(|| ours(None, &stage, &cancel))?);
    }
    let median = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[STARTS / 2]
    };
    let [own, bare, backed, none] = times.each_mut().map(median);
    let says = |what: &str, time: f64| println!("{what}: {:.2} ms, {:.2}x bwrap", time * 1e3, time / bare);
    says("trainlock's sandbox", own);
    says("bwrap alone", bare);
    says("trainlock's sandbox by bwrap", backed);
    says("no sandbox", none);
    Ok(())
}

fn timed(start: impl FnOnce() -> Result<(), Box<dyn std::error::Error>>) -> Result<f64, Box<dyn std::error::Error>> {
    let begin = Instant::now();
    start()?;
    Ok(begin.elapsed().as_secs_f64())
}

fn ours(tier: Option<Tier>, stage: &Path, cancel: &Cancel) -> Result<(), Box<dyn std::error::Error>> {
    let sandbox = tier.map(|tier| {
        let mut sandbox = Sandbox::new(tier, stage, "bench");
        sandbox.writable = vec![RelPath::parse("build").expect("it is a path")];
        sandbox
    });
    let root = sandbox.as_ref().map_or(stage.join("root"), |sandbox| sandbox.paths().root);
    let invocation = Invocation {
        program: "/bin/true".into(),
        arguments: Vec::new(),
        folder: root,
        environment: [("PATH".to_owned(), "/usr/bin:/bin".to_owned())].into(),
        timeout: None,
        sandbox,
    };
    let ended = run(&invocation, cancel, |_| {})?;
    if ended.stop == Stop::Exited(0) { Ok(()) } else { Err(format!("{:?}", ended.stop).into()) }
}

fn bwrap(stage: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let mut command = Command::new("bwrap");
    command.args([
        "--unshare-all",
        "--unshare-user",
        "--uid",
        "1000",
        "--gid",
        "1000",
        "--hostname",
        "trainlock",
        "--clearenv",
    ]);
    command.args(["--die-with-parent", "--proc", "/proc", "--dev", "/dev", "--ro-bind", "/usr", "/usr"]);
    for folder in ["/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"] {
        match fs::read_link(folder) {
            Ok(target) => drop(command.arg("--symlink").arg(target).arg(folder)),
            Err(_) => drop(command.args(["--ro-bind-try", folder, folder])),
        }
    }
    for file in [
        "ld.so.cache",
        "ld.so.conf",
        "ld.so.conf.d",
        "alternatives",
        "ssl/certs",
        "passwd",
        "group",
        "hosts",
        "hostname",
    ] {
        let file = format!("/etc/{file}");
        command.args(["--ro-bind-try", &file, &file]);
    }
    let at = |name: &str| stage.join(name);
    command.arg("--bind").arg(at("tmp")).arg("/tmp").arg("--bind").arg(at("home")).arg("/home/trainlock");
    command.arg("--ro-bind").arg(at("root")).arg("/trainlock/bench");
    command.arg("--bind").arg(at("root/build")).arg("/trainlock/bench/build");
    let status = command.args(["--chdir", "/trainlock/bench", "/bin/true"]).status()?;
    if status.success() { Ok(()) } else { Err(format!("bwrap: {status}").into()) }
}
