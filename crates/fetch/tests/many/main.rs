//! Sources of many files, each against a server that plays its part: what is locked, what comes back later, and what
//! is said when it is no longer that.

mod hub;

use std::io::Write as _;
use std::path::PathBuf;
use tempfile::TempDir;
use trainlock_fetch::{
    Content, FetchError, Fetcher, IndexSettings, ManyWanted, PackageIndex, Resolved, Settings, Want, Wanted,
};
use trainlock_store::{Session, Store};
use trainlock_testing::{Fault, FaultServer};
use trainlock_types::{DataRequest, DataSource, Digest, Events, Name, RelPath, SourceUrl};

struct Place {
    root: TempDir,
    server: FaultServer,
}

impl Place {
    fn new() -> Place {
        Place { root: TempDir::new().unwrap(), server: FaultServer::start() }
    }

    fn settings(&self) -> Settings {
        let index =
            IndexSettings { indexes: vec![self.server.url("/simple/").parse().unwrap()], ..IndexSettings::default() };
        Settings {
            retries: 0,
            package_index: PackageIndex::later(|| Ok(index)),
            root: self.root.path().to_owned(),
            hub: self.server.url("").parse().unwrap(),
            ..Settings::default()
        }
    }

    fn session(&self, store: &str) -> Session {
        Store::open(&self.root.path().join(store)).unwrap().session().unwrap()
    }

    fn write(&self, path: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.root.path().join(path);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(&path, text).unwrap();
        path
    }

    fn resolve(&self, source: &DataSource) -> Result<Resolved, FetchError> {
        self.resolve_with(self.settings(), source)
    }

    fn resolve_with(&self, settings: Settings, source: &DataSource) -> Result<Resolved, FetchError> {
        let to = RelPath::parse("data/a").unwrap();
        let request = DataRequest { member: None, name: Name::entry("a").unwrap(), source: source.clone(), to };
        Fetcher::new(settings, Events::none()).resolve_all(&self.session("one"), &[&request]).remove(0)
    }

    /// Locks, and brings what was locked into another store; its paths, and the same again without the listing.
    fn there_and_back(&self, source: &DataSource) -> Vec<String> {
        let resolved = self.resolve(source).unwrap();
        assert_eq!(self.resolve(source).unwrap(), resolved, "locked again");
        for (store, with_listing) in [("two", true), ("three", false)] {
            self.bring(store, &wanted(source, &resolved, with_listing)).unwrap();
        }
        paths(&resolved)
    }

    fn bring(&self, store: &str, many: &ManyWanted) -> Result<(), FetchError> {
        let want = Want { name: "a".into(), sources: vec![], content: Wanted::Many(Box::new(many.clone())) };
        let session = self.session(store);
        let result = Fetcher::new(self.settings(), Events::none()).bring_all(&session, &[want]).remove(0);
        assert_eq!(session.store().has_tree(&many.tree), result.is_ok());
        result
    }
}

fn paths(resolved: &Resolved) -> Vec<String> {
    let Content::Tree { listing, .. } = &resolved.content else { panic!("a tree") };
    listing.entries().iter().map(|e| e.path.to_string()).collect()
}

fn wanted(source: &DataSource, resolved: &Resolved, with_listing: bool) -> ManyWanted {
    let Content::Tree { digest, size, count, listing } = &resolved.content else { panic!("a tree") };
    ManyWanted {
        source: source.clone(),
        resolved: resolved.source.clone(),
        by: resolved.archive,
        tree: *digest,
        size: *size,
        count: *count,
        listing: with_listing.then(|| listing.clone()),
        versions: Vec::new(),
    }
}

fn url(text: &str, files: &[&str]) -> DataSource {
    DataSource::Url {
        url: SourceUrl::parse(text).unwrap(),
        mirrors: vec![],
        checksum: None,
        size: None,
        rev: None,
        files: files.iter().map(|f| (*f).to_owned()).collect(),
        extract: None,
        unpack: false,
    }
}

