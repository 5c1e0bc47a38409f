//! Python packages, with the real uv: from an index on loopback that the tests make, and from the real one.

mod index;

use crate::{project, write_manifest};
use index::{File, Index, uv, wheel};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use trainlock_testing::{Authority, Fault, FaultServer, Ran, TestContext, as_configured, packed_interpreter};
use trainlock_types::Digest;

/// The interpreter of the machine, and a step that prints the version of a module.
fn with_packages(python: &str, modules: &str) -> String {
    let last = modules.rsplit(", ").next().unwrap();
    format!(
        "[tools]\npython3 = {{ version = \"*\", from = \"host\" }}\n\n{python}\n[steps.say]\nrun = \"python3 -c 'import {modules}; print({last}.__version__)' >{{outputs.0}}\"\noutputs = [\"out\"]\n"
    )
}

/// Runs with this index as the configured one.
fn run(context: &TestContext, index: &str, args: &[&str]) -> Ran {
    run_with(context, &[("PIP_INDEX_URL", index)], args)
}

fn run_with(context: &TestContext, variables: &[(&str, &str)], args: &[&str]) -> Ran {
    let mut command = context.command(args);
    command.envs(variables.iter().copied());
    Ran::of(&mut command)
}

/// The files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs_err::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            if meta.is_dir() {
                open.push(path);
            } else if meta.is_file() {
                found.push(path);
            }
        }
    }
    found
}

/// The files below a folder that hold a text.
fn holding(folder: &Path, text: &str) -> Vec<PathBuf> {
    let holds = |path: &PathBuf| {
        let bytes = fs_err::read(path).unwrap();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    };
    files(folder).into_iter().filter(holds).collect()
}

/// An index with `demo` 1.0 that needs `base`, and `base` with a wheel for each platform.
fn demo(context: &TestContext) -> Option<Index> {
    let index = Index::start(&uv()?);
    let root = context.root();
    index.add("demo", "demo-1.0-py3-none-any.whl", wheel(root, "demo-1.0-py3-none-any.whl", &["base>=2"]));
    for tag in ["manylinux2014_x86_64", "manylinux2014_aarch64", "macosx_11_0_arm64", "win_amd64"] {
        let file = format!("base-2.0-py3-none-{tag}.whl");
        index.add("base", &file, wheel(root, &file, &[]));
    }
    Some(index)
}

#[test]
fn locked_for_all_platforms_and_used_again_without_a_network() {
    let context = project(&with_packages("[python]\ndependencies = [\"demo\"]\n", "base"));
    let Some(index) = demo(&context) else { return };
    let trained = run(&context, &index.url(""), &["train"]).expect(0);
    assert!(trained.stderr.contains("Installed 2 python packages"), "{}", trained.stderr);
    assert_eq!(context.read("out"), "2.0\n");
    let lock = context.read("train.lock");
    for tag in ["manylinux2014_x86_64", "manylinux2014_aarch64", "macosx_11_0_arm64"] {
        assert!(lock.contains(&format!("base-2.0-py3-none-{tag}.whl")), "{lock}");
    }
    assert!(!lock.contains("win_amd64"));
    // No file of the project and no word names the index.
    for text in ["127.0.0.1", &index.port(), "/simple"] {
        assert_eq!(holding(&context.project(), text), Vec::<PathBuf>::new(), "{text}");
        assert!(!trained.stderr.contains(text), "{}", trained.stderr);
    }
    index.requests();
    // `fetch` brings all that is needed, and the next command needs no network.
    let elsewhere = TestContext::new(env!("CARGO_BIN_EXE_trainlock"));
    write_manifest(&elsewhere, &with_packages("[python]\ndependencies = [\"demo\"]\n", "base"));
    elsewhere.write("train.lock", &lock);
    // Without one, all that is lacking is told at once: uv, and each package.
    for args in [["fetch", "--frozen"], ["train", "--frozen"]] {
        let lacking = elsewhere.run(args).expect(1).stderr;
        for words in ["tool uv ", "package demo: ", "package base: ", "(the package index)", "3 inputs, ", " missing"] {
            assert!(lacking.contains(words), "{words}: {lacking}");
        }
    }
    let fetched = run(&elsewhere, &index.url(""), &["fetch", "--locked"]).expect(0);
    assert!(fetched.stderr.contains("Verified 2 python packages"), "{}", fetched.stderr);
    elsewhere.run(["train", "--frozen"]).expect(0);
    assert_eq!(elsewhere.read("out"), "2.0\n");
    index.requests();
    // Another project with the same packages finds them installed, and asks nobody.
    let other = TestContext::new(env!("CARGO_BIN_EXE_trainlock"));
    write_manifest(&other, &with_packages("[python]\ndependencies = [\"demo\"]\n", "demo"));
    other.write("train.lock", &lock);
    let (url, store) = (index.url(""), context.store().display().to_string());
    let shared = [("PIP_INDEX_URL", url.as_str()), ("TRAINLOCK_STORE", store.as_str())];
    let found = run_with(&other, &shared, &["train", "--locked"]).expect(0);
    assert!(!found.stderr.contains("Installed") && index.requests().is_empty(), "{}", found.stderr);
    assert_eq!(other.read("out"), "1.0\n");
    // A further package is installed beside them: of the others no file is asked for, nor looked for on the network.
    index.add("more", "more-3.0-py3-none-any.whl", wheel(context.root(), "more-3.0-py3-none-any.whl", &["demo"]));
    write_manifest(&other, &with_packages("[python]\ndependencies = [\"more\"]\n", "more, base, demo"));
    run_with(&other, &shared, &["lock"]).expect(0);
    index.requests();
    let one = run_with(&other, &shared, &["train"]).expect(0);
    assert!(one.stderr.contains("Installed 1 python package as locked"), "{}", one.stderr);
    assert_eq!(other.read("out"), "1.0\n");
    assert_eq!(index.requests(), ["/simple/more/", "/files/more-3.0-py3-none-any.whl"]);
    // The same without any network.
    for (args, alone) in [(&["train", "--force", "--offline"][..], false), (&["train", "--force"][..], true)] {
        fs_err::remove_file(context.project().join("out")).unwrap();
        let mut command = context.command(args);
        if alone {
            let mut inside = Command::new("unshare");
            inside.args(["--user", "--map-root-user", "--net"]).arg(command.get_program()).args(args);
            inside.current_dir(context.project()).env_clear();
            inside.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
            command = inside;
        }
        Ran::of(&mut command).expect(0);
        assert_eq!(context.read("out"), "2.0\n");
    }
    assert_eq!(context.read("train.lock"), lock);
    // What was installed and is gone or damaged is installed anew, once.
    let installed = |at: &Path| at.join("lib").is_dir().then(|| at.to_owned());
    let trees = || -> Vec<PathBuf> {
        let below = |folder: PathBuf| fs_err::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect::<Vec<_>>();
        below(context.store().join("trees")).into_iter().flat_map(below).filter_map(|at| installed(&at)).collect()
    };
    trees().iter().for_each(|tree| fs_err::remove_dir_all(tree).unwrap());
    let again = context.run(["train", "--force", "--frozen"]).expect(0);
    assert!(again.stderr.contains("Installed 2 python packages"), "{}", again.stderr);
    let again = context.run(["train", "--force", "--frozen"]).expect(0);
    assert!(!again.stderr.contains("Installed"), "{}", again.stderr);
}

