//! Repositories of the Hugging Face hub: olah plays the hub, with real repositories of git and git LFS, and the hub's own
//! library asks it, and the hub that trainlock gives to a step.

use crate::git_servers::{Server, git, listens};
use crate::servers::free_ports;
use crate::{have, project, write_manifest};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use trainlock_testing::{Ran, TestContext, as_configured, skipped};
use trainlock_types::{Digest, Platform};

/// The store that has the python packages of these tests. It stays for the next run of the tests.
fn store() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("hub/store")
}

/// With the machine's package index and the shared store.
fn with_packages(command: &mut Command) -> &mut Command {
    as_configured(command);
    command.env("TRAINLOCK_STORE", store())
}

/// The manifest's part for python packages on this machine.
fn python(dependency: &str) -> String {
    format!(
        "[workspace]\nplatforms = [\"{}\"]\n\n[tools]\npython3 = {{ version = \"*\", from = \"host\" }}\n\n[python]\ndependencies = [\"{dependency}\"]\n\n",
        Platform::host()
    )
}

/// A project whose packages are olah and what it needs, which is the hub's library; none (and said so) where it can't be had.
fn olah() -> Option<&'static Path> {
    static OLAH: OnceLock<Option<PathBuf>> = OnceLock::new();
    if !have(&["python3", "git", "git-lfs"]) {
        return None;
    }
    let found = OLAH.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hub/olah");
        fs_err::create_dir_all(&folder).unwrap();
        fs_err::write(folder.join("train.toml"), format!("[project]\nname = \"o\"\n{}", python("olah==0.5.*")))
            .unwrap();
        // What it installs for the first time is installed before tests do the same side by side.
        (in_olah(&folder, &["true"]).code == Some(0)).then_some(folder)
    });
    if found.is_none() {
        skipped("no package index can be reached to get olah from", true);
    }
    found.as_deref()
}

fn in_olah(folder: &Path, words: &[&str]) -> Ran {
    Ran::of(&mut olah_command(folder, words))
}

/// A program of olah's environment.
fn olah_command(folder: &Path, words: &[&str]) -> Command {
    let context = TestContext::new(env!("CARGO_BIN_EXE_trainlock"));
    let mut command = context.command(["run", "--"]);
    with_packages(&mut command).args(words).current_dir(folder);
    command
}

/// A hub with repositories of its own. It ends when it is dropped.
struct Hub {
    folder: PathBuf,
    url: String,
    olah: &'static Path,
    _server: Server,
}

impl Hub {
    fn start(context: &TestContext) -> Option<Hub> {
        let olah = olah()?;
        let folder = context.root().join("hub");
        fs_err::create_dir_all(folder.join("cache")).unwrap();
        let [port, nobody] = free_ports();
        let config = format!(
            "[basic]\nhost = \"127.0.0.1\"\nport = {port}\nrepos-path = \"{0}/cache\"\nmirrors-path = [\"{0}/mirrors\"]\nhf-scheme = \"http\"\nhf-netloc = \"127.0.0.1:{nobody}\"\n\n[accessibility]\noffline = true\n",
            folder.display()
        );
        fs_err::write(folder.join("olah.toml"), config).unwrap();
        let log = folder.join("log");
        let file = fs_err::File::create(&log).unwrap().into_parts().0;
        let mut command = olah_command(olah, &["olah-cli", "-c", &folder.join("olah.toml").to_string_lossy()]);
        // It writes its logs where it is started, and into the home folder.
        command.env("HOME", &folder).stderr(file);
        let mut server = Server::start(&mut command);
        server.ready(&log, || listens(port));
        Some(Hub { folder, url: format!("http://127.0.0.1:{port}"), olah, _server: server })
    }

    /// The working folder of a repository (`models/ORG/NAME`, `datasets/ORG/NAME`), which is what is served.
    fn at(&self, repository: &str) -> PathBuf {
        self.folder.join("mirrors").join(repository)
    }