fn zip(members: &[(&str, &str)]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, text) in members {
        zip.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(text.as_bytes()).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn chain(error: &FetchError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text + &error.hint().unwrap_or_default()
}

#[test]
fn files_of_a_package() {
    let place = Place::new();
    let wheel = zip(&[("p/data/a.csv", "a"), ("p/data/b.txt", "b"), ("p/__init__.py", "")]);
    let page = |sha: &str| format!("<a href=\"/f/p-1.0-py3-none-any.whl#sha256={sha}\">p-1.0-py3-none-any.whl</a>");
    let sha256 = Digest::of(&wheel);
    place.server.serve("/f/p-1.0-py3-none-any.whl", wheel.clone());
    place.server.serve("/simple/p/", page(&sha256.to_hex()));
    let source = url("pypi:P@1.0", &["p/data/*.csv"]);
    assert_eq!(place.there_and_back(&source), ["p/data/a.csv"]);
    let resolved = place.resolve(&source).unwrap();
    assert_eq!(resolved.source.as_deref(), Some("pypi:P@1.0/p-1.0-py3-none-any.whl"));
    assert_eq!(resolved.archive, Some((sha256, wheel.len() as u64)));

    let error = place.resolve(&url("pypi:P@1.0", &["p/data/*.parquet"])).unwrap_err();
    assert!(chain(&error).contains("no file of p-1.0-py3-none-any.whl matches"), "{}", chain(&error));
    let error = place.resolve(&url("pypi:P@7", &[])).unwrap_err();
    assert!(chain(&error).contains("of P 7") && chain(&error).contains("1.0"), "{}", chain(&error));

    // Other bytes under the same name, told by the index itself, or by nobody but the digest; then nothing at all.
    let locked = wanted(&source, &resolved, true);
    place.server.serve("/simple/p/", page(&Digest::of(b"other").to_hex()));
    assert!(place.bring("four", &locked).unwrap_err().is_verification());
    place.server.serve("/simple/p/", page(&sha256.to_hex()));
    place.server.script("/f/p-1.0-py3-none-any.whl", wheel, [Fault::Flip(40)]);
    assert!(place.bring("four", &locked).unwrap_err().is_verification());
    place.server.serve("/simple/p/", "<html></html>");
    let error = chain(&place.bring("four", &locked).unwrap_err());
    assert!(error.contains("no longer has this file") && !error.contains("127.0.0.1"), "{error}");
}

/// A description at an address: a file with a hash, one without, and some out of an archive.
fn described(place: &Place, one: &str) -> DataSource {
    let archive = zip(&[("in/x.csv", "x"), ("in/y.csv", "y"), ("in/deep/z.csv", "z"), ("in/no.txt", "n")]);
    place.server.serve("/d/one.csv", one);
    place.server.serve("/d/two.csv", "two");
    place.server.serve("/d/a.zip", archive);
    let text = format!(
        r#"{{"distribution": [
            {{"@type": "cr:FileObject", "@id": "one.csv", "contentUrl": "one.csv", "sha256": "{}"}},
            {{"@type": "cr:FileObject", "@id": "2", "name": "sub/two.csv", "contentUrl": "{}"}},
            {{"@type": "cr:FileObject", "@id": "zip", "name": "a.zip", "contentUrl": "a.zip"}},
            {{"@type": "cr:FileObject", "@id": "x", "name": "x.csv", "contentUrl": "in/x.csv", "containedIn": {{"@id": "zip"}}}},
            {{"@type": "cr:FileSet", "@id": "rest", "containedIn": {{"@id": "zip"}}, "includes": "in/*.csv", "excludes": "*/x.csv"}}]}}"#,
        Digest::of(b"one").to_hex(),
        place.server.url("/d/two.csv"),
    );
    place.server.serve("/d/croissant.json", text);
    DataSource::Croissant(place.server.url("/d/croissant.json"))
}

#[test]
fn what_a_croissant_description_lists() {
    let place = Place::new();
    let source = described(&place, "one");
    assert_eq!(place.there_and_back(&source), ["in/deep/z.csv", "in/y.csv", "one.csv", "sub/two.csv", "x.csv"]);
    let resolved = place.resolve(&source).unwrap();
    assert!(resolved.archive.is_some() && resolved.source.is_none());
    let locked = wanted(&source, &resolved, true);

    // A file that is not what the description states, one that is not what was locked, another description.
    let fresh = Place::new();
    let error = fresh.resolve(&described(&fresh, "changed")).unwrap_err();
    assert!(error.is_verification(), "{}", chain(&error));
    place.server.serve("/d/two.csv", "three");
    let error = place.bring("four", &locked).unwrap_err();
    assert!(error.is_verification() && chain(&error).contains("sub/two.csv"), "{}", chain(&error));
    assert!(chain(&error).contains("`trainlock update` with the data set's name"), "{}", chain(&error));
    place.server.serve("/d/two.csv", "two");
    place.server.serve("/d/croissant.json", "{}");
    assert!(place.bring("five", &locked).unwrap_err().is_verification());
    assert!(chain(&place.resolve(&source).unwrap_err()).contains("no `distribution`"));
}