#[test]
fn a_file_that_is_another_or_gone_is_told() {
    let manifest = with_packages("[python]\ndependencies = [\"demo\"]\n", "demo");
    let context = project(&manifest);
    let Some(index) = demo(&context) else { return };
    run(&context, &index.url(""), &["lock"]).expect(0);
    let file = "demo-1.0-py3-none-any.whl";
    let good = wheel(context.root(), file, &["base>=2"]);
    let other = wheel(context.root(), file, &["base"]);
    let failed = |code: i32, words: &[&str]| {
        let ran = run(&context, &index.url(""), &["train"]).expect(code);
        for word in words {
            assert!(ran.stderr.contains(word), "{word}: {}", ran.stderr);
        }
        assert!(!ran.stderr.contains(&index.port()) && !context.has("out"), "{}", ran.stderr);
    };
    // Changed in its place, with the listing as it was; then with the listing.
    index.change("demo", file, |f| f.bytes = Arc::clone(&other));
    failed(4, &[file, "expected"]);
    index.change("demo", file, |f| f.sha256 = Some(Digest::of(&other).to_hex()));
    failed(4, &[file, "trainlock update demo"]);
    // The right length and beginning, and cut off.
    index.change("demo", file, |f| f.sha256 = Some(Digest::of(&good).to_hex()));
    index.change("demo", file, |f| f.bytes = Arc::new(good[..good.len() - 1].to_vec()));
    failed(4, &[file]);
    index.delete("demo", file);
    failed(1, &["demo", file, "no longer has", "trainlock update demo"]);
    // Another index that has it is as good: the digest is known.
    let mirror = Index::start(&uv().unwrap());
    mirror.add("demo", file, Arc::clone(&good));
    let (extra, url) = (mirror.url(""), index.url(""));
    for (first, second) in [(&url, &extra), (&extra, &url)] {
        let _ = fs_err::remove_dir_all(context.store());
        run_with(&context, &[("PIP_INDEX_URL", first), ("PIP_EXTRA_INDEX_URL", second)], &["fetch"]).expect(0);
    }
    fs_err::remove_dir_all(context.store()).unwrap();
}

#[test]
fn what_is_withdrawn_after_it_was_locked_is_fetched_only_if_that_is_said() {
    let python = "[python]\ndependencies = [\"demo\"]\n";
    let context = project(&with_packages(python, "demo"));
    let Some(index) = demo(&context) else { return };
    let (file, base) = ("demo-1.0-py3-none-any.whl", "base-2.0-py3-none-manylinux2014_x86_64.whl");
    run(&context, &index.url(""), &["train"]).expect(0);
    let lock = context.read("train.lock");
    index.change("demo", file, |f| f.yanked = Some("a bad day"));
    // What is here is used, and nobody is asked.
    index.requests();
    fs_err::remove_file(context.project().join("out")).unwrap();
    let ran = run(&context, &index.url(""), &["train", "--locked", "--force"]).expect(0);
    assert!(!ran.stderr.contains("a bad day") && index.requests().is_empty(), "{}", ran.stderr);
    let anew = |args: &[&str], code: i32, words: &[&str]| {
        fs_err::remove_dir_all(context.store()).unwrap();
        let _ = fs_err::remove_file(context.project().join("out"));
        let ran = run(&context, &index.url(""), args).expect(code);
        for word in words {
            assert!(ran.stderr.contains(word), "{word}: {}", ran.stderr);
        }
        assert!(!ran.stderr.contains(&index.port()) && context.has("out") == (code == 0 && args[0] == "train"));
        assert_eq!(context.read("train.lock"), lock);
        ran.stderr
    };
    // What has to be fetched is refused, with the way on.
    let words =
        ["demo", file, "withdrawn (yanked)", "(a bad day)", "--config fetch.yanked=demo", "trainlock update demo"];
    let told = anew(&["train", "--locked"], 1, &words);
    assert!(!told.contains("base"), "{told}");
    anew(&["fetch", "--locked"], 1, &words);
    // All at once; in HTML without a reason.
    index.html_only();
    index.change("demo", file, |f| f.yanked = Some(""));
    index.change("base", base, |f| f.yanked = Some("sick <too>"));
    if trainlock_types::Platform::host() == trainlock_types::Platform::LinuxX86_64 {
        anew(&["fetch"], 1, &[file, base, "(sick <too>)", "--config fetch.yanked=base,demo"]);
    }
    anew(&["fetch", "--config", "fetch.yanked=Base,demo"], 0, &["warning", file, "it is used all the same"]);
    anew(&["train", "--config", "fetch.yanked=demo", "--config", "fetch.yanked=base"], 0, &["warning", file]);
    // The manifest says it for everyone, which makes no lock stale.
    write_manifest(&context, &with_packages(&format!("{python}yanked = [\"demo\", \"Base\"]\n"), "demo"));
    anew(&["train", "--locked"], 0, &["warning", file]);
    // Another index on which it is not withdrawn will do.
    write_manifest(&context, &with_packages(python, "demo"));
    let other = demo(&context).unwrap();
    fs_err::remove_dir_all(context.store()).unwrap();
    let (first, second) = (index.url(""), other.url(""));
    run_with(&context, &[("PIP_INDEX_URL", &second), ("PIP_EXTRA_INDEX_URL", &first)], &["fetch", "--locked"])
        .expect(0);
}

