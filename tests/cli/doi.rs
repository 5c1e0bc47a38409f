//! DOIs: servers with the answers of Zenodo's, figshare's and Dataverse's APIs, put in their places by source replacement.

use crate::project;
use std::path::PathBuf;
use trainlock_testing::{Fault, FaultServer, Ran, TestContext};

const HELLO: &str = "hello\n";
const HELLO_MD5: &str = "b1946ac92492d2347c6235b4d2611184";
const HELLO_SHA1: &str = "f572d396fae9206628714fb2ce00f72e94f2258f";

/// A project with this data set, and a configuration that reads these servers from `server`.
fn with(server: &FaultServer, replaced: &[&str], data: &str) -> (TestContext, PathBuf) {
    let context = project(&format!("[data]\n{data}\n"));
    let config = context.root().join("config.toml");
    let tables = replaced.iter().map(|url| format!("[source.\"{url}\"]\nreplace-with = \"{}\"\n", server.url("")));
    fs_err::write(&config, tables.collect::<String>() + "[fetch]\nretries = 0\n").unwrap();
    (context, config)
}

fn run((context, config): &(TestContext, PathBuf), args: &[&str]) -> Ran {
    Ran::of(context.command(args).env("TRAINLOCK_CONFIG", config))
}

/// The answer for a record, as Zenodo gives it, with one file whose MD5 is this.
fn record(id: u32, concept: u32, md5: &str) -> String {
    format!(
        r#"{{"created": "2024-03-01T10:00:00.123456+00:00", "id": {id}, "conceptrecid": "{concept}", "doi": "10.5281/zenodo.{id}",
        "conceptdoi": "10.5281/zenodo.{concept}", "recid": "{id}", "revision": 4, "metadata": {{"title": "A set", "access_right": "open"}},
        "links": {{"self": "https://zenodo.org/api/records/{id}", "archive": "https://zenodo.org/api/records/{id}/files-archive"}},
        "files": [
          {{"id": "9b1c", "key": "a b.csv", "size": 6, "checksum": "md5:{md5}",
            "links": {{"self": "https://zenodo.org/api/records/{id}/files/a b.csv/content"}}}},
          {{"id": "9b1d", "key": "notes.pdf", "size": 999999, "checksum": "md5:00000000000000000000000000000000",
            "links": {{"self": "https://zenodo.org/api/records/{id}/files/notes.pdf/content"}}}}],
        "state": "done", "submitted": true}}"#
    )
}

#[test]
fn a_doi_of_all_versions_is_locked_as_the_newest() {
    let server = FaultServer::start();
    server.script("/api/records/100", "", [Fault::Redirect("/api/records/102".to_owned())]);
    server.serve("/api/records/102", record(102, 100, HELLO_MD5));
    server.serve("/api/records/102/files/a%20b.csv/content", HELLO);
    let set = "set = { url = \"doi:10.5281/zenodo.100\", files = [\"*.csv\"] }";
    let ours = with(&server, &["https://zenodo.org"], set);
    run(&ours, &["lock"]).expect(0);
    let lock = ours.0.read("train.lock");
    for words in ["source = \"doi:10.5281/zenodo.102\"", "url = \"doi:10.5281/zenodo.100\"", " 6 a b.csv\""] {
        assert!(lock.contains(words), "{words}\n{lock}");
    }
    assert!(!lock.contains("notes.pdf") && !lock.contains("127.0.0.1"), "{lock}");
    // A newer version changes nothing until it is asked for, and its API is not needed to fetch.
    server.script("/api/records/100", "", [Fault::Redirect("/api/records/103".to_owned())]);
    server.script("/api/records/102", "", [Fault::Status(500)]);
    fs_err::remove_dir_all(ours.0.store()).unwrap();
    run(&ours, &["fetch", "--locked", "--link"]).expect(0);
    assert_eq!(ours.0.read("data/set/a b.csv"), HELLO);
    run(&ours, &["lock", "--check"]).expect(0);
    // Locked anew from nothing, while nothing changed, it is the same.
    server.script("/api/records/100", "", [Fault::Redirect("/api/records/102".to_owned())]);
    server.serve("/api/records/102", record(102, 100, HELLO_MD5));
    fs_err::remove_file(ours.0.project().join("train.lock")).unwrap();
    run(&ours, &["lock"]).expect(0);
    assert_eq!(ours.0.read("train.lock"), lock);
    server.script("/api/records/100", "", [Fault::Redirect("/api/records/103".to_owned())]);
    server.serve("/api/records/103", record(103, 100, HELLO_MD5));
    server.serve("/api/records/103/files/a%20b.csv/content", HELLO);
    run(&ours, &["update"]).expect(0);
    assert!(ours.0.read("train.lock").contains("source = \"doi:10.5281/zenodo.103\""));
}

