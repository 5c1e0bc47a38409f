//! The hub: a server that answers as it does, and one that refuses as it does.

use crate::{Place, chain, paths, url, wanted};
use tempfile::TempDir;
use trainlock_fetch::{Access, Credentials, Secret};
use trainlock_testing::Fault;
use trainlock_types::{DataSource, Digest};

/// A server that answers as the hub does: a large file with its SHA-256, a small one with git's hash, in two pages.
fn hub(place: &Place, commit: &str, rev: &str) {
    let server = &place.server;
    let big = Digest::of(b"big").to_hex();
    let api = "/api/datasets/o/n";
    server.serve(&format!("{api}/revision/{rev}"), format!(r#"{{"sha": "{commit}", "private": false}}"#));
    let first = format!(
        r#"[{{"type": "directory", "path": "train", "oid": "x", "size": 0}},
            {{"type": "file", "path": "train/big.parquet", "oid": "x", "size": 130, "lfs": {{"oid": "{big}", "size": 3, "pointerSize": 130}}}}]"#
    );
    server.script(
        &format!("{api}/tree/{commit}"),
        first,
        [Fault::Link(format!("<{}>; rel=\"next\"", server.url("/page/2")))],
    );
    let oid = git_blob(b"small");
    server.serve("/page/2", format!(r#"[{{"type": "file", "path": "read me.md", "oid": "{oid}", "size": 5}}]"#));
    server.serve(&format!("/datasets/o/n/resolve/{commit}/train/big.parquet"), "big");
    server.serve(&format!("/datasets/o/n/resolve/{commit}/read%20me.md"), "small");
}

/// By git itself.
fn git_blob(bytes: &[u8]) -> String {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("blob");
    fs_err::write(&file, bytes).unwrap();
    let out = std::process::Command::new("git").args(["hash-object", "--no-filters"]).arg(&file).output().unwrap();
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

#[test]
fn a_repository_of_the_hub() {
    let place = Place::new();
    let (first, second) = ("1".repeat(40), "2".repeat(40));
    hub(&place, &first, "main");
    let source = url("hf://datasets/o/n", &[]);
    let resolved = place.resolve(&source).unwrap();
    assert_eq!(resolved.source, Some(format!("hf://datasets/o/n@{first}")));
    assert_eq!(paths(&resolved), ["read me.md", "train/big.parquet"]);
    let big = format!("/datasets/o/n/resolve/{first}/train/big.parquet");
    assert!(place.server.requests(&big).is_empty(), "its hash is stated: it is not fetched to be locked");
    assert_eq!(place.there_and_back(&source), ["read me.md", "train/big.parquet"]);
    assert_eq!(place.server.requests(&big).len(), 2, "once for each store");
    assert_eq!(paths(&place.resolve(&url("hf://datasets/o/n", &["train/*.parquet"])).unwrap()), ["train/big.parquet"]);

    // The branch moves on: what is locked stays what it is.
    let locked = wanted(&source, &resolved, true);
    hub(&place, &second, "main");
    assert_eq!(place.resolve(&source).unwrap().source, Some(format!("hf://datasets/o/n@{second}")));
    place.bring("four", &locked).unwrap();
    // A file of it is gone, and then all of it.
    let gone = |store: &str| chain(&place.bring(store, &locked).unwrap_err());
    let revision = format!("/api/datasets/o/n/revision/{first}");
    place.server.script(&big, "", [Fault::Status(404)]);
    place.server.serve(&revision, format!(r#"{{"sha": "{first}"}}"#));
    assert!(gone("gone").contains("big.parquet: not found (status 404)"), "{}", gone("gone"));
    place.server.script(&revision, "", [Fault::Status(404)]);
    assert!(gone("gone").contains("the hub has no data set `o/n`"), "{}", gone("gone"));
    place.server.serve("/api/datasets/o/n/refs", r#"{"branches": [{"name": "main"}]}"#);
    let text = gone("gone");
    assert!(text.contains(&format!("has no revision `{first}`")) && text.contains("trainlock update a"), "{text}");
    // Other bytes than the lock names, and than git's hash says.
    place.server.serve(&big, "bad");
    assert!(place.bring("five", &locked).unwrap_err().is_verification());
    place.server.serve(&format!("/datasets/o/n/resolve/{second}/read%20me.md"), "smell");
    fs_err::remove_dir_all(place.root.path().join("one")).unwrap();
    let error = place.resolve(&source).unwrap_err();
    assert!(error.is_verification() && chain(&error).contains("sha1:"), "{}", chain(&error));
}

/// The data set at a revision.
fn at(rev: Option<&str>) -> DataSource {
    match url("hf://datasets/o/n", &[]) {
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
    }
}

#[test]
fn what_the_hub_refuses() {
    let place = Place::new();
    let said = |rev| chain(&place.resolve(&at(rev)).unwrap_err());
    assert!(said(None).contains("no data set `o/n`"), "{}", said(None));
    place.server.serve("/api/datasets/o/n/refs", r#"{"branches": [{"name": "main"}], "tags": [{"name": "v1.0"}]}"#);
    let text = said(Some("v1.1"));
    assert!(text.contains("no revision `v1.1`") && text.contains("did you mean `v1.0`"), "{text}");
    place.server.script("/api/datasets/o/n/revision/main", "", [Fault::Status(403)]);
    let text = said(None);
    assert!(text.contains("gives no access") && text.contains("HF_TOKEN"), "{text}");
    place.server.serve("/api/datasets/o/n/revision/main", "<html>");
    assert!(said(None).contains("does not answer as the hub does"), "{}", said(None));
    // A listing that leads elsewhere would take the token along.
    let commit = "3".repeat(40);
    hub(&place, &commit, "main");
    let elsewhere = format!("<{}>; rel=\"next\"", place.server.other_host_url("/page/2"));
    let tree = format!("/api/datasets/o/n/tree/{commit}");
    place.server.script(&tree, "[]", [Fault::Link(elsewhere)]);
    assert!(said(None).contains("at another server: http://localhost"), "{}", said(None));
    // One that never ends is not taken for a whole one.
    let round = format!("<{}>; rel=\"next\"", place.server.url(&tree));
    place.server.script(&tree, "[]", [Fault::Link(round)]);
    assert!(said(None).contains("leads back"), "{}", said(None));
}

/// The answers of the hub itself, as its documentation and its own library have them.
#[test]
fn what_the_hub_says_when_it_refuses() {
    let place = Place::new();
    let commit = "4".repeat(40);
    hub(&place, &commit, "main");
    let refusal = |status: u16, code: &str, message: &str| {
        let headers = [("X-Error-Code", code), ("X-Error-Message", message)].map(|(n, v)| (n, v.to_owned()));
        Fault::Headers(status, headers.into_iter().filter(|(_, value)| !value.is_empty()).collect())
    };
    let said = |path: &str, fault: Fault, token: bool| {
        let _ = fs_err::remove_dir_all(place.root.path().join("one"));
        place.server.script(path, "", [fault]);
        let mut settings = place.settings();
        if token {
            let host = settings.hub.host_str().unwrap().to_owned();
            let hosts = [(host, Access::Known(Secret::token("hf_s3cret")))].into();
            settings.credentials = Credentials { hosts, ..Credentials::default() };
        }
        let text = chain(&place.resolve_with(settings, &at(None)).unwrap_err());
        assert!(!text.contains("s3cret"), "{text}");
        text
    };
    let api = "/api/datasets/o/n/revision/main";
    let file = format!("/datasets/o/n/resolve/{commit}/read%20me.md");
    let gated = "Access to dataset o/n is restricted. You must have access to it and be authenticated to access it.";
    let invalid = "Invalid credentials in Authorization header";
    let disabled = "Access to this resource is disabled.";
    let page = place.server.url("/datasets/o/n");
    // What it answers, with a token or without, and what is said of it.
    type Case<'a> = (u16, &'a str, &'a str, bool, &'a [&'a str]);
    let of_repository: &[Case<'_>] = &[
        (401, "GatedRepo", gated, false, &["has terms", "status 401: Access to dataset", "HF_TOKEN", &page]),
        (403, "GatedRepo", gated, true, &["has terms", "as the user whose token it is", "fine-grained", &page]),
        (
            401,
            "RepoNotFound",
            "Repository not found",
            false,
            &["no data set `o/n`, or keeps it private", "HF_TOKEN", &page],
        ),
        (404, "RepoNotFound", "Repository not found", true, &["no data set `o/n`", "the token may not give access"]),
        (401, "", invalid, true, &["does not accept the token", "expired"]),
        (403, "", disabled, false, &["has disabled the repository"]),
        // Nothing more than a status.
        (403, "", "", false, &["gives no access", "HF_TOKEN"]),
        (403, "Another", "words", false, &["gives no access", "HF_TOKEN"]),
    ];
    for (status, code, message, token, words) in of_repository {
        let text = said(api, refusal(*status, code, message), *token);
        assert!(words.iter().all(|w| text.contains(w)), "{status} {code}: {words:?}: {text}");
    }
    hub(&place, &commit, "main");
    // Listings are given to everybody, and files are not.
    let of_file: &[Case<'_>] = &[
        (401, "GatedRepo", gated, false, &["a/read me.md", "has terms", "status 401: Access", "HF_TOKEN", &page]),
        (403, "GatedRepo", gated, true, &["has terms", "status 403", "as the user whose token it is"]),
        (401, "RepoNotFound", "Repository not found", false, &["no such repository, or keeps it private", "HF_TOKEN"]),
        (404, "RevisionNotFound", "Invalid rev id", false, &["no such revision (status 404: Invalid rev id)", &page]),
        (404, "EntryNotFound", "Entry not found", false, &["no such file at this revision", &page]),
        (404, "", "", false, &["not found (status 404)"]),
    ];
    for (status, code, message, token, words) in of_file {
        let text = said(&file, refusal(*status, code, message), *token);
        assert!(words.iter().all(|w| text.contains(w)), "{status} {code}: {words:?}: {text}");
    }
    // A code does not make what may pass a refusal, and many words are cut.
    let text = said(&file, refusal(503, "RepoNotFound", "x"), false);
    assert!(text.contains("status 503") && !text.contains("no such repository"), "{text}");
    let text = said(&file, refusal(403, "GatedRepo", &"x".repeat(5000)), false);
    assert!(text.contains("xxx") && text.len() < 1000, "{text}");
    // Another revision than the one that is there.
    place.server.serve("/api/datasets/o/n/refs", r#"{"branches": [{"name": "main"}], "tags": []}"#);
    let text = said(api, refusal(404, "RevisionNotFound", "Invalid rev id: main"), false);
    assert!(text.contains("no revision `main`") && text.contains("did you mean `main`"), "{text}");
}

#[test]
fn a_mirror_that_passes_on_where_the_hubs_listing_goes_on() {
    let commit = "5".repeat(40);
    // The link of a page, and whether it is the mirror that has the next one.
    for (link, ours) in [
        ("https://huggingface.co/page/2?cursor=a%2Fb%3D", true),
        ("/page/2?cursor=a%2Fb%3D", true),
        ("MIRROR/page/2?cursor=a%2Fb%3D", true),
        ("https://huggingface.co.example.org/page/2", false),
        ("https://cdn.example.org/page/2?token=s3cret", false),
        ("http://huggingface.co/page/2", false),
    ] {
        let place = Place::new();
        hub(&place, &commit, "main");
        let tree = format!("/api/datasets/o/n/tree/{commit}");
        let link = link.replace("MIRROR", &place.server.url(""));
        place.server.script(&tree, "[]", [Fault::Link(format!("<{link}>; rel=\"next\""))]);
        let by_endpoint = place.settings();
        let mut by_replacement = place.settings();
        by_replacement.hub = "https://huggingface.co".parse().unwrap();
        by_replacement.replace.add("https://huggingface.co", &place.server.url("")).unwrap();
        for settings in [by_endpoint, by_replacement] {
            let replaced = settings.replace != Default::default();
            let resolved = place.resolve_with(settings, &at(None));
            match ours {
                true => assert_eq!(paths(&resolved.unwrap()), ["read me.md"], "{link} {replaced}"),
                false => {
                    let text = chain(&resolved.unwrap_err());
                    assert!(text.contains("at another server: ") && !text.contains("s3cret"), "{link}: {text}");
                }
            }
        }
        let asked = place.server.requests("/page/2");
        assert_eq!(asked.len(), if ours { 2 } else { 0 }, "{link}");
        assert!(asked.iter().all(|request| request.target == "/page/2?cursor=a%2Fb%3D"), "{asked:?}");
    }
}

/// A description as the hub makes them (Croissant 1.0, as its API gave it for a data set of one configuration), with these
/// entries in its repository.
fn describes(place: &Place, inside: &str) -> DataSource {
    let text = format!(
        r#"{{"@context": {{"@language": "en", "cr": "http://mlcommons.org/croissant/", "sc": "https://schema.org/"}},
            "@type": "sc:Dataset", "conformsTo": "http://mlcommons.org/croissant/1.0", "name": "n",
            "distribution": [
              {{"@type": "cr:FileObject", "@id": "repo", "name": "repo", "description": "The Hugging Face git repository.",
               "contentUrl": "https://huggingface.co/datasets/o/n/tree/refs%2Fconvert%2Fparquet", "encodingFormat": "git+https",
               "sha256": "https://github.com/mlcommons/croissant/issues/80"}}{inside}],
            "recordSet": [{{"@type": "cr:RecordSet", "@id": "default", "dataType": "cr:Split"}}]}}"#
    );
    place.server.serve("/croissant", text);
    DataSource::Croissant(place.server.url("/croissant"))
}

/// As the hub has it.
const SET: &str = r#", {"@type": "cr:FileSet", "@id": "parquet-files-for-config-default", "containedIn": {"@id": "repo"},
    "encodingFormat": "application/x-parquet", "includes": "train/*.parquet"}"#;

#[test]
fn a_description_that_the_hub_makes() {
    let place = Place::new();
    let (first, second) = ("6".repeat(40), "7".repeat(40));
    hub(&place, &first, "refs%2Fconvert%2Fparquet");
    let source = describes(&place, SET);
    let big = format!("/datasets/o/n/resolve/{first}/train/big.parquet");
    let resolved = place.resolve(&source).unwrap();
    assert_eq!(resolved.source, Some(format!("hf://datasets/o/n@{first}")));
    assert!(resolved.archive.is_some() && place.server.requests(&big).is_empty());
    assert_eq!(place.there_and_back(&source), ["train/big.parquet"]);

    // The branch moves, and the hub writes its description anew: what is locked is what it was, with its listing or without.
    hub(&place, &second, "refs%2Fconvert%2Fparquet");
    describes(&place, &SET.replace("FileSet\",", "FileSet\", \"description\": \"New words.\","));
    for (store, with_listing) in [("four", true), ("five", false)] {
        place.bring(store, &wanted(&source, &resolved, with_listing)).unwrap();
    }
    let now = place.resolve(&source).unwrap();
    assert_eq!(now.source, Some(format!("hf://datasets/o/n@{second}")));
    assert_ne!(now.archive, resolved.archive);
    // One that chooses something else is found out where the listing has to be made again, and so are other bytes.
    describes(&place, &SET.replace("train/", ""));
    describes(&place, &SET.replace("train/*.parquet", "*"));
    let error = place.bring("six", &wanted(&source, &resolved, false)).unwrap_err();
    assert!(error.is_verification() && chain(&error).contains("expected tree"), "{}", chain(&error));
    place.server.serve(&big, "bad");
    assert!(place.bring("six", &wanted(&source, &resolved, true)).unwrap_err().is_verification());
    place.server.script(&big, "", [Fault::Status(404)]);
    let error = chain(&place.bring("six", &wanted(&source, &resolved, true)).unwrap_err());
    assert!(error.contains("the hub has no data set `o/n`"), "{error}");
}

#[test]
fn what_of_a_repository_a_description_names() {
    let place = Place::new();
    hub(&place, &"8".repeat(40), "refs%2Fconvert%2Fparquet");
    let object = |path: &str, more: &str| {
        format!(
            r#", {{"@type": "cr:FileObject", "@id": "x", "containedIn": {{"@id": "repo"}}, "contentUrl": "{path}", {more} "encodingFormat": "text/csv"}}"#
        )
    };
    let sha256 = |bytes: &[u8]| format!(r#""sha256": "{}","#, Digest::of(bytes).to_hex());
    let md5 = |hex: &str| format!(r#""md5": "{hex}","#);
    let (big, small) = ("train/big.parquet", "read me.md");
    // By its own path, by `fnmatch`, and by both.
    for (inside, files) in [
        (object(big, ""), &[big][..]),
        (object(small, &sha256(b"small")), &[small]),
        (object(big, &md5("d861877da56b8b4ceb35c8cbfdf65bb4")), &[big]),
        (SET.replace("train/*.parquet", "*") + &object(small, ""), &[small, big]),
        (
            SET.replace(r#""includes": "train/*.parquet""#, r#""includes": ["*.md", "t*"], "excludes": ["*.parquet"]"#),
            &[small],
        ),
    ] {
        assert_eq!(place.there_and_back(&describes(&place, &inside)), files, "{inside}");
    }
    // What is stated is checked: against what the hub states, or against the bytes.
    for inside in [object(big, &sha256(b"other")), object(small, &sha256(b"other")), object(big, &md5(&"0".repeat(32)))]
    {
        let _ = fs_err::remove_dir_all(place.root.path().join("one"));
        let error = place.resolve(&describes(&place, &inside)).unwrap_err();
        assert!(error.is_verification(), "{inside}: {}", chain(&error));
    }
    let instead = r#"{ url = "hf://datasets/o/n", rev = "refs/convert/parquet" }, with `files`"#;
    let other = r#", {"@type": "cr:FileObject", "@id": "git", "contentUrl": "https://example.org/o/r.git", "encodingFormat": "git+https"}"#;
    let beside = r#", {"@type": "cr:FileObject", "@id": "y", "contentUrl": "https://example.org/y.csv", "encodingFormat": "text/csv"}"#;
    let nested = object("a.zip", "") + &SET.replace(r#""@id": "repo""#, r#""@id": "x""#);
    for (inside, words) in [
        (SET.replace("train/", "test/"), &["`parquet-files-for-config-default` chooses no file of `repo`"][..]),
        (SET.replace(r#""includes""#, r#""included""#), &["has no `includes`"]),
        (object("none.csv", ""), &["`repo` has no file `none.csv`"]),
        (object("../x", ""), &["`../x` of `x`"]),
        (String::new(), &["`repo` is a git repository", "which of its files", instead]),
        (SET.to_owned() + beside, &["`y` lies beside the git repository `repo`", instead]),
        (nested, &["`parquet-files-for-config-default` lies beside the git repository", instead]),
        (SET.to_owned() + other, &["two repositories", r#"{ url = "git+https://example.org/o/r.git" }"#]),
    ] {
        let text = chain(&place.resolve(&describes(&place, &inside)).unwrap_err());
        assert!(words.iter().all(|w| text.contains(w)), "{words:?}: {text}");
    }
}
