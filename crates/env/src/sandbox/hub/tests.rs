use super::answer::{Answer, Body, Request};
use super::{Hub, HubFile, Refusal, Repository};
use serde_json::Value;
use trainlock_types::{Digest, RelPath};

const ONE: &str = "1111111111111111111111111111111111111111";
const TWO: &str = "2222222222222222222222222222222222222222";

fn repository(id: &str, commit: &str, revision: &str, files: &[&str]) -> Repository {
    let file = |path: &&str| HubFile {
        path: RelPath::parse(path).unwrap(),
        size: path.len() as u64,
        sha256: Digest::of(path.as_bytes()),
    };
    let at = RelPath::parse("data/x").unwrap();
    Repository {
        id: id.into(),
        commit: commit.into(),
        revision: revision.into(),
        at,
        files: files.iter().map(file).collect(),
    }
}

fn hub() -> Hub {
    let repositories = vec![
        repository("o/m", ONE, "v1", &["a/b/c.txt", "a/d e.txt", "config.json"]),
        repository("datasets/o/d", ONE, "main", &["x.csv"]),
        repository("datasets/o/d", ONE, "main", &["y.csv"]),
        repository("datasets/o/d", TWO, "refs/convert/parquet", &["x.csv", "z.parquet"]),
    ];
    Hub { repositories }
}

fn ask<'h>(hub: &'h Hub, method: &str, target: &str) -> Answer<'h> {
    hub.answer(&Request { method: method.to_owned(), target: target.to_owned(), ..Request::default() })
}

fn header<'a>(answer: &'a Answer<'_>, name: &str) -> &'a str {
    answer.headers.iter().find(|(n, _)| *n == name).map_or("", |(_, value)| value)
}

fn json(answer: &Answer<'_>) -> Value {
    let Body::Bytes(bytes) = &answer.body else { panic!("a file came") };
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(bytes));
    serde_json::from_slice(bytes).unwrap()
}