    /// Publishes these files on `main`; the commit. What ends in `.bin` is kept by git LFS.
    fn publish(&self, repository: &str, files: &[(&str, &[u8])]) -> String {
        let at = self.at(repository);
        if !at.exists() {
            fs_err::create_dir_all(&at).unwrap();
            git(&at, &["init", "-q"]);
            git(&at, &["lfs", "install", "--local"]);
            git(&at, &["lfs", "track", "*.bin"]);
        }
        for (path, bytes) in files {
            let path = at.join(path);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, bytes).unwrap();
        }
        git(&at, &["add", "-A"]);
        git(&at, &["commit", "-q", "-m", "more"]);
        git(&at, &["rev-parse", "HEAD"])
    }

    /// A model and a data set, tagged `v1`; the data set's commit of it and the model's.
    fn publish_both(&self) -> (String, String) {
        let words = self.publish(
            "datasets/lab/words",
            &[("train/x.csv", b"a,b\n1,2\n"), ("train/ä b.csv", "ü\n".as_bytes()), ("README.md", b"# Words\n")],
        );
        git(&self.at("datasets/lab/words"), &["tag", "v1"]);
        let tiny = self.publish("models/lab/tiny", &[("config.json", b"{}\n"), ("weights/model.bin", &weights())]);
        (words, tiny)
    }

    fn run(&self, context: &TestContext, args: &[&str]) -> Ran {
        Ran::of(context.command(args).env("HF_ENDPOINT", &self.url))
    }

    /// What the hub was asked for.
    fn log(&self) -> String {
        fs_err::read_to_string(self.folder.join("log")).unwrap()
    }
}

/// More than what a hub or client takes for small, and nowhere the same.
fn weights() -> Vec<u8> {
    (0..700_000u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()[..2].to_vec()).collect()
}

/// Calls that name no revision, which the hub answers and olah does not.
const BARE: &str = r#"
from huggingface_hub import HfApi, HfFileSystem
api, fs = HfApi(), HfFileSystem()
model = fs.read_bytes("lab/tiny/weights/model.bin")
print(api.model_info("lab/tiny").sha, api.dataset_info("lab/words").sha, api.repo_exists("lab/tiny"), len(model), fs.read_bytes("lab/tiny/weights/model.bin", start=7, end=10) == model[7:10] and 3)
"#;

#[test]
fn the_hubs_own_library_gets_from_a_steps_hub_what_the_hub_gives() {
    let context = project("");
    let Some(hub) = Hub::start(&context) else { return };
    let (words, tiny) = hub.publish_both();
    let data =
        "[data]\nwords = { url = \"hf://datasets/lab/words\", rev = \"v1\" }\ntiny = { url = \"hf://lab/tiny\" }\n\n";
    let step = format!(
        "[steps.get]\nrun = \"python3 get.py {words} {{outputs.0}}; python3 bare.py >{{outputs.1}}\"\ninputs = [\"*.py\", \"data/words/\", \"data/tiny/\"]\noutputs = [\"out\", \"bare\"]\nserve = [\"hf\"]\n"
    );
    write_manifest(&context, &format!("{}{data}{step}", python("huggingface_hub")));
    context.write("get.py", include_str!("hub/get.py"));
    context.write("bare.py", BARE);
    let run = |args: &[&str]| Ran::of(with_packages(&mut context.command(args)).env("HF_ENDPOINT", &hub.url));
    run(&["lock"]).expect(0);
    run(&["fetch"]).expect(0);
    // The script where the hub itself is.
    let (script, upstream) = (context.project().join("get.py"), context.root().join("upstream"));
    let mut direct =
        olah_command(hub.olah, &["sh", "-c", "cd \"$0\" && exec python3 \"$@\"", &hub.folder.to_string_lossy()]);
    direct.arg(&script).arg(&words).arg(&upstream).env("HF_ENDPOINT", &hub.url).env("HF_HUB_DISABLE_XET", "1");
    Ran::of(direct.env("HF_HOME", hub.folder.join("home"))).expect(0);
    let expected = fs_err::read_to_string(upstream).unwrap();
    for text in [&format!("{words} train/ä b.csv 3 "), "weights/model.bin 1400000 ", &Digest::of(&weights()).to_hex()]
    {
        assert!(expected.contains(text), "{text}: {expected}");
    }
    // And in a step that has no network, of a hub that has moved on.
    hub.publish("models/lab/tiny", &[("config.json", b"{\"new\": 1}\n")]);
    let before = hub.log().len();
    run(&["train", "--frozen"]).expect(0);
    assert_eq!(context.read("out"), expected);
    assert_eq!(context.read("bare"), format!("{tiny} {words} True 1400000 3\n"));
    assert_eq!(hub.log()[before..].matches("HTTP/1.1").count(), 0, "{}", &hub.log()[before..]);
}

