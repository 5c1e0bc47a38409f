//! What `outdated` and `audit` say of each kind of source: nothing changed, changed, gone, not to be reached; and that neither reads a
//! file of what is locked.

use crate::{project, write_manifest};
use serde_json::Value;
use std::path::PathBuf;
use trainlock_testing::{Fault, FaultServer, Ran, TestContext};
use trainlock_types::{Digest, Platform};

/// What was said of something: in a word, and in more.
pub(crate) type Said = (String, String);

fn lines(ran: &Ran) -> Vec<Value> {
    ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn keys(line: &Value) -> Vec<&str> {
    line.as_object().unwrap().keys().map(String::as_str).collect()
}

/// What `outdated --json` says of a name.
pub(crate) fn outdated(ran: &Ran, name: &str) -> Said {
    let found = lines(ran);
    let line = found.iter().find(|line| line["name"] == name).unwrap_or_else(|| panic!("{name}: {found:#?}"));
    assert_eq!(keys(line), ["kind", "name", "state", "by", "locked", "now", "why"]);
    let words = match line["locked"].as_str() {
        Some(locked) => format!("{locked} -> {}", text(&line["now"])),
        None => text(&line["by"]) + &text(&line["why"]),
    };
    (text(&line["state"]), words)
}

/// What `audit --json` says of an input's addresses: each that part of its address has.
pub(crate) fn audited(ran: &Ran, input: &str, address: &str) -> Said {
    let found = lines(ran);
    let is_it = |line: &&Value| {
        line["section"] == "addresses" && line["input"] == input && text(&line["address"]).contains(address)
    };
    let line = found.iter().find(is_it).unwrap_or_else(|| panic!("{input} {address}: {found:#?}"));
    assert_eq!(keys(line), ["input", "address", "state", "by", "why", "section"]);
    (text(&line["state"]), text(&line["by"]) + &text(&line["why"]))
}

fn is(state: &str, words: &str) -> Said {
    (state.to_owned(), words.to_owned())
}

/// A project whose configuration reads these addresses from these servers.
struct Ours {
    context: TestContext,
    config: PathBuf,
    variables: Vec<(&'static str, String)>,
}

impl Ours {
    fn new(manifest: &str, replaced: &[(&str, &FaultServer)]) -> Ours {
        let context = project(manifest);
        let config = context.root().join("config.toml");
        let table = |(url, server): &(&str, &FaultServer)| {
            format!("[source.\"{url}\"]\nreplace-with = \"{}\"\n", server.url(""))
        };
        let tables: String = replaced.iter().map(table).collect();
        fs_err::write(&config, tables + "[fetch]\nretries = 0\n").unwrap();
        Ours { context, config, variables: Vec::new() }
    }

    fn run(&self, args: &[&str]) -> Ran {
        let mut command = self.context.command(args);
        command.env("TRAINLOCK_CONFIG", &self.config).envs(self.variables.iter().map(|(k, v)| (*k, v)));
        Ran::of(&mut command)
    }

    /// Nothing is outdated, and every address answers.
    fn all_is_as_locked(&self, count: usize) {
        let outdated = self.run(&["outdated"]).expect(0);
        assert_eq!(outdated.stdout, "", "{}", outdated.stderr);
        assert!(outdated.stderr.contains(&format!("{count} as locked, 0 outdated\n")), "{}", outdated.stderr);
        let audit = self.run(&["audit", "-v"]).expect(0);
        assert!(audit.stdout.contains(" as is locked\n") && !audit.stdout.contains("not known"), "{}", audit.stdout);
    }
}

const HELLO: &str = "hello\n";
const HELLO_MD5: &str = "b1946ac92492d2347c6235b4d2611184";

/// The records of three repositories, each with a file `a.txt`.
fn records(zenodo: &FaultServer, figshare: &FaultServer, dataverse: &FaultServer) {
    zenodo.script("/api/records/100", "", [Fault::Redirect("/api/records/102".to_owned())]);
    let file = format!(r#"{{"key": "a.txt", "size": 6, "checksum": "md5:{HELLO_MD5}"}}"#);
    zenodo.serve("/api/records/102", format!(r#"{{"id": 102, "files": [{file}]}}"#));
    zenodo.serve("/api/records/102/files/a.txt/content", HELLO);

    figshare.serve("/v2/articles/50", r#"{"id": 50, "version": 3}"#);
    let file = format!(
        r#"[{{"id": 7, "name": "a.txt", "size": 6, "download_url": "https://ndownloader.figshare.com/files/7", "computed_md5": "{HELLO_MD5}"}}]"#
    );
    figshare.serve("/v2/articles/50/versions/3/files", file);
    figshare.serve("/files/7", HELLO);

    dataverse.serve(
        "/api/handles/10.7910/DVN/ABC",
        r#"{"values": [{"type": "URL", "data": {"value": "https://data.example.org/citation?persistentId=doi:10.7910/DVN/ABC"}}]}"#,
    );
    let version = |number: u32| dataverse_version(number, 6);
    dataverse.serve("/api/datasets/:persistentId", format!(r#"{{"data": {{"latestVersion": {}}}}}"#, version(2)));
    dataverse.serve("/api/datasets/:persistentId/versions/2.0", format!(r#"{{"data": {}}}"#, version(2)));
    dataverse.serve("/api/access/datafile/11", HELLO);
}

fn dataverse_version(number: u32, size: u32) -> String {
    format!(
        r#"{{"versionNumber": {number}, "files": [{{"label": "a.txt", "dataFile": {{"id": 11, "filesize": {size}, "checksum": {{"type": "MD5", "value": "{HELLO_MD5}"}}}}}}]}}"#
    )
}

#[test]
fn data_of_records_with_a_doi() {
    let (zenodo, figshare, dataverse) = (FaultServer::start(), FaultServer::start(), FaultServer::start());
    records(&zenodo, &figshare, &dataverse);
    let replaced = [
        ("https://zenodo.org", &zenodo),
        ("https://api.figshare.com", &figshare),
        ("https://ndownloader.figshare.com", &figshare),
        ("https://doi.org", &dataverse),
        ("https://data.example.org", &dataverse),
    ];
    let manifest = "[data]\nz = { url = \"doi:10.5281/zenodo.100\" }\nf = { url = \"doi:10.6084/m9.figshare.50\" }\nd = { url = \"doi:10.7910/DVN/ABC\" }\n";
    let ours = Ours::new(manifest, &replaced);
    ours.run(&["lock"]).expect(0);
    let lock = ours.context.read("train.lock");
    let files = || {
        let sent = [
            zenodo.bytes("/api/records/102/files/a.txt/content"),
            figshare.bytes("/files/7"),
            dataverse.bytes("/api/access/datafile/11"),
        ];
        sent.iter().sum::<u64>()
    };
    let before = files();
    ours.all_is_as_locked(3);
    assert!(files() - before <= 3, "a byte of each at most");

    // Newer versions: what is locked is still there.
    zenodo.script("/api/records/100", "", [Fault::Redirect("/api/records/104".to_owned())]);
    zenodo.serve("/api/records/104", r#"{"id": 104, "files": [{"key": "a.txt", "size": 9}]}"#);
    figshare.serve("/v2/articles/50", r#"{"id": 50, "version": 4}"#);
    figshare.serve("/v2/articles/50/versions/4/files", "[]");
    let newest = dataverse_version(3, 7);
    dataverse.serve("/api/datasets/:persistentId", format!(r#"{{"data": {{"latestVersion": {newest}}}}}"#));
    let ran = ours.run(&["outdated", "--json"]).expect(0);
    assert_eq!(outdated(&ran, "z"), is("moved", "doi:10.5281/zenodo.102 -> doi:10.5281/zenodo.104"));
    let article = "https://api.figshare.com/v2/articles/50/versions";
    assert_eq!(outdated(&ran, "f"), is("moved", &format!("{article}/3 -> {article}/4")));
    let (state, words) = outdated(&ran, "d");
    assert!(state == "moved" && words.contains("version=2.0 -> ") && words.ends_with("version=3.0"), "{words}");
    let ran = ours.run(&["audit", "--json"]).expect(0);
    for input in ["data z", "data f", "data d"] {
        assert_eq!(audited(&ran, input, ""), is("agrees", "size"));
    }

    // What a publisher changed behind its version's back.
    zenodo.serve("/api/records/102", r#"{"id": 102, "files": [{"key": "a.txt", "size": 9}]}"#);
    figshare.serve("/files/7", "hello!\n");
    dataverse.serve(
        "/api/datasets/:persistentId/versions/2.0",
        format!(r#"{{"data": {}}}"#, dataverse_version(2, 6).replace("a.txt", "b.txt")),
    );
    let ran = ours.run(&["audit", "--json"]).expect(4);
    assert_eq!(audited(&ran, "data z", ""), is("differs", "9 bytes, and 6 are locked"));
    assert_eq!(audited(&ran, "data f", ""), is("differs", "7 bytes, and 6 are locked"));
    assert_eq!(audited(&ran, "data d", ""), is("fails", "the source no longer lists it"));

    // Gone; and what is asked is told of, whatever became of the others.
    let missing = || [Fault::Status(404)];
    zenodo.script("/api/records/100", "", missing());
    zenodo.script("/api/records/102", "", missing());
    figshare.script("/v2/articles/50", "", missing());
    figshare.script("/v2/articles/50/versions/3/files", "", missing());
    dataverse.script("/api/handles/10.7910/DVN/ABC", "", missing());
    let ran = ours.run(&["outdated", "--json"]).expect(0);
    assert_eq!(outdated(&ran, "z"), is("gone", "there is no record 100 of Zenodo"));
    assert_eq!(outdated(&ran, "f"), is("gone", "there is no article 50 of figshare"));
    assert_eq!(outdated(&ran, "d"), is("gone", "there is no DOI `10.7910/DVN/ABC`"));
    let ran = ours.run(&["audit", "--json"]).expect(0);
    assert_eq!(audited(&ran, "data z", ""), is("fails", "record 102 of Zenodo is locked, and is not there any more"));
    assert_eq!(
        audited(&ran, "data f", ""),
        is("fails", "version 3 of article 50 of figshare is locked, and is not there any more")
    );
    ours.run(&["audit", "--strict"]).expect(1);

    // One server that is down; the others answer.
    records(&zenodo, &figshare, &dataverse);
    drop(zenodo);
    let ran = ours.run(&["outdated", "--json"]).expect(1);
    assert_eq!(outdated(&ran, "z").0, "failed");
    assert_eq!((outdated(&ran, "f").0, outdated(&ran, "d").0), ("same".to_owned(), "same".to_owned()));
    assert!(ran.stderr.contains("could not fetch `z`"), "{}", ran.stderr);
    let ran = ours.run(&["audit", "--json"]).expect(0);
    assert_eq!(audited(&ran, "data z", "").0, "fails");
    assert_eq!(audited(&ran, "data d", "datafile/11"), is("agrees", "size"));
    assert_eq!(ours.context.read("train.lock"), lock, "nothing is written");
    let refused = ours.run(&["outdated", "--offline"]).expect(2);
    assert!(refused.stderr.contains("needs the network"), "{}", refused.stderr);
}

/// A zip archive; what lies below `scripts/` can be executed.
fn zip(members: &[(&str, &[u8])]) -> Vec<u8> {
    use std::io::Write as _;
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in members {
        let mode = if name.contains("/scripts/") { 0o755 } else { 0o644 };
        zip.start_file(*name, zip::write::SimpleFileOptions::default().unix_permissions(mode)).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// A package index's page: each file with its bytes, and why it was withdrawn.
fn listing(server: &FaultServer, package: &str, files: &[(&str, &[u8], Option<&str>)]) {
    let link = |(file, bytes, yanked): &(&str, &[u8], Option<&str>)| {
        server.serve(&format!("/files/{file}"), bytes.to_vec());
        let yanked = yanked.map(|why| format!(" data-yanked=\"{why}\"")).unwrap_or_default();
        format!("<a href=\"/files/{file}#sha256={}\"{yanked}>{file}</a>\n", Digest::of(bytes))
    };
    let links: String = files.iter().map(link).collect();
    server.script(&format!("/simple/{package}/"), links, [Fault::Type("text/html")]);
}

fn wheel_of(host: Platform) -> &'static str {
    match host {
        Platform::LinuxX86_64 => "rg-1.0-py3-none-manylinux_2_17_x86_64.whl",
        Platform::LinuxAarch64 => "rg-1.0-py3-none-manylinux_2_17_aarch64.whl",
        Platform::MacosAarch64 | Platform::MacosX86_64 => "rg-1.0-py3-none-macosx_11_0_universal2.whl",
    }
}

#[test]
fn data_and_tools_inside_packages() {
    let server = FaultServer::start();
    let data = zip(&[("p/data/a.csv", b"a"), ("p/__init__.py", b"")]);
    let program = zip(&[("rg-1.0.data/scripts/rg", b"#!/bin/sh\necho one\n")]);
    let (own, tool) = ("p-1.0-py3-none-any.whl", wheel_of(Platform::host()));
    listing(&server, "p", &[(own, &data, None)]);
    listing(&server, "rg", &[(tool, &program, None)]);
    let manifest = format!(
        "[workspace]\nplatforms = [\"{}\"]\n[data]\nset = {{ url = \"pypi:p@1.0\", files = [\"p/data/*\"] }}\n[tools]\nrg = {{ version = \"*\", from = \"pypi\" }}\n",
        Platform::host()
    );
    let mut ours = Ours::new(&manifest, &[]);
    ours.variables = vec![("PIP_INDEX_URL", server.url("/simple"))];
    ours.run(&["lock"]).expect(0);
    let files = || server.bytes(&format!("/files/{own}")) + server.bytes(&format!("/files/{tool}"));
    let before = files();
    ours.all_is_as_locked(2);
    assert!(files() - before <= 2, "a byte of each at most");

    // A newer version of the tool; of data, whose version is fixed, a better file for it; what its publisher withdrew.
    let newer = tool.replace("1.0", "1.2");
    listing(&server, "rg", &[(tool, &program, None), (&newer, &program, None)]);
    listing(
        &server,
        "p",
        &[(own, &data, None), ("p-1.0-0-py3-none-any.whl", &data, None), ("p-2.0.tar.gz", b"x", None)],
    );
    let ran = ours.run(&["outdated", "--json"]).expect(0);
    assert_eq!(outdated(&ran, "rg"), is("moved", "1.0.0 -> 1.2.0"));
    assert_eq!(outdated(&ran, "set"), is("moved", &format!("{own} -> p-1.0-0-py3-none-any.whl")));
    listing(&server, "rg", &[(tool, &program, Some("a bad day")), (&newer, &program, None)]);
    listing(&server, "p", &[(own, &data, Some(""))]);
    let ran = ours.run(&["outdated", "--json"]).expect(0);
    assert_eq!(outdated(&ran, "rg"), is("withdrawn", "a bad day"));
    assert_eq!(outdated(&ran, "set"), is("withdrawn", ""));

    // Other bytes under the same name.
    listing(&server, "rg", &[(tool, b"other", None)]);
    listing(&server, "p", &[(own, b"other", None)]);
    let ran = ours.run(&["outdated", "--json"]).expect(0);
    let words =
        |locked: &[u8]| format!("sha256 {} -> sha256 {}", Digest::of(locked).short(), Digest::of(b"other").short());
    assert_eq!(outdated(&ran, "set"), is("moved", &words(&data)));
    let (state, of_tool) = outdated(&ran, "rg");
    assert!(state == "moved" && of_tool.contains(&Digest::of(b"other").short().to_string()), "{of_tool}");
    let ran = ours.run(&["audit", "--json"]).expect(4);
    for input in ["data set", "tool rg"] {
        assert_eq!(audited(&ran, input, "").0, "differs");
    }

    // Deleted: the files, then the packages.
    listing(&server, "rg", &[("rg-0.1.tar.gz", b"x", None)]);
    listing(&server, "p", &[("p-2.0.tar.gz", b"x", None)]);
    for step in ["files", "packages"] {
        if step == "packages" {
            server.script("/simple/rg/", "", [Fault::Status(404)]);
            server.script("/simple/p/", "", [Fault::Status(404)]);
        }
        let ran = ours.run(&["outdated", "--json"]).expect(0);
        assert_eq!((outdated(&ran, "rg").0, outdated(&ran, "set").0), ("gone".to_owned(), "gone".to_owned()));
        let ran = ours.run(&["audit", "--json"]).expect(0);
        assert!(audited(&ran, "tool rg", tool).1.contains("no longer has"), "{}", ran.stdout);
        assert!(audited(&ran, "data set", own).1.contains("no longer has"), "{}", ran.stdout);
    }

    // One package's page fails, then the whole index; its address is told nowhere.
    listing(&server, "rg", &[(tool, &program, None)]);
    server.script("/simple/p/", "", [Fault::Status(500)]);
    let ran = ours.run(&["outdated", "--json"]).expect(1);
    assert_eq!((outdated(&ran, "rg").0, outdated(&ran, "set").0), ("same".to_owned(), "failed".to_owned()));
    let port = server.url("").rsplit(':').next().unwrap().to_owned();
    drop(server);
    for command in ["outdated", "audit"] {
        let code = i32::from(command == "outdated");
        let ran = ours.run(&[command, "--json"]).expect(code);
        for text in [&ran.stdout, &ran.stderr] {
            assert!(!text.contains(&port), "{text}");
        }
        let [tool, data] = match command {
            "outdated" => ["rg", "set"].map(|name| outdated(&ran, name).0),
            _ => ["tool rg", "data set"].map(|name| audited(&ran, name, "").0),
        };
        assert!(tool.starts_with("fail") && data.starts_with("fail"), "{}", ran.stdout);
    }
    // No index is configured at all: that is told of what comes from it, and keeps nothing else from being asked.
    ours.variables = vec![("PIP_INDEX_URL", "no address".to_owned())];
    let ran = ours.run(&["audit", "--json"]).expect(0);
    assert_eq!(audited(&ran, "tool rg", "").0, "fails");
    let copies = lines(&ran).into_iter().find(|line| line["section"] == "copies" && line["input"] == "data set");
    assert_eq!(copies.map(|line| [line["copies"].clone(), line["store"].clone()]), Some([2.into(), true.into()]));
    let ran = ours.run(&["outdated", "--json"]).expect(1);
    assert_eq!(outdated(&ran, "rg").0, "failed");
}

#[test]
fn data_that_a_description_lists() {
    let server = FaultServer::start();
    let other = FaultServer::start();
    server.serve("/one.csv", "one\n");
    other.serve("/two.csv", "two\n");
    server.serve("/all.zip", zip(&[("in/a.csv", b"a")]));
    let node = |name: &str, url: &str| {
        format!(r#"{{"@type": "cr:FileObject", "@id": "{name}", "name": "{name}", "contentUrl": "{url}"}}"#)
    };
    let description = |more: &str| {
        let set = r#"{"@type": "cr:FileSet", "@id": "rest", "containedIn": {"@id": "all.zip"}, "includes": "in/*"}"#;
        let nodes = [node("one.csv", "one.csv"), node("all.zip", "all.zip"), set.to_owned()];
        format!(r#"{{"name": "{more}", "distribution": [{}]}}"#, nodes.join(", "))
    };
    server.serve("/croissant.json", description("first"));
    let manifest = format!(
        "[data]\ncr = {{ croissant = \"{}\" }}\npo = {{ pooch = \"registry.txt\", base-url = \"{}\" }}\n",
        server.url("/croissant.json"),
        other.url("/")
    );
    let ours = Ours::new(&manifest, &[]);
    // A registry states hashes: of files that are there already nothing is asked while locking.
    ours.context.write("registry.txt", format!("two.csv {}\n", Digest::of(b"two\n")));
    ours.run(&["lock"]).expect(0);
    let files = || server.bytes("/one.csv") + server.bytes("/all.zip") + other.bytes("/two.csv");
    let before = files();
    ours.all_is_as_locked(2);
    assert!(files() - before <= 6, "a byte of each, twice");

    // Files that changed while what lists them did not.
    server.serve("/one.csv", "one, changed\n");
    other.serve("/two.csv", "two, changed\n");
    let ran = ours.run(&["outdated", "--json"]).expect(0);
    assert_eq!(outdated(&ran, "cr"), is("moved", "2 files -> 1 changed (one.csv: 4 bytes -> 13 bytes)"));
    assert_eq!(outdated(&ran, "po"), is("moved", "1 file -> 1 changed (two.csv: 4 bytes -> 13 bytes)"));
    let ran = ours.run(&["audit", "--json"]).expect(4);
    assert_eq!(audited(&ran, "data cr", "one.csv"), is("differs", "13 bytes, and 4 are locked"));
    assert_eq!(audited(&ran, "data po", "two.csv"), is("differs", "13 bytes, and 4 are locked"));

    // Another description.
    let now = description("second");
    server.serve("/one.csv", "one\n");
    server.serve("/croissant.json", now.clone());
    let short = |text: &str| Digest::of(text.as_bytes()).short().to_string();
    let ran = ours.run(&["outdated", "--json"]).expect(0);
    let words = format!("sha256 {} -> sha256 {}", short(&description("first")), short(&now));
    assert_eq!(outdated(&ran, "cr"), is("moved", &words));
    let ran = ours.run(&["audit", "--json"]).expect(4);
    assert_eq!(audited(&ran, "data cr", "croissant.json"), is("differs", "another description than is locked"));

    // Gone: a file, an archive, the description.
    server.serve("/croissant.json", description("first"));
    server.script("/all.zip", "", [Fault::Status(404)]);
    other.script("/two.csv", "", [Fault::Status(410)]);
    let ran = ours.run(&["outdated", "--json"]).expect(0);
    assert_eq!(outdated(&ran, "cr"), is("moved", "2 files -> 1 gone (all.zip)"));
    assert_eq!(outdated(&ran, "po"), is("gone", "none of the 1 files is there any more"));
    let ran = ours.run(&["audit", "--json"]).expect(0);
    assert_eq!(audited(&ran, "data cr", "all.zip"), is("fails", "not found (status 404)"));
    assert_eq!(audited(&ran, "data po", "two.csv"), is("fails", "not found (status 410)"));
    server.script("/croissant.json", "", [Fault::Status(404)]);
    let ran = ours.run(&["outdated", "--json"]).expect(0);
    assert_eq!(outdated(&ran, "cr"), is("gone", "not found (status 404)"));

    // A server that is down.
    other.serve("/two.csv", "two\n");
    drop(server);
    let ran = ours.run(&["outdated", "--json"]).expect(1);
    assert_eq!((outdated(&ran, "cr").0, outdated(&ran, "po").0), ("failed".to_owned(), "same".to_owned()));
    let ran = ours.run(&["audit", "--json"]).expect(0);
    assert_eq!(audited(&ran, "data cr", "croissant.json").0, "fails");
    assert_eq!(audited(&ran, "data po", "two.csv"), is("agrees", "size"));
}

#[test]
fn files_with_mirrors() {
    let (first, second) = (FaultServer::start(), FaultServer::start());
    first.serve("/a.csv", "a\n");
    second.serve("/a.csv", "a\n");
    let manifest = format!(
        "[data]\na = {{ url = \"{}\", mirrors = [\"{}\"] }}\n",
        first.url("/a.csv"),
        second.other_host_url("/a.csv")
    );
    let ours = Ours::new(&manifest, &[]);
    ours.run(&["lock"]).expect(0);
    ours.all_is_as_locked(1);
    // What locking would take counts: the first that answers. `audit` tells of each.
    first.script("/a.csv", "", [Fault::Status(404)]);
    let ran = ours.run(&["outdated", "--json"]).expect(0);
    assert_eq!(outdated(&ran, "a"), is("same", "size"));
    let ran = ours.run(&["audit", "--json"]).expect(0);
    assert_eq!(audited(&ran, "data a", "127.0.0.1"), is("fails", "not found (status 404)"));
    assert_eq!(audited(&ran, "data a", "localhost"), is("agrees", "size"));
    second.script("/a.csv", "", [Fault::Status(404)]);
    let ran = ours.run(&["outdated", "--json"]).expect(0);
    assert_eq!(outdated(&ran, "a"), is("gone", "not found (status 404)"));
    let table = ours.run(&["outdated"]).expect(0);
    assert!(table.stdout.contains("gone: not found") && table.stderr.contains("1 outdated"), "{}", table.stdout);
    second.script("/a.csv", "", [Fault::Status(503)]);
    let ran = ours.run(&["outdated"]).expect(1);
    for words in ["404", "503", "could not fetch `a`"] {
        assert!(ran.stderr.contains(words), "{words}: {}", ran.stderr);
    }
}

fn layer(text: &str) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, "etc/issue", text.as_bytes()).unwrap();
    tar.into_inner().unwrap()
}

#[test]
fn container_images() {
    let (server, other) = (FaultServer::start(), FaultServer::start());
    let layers = [layer("one"), layer("two")];
    let digest = crate::images::serve(&server, "1", &layers);
    other.serve("/a.csv", "a\n");
    let reference = server.url("/test/sh:1").split_once("//").unwrap().1.to_owned();
    let manifest = |image: &str| {
        format!(
            "[data]\na = {{ url = \"{}\" }}\n[steps.s]\nimage = \"{image}\"\nrun = \"true\"\noutputs = [\"out\"]\n",
            other.url("/a.csv")
        )
    };
    let ours = Ours::new(&manifest(&reference), &[]);
    ours.run(&["lock"]).expect(0);
    let blob = |bytes: &[u8]| format!("/v2/test/sh/blobs/sha256:{}", Digest::of(bytes));
    let sent = || layers.iter().map(|bytes| server.bytes(&blob(bytes))).sum::<u64>();
    let before = sent();
    ours.all_is_as_locked(2);
    assert!(sent() - before <= 2, "a byte of each layer at most");
    let ran = ours.run(&["audit", "--json"]).expect(0);
    assert_eq!(audited(&ran, "image", &digest.to_hex()), is("agrees", "digest"));
    assert_eq!(audited(&ran, "image", &Digest::of(&layers[1]).to_hex()), is("agrees", "size"));

    // The tag moves: what is locked is still there.
    let moved = crate::images::serve(&server, "1", &[layer("one"), layer("three")]);
    let ran = ours.run(&["outdated", "--json"]).expect(0);
    assert_eq!(outdated(&ran, &reference), is("moved", &format!("sha256:{digest} -> sha256:{moved}")));
    ours.run(&["audit", "--strict"]).expect(1);
    let ran = ours.run(&["audit", "--json"]).expect(0);
    assert_eq!(audited(&ran, "image", &digest.to_hex()), is("agrees", "digest"));

    // A layer that is gone, one that is another, a manifest that is another.
    let before = ours.run(&["audit", "--json"]).expect(0);
    server.script(&blob(&layers[0]), "", [Fault::Status(404)]);
    server.serve(&blob(&layers[1]), "short");
    server.serve(&format!("/v2/test/sh/manifests/sha256:{digest}"), "{}");
    let ran = ours.run(&["audit", "--json"]).expect(4);
    assert_ne!(ran.stdout, before.stdout);
    let layer = |i: usize| audited(&ran, "image", &Digest::of(&layers[i]).to_hex());
    assert_eq!(layer(0), is("fails", "not found (status 404)"));
    assert_eq!(layer(1), is("differs", &format!("5 bytes, and {} are locked", layers[1].len())));
    assert_eq!(audited(&ran, "image", &digest.to_hex()), is("differs", "another manifest than is locked"));

    // The tag is gone, then the registry.
    server.script("/v2/test/sh/manifests/1", "", [Fault::Status(404)]);
    let ran = ours.run(&["outdated", "--json"]).expect(0);
    assert_eq!(outdated(&ran, &reference), is("gone", "not found (status 404)"));
    drop(server);
    let ran = ours.run(&["outdated", "--json"]).expect(1);
    assert_eq!((outdated(&ran, &reference).0, outdated(&ran, "a").0), ("failed".to_owned(), "same".to_owned()));
    assert!(ran.stderr.contains(&format!("image {reference}")), "{}", ran.stderr);
    let ran = ours.run(&["audit", "--json"]).expect(0);
    assert_eq!(audited(&ran, "image", &reference).0, "fails");
    assert_eq!(audited(&ran, "data a", ""), is("agrees", "size"));
    // A digest is what it is.
    write_manifest(&ours.context, &manifest(&format!("{}@sha256:{digest}", reference.trim_end_matches(":1"))));
    let ran = ours.run(&["outdated", "--json"]).expect(0);
    assert_eq!(outdated(&ran, "a").0, "same");
}

#[test]
fn tools_of_lists_and_releases() {
    let (server, other) = (FaultServer::start(), FaultServer::start());
    let platform = Platform::host();
    let list = |version: &str, bytes: &str| {
        server.serve("/tool", "tool");
        let sha256 = Digest::of(bytes.as_bytes());
        let text = format!(
            "[[version]]\nversion = \"{version}\"\n[version.files.{platform}]\nurl = \"tool\"\nsha256 = \"{sha256}\"\nsize = {}\n",
            bytes.len()
        );
        server.serve("/list.toml", text);
    };
    let releases = |version: &str, bytes: &str| {
        other.serve("/files/duck", "duck");
        let (sha256, url) = (Digest::of(bytes.as_bytes()), other.url("/files/duck"));
        let text = format!(
            r#"[{{"tag_name": "v{version}", "assets": [{{"name": "duck-{version}", "browser_download_url": "{url}", "size": {}, "digest": "sha256:{sha256}"}}]}}]"#,
            bytes.len()
        );
        other.serve("/api/repos/duck/db/releases", text);
    };
    list("1.0.0", "tool");
    releases("1.0.0", "duck");
    let manifest = format!(
        "[workspace]\nplatforms = [\"{platform}\"]\n[tools]\nof-list = {{ version = \"1\", from = \"index\", index = \"{}\" }}\nof-release = {{ version = \"1\", from = \"github\", repo = \"duck/db\", asset = {{ {platform} = \"duck-{{version}}\" }} }}\n",
        server.url("/list.toml")
    );
    let mut ours = Ours::new(&manifest, &[]);
    ours.variables = vec![("GITHUB_API_URL", other.url("/api"))];
    ours.run(&["lock"]).expect(0);
    let sent = || server.bytes("/tool") + other.bytes("/files/duck");
    let before = sent();
    ours.all_is_as_locked(2);
    assert!(sent() - before <= 2, "a byte of each at most");
    let both = |ran: &Ran| [outdated(ran, "of-list"), outdated(ran, "of-release")];
    let ask = |code: i32| both(&ours.run(&["outdated", "--json"]).expect(code));

    list("1.2.0", "tool");
    releases("1.2.0", "duck");
    assert_eq!(ask(0), [is("moved", "1.0.0 -> 1.2.0"), is("moved", "1.0.0 -> 1.2.0")]);
    // The same version, with another file.
    list("1.0.0", "tuul");
    releases("1.0.0", "goose");
    for (state, words) in ask(0) {
        assert!(state == "moved" && words.starts_with("1.0.0 for ") && words.contains("sha256"), "{words}");
    }
    // Its file is no longer there, or has another size.
    list("1.0.0", "tool");
    releases("1.0.0", "duck");
    server.script("/tool", "", [Fault::Status(404)]);
    other.serve("/files/duck", "ducks");
    let ran = ours.run(&["audit", "--json"]).expect(4);
    assert_eq!(audited(&ran, "tool of-list", "/tool"), is("fails", "not found (status 404)"));
    assert_eq!(audited(&ran, "tool of-release", "/files/duck"), is("differs", "5 bytes, and 4 are locked"));
    // No version that is allowed; no list at all.
    list("2.0.0", "tool");
    releases("2.0.0", "duck");
    for (state, words) in ask(0) {
        assert!(state == "gone" && words.contains("no version of ") && words.contains("2.0.0"), "{words}");
    }
    server.script("/list.toml", "", [Fault::Status(404)]);
    other.script("/api/repos/duck/db/releases", "", [Fault::Status(404)]);
    assert_eq!(ask(0), [is("gone", "not found (status 404)"), is("gone", "not found (status 404)")]);
    releases("1.0.0", "duck");
    drop(server);
    let [of_list, of_release] = ask(1);
    assert_eq!((of_list.0.as_str(), of_release.0.as_str()), ("failed", "same"));
}

const OLD: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const NEW: &str = "Sun, 06 Nov 1994 08:59:37 GMT";
const NOW: &str = "Sun, 06 Nov 1994 10:00:00 GMT";

/// As many bytes, and others: the server says so, on a machine that never had them too.
#[test]
fn bytes_that_changed_and_not_their_number() {
    let server = FaultServer::start();
    let tag = |letter: &str| Fault::Tag(format!("\"{}\"", letter.repeat(32)));
    server.script("/tagged.csv", "one", [tag("a")]);
    server.script("/dated.csv", "one", [Fault::Dated(OLD, NOW)]);
    // A page that is made anew each time, an address of a host's own kind, a weak tag.
    server.script("/made.csv", "one", [Fault::Dated(NOW, NOW)]);
    server.script("/host.csv", "one", [Fault::Tag("\"65f2a1b0-3\"".to_owned())]);
    server.script("/weak.csv", "one", [Fault::Tag(format!("W/\"{}\"", "a".repeat(32)))]);
    let mut manifest = "[data]\n".to_owned();
    for name in ["tagged", "dated", "made", "host", "weak"] {
        manifest += &format!("{name} = {{ url = \"{}\" }}\n", server.url(&format!("/{name}.csv")));
    }
    let sha256 = Digest::of(b"one");
    manifest += &format!(
        "stated = {{ url = \"{}\", checksum = \"sha256:{sha256}\", to = \"data/stated.csv\" }}\n",
        server.url("/tagged.csv")
    );
    manifest += "[steps.s]\nrun = \"cat data/tagged.csv > out\"\ninputs = [\"data/tagged.csv\"]\noutputs = [\"out\"]\n";
    let ours = Ours::new(&manifest, &[]);
    ours.run(&["train"]).expect(0);
    let lock = ours.context.read("train.lock");
    let hints = |lock: &str| -> Vec<String> {
        let is_hint = |line: &&str| line.starts_with("etag") || line.starts_with("modified");
        lock.lines().filter(is_hint).map(str::to_owned).collect()
    };
    let first = format!("etag = \"{}\"", "a".repeat(32));
    assert_eq!(hints(&lock), [format!("modified = \"{OLD}\""), first.clone()]);
    // The same upstream, the same bytes.
    fs_err::remove_file(ours.context.project().join("train.lock")).unwrap();
    fs_err::remove_dir_all(ours.context.store()).unwrap();
    ours.run(&["lock"]).expect(0);
    assert_eq!(ours.context.read("train.lock"), lock);
    ours.all_is_as_locked(6);
    let ran = ours.run(&["outdated", "--json"]).expect(0);
    assert_eq!(outdated(&ran, "tagged"), is("same", "size and validator"));
    assert_eq!(outdated(&ran, "made"), is("same", "size"));

    fs_err::remove_dir_all(ours.context.store()).unwrap();
    server.script("/tagged.csv", "two", [tag("b")]);
    server.script("/dated.csv", "two", [Fault::Dated(NEW, NOW)]);
    server.script("/made.csv", "two", [Fault::Dated(NOW, NOW)]);
    let ran = ours.run(&["outdated", "--json"]).expect(0);
    let tags = format!("ETag {} -> ETag {}", "a".repeat(32), "b".repeat(32));
    assert_eq!(outdated(&ran, "tagged"), is("suspect", &tags));
    assert_eq!(outdated(&ran, "dated"), is("suspect", &format!("Last-Modified {OLD} -> Last-Modified {NEW}")));
    assert_eq!((outdated(&ran, "made").0, outdated(&ran, "stated").0), ("same".to_owned(), "same".to_owned()));
    let table = ours.run(&["outdated"]).expect(0);
    assert!(table.stdout.contains("may have changed") && table.stderr.contains("2 outdated"), "{}", table.stdout);
    let ran = ours.run(&["audit", "--json"]).expect(0);
    assert_eq!(
        audited(&ran, "data dated", ""),
        is("suspect", &format!("Last-Modified {NEW}, and Last-Modified {OLD} is locked"))
    );
    ours.run(&["audit", "--strict"]).expect(1);
    assert!(server.bytes("/tagged.csv") <= 8, "a byte each time");

    // Put there again, the same: `update` takes the server's word anew, and nothing else changes or runs.
    server.script("/tagged.csv", "one", [tag("c")]);
    server.script("/dated.csv", "one", [Fault::Dated(NEW, NOW)]);
    server.script("/made.csv", "one", [Fault::Ok]);
    let told = ours.run(&["update"]).expect(0);
    assert!(!told.stderr.contains("Locked data"), "{}", told.stderr);
    let after = ours.context.read("train.lock");
    assert_eq!(hints(&after), [format!("modified = \"{NEW}\""), first.replace("aaaa", "cccc")]);
    ours.run(&["train", "--locked"]).expect(0);
    assert_eq!(crate::count(&ours.context, "s"), 1);
    // What a server says, and a stranger's lock, reach no terminal as they are.
    let strange = after.replace(NEW, "\\u001b[31m");
    ours.context.write("train.lock", strange);
    for command in ["outdated", "audit"] {
        let told = ours.run(&[command]).expect(0);
        assert!(told.stdout.contains("\\u{1b}[31m") && !told.stdout.contains('\u{1b}'), "{}", told.stdout);
    }
    ours.context.write("train.lock", &after);
    // A server that says nothing now, and a lock of before, which says nothing: sizes are compared, and it stays as it is.
    server.serve("/tagged.csv", "one");
    let ran = ours.run(&["outdated", "--json"]).expect(0);
    assert_eq!(outdated(&ran, "tagged"), is("same", "size"));
    let before: String = after.lines().filter(|line| hints(line).is_empty()).map(|line| format!("{line}\n")).collect();
    ours.context.write("train.lock", &before);
    for args in [&["lock", "--check"][..], &["lock"], &["train", "--locked"]] {
        ours.run(args).expect(0);
    }
    assert_eq!((ours.context.read("train.lock"), crate::count(&ours.context, "s")), (before, 1));
}

/// What a server says of its bytes is that server's: mirrors and what stands in an address' place say nothing of it.
#[test]
fn a_servers_word_is_its_own() {
    let (server, mirror) = (FaultServer::start(), FaultServer::start());
    let tag = |letter: &str| Fault::Tag(format!("\"{}\"", letter.repeat(32)));
    server.script("/a.csv", "a", [tag("a")]);
    mirror.script("/a.csv", "a", [tag("b")]);
    let manifest = format!(
        "[data]\na = {{ url = \"{}\", mirrors = [\"{}\"] }}\n",
        server.url("/a.csv"),
        mirror.other_host_url("/a.csv")
    );
    let ours = Ours::new(&manifest, &[]);
    ours.run(&["lock"]).expect(0);
    let lock = ours.context.read("train.lock");
    assert!(lock.contains("etag = \"aaaa"), "{lock}");
    let ran = ours.run(&["audit", "--json"]).expect(0);
    assert_eq!(audited(&ran, "data a", "127.0.0.1"), is("agrees", "size and validator"));
    assert_eq!(audited(&ran, "data a", "localhost"), is("agrees", "size"));
    // The same bytes from the mirror: what the address itself said stays.
    server.script("/a.csv", "", [Fault::Status(404)]);
    ours.run(&["update"]).expect(0);
    assert_eq!(ours.context.read("train.lock"), lock);
    fs_err::remove_file(ours.context.project().join("train.lock")).unwrap();
    ours.run(&["lock"]).expect(0);
    assert!(!ours.context.read("train.lock").contains("etag"), "{lock}");
    let replaced =
        Ours::new("[data]\na = { url = \"https://example.org/a.csv\" }\n", &[("https://example.org", &mirror)]);
    replaced.run(&["lock"]).expect(0);
    assert!(!replaced.context.read("train.lock").contains("etag"), "{}", replaced.context.read("train.lock"));
}

/// A server that gives all of a file to who asks for a byte of it is not listened to.
#[test]
fn a_server_that_knows_no_parts() {
    let server = FaultServer::start();
    let size = 96 << 20;
    server.script("/large.bin", vec![0; size], [Fault::IgnoreRange]);
    let digest = Digest::of(b"it is not fetched");
    let manifest = format!(
        "[data]\nlarge = {{ url = \"{}\", checksum = \"sha256:{digest}\", size = {size} }}\n",
        server.url("/large.bin")
    );
    let ours = Ours::new(&manifest, &[]);
    ours.run(&["lock"]).expect(0);
    ours.all_is_as_locked(1);
    // What the system's buffers take of it is on its way before it can be stopped.
    let sent = server.bytes("/large.bin");
    assert!(sent < size as u64, "{sent} bytes of two answers");
}