#[test]
fn what_is_withdrawn_is_locked_only_where_the_manifest_means_it() {
    let context = project("");
    let Some(index) = demo(&context) else { return };
    index.change("demo", "demo-1.0-py3-none-any.whl", |f| f.yanked = Some("a bad day"));
    let asks = |dependencies: &str, more: &str| {
        let python = format!("[python]\ndependencies = [\n    {dependencies},\n]\n{more}");
        write_manifest(&context, &with_packages(&python, "demo"));
    };
    let refused = |args: &[&str], words: &[&str]| {
        let ran = run(&context, &index.url(""), args).expect(1);
        for word in words {
            assert!(ran.stderr.contains(word), "{word}: {}", ran.stderr);
        }
        assert!(!ran.stderr.contains(&index.port()), "{}", ran.stderr);
    };
    let meant = "yanked = [\"demo\"]";
    // In uv's words, with the way on; that the manifest means it does not choose it.
    let of_uv = ["demo==1.0 was yanked (reason: a bad day)", "train.toml:10:5", "\"demo>=1\"", "asked for by `==`"];
    asks("\"demo>=1\"", "");
    refused(&["lock"], &of_uv);
    asks("\"demo>=1\"", meant);
    refused(&["lock"], &of_uv);
    // By `==` uv takes it.
    let words = [
        "package demo 1.0 was withdrawn (yanked) by its publisher (a bad day): demo-1.0-py3-none-any.whl",
        "train.toml:10:5",
        "\"demo==1.0\"",
        "trainlock update demo",
        meant,
    ];
    asks("\"demo==1.0\"", "");
    refused(&["lock"], &words);
    refused(&["train"], &words);
    refused(&["--config", "fetch.yanked=demo", "lock"], &words);
    assert!(!context.has("train.lock"));
    asks("\"demo==1.0\"", meant);
    let ran = run(&context, &index.url(""), &["train"]).expect(0);
    assert!(ran.stderr.contains("warning") && ran.stderr.contains("a bad day"), "{}", ran.stderr);
    assert_eq!(context.read("out"), "1.0\n");
    // What was locked before stays until something is resolved, and `update` moves on where it can.
    asks("\"demo\"", meant);
    run(&context, &index.url(""), &["lock"]).expect(0);
    assert!(context.read("train.lock").contains("demo-1.0-"));
    asks("\"demo\"", "");
    let file = "demo-1.1-py3-none-any.whl";
    index.add("demo", file, wheel(context.root(), file, &["base"]));
    run(&context, &index.url(""), &["lock", "--check"]).expect(0);
    index.add("more", "more-3.0-py3-none-any.whl", wheel(context.root(), "more-3.0-py3-none-any.whl", &[]));
    asks("\"demo\", \"more\"", "");
    refused(&["lock"], &[words[0], "\"demo\"", "trainlock update demo"]);
    run(&context, &index.url(""), &["update", "demo"]).expect(0);
    assert!(context.read("train.lock").contains(file));
}