fn paths(answer: &Answer<'_>) -> Vec<String> {
    json(answer).as_array().unwrap().iter().map(|e| e["path"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn what_a_revision_stands_for() {
    let hub = hub();
    let sha = |target: &str| json(&ask(&hub, "GET", target))["sha"].as_str().unwrap().to_owned();
    // The only commit that there is stands for `main` too, which is what clients ask for by default.
    for target in ["/api/models/o/m", "/api/models/o/m/revision/main", "/api/models/o/m/revision/v1"] {
        assert_eq!(sha(target), ONE);
    }
    assert_eq!(sha(&format!("/api/models/o/m/revision/{ONE}")), ONE);
    assert_eq!(sha("/api/datasets/o/d"), ONE);
    assert_eq!(sha("/api/datasets/o/d/revision/refs%2Fconvert%2Fparquet"), TWO);
    let info = json(&ask(&hub, "GET", "/api/datasets/o/d"));
    assert_eq!(info["siblings"], serde_json::json!([{"rfilename": "x.csv"}, {"rfilename": "y.csv"}]));
    let refs = json(&ask(&hub, "GET", "/api/datasets/o/d/refs"));
    assert_eq!(refs["branches"][1]["targetCommit"], TWO);
}

#[test]
fn listings() {
    let hub = hub();
    let tree = |rest: &str| paths(&ask(&hub, "GET", &format!("/api/models/o/m/tree/main{rest}")));
    assert_eq!(tree(""), ["a", "config.json"]);
    assert_eq!(tree("?recursive=True&expand=false"), ["a", "a/b", "a/b/c.txt", "a/d e.txt", "config.json"]);
    assert_eq!(tree("/a"), ["a/b", "a/d e.txt"]);
    let both = ask(&hub, "GET", &format!("/api/datasets/o/d/tree/{ONE}?recursive=1"));
    assert_eq!(paths(&both), ["x.csv", "y.csv"]);
    let file = &json(&both)[0];
    assert_eq!(file["lfs"]["oid"], Digest::of(b"x.csv").to_hex());
    // By git itself, of the pointer's text.
    assert_eq!(file["oid"], "739e815edce9c8b2b96b932cfada8d69b0f16be5");
    let none = ask(&hub, "GET", "/api/models/o/m/tree/main/config.json");
    assert_eq!((none.status, header(&none, "X-Error-Code")), (404, "EntryNotFound"));
    for (is_json, body) in
        [(false, "paths=a&paths=a%2Fd+e.txt&paths=no&expand=false"), (true, r#"{"paths": ["a", "a/d e.txt", "no"]}"#)]
    {
        let request = Request {
            method: "POST".to_owned(),
            target: "/api/models/o/m/paths-info/main".to_owned(),
            is_json,
            body: body.into(),
            ..Request::default()
        };
        assert_eq!(paths(&hub.answer(&request)), ["a", "a/d e.txt"]);
    }
}

#[test]
fn files_and_their_parts() {
    let hub = hub();
    let get = |range: Option<&str>, if_range: Option<&str>| {
        let target = "/o/m/resolve/v1/a/d%20e.txt?download=true".to_owned();
        let (range, if_range) = (range.map(str::to_owned), if_range.map(str::to_owned));
        let answer = hub.answer(&Request { method: "GET".to_owned(), target, range, if_range, ..Request::default() });
        let part = match &answer.body {
            Body::File { file, from, length, .. } => {
                assert_eq!(file.path.as_str(), "a/d e.txt");
                Some((*from, *length))
            }
            Body::Bytes(_) => None,
        };
        let etag = format!("\"{}\"", Digest::of(b"a/d e.txt"));
        for (name, value) in [("X-Repo-Commit", ONE), ("ETag", &etag), ("X-Linked-Etag", &etag), ("X-Linked-Size", "9")]
        {
            assert_eq!(header(&answer, name), value);
        }
        (answer.status, part, header(&answer, "Content-Range").to_owned())
    };
    let whole = (200, Some((0, 9)), String::new());
    assert_eq!(get(None, None), whole);
    assert_eq!(get(Some("bytes=2-"), None), (206, Some((2, 7)), "bytes 2-8/9".to_owned()));
    assert_eq!(get(Some("bytes=2-4"), None), (206, Some((2, 3)), "bytes 2-4/9".to_owned()));
    assert_eq!(get(Some("bytes=0-99"), None), (206, Some((0, 9)), "bytes 0-8/9".to_owned()));
    assert_eq!(get(Some("bytes=-4"), None), (206, Some((5, 4)), "bytes 5-8/9".to_owned()));
    assert_eq!(get(Some("bytes=9-"), None), (416, None, "bytes */9".to_owned()));
    for range in ["bytes=4-2", "bytes=0-1,3-4", "lines=1-2", "bytes=x-"] {
        assert_eq!(get(Some(range), None), whole, "{range}");
    }
    assert_eq!(get(Some("bytes=2-"), Some("\"another\"")), whole);
}

#[test]
fn what_is_not_there() {
    let hub = hub();
    let told = |method: &str, target: &str| {
        let answer = ask(&hub, method, target);
        let refusal = answer
            .refusal
            .as_deref()
            .cloned()
            .map(|Refusal { repository, revision, path }| (repository, revision, path));
        (answer.status, header(&answer, "X-Error-Code").to_owned(), refusal)
    };
    let refused = |repository: &str, revision: Option<&str>, path: Option<&str>| {
        Some((repository.to_owned(), revision.map(str::to_owned), path.map(str::to_owned)))
    };
    let entry = told("HEAD", "/datasets/o/d/resolve/main/z.parquet");
    assert_eq!(entry, (404, "EntryNotFound".to_owned(), refused("datasets/o/d", Some("main"), Some("z.parquet"))));
    let revision = told("GET", "/api/datasets/o/d/revision/v9");
    assert_eq!(revision, (404, "RevisionNotFound".to_owned(), refused("datasets/o/d", Some("v9"), None)));
    let other = told("GET", "/o/other/resolve/main/config.json");
    assert_eq!(other, (404, "RepoNotFound".to_owned(), refused("o/other", Some("main"), Some("config.json"))));
    let old = told("GET", "/api/models/gpt2/revision/main");
    assert_eq!(old, (404, "RepoNotFound".to_owned(), refused("gpt2", Some("main"), None)));
    // A commit of the model is none of the data set's, nor the name of one the other's.
    assert_eq!(told("GET", "/api/models/o/d").1, "RepoNotFound");
    assert_eq!(told("GET", &format!("/o/m/resolve/{TWO}/config.json")).1, "RevisionNotFound");
    for target in
        ["/", "/o/m", "/o/m/raw/main/config.json", "/api/spaces/o/m", "/api/whoami-v2", "/o/m/resolve/main/../main"]
    {
        assert_eq!(told("GET", target).0, 404, "{target}");
    }
    for (method, target) in
        [("POST", "/api/repos/create"), ("PUT", "/o/m/resolve/v1/config.json"), ("DELETE", "/api/models/o/m")]
    {
        assert_eq!(told(method, target).0, 405, "{method} {target}");
    }
    // A message is one line of a header, whatever was asked for.
    let odd = ask(&hub, "GET", "/o/m/resolve/v1/%0d%0aX-Evil:%201%00%ff");
    assert_eq!(odd.status, 400);
    let odd = ask(&hub, "GET", "/o/m/resolve/v1/%0d%0aX-Evil:%201%00ü");
    assert!(header(&odd, "X-Error-Message").bytes().all(|b| (b' '..127).contains(&b)), "{odd:?}");
}
