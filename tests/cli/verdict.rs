//! Sealed results: written, reproduced, equivalent, diverged.

use crate::{chain, context, project, write_manifest};
use trainlock_testing::TestContext;

/// What `train` says of a project's sealed results, with its exit code.
fn train(context: &TestContext, code: i32) -> String {
    context.run(["train"]).expect(code).stderr
}

fn sealed(context: &TestContext) -> String {
    context.run(["seal"]).expect(0).stderr
}

/// A .npy file of 64-bit floats.
fn npy(values: &[f64]) -> Vec<u8> {
    let header = format!("{{'descr': '<f8', 'fortran_order': False, 'shape': ({},), }}", values.len());
    let padded = format!("{header:<117}\n");
    let mut bytes = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    bytes.extend(padded.as_bytes());
    values.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
    bytes
}

/// A zip archive with one stored member and a time of its own.
fn zip(name: &str, content: &[u8], seconds: u16) -> Vec<u8> {
    let crc = content.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    });
    let size = (content.len() as u32).to_le_bytes();
    let mut fields = vec![20, 0, 0, 0, 0, 0];
    fields.extend(seconds.to_le_bytes());
    fields.extend([0x21, 0x58]);
    fields.extend((!crc).to_le_bytes());
    fields.extend(size);
    fields.extend(size);
    fields.extend((name.len() as u16).to_le_bytes());
    fields.extend([0, 0]);
    let mut bytes = [b"PK\x03\x04".as_slice(), &fields, name.as_bytes(), content].concat();
    let at = bytes.len() as u32;
    bytes.extend([b"PK\x01\x02\x14\x00".as_slice(), &fields, &[0; 14], name.as_bytes()].concat());
    let length = bytes.len() as u32 - at;
    bytes.extend(b"PK\x05\x06\0\0\0\0\x01\0\x01\0");
    bytes.extend(length.to_le_bytes());
    bytes.extend(at.to_le_bytes());
    bytes.extend([0, 0]);
    bytes
}

#[test]
fn a_sealed_project_is_reproduced_here_and_with_an_empty_store() {
    let context = context();
    chain(&context);
    assert!(!train(&context, 0).contains("Reproduced"), "nothing is sealed yet");
    let before = context.read("train.lock");
    let words = sealed(&context);
    assert!(words.contains("Sealed three") && words.contains("accuracy 0.3"), "{words}");
    let lock = context.read("train.lock");
    assert_eq!(lock.matches("[[result]]").count(), 3);
    assert!(lock.starts_with(before.trim_end()), "what was locked stays as it was");
    assert!(sealed(&context).contains("has these results already"));
    assert_eq!(context.read("train.lock"), lock);
    assert!(train(&context, 0).contains("Reproduced 3 steps, bit for bit"));
    fs_err::remove_dir_all(context.store()).unwrap();
    fs_err::remove_dir_all(context.project().join("build")).unwrap();
    fs_err::remove_dir_all(context.project().join(".trainlock")).unwrap();
    assert!(train(&context, 0).contains("Reproduced 3 steps, bit for bit"));
    let events = context.run(["train", "--json"]).expect(0).stdout;
    let verdict: serde_json::Value = serde_json::from_str(events.lines().last().unwrap()).unwrap();
    assert_eq!((&verdict["event"], &verdict["verdict"]), (&"verdict".into(), &"reproduced".into()));
    assert_eq!(verdict["steps"][2]["step"], "three");
    context.run(["lock", "--check"]).expect(0);
    context.run(["update"]).expect(0);
    assert_eq!(context.read("train.lock"), lock, "locking keeps the results");
}

#[test]
fn a_change_diverges_with_its_cause_and_is_replaced_only_when_told() {
    let context = context();
    chain(&context);
    train(&context, 0);
    context.run(["seal", "--profile", "smoke"]).expect(1);
    sealed(&context);
    let lock = context.read("train.lock");
    context.write("source.txt", "changed\n");
    let words = train(&context, 5);
    assert!(words.contains("step `one` diverged from its sealed result"), "{words}");
    assert!(words.contains("input source.txt"), "{words}");
    assert!(words.contains("`two`, `three` differ as a consequence"), "{words}");
    let refused = context.run(["seal"]).expect(1).stderr;
    assert!(refused.contains("--replace"), "{refused}");
    assert_eq!(context.read("train.lock"), lock);
    assert!(context.run(["seal", "--replace"]).expect(0).stderr.contains("Replaced one"));
    assert!(train(&context, 0).contains("Reproduced"));
    // Another value for one run is another computation.
    let set = context.run(["train", "--set", "epochs=4"]).expect(0).stderr;
    assert!(set.contains("Unjudged"), "{set}");
}

