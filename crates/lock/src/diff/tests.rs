use super::*;
use std::path::Path;

const A: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
const B: &str = "3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d";
const C: &str = "2e7d2c03a9507ae265ecf5b5356885a53393a2029d241394997265a1a25aefc6";

fn lock(text: &str) -> Lock {
    Lock::parse(&format!("version = 1\n{text}"), Path::new("train.lock")).unwrap()
}

/// The differences in words, a line each, with the longest digests made short.
fn words(old: &str, new: &str) -> Vec<String> {
    diff(&lock(old), &lock(new)).iter().map(Change::to_string).collect()
}

fn file(name: &str, url: &str, sha256: &str, size: u64) -> String {
    format!("[[data]]\nname = \"{name}\"\nurl = \"{url}\"\nsha256 = \"{sha256}\"\nsize = {size}\n")
}

fn tree(sha256s: &[(&str, &str)], archive: &str) -> String {
    let lines: Vec<String> = sha256s.iter().map(|(sha256, path)| format!("{sha256} 1 {path}")).collect();
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let list: Vec<String> = lines.iter().map(|line| format!("\"{line}\"")).collect();
    format!(
        "[[data]]\nname = \"t\"\nurl = \"https://x.org/t.zip\"\nunpack = true\narchive-sha256 = \"{archive}\"\n\
         archive-size = 9\ntree = \"{}\"\nsize = {}\ncount = {}\nlisting = [{}]\n",
        Digest::of(text.as_bytes()),
        lines.len(),
        lines.len(),
        list.join(", ")
    )
}

fn result(key: &str, rest: &str) -> String {
    format!("[[result]]\nstep = \"s\"\nclass = \"c/v3\"\nkey = \"{key}\"\n{rest}")
}

#[test]
fn data_comes_goes_and_changes() {
    let url = "https://x.org/a?token=secret";
    let old = file("a", url, A, 3) + &file("b", "https://x.org/b", A, 3);
    let new = file("a", "https://y.org/a", B, 2048) + &file("c", "https://x.org/c", C, 3);
    assert_eq!(
        words(&old, &new),
        [
            "data a: url: https://x.org/a?token=REDACTED -> https://y.org/a; \
             content changed: ba7816bf8f01 -> 3e23e8160039, 3 B -> 2.0 KiB",
            "data b: removed",
            "data c: added, sha256 2e7d2c03a950, 3 B",
        ]
    );
    assert!(words(&old, &old).is_empty());
    // What a server says of the bytes is no input.
    let hint = |line: &str| file("a", "https://x.org/a", A, 3) + line;
    for (old, new) in [("", "etag = \"1\"\n"), ("etag = \"1\"\n", "etag = \"2\"\n"), ("modified = \"x\"\n", "")] {
        assert!(words(&hint(old), &hint(new)).is_empty());
    }
    // The new publisher's statement may be one that the old content does not hold: no difference of its own.
    let stated = |sha256| file("a", "https://x.org/a", sha256, 3) + &format!("checksum = \"sha256:{sha256}\"\n");
    assert_eq!(words(&stated(A), &stated(B)).len(), 1);
    assert!(
        words(&stated(A).replace(&format!("sha256:{A}"), &format!("sha256:{B}")), &stated(A))[0].contains("checksum")
    );
}

#[test]
fn a_new_compression_is_named_as_such() {
    assert_eq!(
        words(&tree(&[(A, "a")], B), &tree(&[(A, "a")], C)),
        ["data t: the archive changed, its content did not: 3e23e8160039 -> 2e7d2c03a950"]
    );
}

#[test]
fn the_files_of_a_folder() {
    let (old, new) = (tree(&[(A, "a"), (A, "b"), (A, "d")], A), tree(&[(B, "a"), (A, "c"), (A, "d")], B));
    let changes = diff(&lock(&old), &lock(&new));
    assert!(changes[0].to_string().ends_with(", 1 file added, 1 removed, 1 changed"), "{}", changes[0]);
    let Action::Changed { why } = &changes[0].action else { panic!("{changes:?}") };
    let files = why[0].files().unwrap();
    assert_eq!(files.lines().collect::<Vec<_>>(), ["added c", "removed b", "changed a"]);
    let json = serde_json::to_value(&changes[0]).unwrap();
    assert_eq!(json["changes"][0]["files"], serde_json::json!({"added": ["c"], "removed": ["b"], "changed": ["a"]}));
    // Without listings the counts say what can be said.
    let counted = |count: u64, tree: &str| {
        format!("[[data]]\nname = \"n\"\npath = \"n\"\ntree = \"{tree}\"\nsize = 5\ncount = {count}\n")
    };
    assert_eq!(
        words(&counted(1000, A), &counted(1001, B)),
        ["data n: content changed: ba7816bf8f01 -> 3e23e8160039, 1000 -> 1001 files"]
    );
}