#[test]
fn what_the_index_has_now() {
    let server = FaultServer::start();
    server.serve("/a.csv", "a");
    let data = format!("[data]\na = {{ url = \"{}\" }}\n", server.url("/a.csv"));
    let context = project(&with_packages(&format!("{data}[python]\ndependencies = [\"demo<3\"]\n"), "demo"));
    let Some(index) = demo(&context) else { return };
    run(&context, &index.url(""), &["lock"]).expect(0);
    index.sent();
    let base = format!(
        "base-2.0-py3-none-manylinux2014_{}.whl",
        if cfg!(target_arch = "aarch64") { "aarch64" } else { "x86_64" }
    );
    let file = "demo-1.0-py3-none-any.whl";
    let ask = |index: &str, command: &str, code: i32| -> Vec<serde_json::Value> {
        let ran = run(&context, index, &[command, "--json", "--config", "fetch.retries=0"]).expect(code);
        ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let said = |lines: &[serde_json::Value], key: &str, name: &str| -> Vec<String> {
        let line = lines.iter().find(|line| line[key] == name && line["copies"].is_null());
        let line = line.unwrap_or_else(|| panic!("{name}: {lines:#?}"));
        ["state", "locked", "now", "by", "why"].iter().filter_map(|k| line[*k].as_str().map(str::to_owned)).collect()
    };
    let outdated = |code| ask(&index.url(""), "outdated", code);
    // Nothing changed. Of no file more than a byte is asked for, and by `audit` alone.
    let same = outdated(0);
    for (name, by) in [("demo 1.0", "digest"), ("base 2.0", "digest"), ("uv", "version"), ("a", "size")] {
        assert_eq!(said(&same, "name", name), ["same", by]);
    }
    assert_eq!(index.sent(), 0);
    let audit = ask(&index.url(""), "audit", 0);
    for name in ["package demo 1.0", "package base 2.0", "tool uv"] {
        assert_eq!(said(&audit, "input", name), ["agrees", "size"]);
    }
    assert!(index.sent() <= 3);
    // Newer versions, as far as what asks for them allows.
    for version in ["2.0", "3.0", "2.1rc1"] {
        let new = format!("demo-{version}-py3-none-any.whl");
        index.add("demo", &new, wheel(context.root(), &new, &[]));
    }
    let new = base.replace("-2.0-", "-2.5-");
    index.add("base", &new, wheel(context.root(), &new, &[]));
    let found = outdated(0);
    assert_eq!(said(&found, "name", "demo 1.0"), ["newer", "1.0", "2.0"]);
    assert_eq!(said(&found, "name", "base 2.0"), ["newer", "2.0", "2.5"]);
    let table = run(&context, &index.url(""), &["outdated"]).expect(0);
    assert!(table.stderr.contains("2 as locked, 0 outdated, 2 with newer versions"), "{}", table.stderr);
    // And `update` does what was announced.
    let lock = context.read("train.lock");
    run(&context, &index.url(""), &["update"]).expect(0);
    assert_eq!(said(&outdated(0), "name", "demo 2.0"), ["same", "digest"]);
    context.write("train.lock", lock);
    // Withdrawn; another file of this name; gone.
    index.change("demo", file, |f| f.yanked = Some("a bad day"));
    assert_eq!(said(&outdated(0), "name", "demo 1.0"), ["withdrawn", "a bad day"]);
    let other = wheel(context.root(), file, &["base"]);
    index.change("demo", file, |f| (f.sha256, f.yanked) = (Some(Digest::of(&other).to_hex()), None));
    assert_eq!(said(&outdated(0), "name", "demo 1.0")[0], "moved");
    assert_eq!(said(&ask(&index.url(""), "audit", 4), "input", "package demo 1.0")[0], "differs");
    index.delete("demo", file);
    index.delete("base", &base);
    let found = outdated(0);
    for name in ["demo 1.0", "base 2.0"] {
        assert_eq!(said(&found, "name", name)[0], "gone");
    }
    let found = ask(&index.url(""), "audit", 0);
    assert_eq!(said(&found, "input", "package demo 1.0")[0], "fails");
    // The index is down; others are asked all the same.
    let (url, port) = (index.url(""), index.port());
    drop(index);
    let found = ask(&url, "outdated", 1);
    assert_eq!(
        (&said(&found, "name", "demo 1.0")[0], &said(&found, "name", "a")[0]),
        (&"failed".into(), &"same".into())
    );
    assert!(!format!("{found:?}").contains(&port), "{found:#?}");
    let found = ask(&url, "audit", 0);
    assert_eq!(said(&found, "input", "package base 2.0")[0], "fails");
    assert_eq!(said(&found, "input", "data a")[0], "agrees");
}

#[test]
fn an_index_that_states_little_and_one_that_lies() {
    let manifest = with_packages("[python]\ndependencies = [\"demo\"]\n", "demo");
    let context = project(&manifest);
    let Some(index) = demo(&context) else { return };
    run(&context, &index.url(""), &["lock"]).expect(0);
    let lock = context.read("train.lock");
    // Without sizes, then without hashes: the same lock.
    for html in [false, true] {
        if html {
            index.html_only();
        }
        for change in [|f: &mut File| f.size = None, |f: &mut File| f.sha256 = None] {
            index.change("demo", "demo-1.0-py3-none-any.whl", change);
            fs_err::remove_file(context.project().join("train.lock")).unwrap();
            run(&context, &index.url(""), &["lock"]).expect(0);
            let entry = |lock: &str| lock[lock.find("name = \"demo\"").unwrap()..].lines().take(5).collect::<String>();
            assert_eq!(entry(&context.read("train.lock")), entry(&lock));
        }
    }
    // A size that is not the file's is locked as it is stated, and found out before anything is installed.
    let context = project(&manifest);
    let index = demo(&context).unwrap();
    index.change("demo", "demo-1.0-py3-none-any.whl", |f| f.size = Some(7));
    let ran = run(&context, &index.url(""), &["train"]).expect(4);
    assert!(ran.stderr.contains("demo-1.0-py3-none-any.whl") && !context.has("out"), "{}", ran.stderr);
}

#[test]
fn credentials_are_used_and_shown_nowhere() {
    const SECRET: &str = "s3cretpassw0rd";
    let context = project(&with_packages("[python]\ndependencies = [\"demo\"]\n", "demo"));
    let Some(index) = demo(&context) else { return };
    index.lock_with(&format!("someone:{SECRET}"));
    let with_login = index.url(&format!("someone:{SECRET}@"));
    let bare = index.url("");
    let netrc = context.home().join(".netrc");
    let words = std::cell::RefCell::new(String::new());
    let again = |variables: &[(&str, &str)], code: i32| {
        let _ = fs_err::remove_dir_all(context.store());
        let _ = fs_err::remove_file(context.project().join("train.lock"));
        let ran = run_with(&context, variables, &["train", "-v"]).expect(code);
        words.borrow_mut().push_str(&(ran.stderr + &ran.stdout));
    };
    again(&[("PIP_INDEX_URL", &with_login)], 0);
    again(
        &[
            ("UV_DEFAULT_INDEX", &format!("own={bare}")),
            ("UV_INDEX_OWN_USERNAME", "someone"),
            ("UV_INDEX_OWN_PASSWORD", SECRET),
        ],
        0,
    );
    // None, and wrong ones.
    again(&[("PIP_INDEX_URL", &bare)], 1);
    again(&[("PIP_INDEX_URL", &index.url(&format!("someone:{SECRET}x@")))], 1);
    let words_so_far = words.take();
    assert!(words_so_far.contains("credentials"), "{words_so_far}");
    for text in [SECRET, &index.port()] {
        assert!(!words_so_far.contains(text), "{words_so_far}");
        assert_eq!(holding(&context.project(), text), Vec::<PathBuf>::new());
    }
    assert_eq!(holding(context.root(), SECRET), Vec::<PathBuf>::new());
    fs_err::write(&netrc, format!("machine 127.0.0.1 login someone password {SECRET}\n")).unwrap();
    again(&[("PIP_INDEX_URL", &bare)], 0);
    assert_eq!(holding(context.root(), SECRET), [netrc]);
}

#[test]
fn the_index_of_the_machines_configuration() {
    let context = project(&with_packages("[python]\ndependencies = [\"demo\"]\n", "demo"));
    let Some(index) = demo(&context) else { return };
    let (url, nowhere) = (index.url(""), trainlock_testing::refusing_url("/simple"));
    let config = context.home().join(".config");
    let pip = |url: &str| format!("[global]\nindex-url = {url}\n");
    let write = |path: &Path, text: &str| {
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, text).unwrap();
    };
    let environment = context.root().join("venv");
    let (named, null) = (context.root().join("named.conf"), "/dev/null");
    let (named_path, environment_path) = (named.display().to_string(), environment.display().to_string());
    type Variables<'a> = Vec<(&'a str, &'a str)>;
    let places: Vec<(PathBuf, String, Variables<'_>)> = vec![
        (config.join("pip/pip.conf"), pip(&url), vec![]),
        (context.home().join(".pip/pip.conf"), pip(&url), vec![]),
        (environment.join("pip.conf"), pip(&url), vec![("VIRTUAL_ENV", &environment_path)]),
        (named.clone(), pip(&url), vec![("PIP_CONFIG_FILE", &named_path)]),
        (config.join("uv/uv.toml"), format!("[[index]]\nurl = \"{url}\"\ndefault = true\n"), vec![]),
        (named.clone(), format!("index-url = \"{url}\"\n"), vec![("UV_CONFIG_FILE", &named_path)]),
        // Variables go before files.
        (config.join("pip/pip.conf"), pip(&nowhere), vec![("PIP_INDEX_URL", &url)]),
        (config.join("pip/pip.conf"), pip(&nowhere), vec![("UV_INDEX_URL", &url), ("PIP_INDEX_URL", &nowhere)]),
        (config.join("pip/pip.conf"), pip(&nowhere), vec![("UV_DEFAULT_INDEX", &url), ("PIP_CONFIG_FILE", null)]),
        // Further indexes go before the default one, which need not know the package.
        (named, String::new(), vec![("PIP_EXTRA_INDEX_URL", &url), ("PIP_INDEX_URL", &nowhere)]),
    ];
    for (file, text, variables) in &places {
        write(file, text);
        let _ = fs_err::remove_file(context.project().join("train.lock"));
        let ran = run_with(&context, variables, &["lock"]);
        assert_eq!(ran.code, Some(0), "{} {variables:?}: {}", file.display(), ran.stderr);
        fs_err::remove_file(file).unwrap();
    }
}