#[test]
fn what_is_wrong_with_a_record() {
    let server = FaultServer::start();
    server.serve("/api/records/7", record(7, 6, "00000000000000000000000000000000"));
    server.serve("/api/records/7/files/a%20b.csv/content", HELLO);
    server.serve("/api/records/8", r#"{"id": 8, "metadata": {"access_right": "restricted"}, "links": {}}"#);
    for (doi, code, words) in [
        // The publisher's checksum is not that of what came.
        ("10.5281/zenodo.7", 4, HELLO_MD5),
        ("10.5281/zenodo.8", 1, "shows no files"),
        ("10.5281/zenodo.9", 1, "there is no record 9 of Zenodo"),
    ] {
        let set = format!("set = {{ url = \"doi:{doi}\", files = [\"*.csv\"] }}");
        let ours = with(&server, &["https://zenodo.org"], &set);
        let failed = run(&ours, &["lock"]).expect(code);
        assert!(failed.stderr.contains(words) && failed.stderr.contains("set"), "{words}\n{}", failed.stderr);
        assert!(!ours.0.has("train.lock"));
    }
    let missed =
        with(&server, &["https://zenodo.org"], "set = { url = \"doi:10.5281/zenodo.7\", files = [\"a.csv\"] }");
    let failed = run(&missed, &["lock"]).expect(1);
    assert!(failed.stderr.contains("for example `a b.csv`"), "{}", failed.stderr);
}

#[test]
fn articles_of_figshare_with_and_without_a_version() {
    let server = FaultServer::start();
    let file = |id: u32, name: &str, md5: &str| {
        format!(
            r#"{{"id": {id}, "name": "{name}", "size": 6, "is_link_only": false,
            "download_url": "https://ndownloader.figshare.com/files/{id}", "supplied_md5": "", "computed_md5": "{md5}", "mimetype": "text/plain"}}"#
        )
    };
    server.serve("/v2/articles/50", r#"{"id": 50, "version": 3, "doi": "10.6084/m9.figshare.50.v3", "files": []}"#);
    server.serve("/v2/articles/50/versions/3/files", format!("[{}]", file(501, "new.txt", HELLO_MD5)));
    server.serve("/v2/articles/50/versions/1/files", format!("[{}]", file(500, "old.txt", HELLO_MD5)));
    server.serve("/files/501", HELLO);
    server.serve("/files/500", HELLO);
    let servers = ["https://api.figshare.com", "https://ndownloader.figshare.com"];
    let sets = "new = { url = \"doi:10.6084/m9.figshare.50\" }\nold = { url = \"doi:10.6084/m9.figshare.50.v1\" }";
    let ours = with(&server, &servers, sets);
    run(&ours, &["lock"]).expect(0);
    let lock = ours.0.read("train.lock");
    for words in ["/v2/articles/50/versions/3\"", "/v2/articles/50/versions/1\"", " 6 new.txt\"", " 6 old.txt\""] {
        assert!(lock.contains(words), "{words}\n{lock}");
    }
    fs_err::remove_dir_all(ours.0.store()).unwrap();
    server.serve("/v2/articles/50", r#"{"id": 50, "version": 4}"#);
    run(&ours, &["fetch", "--locked", "--link"]).expect(0);
    assert_eq!((ours.0.read("data/new/new.txt"), ours.0.read("data/old/old.txt")), (HELLO.into(), HELLO.into()));
    // What the publisher changed behind its version's back.
    for path in ["/files/500", "/files/501"] {
        server.serve(path, "hullo\n");
    }
    fs_err::remove_dir_all(ours.0.store()).unwrap();
    run(&ours, &["fetch", "--locked"]).expect(4);
    let gone = with(&server, &servers, "old = { url = \"doi:10.6084/m9.figshare.50.v2\" }");
    let failed = run(&gone, &["lock"]).expect(1);
    assert!(failed.stderr.contains("version 2 of article 50"), "{}", failed.stderr);
}

#[test]
fn dataverse_servers_are_found_by_the_resolver() {
    let server = FaultServer::start();
    server.serve(
        "/api/handles/10.7910/DVN/ABC",
        r#"{"responseCode": 1, "handle": "10.7910/DVN/ABC", "values": [
            {"index": 1, "type": "URL", "data": {"format": "string", "value": "https://data.example.org/dv/citation?persistentId=doi:10.7910/DVN/ABC"}},
            {"index": 100, "type": "HS_ADMIN", "data": {"format": "admin", "value": {"handle": "10.admin/codata", "index": 300}}}]}"#,
    );
    let files = format!(
        r#""versionNumber": 2, "versionMinorNumber": 1, "versionState": "RELEASED", "files": [
        {{"label": "table.tab", "restricted": false, "directoryLabel": "tables/2024", "dataFile": {{"id": 11, "filename": "table.tab",
          "contentType": "text/tab-separated-values", "filesize": 77, "originalFileFormat": "text/csv", "originalFileSize": 6,
          "originalFileName": "table.csv", "checksum": {{"type": "MD5", "value": "{HELLO_MD5}"}}}}}},
        {{"label": "text.txt", "restricted": false, "dataFile": {{"id": 12, "filesize": 6, "checksum": {{"type": "SHA-1", "value": "{HELLO_SHA1}"}}}}}},
        {{"label": "secret.txt", "restricted": true, "dataFile": {{"id": 13, "filesize": 6, "md5": "{HELLO_MD5}"}}}}]"#
    );
    let of_set = "/dv/api/datasets/:persistentId";
    let latest = format!(r#"{{"status": "OK", "data": {{"id": 5, "latestVersion": {{"id": 6, {files}}}}}}}"#);
    server.serve(of_set, latest);
    server.serve(&format!("{of_set}/versions/2.1"), format!(r#"{{"status": "OK", "data": {{"id": 6, {files}}}}}"#));
    server.serve("/dv/api/access/datafile/11", HELLO);
    server.serve("/dv/api/access/datafile/12", HELLO);
    let servers = ["https://doi.org", "https://data.example.org"];
    let set = "set = { url = \"doi:10.7910/DVN/ABC\", files = [\"t*/**\", \"t*\"] }";
    let ours = with(&server, &servers, set);
    run(&ours, &["lock"]).expect(0);
    let lock = ours.0.read("train.lock");
    for words in [
        "https://data.example.org/dv/dataset.xhtml?persistentId=doi:10.7910/DVN/ABC&version=2.1",
        " 6 tables/2024/table.csv\"",
        " 6 text.txt\"",
    ] {
        assert!(lock.contains(words), "{words}\n{lock}");
    }
    let asked = server.requests("/dv/api/access/datafile/11");
    assert!(asked[0].target.ends_with("?format=original"), "{asked:?}");
    // The locked version is asked for, whatever the newest is by now, and the resolver is not needed.
    server.script(of_set, "", [Fault::Status(500)]);
    server.script("/api/handles/10.7910/DVN/ABC", "", [Fault::Status(500)]);
    fs_err::remove_dir_all(ours.0.store()).unwrap();
    run(&ours, &["fetch", "--locked", "--link"]).expect(0);
    assert_eq!(ours.0.read("data/set/tables/2024/table.csv"), HELLO);
    let restricted = with(&server, &servers, "set = { url = \"doi:10.7910/DVN/ABC\" }");
    server.serve("/api/handles/10.7910/DVN/ABC", r#"{"values": [{"type": "URL", "data": {"value": "https://data.example.org/dv/citation?persistentId=doi:10.7910/DVN/ABC"}}]}"#);
    server.serve(of_set, format!(r#"{{"data": {{"latestVersion": {{{files}}}}}}}"#));
    let failed = run(&restricted, &["lock"]).expect(1);
    assert!(failed.stderr.contains("`secret.txt` is restricted"), "{}", failed.stderr);
}

#[test]
fn a_doi_of_no_known_repository() {
    let server = FaultServer::start();
    server.serve(
        "/api/handles/10.1000/182",
        r#"{"responseCode": 1, "values": [{"index": 1, "type": "URL", "data": {"format": "string", "value": "https://www.example.org/handbook.html"}}]}"#,
    );
    for (doi, words) in [
        ("10.1000/182", "DOIs of Zenodo, figshare and Dataverse are known"),
        ("10.1000/182", "https://www.example.org/handbook.html"),
        ("10.1000/none", "there is no DOI `10.1000/none`"),
    ] {
        let ours = with(&server, &["https://doi.org"], &format!("set = {{ url = \"doi:{doi}\" }}"));
        let failed = run(&ours, &["lock"]).expect(1);
        assert!(failed.stderr.contains(words), "{words}\n{}", failed.stderr);
    }
    let ours = with(&server, &["https://doi.org"], "set = { url = \"doi:10.1000/182\" }");
    run(&ours, &["lock", "--offline"]).expect(1);
}