#[test]
fn tools_params_and_determinism() {
    let tool = |version: &str| {
        format!("[[tool]]\nname = \"jq\"\nrequest = \"^1\"\nfrom = \"host\"\nversion = \"{version}\"\n")
    };
    assert_eq!(words(&tool("1.6.0"), &tool("1.7.1")), ["tool jq: version: 1.6.0 -> 1.7.1"]);
    // A locked version that its own request does not allow is strange, but no difference.
    assert!(words(&tool("2.0.0-rc.1"), &tool("2.0.0-rc.1")).is_empty());
    let old = "[params.p]\nlr = 0.1\nname = \"a\"\n[profile.smoke.p]\nlr = 1.0\n[profile.full.p]\n";
    let new = "[params.p]\nlr = 0.2\nsize = 1\n[profile.smoke.p]\nlr = 2.0\n";
    assert_eq!(
        words(old, new),
        [
            "params p lr: 0.1 -> 0.2",
            "params p name: removed",
            "params p size: added, 1",
            "profile full p: removed",
            "profile smoke p lr: 1.0 -> 2.0",
        ]
    );
    let level = |seed: u8, coretype: &str, rest: &str| {
        format!(
            "[determinism]\nseed = {seed}\nlevel = \"portable\"\n[determinism.switches.x86_64]\n\
             level = \"x86-64-v3\"\nOPENBLAS_CORETYPE = \"{coretype}\"\n{rest}"
        )
    };
    assert_eq!(
        words(&level(1, "Haswell", "OMP_NUM_THREADS = \"1\"\n"), &level(2, "Zen", "")),
        ["determinism: seed: 1 -> 2; OMP_NUM_THREADS on x86_64: 1 -> none; \
          OPENBLAS_CORETYPE on x86_64: Haswell -> Zen"]
    );
    let member = "[determinism]\nseed = 1\nlevel = \"off\"\n[determinism.members.two]\nseed = 7\nlevel = \"off\"\n";
    let root = "[determinism]\nseed = 1\nlevel = \"off\"\n";
    assert_eq!(words(root, member), ["determinism two: added, seed 7, level off"]);
}

#[test]
fn results_with_their_outputs_and_metrics() {
    let old = result(
        A,
        &format!(
            "outputs = [\"{A} 1 gone\", \"{A} 1024 m.npz\", \"{A} 5 z.zip\"]\ncontent = [\"{C} z.zip\"]\n\
             metrics = [\"0.8 acc\", \"1 loss\", \"0 zero\"]\n"
        ),
    );
    let new = result(
        B,
        &format!(
            "outputs = [\"{B} 2048 m.npz\", \"{C}/ 7 new\", \"{B} 5 z.zip\"]\ncontent = [\"{C} z.zip\"]\n\
             metrics = [\"0.9 acc\", \"0.99999 loss\", \"1 zero\", \"2 more\"]\n"
        ),
    );
    let changes = diff(&lock(&old), &lock(&new));
    let Action::Changed { why } = &changes[0].action else { panic!("{changes:?}") };
    assert_eq!(changes[0].subject.to_string(), "result s (c/v3)");
    assert_eq!(
        why.iter().map(Why::to_string).collect::<Vec<_>>(),
        [
            "key: ba7816bf8f01 -> 3e23e8160039",
            "gone: removed, sha256 ba7816bf8f01, 1 B",
            "m.npz: ba7816bf8f01 -> 3e23e8160039, 1.0 KiB -> 2.0 KiB",
            "new: added, sha256 2e7d2c03a950, 7 B",
            "z.zip: the container changed, its content did not: ba7816bf8f01 -> 3e23e8160039",
            "acc: 0.8 -> 0.9 (+12.50 %)",
            "loss: 1 -> 0.99999 (-1.0e-3 %)",
            "more: none -> 2",
            "zero: 0 -> 1",
        ]
    );
    // The last bit of a number counts, and the sign of zero.
    let metric = |number: &str| result(A, &format!("metrics = [\"{number} m\"]\n"));
    assert_eq!(words(&metric("0.1"), &metric("0.10000000000000002")).len(), 1);
    assert_eq!(words(&metric("0"), &metric("-0")), ["result s (c/v3): m: 0 -> -0"]);
    assert_eq!(words(&metric("-2"), &metric("-1")), ["result s (c/v3): m: -2 -> -1 (+50.00 %)"]);
    // Another class, or profile, is another result.
    let elsewhere = old.replace("c/v3", "c/v2");
    assert_eq!(words(&old, &elsewhere).len(), 2);
    assert_eq!(words("", &metric("1")), ["result s (c/v3): added, 0 outputs, m 1"]);
    let profile = metric("1").replace("class", "member = \"two\"\nprofile = \"smoke\"\nclass");
    assert_eq!(words(&profile, ""), ["result two/s (c/v3, profile smoke): removed"]);
}

#[test]
fn an_executable_and_unknown_keys() {
    let output = |mark: &str| result(A, &format!("outputs = [\"{A}{mark} 1 run\"]\n"));
    assert_eq!(words(&output(""), &output("+x")), ["result s (c/v3): run: a file -> an executable file"]);
    assert_eq!(
        words(&output(""), &format!("{}later = 1\n", output(""))),
        ["result s (c/v3): keys of a later trainlock changed"]
    );
}

#[test]
fn facts_for_programs() {
    let changes = diff(&lock(&file("a", "https://x.org/a", A, 3)), &lock(&file("a", "https://x.org/a", B, 3)));
    assert_eq!(
        serde_json::to_value(&changes).unwrap(),
        serde_json::json!([{
            "kind": "data", "name": "a", "member": null, "action": "changed",
            "changes": [{
                "what": "content", "old": A, "new": B,
                "words": "content changed: ba7816bf8f01 -> 3e23e8160039",
            }],
        }])
    );
}