#[test]
fn certificates_that_pip_is_told_to_trust() {
    let context = project(&with_packages("[python]\ndependencies = [\"demo\"]\n", "demo"));
    let Some((uv_file, uv_bytes)) = uv() else { return };
    let authority = Authority::new();
    let server = FaultServer::start_tls(&authority);
    let demo = "demo-1.0-py3-none-any.whl";
    for (package, file, bytes) in [("uv", uv_file.as_str(), uv_bytes), ("demo", demo, wheel(context.root(), demo, &[]))]
    {
        let link = format!("<a href=\"/files/{file}#sha256={}\">{file}</a>", Digest::of(&bytes).to_hex());
        server.script(&format!("/simple/{package}/"), link, [Fault::Type("text/html")]);
        server.script(&format!("/files/{file}"), bytes.to_vec(), [Fault::Type("application/octet-stream")]);
    }
    let pem = context.root().join("authority.pem");
    authority.write(&pem);
    let (url, pem) = (server.url("/simple"), pem.display().to_string());
    let refused = run(&context, &url, &["--config", "fetch.retries=0", "lock"]).expect(1);
    assert!(refused.stderr.contains("certificate") && !refused.stderr.contains("127.0.0.1"), "{}", refused.stderr);
    run_with(&context, &[("PIP_INDEX_URL", &url), ("PIP_CERT", &pem)], &["train"]).expect(0);
    let conf = context.home().join(".config/pip/pip.conf");
    fs_err::create_dir_all(conf.parent().unwrap()).unwrap();
    fs_err::write(conf, format!("[global]\nindex-url = {url}\ncert = {pem}\n")).unwrap();
    fs_err::remove_file(context.project().join("train.lock")).unwrap();
    fs_err::remove_dir_all(context.store()).unwrap();
    context.run(["train"]).expect(0);
    assert_eq!(context.read("out"), "1.0\n");
}

#[test]
fn a_profile_takes_a_package_from_an_index_by_its_name() {
    let python =
        "[python]\ndependencies = [\"demo\", \"base\"]\n\n[profile.cpu.python]\nindex = { base = \"own-cpu\" }\n";
    let context = project(&with_packages(python, "base"));
    let Some(index) = demo(&context) else { return };
    let own = Index::start(&uv().unwrap());
    own.lock_with("me:s3cretpassw0rd");
    // As the publishers of torch have it: the builds for Linux have a local version, those for macOS none.
    for file in [
        "2.0+cpu-py3-none-manylinux2014_x86_64",
        "2.0+cpu-py3-none-manylinux2014_aarch64",
        "2.0-py3-none-macosx_11_0_arm64",
    ] {
        let file = format!("base-{file}.whl");
        own.add("base", &file, wheel(context.root(), &file, &[]));
    }
    // A stranger of the same name as one that is wanted from elsewhere.
    own.add("demo", "demo-9.0-py3-none-any.whl", wheel(context.root(), "demo-9.0-py3-none-any.whl", &[]));
    let url = index.url("");
    let named = format!("index.own-cpu={}", own.url("me:s3cretpassw0rd@"));
    let ran = run(&context, &url, &["lock"]).expect(2);
    for word in ["train.toml", "`own-cpu`", "index.own-cpu", "uv.toml"] {
        assert!(ran.stderr.contains(word), "{word}: {}", ran.stderr);
    }
    let with_named = |args: &[&str]| {
        let mut all = vec!["--config", named.as_str()];
        all.extend(args);
        let ran = run(&context, &url, &all);
        assert!(!ran.stderr.contains("s3cret") && !ran.stderr.contains(&own.port()), "{}", ran.stderr);
        ran
    };
    with_named(&["train"]).expect(0);
    assert_eq!(context.read("out"), "2.0\n");
    let lock = context.read("train.lock");
    assert!(lock.contains("base own-cpu") && lock.contains("profile = \"cpu\"") && !lock.contains("127.0.0.1"));
    assert!(!lock.contains("demo-9.0"));
    with_named(&["train", "--profile", "cpu"]).expect(0);
    assert_eq!(context.read("out"), "2.0+cpu\n");
    // By uv's own configuration, and from nowhere once all is there.
    let by_uv = format!("own-cpu={}", own.url("me:s3cretpassw0rd@"));
    fs_err::remove_file(context.project().join("train.lock")).unwrap();
    run_with(&context, &[("UV_INDEX", &by_uv), ("PIP_INDEX_URL", &url)], &["lock"]).expect(0);
    context.write("train.lock", &lock);
    context.run(["train", "--profile", "cpu", "--force", "--frozen"]).expect(0);
    assert_eq!(holding(&context.project(), "s3cretpassw0rd"), Vec::<PathBuf>::new());
    assert_eq!(holding(&context.store(), "s3cretpassw0rd"), Vec::<PathBuf>::new());
}