#[test]
fn the_hubs_own_library_is_refused_what_is_not_locked() {
    let context = project("");
    let Some(hub) = Hub::start(&context) else { return };
    hub.publish_both();
    hub.publish("models/lab/other", &[("x.json", b"{}")]);
    let manifest = |words: &str| {
        format!(
            "{}[data]\nwords = {{ url = \"hf://datasets/lab/words\", rev = \"v1\" }}\ntiny = {{ url = \"hf://lab/tiny\", files = [\"weights/*\"] }}\n\n[steps.get]\nrun = \"{words}\"\ninputs = [\"refused.py\", \"data/words/\", \"data/tiny/\"]\noutputs = [\"out\"]\nserve = [\"hf\"]\n",
            python("huggingface_hub")
        )
    };
    context.write("refused.py", include_str!("hub/refused.py"));
    let run = |args: &[&str]| Ran::of(with_packages(&mut context.command(args)).env("HF_ENDPOINT", &hub.url));
    write_manifest(&context, &manifest("python3 refused.py"));
    let ran = run(&["train"]).expect(1);
    for words in [
        "EntryNotFoundError\n",
        "refused: RepositoryNotFoundError\n",
        "refused: RevisionNotFoundError\n",
        "refused: FileNotFoundError\n",
        "other = { url = \"hf://lab/other\", rev = \"main\", files = [\"x.json\"] }",
        "more = { url = \"hf://datasets/lab/more\", rev = \"main\" }",
        "words-2 = { url = \"hf://datasets/lab/words\", rev = \"v2\" }",
        "third = { url = \"hf://datasets/lab/third\", rev = \"main\" }",
        "add \"config.json\" to `files` of `tiny`",
    ] {
        assert!(ran.stderr.contains(words), "{words}\n{}", ran.stderr);
    }
    // What is proposed is what it takes.
    let one = "python3 -c 'import huggingface_hub as h, shutil; shutil.copy(h.hf_hub_download(\\\"lab/other\\\", \\\"x.json\\\"), \\\"out\\\")'";
    write_manifest(&context, &manifest(one));
    run(&["train"]).expect(1);
    run(&["fix", "--yes"]).expect(0);
    run(&["train"]).expect(0);
    assert_eq!(context.read("out"), "{}");
}

/// Whether a store has bytes.
fn has(context: &TestContext, bytes: &[u8]) -> bool {
    let store = trainlock_store::Store::open(&context.store()).unwrap();
    store.object(&Digest::of(bytes), Some(bytes.len() as u64)).unwrap().is_some()
}