#[test]
fn a_strangers_description_reaches_nothing_of_this_machine() {
    let place = Place::new();
    let secret = place.write("secret", "s");
    let entry = |url: &str, name: &str| {
        format!(
            r#"{{"distribution": [{{"@type": "FileObject", "@id": "f", "name": "{name}", "contentUrl": "{url}"}}]}}"#
        )
    };
    let cases = [
        (entry(&format!("file://{}", secret.display()), "f"), "a file of this machine"),
        (entry("https://example.org/x", "../f"), "no path of a file"),
        (entry("https://example.org/x", "/etc/f"), "no path of a file"),
        (entry("git+https://example.org/x", "f"), "nothing says which of its files are meant"),
        (entry(&format!("git+file://{}", place.root.path().display()), "f"), "is not followed in a description"),
    ];
    for (text, words) in cases {
        place.server.serve("/c.json", text);
        let error = place.resolve(&DataSource::Croissant(place.server.url("/c.json"))).unwrap_err();
        assert!(chain(&error).contains(words), "{words}: {}", chain(&error));
    }
    // A description of the repository names files of the repository, and no others.
    place.write("meta/here.csv", "h");
    place.write("meta/c.json", entry("here.csv", "here.csv"));
    let local = DataSource::Croissant("meta/c.json".to_owned());
    assert_eq!(place.there_and_back(&local), ["here.csv"]);
    for outside in ["../../x", "/etc/hostname", &format!("file://{}", secret.display())] {
        place.write("meta/c.json", entry(outside, "f"));
        assert!(place.resolve(&local).is_err(), "{outside}");
    }
}

#[test]
fn what_a_pooch_registry_lists() {
    let place = Place::new();
    place.server.serve("/base/a.csv", "a");
    place.server.serve("/base/sub/b%20b.csv", "b");
    place.server.serve("/c", "c");
    let md5 = "4a8a08f09d37b73795649038408b5f33";
    let registry = format!(
        "# volumes\na.csv {}\n'sub/b b.csv' sha256:{}\nc.csv md5:{md5} {}\n",
        Digest::of(b"a").to_hex(),
        Digest::of(b"b").to_hex(),
        place.server.url("/c")
    );
    place.write("registry.txt", &registry);
    let base = SourceUrl::parse(&place.server.url("/base")).ok();
    let source = DataSource::Pooch { registry: RelPath::parse("registry.txt").unwrap(), base };
    assert_eq!(place.there_and_back(&source), ["a.csv", "c.csv", "sub/b b.csv"]);
    let resolved = place.resolve(&source).unwrap();

    // Not what the registry states; then a registry that says something else than when it was locked.
    place.server.serve("/base/a.csv", "b");
    fs_err::remove_dir_all(place.root.path().join("one")).unwrap();
    assert!(place.resolve(&source).unwrap_err().is_verification());
    place.write("registry.txt", "a.csv\n");
    let error = chain(&place.bring("four", &wanted(&source, &resolved, true)).unwrap_err());
    assert!(error.contains("not the one that was locked") && error.contains("trainlock lock"), "{error}");
    assert!(chain(&place.resolve(&source).unwrap_err()).contains("line 1 of `registry.txt`"));
}