#[test]
fn locks_of_other_tools_are_taken_over() {
    let context = project(&with_packages("[python]\nuv-lock = \"uv.lock\"\ngroups = [\"train\"]\n", "demo"));
    let Some(index) = demo(&context) else { return };
    let digest = |file: &str, requires: &[&str]| Digest::of(&wheel(context.root(), file, requires)).to_hex();
    let (demo, base) = ("demo-1.0-py3-none-any.whl", "base-2.0-py3-none-manylinux2014_x86_64.whl");
    let (demo_hash, base_hash) = (digest(demo, &["base>=2"]), digest(base, &[]));
    let uv_lock = |registry: &str, demo_hash: &str| {
        format!(
            r#"version = 1
revision = 3
requires-python = ">=3.9"

[[package]]
name = "base"
version = "2.0"
source = {{ registry = "{registry}/simple" }}
wheels = [{{ url = "{registry}/files/{base}", hash = "sha256:{base_hash}" }}]

[[package]]
name = "demo"
version = "1.0"
source = {{ registry = "{registry}/simple" }}
dependencies = [{{ name = "base" }}]
wheels = [{{ url = "{registry}/files/{demo}", hash = "sha256:{demo_hash}" }}]

[[package]]
name = "own"
version = "0.1.0"
source = {{ virtual = "." }}

[package.dev-dependencies]
train = [{{ name = "demo" }}]

[package.metadata]

[package.metadata.requires-dev]
train = [{{ name = "demo" }}]
"#
        )
    };
    let one = "[workspace]\nplatforms = [\"linux-x86_64\"]\n\n";
    let uses = |python: &str| write_manifest(&context, &format!("{one}{}", with_packages(python, "demo")));
    let from_uv = "[python]\nuv-lock = \"uv.lock\"\ngroups = [\"train\"]\n";
    uses(from_uv);
    context.write("uv.lock", uv_lock("https://mirror.example", &demo_hash));
    run(&context, &index.url(""), &["train"]).expect(0);
    assert_eq!(context.read("out"), "1.0\n");
    let lock = context.read("train.lock");
    assert!(lock.contains(&demo_hash) && lock.contains(&base_hash) && !lock.contains("mirror.example"), "{lock}");
    // Another address is no change; another hash is one of that package alone, and is found out.
    context.write("uv.lock", uv_lock("https://other.example", &demo_hash));
    context.run(["lock", "--check"]).expect(0);
    let wrong = Digest::of(b"another").to_hex();
    context.write("uv.lock", uv_lock("https://other.example", &wrong));
    let stale = context.run(["lock", "--check"]).expect(3);
    assert!(stale.stderr.contains("demo 1.0") && !stale.stderr.contains("base 2.0"), "{}", stale.stderr);
    let failed = run(&context, &index.url(""), &["train"]).expect(4);
    assert!(failed.stderr.contains(demo), "{}", failed.stderr);
    context.write(
        "uv.lock",
        uv_lock("https://x.example", &demo_hash)
            .replace("{ registry = \"https://x.example/simple\" }\ndep", "{ git = \"https://x.example/demo\" }\ndep"),
    );
    let refused = context.run(["lock"]).expect(2);
    assert!(refused.stderr.contains("uv.lock:14:") && refused.stderr.contains("comes from git"), "{}", refused.stderr);
    // The same packages from a pylock.toml are the same environment.
    context.write(
        "pylock.toml",
        format!(
            "lock-version = \"1.0\"\ncreated-by = \"test\"\n[[packages]]\nname = \"base\"\nversion = \"2.0\"\nindex = \"https://mirror.example/simple\"\nwheels = [{{ url = \"https://mirror.example/{base}\", hashes = {{ sha256 = \"{base_hash}\" }} }}]\n[[packages]]\nname = \"demo\"\nversion = \"1.0\"\nwheels = [{{ name = \"{demo}\", hashes = {{ sha256 = \"{demo_hash}\" }} }}]\n"
        ),
    );
    uses("[python]\npylock = \"pylock.toml\"\n");
    let ran = run(&context, &index.url(""), &["train", "--force"]).expect(0);
    assert!(!ran.stderr.contains("Installed"), "{}", ran.stderr);
    // One that lacks what its packages need is told before anything runs.
    let text = context.read("pylock.toml");
    let (head, rest) = text.split_once("[[packages]]").unwrap();
    context.write("pylock.toml", format!("{head}[[packages]]{}", rest.split_once("[[packages]]").unwrap().1));
    fs_err::remove_file(context.project().join("out")).unwrap();
    let failed = run(&context, &index.url(""), &["train", "--force"]).expect(1);
    let words = "demo 1.0 needs base>=2, which is not among the packages";
    assert!(failed.stderr.contains(words) && !context.has("out"), "{}", failed.stderr);
}