#[test]
fn a_hub_that_moves_on_and_loses_a_repository() {
    let context = project("");
    let Some(hub) = Hub::start(&context) else { return };
    let (words, tiny) = hub.publish_both();
    let data = "[data]\nwords = { url = \"hf://datasets/lab/words\", rev = \"v1\", files = [\"train/*.csv\"] }\ntiny = { url = \"hf://lab/tiny\", rev = \"main\" }\n";
    let step = "[steps.join]\nrun = \"cat data/words/train/*.csv data/tiny/weights/model.bin >out\"\ninputs = [\"data/words/\", \"data/tiny/\"]\noutputs = [\"out\"]\n";
    write_manifest(&context, &format!("{data}\n{step}"));
    let run = |args: &[&str]| hub.run(&context, args);
    let empty = || fs_err::remove_dir_all(context.store()).unwrap();

    // What the hub states the SHA-256 of is not fetched to be locked.
    run(&["lock"]).expect(0);
    let (lock, big) = (context.read("train.lock"), Digest::of(&weights()).to_hex());
    for text in [&*format!("hf://datasets/lab/words@{words}"), &format!("hf://lab/tiny@{tiny}"), "train/ä b.csv", &big]
    {
        assert!(lock.contains(text), "{text}\n{lock}");
    }
    assert!(!lock.contains("README") && !lock.contains("127.0.0.1"), "{lock}");
    assert!(!hub.log().contains("model.bin") && hub.log().contains("config.json"), "{}", hub.log());
    assert!(!has(&context, &weights()) && has(&context, b"{}\n"));
    empty();
    fs_err::remove_file(context.project().join("train.lock")).unwrap();
    run(&["lock"]).expect(0);
    assert_eq!(context.read("train.lock"), lock);

    run(&["train", "--locked"]).expect(0);
    assert_eq!(context.read_bytes("out"), [b"a,b\n1,2\n", "ü\n".as_bytes(), &weights()].concat());
    run(&["seal"]).expect(0);
    run(&["verify"]).expect(0);
    let lock = context.read("train.lock");

    // The branch moves: what is locked is what comes, until something else is asked for.
    let moved: Vec<u8> = weights().into_iter().rev().collect();
    let second = hub.publish("models/lab/tiny", &[("weights/model.bin", &moved)]);
    hub.publish("datasets/lab/words", &[("train/x.csv", b"changed\n")]);
    run(&["lock", "--check"]).expect(0);
    empty();
    run(&["fetch", "--locked", "--link"]).expect(0);
    assert_eq!(context.read_bytes("data/tiny/weights/model.bin"), weights());
    assert_eq!(context.read("data/words/train/x.csv"), "a,b\n1,2\n");
    let outdated = run(&["outdated"]).expect(0);
    assert!(outdated.stdout.contains(&format!("{} -> {}", &tiny[..12], &second[..12])), "{}", outdated.stdout);
    assert!(!outdated.stdout.contains(&words[..12]), "a tag stays: {}", outdated.stdout);
    let updated = run(&["update"]).expect(0);
    assert!(updated.stderr.contains("tiny") && !updated.stderr.contains("words"), "{}", updated.stderr);
    assert_eq!(context.read("train.lock").matches(&second).count(), 1);
    run(&["fetch", "--locked", "--link"]).expect(0);
    assert_eq!(context.read_bytes("data/tiny/weights/model.bin"), moved);

    // What is not there: a revision, and then the repository.
    let with = |from: &str, to: &str| {
        context.write("train.toml", context.read("train.toml").replace(from, to));
        run(&["lock"]).expect(1).stderr
    };
    let told = with("rev = \"v1\"", "rev = \"v2\"");
    for text in ["`words`", "no revision `v2`", "did you mean `v1`"] {
        assert!(told.contains(text), "{text}\n{told}");
    }
    let told = with("rev = \"v2\", files = [\"train/*.csv\"]", "rev = \"v1\", files = [\"train/*.parquet\"]");
    assert!(told.contains("no file matches train/*.parquet") && told.contains("it has 4 files"), "{told}");
    let away = context.root().join("away");
    fs_err::rename(hub.at("models/lab/tiny"), &away).unwrap();
    context.write("train.toml", context.read("train.toml").replace("*.parquet", "*.csv"));
    context.write("train.lock", &lock);
    empty();
    let gone = run(&["fetch", "--locked"]).expect(1);
    for text in ["`tiny`", "the hub has no model `lab/tiny`", &format!("look for it at {}/lab/tiny:", hub.url)] {
        assert!(gone.stderr.contains(text), "{text}\n{}", gone.stderr);
    }
    let outdated = run(&["outdated"]).expect(0);
    assert!(outdated.stdout.contains("gone: the hub has no model `lab/tiny`"), "{}", outdated.stdout);
    let audit = run(&["audit", "--strict"]).expect(1);
    assert!(audit.stdout.contains("the hub has no model `lab/tiny`"), "{}", audit.stdout);
    fs_err::remove_file(context.project().join("train.lock")).unwrap();
    let gone = run(&["lock"]).expect(1);
    assert!(gone.stderr.contains("the hub has no model `lab/tiny`"), "{}", gone.stderr);
    // It is there again.
    fs_err::rename(&away, hub.at("models/lab/tiny")).unwrap();
    context.write("train.lock", &lock);
    run(&["fetch", "--locked"]).expect(0);
    assert!(has(&context, &weights()));
}

