use super::*;
use fs_err as fs;
use proptest::prelude::*;
use std::io::Write as _;

/// A .npy file of little-endian floats.
fn npy(values: &[f64]) -> Vec<u8> {
    let header = format!("{{'descr': '<f8', 'fortran_order': False, 'shape': ({},), }}", values.len());
    let mut bytes = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    bytes.extend(format!("{header:<117}\n").as_bytes());
    values.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
    bytes
}

fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

fn zipped(members: &[(&str, &[u8])], time: (u8, u8)) -> Vec<u8> {
    let mut zip = ::zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let time = ::zip::DateTime::from_date_and_time(2020, 1, 1, time.0, time.1, 0).unwrap();
    for (name, content) in members {
        let options = ::zip::write::SimpleFileOptions::default()
            .compression_method(::zip::CompressionMethod::Stored)
            .last_modified_time(time);
        zip.start_file(*name, options).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn gzipped(content: &[u8], time: u32, level: u32) -> Vec<u8> {
    let mut gzip = flate2::GzBuilder::new().mtime(time).write(Vec::new(), flate2::Compression::new(level));
    gzip.write_all(content).unwrap();
    gzip.finish().unwrap()
}

/// The comparison of two contents of one name, checked against what the digests of their contents say.
fn compared(a: &[u8], b: &[u8], name: &str) -> Comparison {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("a"), folder.path().join("b"));
    fs::write(&one, a).unwrap();
    fs::write(&two, b).unwrap();
    let comparison = compare_files(&one, &two, name).unwrap();
    let digests = (content_digest(&one, name).unwrap(), content_digest(&two, name).unwrap());
    if let (Some(x), Some(y)) = digests {
        assert_eq!(x == y, comparison.verdict != Sameness::Different, "{comparison}");
    }
    comparison
}

fn words(a: &[u8], b: &[u8], name: &str) -> String {
    let comparison = compared(a, b, name);
    assert_eq!(comparison.verdict, Sameness::Different);
    comparison.to_string()
}

#[test]
fn one_element_of_an_array() {
    let values: Vec<f64> = (0..5000).map(|i| f64::from(i).sqrt()).collect();
    let mut other = values.clone();
    other[4321] = f64::from_bits(other[4321].to_bits() + 1);
    let told = words(&npy(&values), &npy(&other), "w.npy");
    assert!(told.contains("[4321]") && told.contains("1 of 5,000 elements") && told.contains("1 ULP"), "{told}");
    let (a, b) = (zipped(&[("w.npy", &npy(&values))], (1, 1)), zipped(&[("w.npy", &npy(&other))], (2, 2)));
    let told = words(&a, &b, "all.npz");
    assert!(told.contains("w") && told.contains("[4321]"), "{told}");
    assert_eq!(compared(&npy(&values), &npy(&values), "w.npy").verdict, Sameness::Identical);
    let told = words(&npy(&values), &npy(&values[1..]), "w.npy");
    assert!(told.contains("another shape: [5000] ≠ [4999]"), "{told}");
    assert!(words(&npy(&[0.0]), &npy(&[-0.0]), "z.npy").contains("sign of zero"));
}

#[test]
fn noise_of_containers_is_told_apart() {
    for (a, b, name) in [
        (zipped(&[("x", b"1"), ("y", b"2")], (1, 1)), zipped(&[("x", b"1"), ("y", b"2")], (9, 9)), "a.zip"),
        (zipped(&[("x", b"1"), ("y", b"2")], (1, 1)), zipped(&[("y", b"2"), ("x", b"1")], (1, 1)), "b.zip"),
        (gzipped(b"content", 1, 6), gzipped(b"content", 2, 6), "c.gz"),
        (gzipped(&[7; 9000], 1, 1), gzipped(&[7; 9000], 1, 9), "d.csv.gz"),
        (b"{\"a\": 1, \"b\": 2}".to_vec(), b"{\"a\":1,\n\"b\":2}".to_vec(), "e.json"),
        (
            safetensors(
                "{\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},\"__metadata__\":{\"a\":\"1\",\"b\":\"2\"}}",
                b"x",
            ),
            safetensors(
                "{\"__metadata__\":{\"b\":\"2\",\"a\":\"1\"},\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}",
                b"x",
            ),
            "f.safetensors",
        ),
    ] {
        let comparison = compared(&a, &b, name);
        assert_eq!(comparison.verdict, Sameness::SameContent, "{name}: {comparison}");
        assert!(!comparison.noise.is_empty());
    }
    let told = words(&zipped(&[("x", b"one")], (1, 1)), &zipped(&[("x", b"two")], (2, 2)), "a.zip");
    assert!(told.contains('x') && told.contains("differs"), "{told}");
    let told = words(&gzipped(b"a\nb\n", 1, 6), &gzipped(b"a\nc\n", 1, 6), "a.txt.gz");
    assert!(told.contains("line 2"), "{told}");
}

#[test]
fn values_of_text_formats() {
    let told = words(b"{\"m\": {\"acc\": 0.5}}", b"{\"m\": {\"acc\": 0.25}}", "m.json");
    assert!(told.contains("acc") && told.contains("0.5 ≠ 0.25"), "{told}");
    let told = words(b"epoch,loss\n1,0.5\n2,0.25\n", b"epoch,loss\n1,0.5\n2,0.26\n", "loss.csv");
    assert!(told.contains("loss") && told.contains("0.25 ≠ 0.26"), "{told}");
    let told = words(b"one\ntwo\n", b"one\ntoo\n", "log.txt");
    assert!(told.contains("line 2"), "{told}");
    let told = words(b"\x00\x01\x02", b"\x00\x01\x03", "x.bin");
    assert!(told.contains("byte 2"), "{told}");
    let tensor = |data: &[u8]| safetensors("{\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", data);
    let floats = |a: f32, b: f32| [a.to_le_bytes(), b.to_le_bytes()].concat();
    let told = words(&tensor(&floats(1.0, 2.0)), &tensor(&floats(1.0, 2.5)), "m.safetensors");
    assert!(told.contains("`w`") && told.contains("[1]") && told.contains("2.0 ≠ 2.5"), "{told}");
}

#[test]
fn pickles_are_walked_and_never_run() {
    // {'lr': 0.5} and {'lr': 0.25}, protocol 2.
    let pickle = |value: f64| {
        let mut bytes = b"\x80\x02}q\x00X\x02\x00\x00\x00lrq\x01G".to_vec();
        bytes.extend(value.to_be_bytes());
        bytes.extend(b"s.");
        bytes
    };
    let told = words(&pickle(0.5), &pickle(0.25), "m.pkl");
    assert!(told.contains("lr") && told.contains("0.5 ≠ 0.25"), "{told}");
    // One that would run a command if it were loaded.
    let folder = tempfile::tempdir().unwrap();
    let canary = folder.path().join("canary");
    let evil = format!("cos\nsystem\n(S'touch {}'\ntR.", canary.display());
    compared(evil.as_bytes(), b"cos\nsystem\n(S'true'\ntR.", "m.pkl");
    assert!(!canary.exists());
}

#[test]
fn folders_file_by_file() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    for (root, text) in [(&a, "1"), (&b, "2")] {
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::write(root.join("sub/x.txt"), text).unwrap();
        fs::write(root.join("same"), "same").unwrap();
        fs::write(root.join(format!("only-{text}")), "").unwrap();
    }
    let told: Vec<String> = compare_folders(&a, &b).unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 3, "{told:?}");
    for part in ["only-1", "only-2", "sub/x.txt"] {
        assert!(told.iter().any(|t| t.contains(part)), "{part}: {told:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a file holds, comparing and digesting it end, and agree.
    #[test]
    fn damaged_files_are_compared_all_the_same(
        which in 0..5_usize,
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let (bytes, name) = match which {
            0 => (npy(&[1.0, 2.0, 3.0]), "a.npy"),
            1 => (zipped(&[("x.npy", &npy(&[1.0])), ("y", b"text")], (1, 1)), "a.npz"),
            2 => (gzipped(b"some text that is packed", 1, 6), "a.gz"),
            3 => (safetensors("{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", &[0; 4]), "a.safetensors"),
            _ => (b"\x80\x04\x95\x0a\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01a\x94K\x01s.".to_vec(), "a.pkl"),
        };
        let mut other = bytes.clone();
        let at = at.index(other.len());
        other[at] = byte;
        let verdict = compared(&bytes, &other, name).verdict;
        prop_assert_eq!(verdict == Sameness::Identical, bytes == other);
        other.truncate(cut.index(other.len()));
        compared(&bytes, &other, name);
    }

    /// One bit of an array's data is found at its index.
    #[test]
    fn a_flipped_bit_is_found(index in 0..300_usize, bit in 0..52_u32) {
        let values: Vec<f64> = (0..300).map(|i| f64::from(i) + 0.5).collect();
        let mut other = values.clone();
        other[index] = f64::from_bits(other[index].to_bits() ^ (1 << bit));
        let comparison = compared(&npy(&values), &npy(&other), "a.npy");
        prop_assert!(comparison.to_string().contains(&format!("[{index}]")), "{}", comparison);
    }
}