#[test]
fn one_bit_of_one_array_is_found() {
    let context = context();
    let values: Vec<f64> = (0..1000).map(|i| f64::from(i) / 7.0).collect();
    context.write("a.npy", npy(&values));
    let mut other = values;
    other[417] = f64::from_bits(other[417].to_bits() + 1);
    context.write("b.npy", npy(&other));
    let steps = |file: &str| {
        format!(
            "[steps.make]\nrun = \"cp {file} w.npy\"\ninputs = [\"a.npy\", \"b.npy\"]\noutputs = [\"w.npy\"]\n\
             [steps.use]\nrun = \"wc -c <w.npy >n; cksum w.npy >>n\"\ninputs = [\"w.npy\"]\noutputs = [\"n\"]\n"
        )
    };
    write_manifest(&context, &steps("a.npy"));
    train(&context, 0);
    sealed(&context);
    write_manifest(&context, &steps("b.npy"));
    let words = train(&context, 5);
    for part in ["step `make` diverged", "w.npy", "[417]", "1 of 1,000", "1 ULP"] {
        assert!(words.contains(part), "{part} is missing:\n{words}");
    }
    assert!(words.contains("`use` differs"), "{words}");
}

/// Sealed with one file; the other holds the same.
fn only_the_container(name: &str, one: &[u8], other: &[u8]) {
    let context = context();
    context.write("a", one).write("b", other);
    let step = |file: &str| {
        format!("[steps.pack]\nrun = \"cp {file} {name}\"\ninputs = [\"a\", \"b\"]\noutputs = [\"{name}\"]\n")
    };
    write_manifest(&context, &step("a"));
    train(&context, 0);
    sealed(&context);
    write_manifest(&context, &step("b"));
    let words = train(&context, 0);
    assert!(words.contains("Equivalent pack") && words.contains(name), "{words}");
    // Another machine does not have the sealed bytes: the digest of the content says the same.
    fs_err::remove_dir_all(context.store()).unwrap();
    fs_err::remove_dir_all(context.project().join(".trainlock")).unwrap();
    fs_err::remove_file(context.project().join(name)).unwrap();
    assert!(train(&context, 0).contains("Equivalent pack"));
}

#[test]
fn only_the_times_in_an_archive() {
    only_the_container("out.zip", &zip("x.txt", b"content", 0), &zip("x.txt", b"content", 9));
}

#[test]
fn only_how_a_table_is_stored() {
    let plain = include_bytes!("../../fixtures/parquet/plain.parquet");
    let encoded = include_bytes!("../../fixtures/parquet/encoded.parquet");
    only_the_container("out.parquet", plain, encoded);
}

/// The same for an archive in a folder, and a difference beside it is found all the same.
#[test]
fn only_the_times_in_an_archive_of_a_folder() {
    let context = context();
    context.write("a.zip", zip("x.txt", b"content", 0)).write("b.zip", zip("x.txt", b"content", 9));
    let step = |file: &str, word: &str| {
        format!(
            "[steps.pack]\nrun = \"mkdir -p out; cp {file} out/x.zip; echo {word} > out/y\"\ninputs = [\"a.zip\", \"b.zip\"]\noutputs = [\"out/\"]\n"
        )
    };
    write_manifest(&context, &step("a.zip", "y"));
    train(&context, 0);
    sealed(&context);
    // On another machine, which does not have the sealed bytes.
    for (word, code, verdict) in [("y", 0, "Equivalent pack"), ("z", 5, "Diverged")] {
        write_manifest(&context, &step("b.zip", word));
        fs_err::remove_dir_all(context.store()).unwrap();
        fs_err::remove_dir_all(context.project().join(".trainlock")).unwrap();
        fs_err::remove_dir_all(context.project().join("out")).unwrap();
        let words = train(&context, code);
        assert!(words.contains(verdict), "{words}");
    }
}

#[test]
fn metrics_within_a_tolerance() {
    let step = |accuracy: &str, tolerance: &str| {
        format!(
            "[steps.s]\nrun = \"echo '{{{{\\\"accuracy\\\": {accuracy}}}' >m.json\"\nmetrics = [\"m.json\"]\n{tolerance}"
        )
    };
    let context = project(&step("0.95", ""));
    train(&context, 0);
    sealed(&context);
    write_manifest(&context, &step("0.951", ""));
    let words = train(&context, 5);
    assert!(words.contains("accuracy 0.951 instead of 0.95"), "{words}");
    write_manifest(&context, &step("0.951", "tolerance = { accuracy = 0.01 }\n"));
    assert!(train(&context, 0).contains("Equivalent s"));
    write_manifest(&context, &step("0.951", "tolerance = { accuracy = 0.0001 }\n"));
    train(&context, 5);
}