#[test]
fn requirements_files_with_hashes() {
    let context = project(&with_packages("[python]\nrequirements = \"reqs/main.txt\"\n", "demo"));
    let Some(index) = demo(&context) else { return };
    let demo_hash = Digest::of(&wheel(context.root(), "demo-1.0-py3-none-any.whl", &["base>=2"])).to_hex();
    let base_hashes: String = ["manylinux2014_x86_64", "manylinux2014_aarch64", "macosx_11_0_arm64"]
        .iter()
        .map(|tag| wheel(context.root(), &format!("base-2.0-py3-none-{tag}.whl"), &[]))
        .map(|bytes| format!(" \\\n    --hash=sha256:{}", Digest::of(&bytes).to_hex()))
        .collect();
    context.write(
        "reqs/main.txt",
        format!("--index-url https://elsewhere.example/simple\n-r base.txt\ndemo==1.0 --hash=sha256:{demo_hash}\n"),
    );
    context.write("reqs/base.txt", format!("-c limits.txt\nbase{base_hashes}\n"));
    context.write("reqs/limits.txt", "base<3\n");
    run(&context, &index.url(""), &["train"]).expect(0);
    assert_eq!(context.read("out"), "1.0\n");
    assert!(!context.read("train.lock").contains("elsewhere"));
    // A hash that no file has, and a package that the others need and nobody names.
    let wrong = Digest::of(b"another").to_hex();
    context.write("reqs/main.txt", format!("-r base.txt\ndemo==1.0 --hash=sha256:{wrong}\n"));
    let failed = run(&context, &index.url(""), &["train"]).expect(4);
    for word in ["main.txt:2:", "demo"] {
        assert!(failed.stderr.contains(word), "{word}: {}", failed.stderr);
    }
    context.write("reqs/main.txt", format!("demo==1.0 --hash=sha256:{demo_hash}\n"));
    let failed = run(&context, &index.url(""), &["lock"]).expect(1);
    assert!(failed.stderr.contains("base==2.0"), "{}", failed.stderr);
}

#[test]
fn a_pyproject_with_groups_and_extras() {
    let python =
        "[python]\npyproject = \"pyproject.toml\"\ngroups = [\"train\"]\n\n[profile.all.python]\nextras = [\"all\"]\n";
    let context = project(&with_packages(python, "base, demo"));
    let Some(index) = demo(&context) else { return };
    index.add("plot", "plot-1.0-py3-none-any.whl", wheel(context.root(), "plot-1.0-py3-none-any.whl", &["base"]));
    let text = "[project]\nname = \"own\"\ndependencies = [\"base>=2\"]\n[project.optional-dependencies]\nplots = [\"plot\"]\nall = [\"own[plots]\"]\n[dependency-groups]\ntrain = [{ include-group = \"more\" }]\nmore = [\"demo\"]\n";
    context.write("pyproject.toml", text);
    run(&context, &index.url(""), &["train"]).expect(0);
    assert_eq!(context.read("out"), "1.0\n");
    context.run(["lock", "--check"]).expect(0);
    let lock = context.read("train.lock");
    let plot = lock.split("\n\n").find(|block| block.contains("name = \"plot\"")).unwrap();
    assert!(plot.contains("profile = \"all\""), "{plot}");
    // What nobody asks for changes nothing; what is asked for does.
    context.write("pyproject.toml", format!("{text}other = [\"six\"]\n"));
    context.run(["lock", "--check"]).expect(0);
    context.write("pyproject.toml", text.replace("base>=2", "base>=1"));
    let stale = context.run(["lock", "--check"]).expect(3);
    assert!(stale.stderr.contains("python: dependencies: base>=2 -> base>=1"), "{}", stale.stderr);
}

#[test]
fn what_can_not_be_resolved_is_told_at_the_requirement() {
    let context = project("");
    let Some(index) = demo(&context) else { return };
    index.add("base", "base-1.0-py3-none-any.whl", wheel(context.root(), "base-1.0-py3-none-any.whl", &[]));
    write_manifest(&context, &with_packages("[python]\ndependencies = [\n    \"demo\",\n    \"base<2\",\n]\n", "demo"));
    let failed = run(&context, &index.url(""), &["lock"]).expect(1);
    for word in ["train.toml:10:5", "\"base<2\"", "depend on base>=2", "your project depends on base<2"] {
        assert!(failed.stderr.contains(word), "{word}: {}", failed.stderr);
    }
    assert!(!context.has("train.lock") && !failed.stderr.contains(&index.port()));
    // No wheel for a platform.
    index.delete("base", "base-2.0-py3-none-macosx_11_0_arm64.whl");
    write_manifest(&context, &with_packages("[python]\ndependencies = [\"demo\", \"base\"]\n", "demo"));
    let failed = run(&context, &index.url(""), &["lock"]).expect(1);
    assert!(failed.stderr.contains("base") && failed.stderr.contains("arm64"), "{}", failed.stderr);
}

#[test]
#[cfg(target_os = "linux")]
fn packages_of_a_fetched_build_of_the_interpreter() {
    let host = trainlock_types::Platform::host();
    let run_it = "import base, demo, json, os, sys; marker = os.path.dirname(json.__file__) + '/../made-for-the-test'; print(demo.__version__, base.__version__, os.path.exists(marker), os.path.exists(base.__cached__))";
    let manifest = format!(
        "[workspace]\nplatforms = [\"{host}\"]\n[tools]\npython = \"3\"\n[python]\ndependencies = [\"demo\"]\n[steps.say]\nrun = [\"bash\", \"-c\", \"python -c \\\"$CODE\\\" > out; say-demo 2>> out || true\"]\nenv = {{ CODE = \"{run_it}\" }}\noutputs = [\"out\"]\n"
    );
    let context = project(&manifest);
    let Some(index) = demo(&context) else { return };
    let (archive, version) = packed_interpreter(context.root());
    let parts: Vec<u64> = version.split('.').map(|n| n.parse().unwrap()).collect();
    let family = if cfg!(target_arch = "aarch64") { "aarch64" } else { "x86_64" };
    let server = FaultServer::start();
    let list = serde_json::json!({ "a": {
        "name": "cpython", "arch": { "family": family, "variant": null }, "os": "linux", "libc": "gnu",
        "major": parts[0], "minor": parts[1], "patch": parts[2], "prerelease": "", "variant": null,
        "url": "https://builds.invalid/releases/1/cpython-install_only.tar.gz", "sha256": Digest::of(&archive).to_hex(),
    } });
    server.serve("/mirror/1/cpython-install_only.tar.gz", archive);
    server.serve("/list.json", list.to_string());
    let (list, mirror, index) = (server.url("/list.json"), server.url("/mirror"), index.url(""));
    let train = |args: &[&str]| {
        let mut command = context.command(args);
        command.env_remove("UV_PYTHON_DOWNLOADS").env("UV_PYTHON_DOWNLOADS_JSON_URL", &list);
        command.env("UV_PYTHON_INSTALL_MIRROR", &mirror).env("PIP_INDEX_URL", &index);
        Ran::of(&mut command)
    };
    let ran = train(&["train"]).expect(0);
    assert!(ran.stderr.contains("Installed 2 python packages"), "{}", ran.stderr);
    assert_eq!(context.read("out"), "1.0 2.0 True True\n1.0\n");
    let record = context.run(["runs", "show", "--json"]).expect(0).stdout;
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    let of = |name: &str| record["tools"].as_array().unwrap().iter().find(|tool| tool["name"] == name).cloned();
    assert_eq!(of("python").unwrap()["from"], "lock");
    // Where the build can't be had the machine's interpreter of the same version has the same packages.
    fs_err::remove_dir_all(context.store()).unwrap();
    let mirror = trainlock_testing::refusing_url("/mirror");
    let mut command = context.command(["train", "--locked", "--force"]);
    command.env("UV_PYTHON_INSTALL_MIRROR", mirror).env("PIP_INDEX_URL", &index);
    let ran = Ran::of(&mut command).expect(0);
    assert!(ran.stderr.contains("the locked build can't be had"), "{}", ran.stderr);
    assert_eq!(context.read("out"), "1.0 2.0 False True\n1.0\n");
}