/// Runs git in a folder, as nobody in particular.
fn git(folder: &std::path::Path, args: &[&str]) -> String {
    let mut command = std::process::Command::new("git");
    command.args(["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"]);
    let out = command.arg("-C").arg(folder).args(args).env("GIT_CONFIG_GLOBAL", "/dev/null").output().unwrap();
    assert!(out.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

#[test]
fn a_git_repository() {
    let place = Place::new();
    let repository = place.root.path().join("a repository");
    place.write("a repository/en/words.txt", "one\r\ntwo\n");
    place.write("a repository/en/tool", "#!/bin/sh\n");
    place.write("a repository/de/Wörter.txt", "eins\n");
    // What git would do to files on the way out has no say.
    place.write("a repository/.gitattributes", "*.txt text eol=crlf\n");
    git(&repository, &["init", "--quiet"]);
    git(&repository, &["config", "core.autocrlf", "false"]);
    let tool = repository.join("en/tool");
    fs_err::set_permissions(&tool, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    fs_err::os::unix::fs::symlink("words.txt", repository.join("en/link")).unwrap();
    git(&repository, &["add", "."]);
    git(&repository, &["commit", "--quiet", "-m", "first"]);
    git(&repository, &["tag", "-a", "v1", "-m", "v1"]);
    let first = git(&repository, &["rev-parse", "HEAD"]);
    let address = format!("git+file://{}", repository.display()).replace(' ', "%20");
    let at = |rev: Option<&str>, files: &[&str]| match url(&address, files) {
        DataSource::Url { url, files, .. } => DataSource::Url {
            url,
            files,
            rev: rev.map(str::to_owned),
            mirrors: vec![],
            checksum: None,
            size: None,
            extract: None,
            unpack: false,
        },
        _ => unreachable!(),
    };
    let tagged = at(Some("v1"), &["en/**"]);
    assert_eq!(place.there_and_back(&tagged), ["en/link", "en/tool", "en/words.txt"]);
    let resolved = place.resolve(&tagged).unwrap();
    assert_eq!(resolved.source, Some(format!("{address}@{first}")));
    let Content::Tree { listing, digest, .. } = &resolved.content else { panic!() };
    assert!(listing.to_text().contains("+x") && listing.to_text().contains("+l"), "{}", listing.to_text());
    let store = Store::open(&place.root.path().join("two")).unwrap();
    let words = store.tree(digest).unwrap().join("en/words.txt");
    assert_eq!(fs_err::read(words).unwrap(), git_show(&repository, "HEAD:en/words.txt"), "as git has it");
    for rev in [None, Some("main"), Some(first.as_str()), Some("refs/heads/main")] {
        assert_eq!(place.resolve(&at(rev, &["en/**"])).unwrap().source, resolved.source, "{rev:?}");
    }

    // The branch moves on and the tag stays; then history is rewritten, and the commit is gone.
    place.write("a repository/en/words.txt", "three\n");
    git(&repository, &["commit", "--quiet", "-am", "second"]);
    assert_eq!(place.resolve(&tagged).unwrap(), resolved);
    let head = at(None, &["en/**"]);
    let second = place.resolve(&head).unwrap();
    assert_ne!(second.source, resolved.source);
    git(&repository, &["reset", "--quiet", "--hard", "v1"]);
    git(&repository, &["reflog", "expire", "--expire=now", "--all"]);
    git(&repository, &["gc", "--quiet", "--prune=now"]);
    let error = chain(&place.bring("four", &wanted(&head, &second, true)).unwrap_err());
    assert!(error.contains("no longer has commit") && error.contains("trainlock update"), "{error}");

    // What is not there, and what is not fetched.
    let said = |rev, files: &[&str]| chain(&place.resolve(&at(rev, files)).unwrap_err());
    assert!(said(Some("v2"), &[]).contains("did you mean `v1`"), "{}", said(Some("v2"), &[]));
    assert!(said(None, &["fr/**"]).contains("no file matches fr/**"), "{}", said(None, &["fr/**"]));
    place.write("a repository/big.bin", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n");
    git(&repository, &["add", "."]);
    git(&repository, &["update-index", "--add", "--cacheinfo", &format!("160000,{first},sub")]);
    git(&repository, &["commit", "--quiet", "-m", "third"]);
    assert!(said(None, &["*.bin"]).contains("`big.bin` is a pointer of git LFS"), "{}", said(None, &["*.bin"]));
    for files in [&[][..], &["sub/**"]] {
        assert!(said(None, files).contains("`sub` is a submodule"), "{}", said(None, files));
    }
    assert_eq!(paths(&place.resolve(&at(None, &["de/*"])).unwrap()), ["de/Wörter.txt"]);
    let nowhere = url("git+file:///nowhere/at/all", &[]);
    assert!(chain(&place.resolve(&nowhere).unwrap_err()).contains("git says of file:///nowhere/at/all"));
}

fn git_show(folder: &std::path::Path, what: &str) -> Vec<u8> {
    std::process::Command::new("git").arg("-C").arg(folder).args(["cat-file", "blob", what]).output().unwrap().stdout
}