#[test]
fn what_is_not_committed_or_not_done_is_not_sealed() {
    let context = context();
    chain(&context);
    let words = context.run(["seal"]).expect(3).stderr;
    assert!(words.contains("train.lock"), "{words}");
    context.run(["lock"]).expect(0);
    let words = context.run(["seal"]).expect(1).stderr;
    assert!(words.contains("step `one` has no result to seal"), "{words}");
    let git = |args: &[&str]| {
        let mut command = std::process::Command::new("git");
        command.args(["-c", "user.name=a", "-c", "user.email=a@b"]).args(args).current_dir(context.project());
        assert!(command.output().unwrap().status.success(), "{args:?}");
    };
    git(&["init", "-q"]);
    train(&context, 0);
    let words = context.run(["seal"]).expect(1).stderr;
    assert!(words.contains("not committed to git: `source.txt`, `train.toml`"), "{words}");
    git(&["add", "."]);
    git(&["commit", "-qm", "all"]);
    sealed(&context);
    // The lock itself is what sealing changes.
    sealed(&context);
    context.write("source.txt", "another\n");
    train(&context, 5);
    assert!(context.run(["seal", "--replace"]).expect(1).stderr.contains("`source.txt`"));
    context.run(["seal", "--replace", "--allow-dirty"]).expect(0);
}

#[test]
fn verify_runs_again_and_changes_nothing() {
    let context = project(
        "[steps.same]\nrun = \"echo same >a\"\noutputs = [\"a\"]\n\
         [steps.random]\nrun = \"cat a /proc/sys/kernel/random/uuid >b\"\ninputs = [\"a\"]\noutputs = [\"b\"]\n",
    );
    let words = context.run(["verify"]).expect(1).stderr;
    assert!(words.contains("--twice"), "{words}");
    context.run(["verify", "same", "--twice"]).expect(0);
    let words = context.run(["verify", "--twice"]).expect(5).stderr;
    assert!(words.contains("step `random` diverged") && !words.contains("step `same`"), "{words}");
    assert!(!context.has("a") && !context.has("b"), "nothing is written to the project");
    train(&context, 0);
    let (made, runs) = (context.read("b"), crate::count(&context, "random"));
    // Beside the results of the store, as nothing is sealed.
    let words = context.run(["verify"]).expect(5).stderr;
    assert!(words.contains("the results in the store"), "{words}");
    assert_eq!((context.read("b"), crate::count(&context, "random")), (made, runs + 1));
    assert!(train(&context, 0).contains("nothing to do"));
    sealed(&context);
    assert!(context.run(["verify"]).expect(5).stderr.contains("the sealed results"));
    context.run(["verify", "same"]).expect(0);
}

#[test]
fn verify_names_what_changes_the_bytes() {
    let words = |run: &str, vary: &str, code: i32| {
        let context = project(&format!("[steps.s]\nrun = \"{run}\"\noutputs = [\"out\"]\n"));
        context.run(["verify", "--vary", vary]).expect(code).stderr
    };
    for (vary, run) in [
        ("threads", "echo $OMP_NUM_THREADS >out"),
        ("time", "echo $SOURCE_DATE_EPOCH >out"),
        ("hashseed", "echo $PYTHONHASHSEED >out"),
        ("umask", "umask >out"),
        ("hostname", "cat /proc/sys/kernel/hostname >out"),
    ] {
        let told = words(run, vary, 5);
        assert!(told.contains(&format!("Changes {vary}: step `s`, `out`")), "{told}");
        assert!(words("echo same >out", vary, 0).contains(&format!("{vary} changes no byte")));
    }
    let context = project("");
    for i in 0..40 {
        context.write(&format!("many/{i}.txt"), "x");
    }
    let listing = "[steps.s]\nrun = \"ls -U many >out\"\ninputs = [\"many/\"]\noutputs = [\"out\"]\n";
    write_manifest(&context, listing);
    let told = context.run(["verify", "--vary", "order,hostname"]).expect(5).stderr;
    assert!(told.contains("Changes order: step `s`") && told.contains("hostname changes no byte"), "{told}");
    write_manifest(&context, &listing.replace("ls -U", "ls"));
    context.run(["verify", "--vary", "order"]).expect(0);
    assert!(words("echo x >out", "moon", 2).contains("one of threads, order"));
}