#[test]
fn a_source_distribution_is_built_only_where_it_is_named() {
    let context = project("");
    let Some(index) = demo(&context) else { return };
    // With a build backend of its own, which needs `base`.
    const MAKE: &str = r#"
import io, sys, tarfile
files = {
    'PKG-INFO': 'Metadata-Version: 2.2\nName: built\nVersion: 3.0\nRequires-Dist: base\n',
    'pyproject.toml': '[build-system]\nrequires = ["base"]\nbuild-backend = "backend"\nbackend-path = ["."]\n[project]\nname = "built"\nversion = "3.0"\ndependencies = ["base"]\n',
    'backend.py': '''
import os, zipfile, base
def build_wheel(folder, config=None, metadata=None):
    name = 'built-3.0-py3-none-any.whl'
    with zipfile.ZipFile(os.path.join(folder, name), 'w') as a:
        a.writestr('built.py', '__version__ = "3.0 by " + ' + repr(base.__version__) + '\\n')
        a.writestr('built-3.0.dist-info/METADATA', 'Metadata-Version: 2.2\\nName: built\\nVersion: 3.0\\nRequires-Dist: base\\n')
        a.writestr('built-3.0.dist-info/WHEEL', 'Wheel-Version: 1.0\\nGenerator: t\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')
        a.writestr('built-3.0.dist-info/RECORD', '')
    return name
''',
}
with tarfile.open(sys.argv[1], 'w:gz') as archive:
    for name, text in files.items():
        info = tarfile.TarInfo('built-3.0/' + name)
        info.size = len(text)
        archive.addfile(info, io.BytesIO(text.encode()))
"#;
    let path = context.root().join("built-3.0.tar.gz");
    assert!(Command::new("python3").args(["-c", MAKE]).arg(&path).status().unwrap().success());
    index.add("built", "built-3.0.tar.gz", Arc::new(fs_err::read(&path).unwrap()));
    let asks = |more: &str| with_packages(&format!("[python]\ndependencies = [\"built\"]\n{more}"), "built");
    write_manifest(&context, &asks(""));
    let failed = run(&context, &index.url(""), &["lock"]).expect(1);
    assert!(failed.stderr.contains("built"), "{}", failed.stderr);
    write_manifest(&context, &asks("sdist = [\"built\"]\n"));
    run(&context, &index.url(""), &["train"]).expect(0);
    assert_eq!(context.read("out"), "3.0 by 2.0\n");
    assert!(context.read("train.lock").contains("source = "));
}

#[test]
fn the_real_index_has_locks_for_all_platforms() {
    if uv().is_none() {
        return;
    }
    let dependencies = r#"["numpy", "scikit-learn", "lightgbm", "jax[cpu]", "torch"]"#;
    let manifest =
        format!("[tools]\npython3 = {{ version = \"*\", from = \"host\" }}\n[python]\ndependencies = {dependencies}\n");
    let context = project(&manifest);
    let lock = |context: &TestContext| {
        let mut command = context.command(["lock"]);
        as_configured(&mut command);
        command.env("HOME", context.home());
        Ran::of(&mut command)
    };
    lock(&context).expect(0);
    let text = context.read("train.lock");
    let lock_of = trainlock_lock::Lock::parse(&text, Path::new("train.lock")).unwrap();
    for name in ["numpy", "scikit-learn", "lightgbm", "jax", "jaxlib", "torch"] {
        let name = trainlock_types::Name::entry(name).unwrap();
        let wheels: Vec<&str> = lock_of
            .packages(None, None)
            .filter(|p| p.name == name)
            .flat_map(|p| &p.wheels)
            .map(|w| w.file.as_str())
            .collect();
        for platform in ["linux-x86_64", "linux-aarch64", "macos-aarch64"] {
            let platform = platform.parse().unwrap();
            let is_for = |file: &&str| trainlock_types::WheelName::parse(file).is_some_and(|w| w.is_for(platform));
            assert!(wheels.iter().any(is_for), "{name} {platform}: {wheels:?}");
        }
    }
    assert!(!text.contains("://"), "{text}");
    // What needs another numpy than is asked for.
    write_manifest(&context, &manifest.replace(dependencies, "[\n  \"numpy<2\",\n  \"jax>=0.10\",\n]"));
    let failed = lock(&context).expect(1);
    for word in ["train.toml:9:3", "\"numpy<2\"", "numpy>=2", "unsatisfiable"] {
        assert!(failed.stderr.contains(word), "{word}: {}", failed.stderr);
    }
}