#[test]
fn a_description_of_a_repository_of_the_hub() {
    let context = project("[data]\nwords = { croissant = \"words.json\" }\n");
    let Some(hub) = Hub::start(&context) else { return };
    let (words, _) = hub.publish_both();
    // As the hub writes them, for another branch.
    context.write(
        "words.json",
        r#"{"@type": "sc:Dataset", "distribution": [
  {"@type": "cr:FileObject", "@id": "repo", "name": "repo", "encodingFormat": "git+https",
   "contentUrl": "https://huggingface.co/datasets/lab/words/tree/main", "sha256": "https://github.com/mlcommons/croissant/issues/80"},
  {"@type": "cr:FileSet", "@id": "files", "containedIn": {"@id": "repo"}, "encodingFormat": "text/csv", "includes": "train/*.csv"}]}"#,
    );
    let run = |args: &[&str]| hub.run(&context, args);
    let fetched = |text: &str| {
        fs_err::remove_dir_all(context.store()).unwrap();
        run(&["fetch", "--locked", "--link"]).expect(0);
        assert_eq!(
            (context.read("data/words/train/x.csv").as_str(), context.has("data/words/README.md")),
            (text, false)
        );
    };
    run(&["lock"]).expect(0);
    let lock = context.read("train.lock");
    let source = format!("source = \"hf://datasets/lab/words@{words}\"");
    assert!(lock.contains(&source) && lock.contains("train/ä b.csv") && !lock.contains("README"), "{lock}");
    fs_err::remove_file(context.project().join("train.lock")).unwrap();
    run(&["lock"]).expect(0);
    assert_eq!(context.read("train.lock"), lock);
    fetched("a,b\n1,2\n");
    let outdated = run(&["outdated"]).expect(0);
    assert!(outdated.stderr.contains("1 as locked, 0 outdated"), "{}{}", outdated.stdout, outdated.stderr);
    let audit = run(&["audit"]).expect(0);
    assert!(audit.stdout.contains("train/x.csv"), "{}", audit.stdout);
    let second = hub.publish("datasets/lab/words", &[("train/x.csv", b"changed\n")]);
    run(&["lock", "--check"]).expect(0);
    fetched("a,b\n1,2\n");
    let outdated = run(&["outdated"]).expect(0);
    assert!(outdated.stdout.contains(&format!("{} -> {}", &words[..12], &second[..12])), "{}", outdated.stdout);
    run(&["update"]).expect(0);
    assert!(context.read("train.lock").contains(&second));
    fetched("changed\n");
    // Another description asks for something else.
    context
        .write("words.json", context.read("words.json").replace("\"train/*.csv\"", "[\"*\"], \"excludes\": \"*.csv\""));
    run(&["lock", "--check"]).expect(3);
    run(&["lock"]).expect(0);
    let lock = context.read("train.lock");
    assert!(lock.contains("README.md") && !lock.contains("x.csv"), "{lock}");
}
