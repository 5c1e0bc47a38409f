use super::*;
use std::io::Write as _;

/// An .npy file of version 1.
fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}");
    let padded = format!("{header:<117}\n");
    [b"\x93NUMPY\x01\0", &(padded.len() as u16).to_le_bytes()[..], padded.as_bytes(), data].concat()
}

fn floats(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    values.into_iter().flat_map(f32::to_le_bytes).collect()
}

fn zip_of(members: &[(&str, &[u8])], year: u16, packed: bool) -> Vec<u8> {
    let mut out = ::zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let method = if packed { ::zip::CompressionMethod::Deflated } else { ::zip::CompressionMethod::Stored };
    let time = ::zip::DateTime::from_date_and_time(year, 1, 2, 3, 4, 6).unwrap();
    for (name, bytes) in members {
        let options = ::zip::write::SimpleFileOptions::default().compression_method(method).last_modified_time(time);
        out.start_file(*name, options).unwrap();
        out.write_all(bytes).unwrap();
    }
    out.finish().unwrap().into_inner()
}

fn gzip(bytes: &[u8], time: u32) -> Vec<u8> {
    let mut out = flate2::GzBuilder::new().mtime(time).write(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn tensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

/// Compares, and holds the two promises against each other: equal content, equal digests.
fn compare(a: &[u8], b: &[u8], name: &str) -> Comparison {
    let (a, b) = (Blob::memory(a.to_vec()), Blob::memory(b.to_vec()));
    let found = compare_blobs(&a, &b, name).unwrap();
    if let (Some(x), Some(y)) = (walk::digest(&a, name, 0).unwrap(), walk::digest(&b, name, 0).unwrap()) {
        assert_eq!(x == y, found.verdict != Sameness::Different, "{found:?}");
    }
    found
}

/// The only difference must be in elements.
fn elements(found: &Comparison) -> (&str, &Elements) {
    assert_eq!(found.total, 1, "{found:?}");
    match &found.differences[0] {
        Difference { place, change: Change::Elements(elements) } => (place, elements),
        other => panic!("{other:?}"),
    }
}

fn kinds(found: &Comparison) -> Vec<NoiseKind> {
    found.noise.iter().map(|noise| noise.kind).collect()
}

fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut out = bytes.to_vec();
    out[at] ^= 1;
    out
}

#[test]
fn one_ulp_in_an_array_of_an_npz() {
    let data = floats((0..4096).map(|i| i as f32 + 0.5));
    let other = flipped(&data, (3 * 64 + 17) * 4);
    let of = |data: &[u8]| npy("'<f4'", "(64, 64)", data);
    for packed in [false, true] {
        let a = zip_of(&[("w1.npy", &of(&data)), ("b.npy", &of(&data))], 2020, packed);
        let b = zip_of(&[("b.npy", &of(&data)), ("w1.npy", &of(&other))], 2021, !packed);
        let found = compare(&a, &b, "build/model.npz");
        let (place, elements) = elements(&found);
        assert_eq!((place, &elements.first[..], elements.differing, elements.of), ("w1", &[3, 17][..], 1, 4096));
        assert_eq!(elements.distance.unwrap().ulp, Some(1));
        for kind in [NoiseKind::Time, NoiseKind::Order, NoiseKind::Compression] {
            assert!(kinds(&found).contains(&kind), "{found:?}");
        }
        let words = found.to_string();
        assert_eq!(
            words,
            "`build/model.npz` array `w1` differs at [3, 17]: 209.5 ≠ 209.50002 (1 of 4,096 elements, at most 1 ULP, 1.5e-5)"
        );
    }
}

#[test]
fn only_the_container_differs() {
    let array = npy("'<f8'", "(2,)", &[7; 16]);
    let (a, b) = (zip_of(&[("x.npy", &array)], 2020, true), zip_of(&[("x.npy", &array)], 2024, true));
    let found = compare(&a, &b, "x.npz");
    assert_eq!((found.verdict, kinds(&found)), (Sameness::SameContent, vec![NoiseKind::Time]));
    let found = compare(&gzip(b"a,b\n1,2\n", 1), &gzip(b"a,b\n1,2\n", 2), "t.csv.gz");
    assert_eq!(found.verdict, Sameness::SameContent, "{found:?}");
    assert!(kinds(&found).contains(&NoiseKind::Time));
    assert_eq!(compare(&a, &a, "x.npz").verdict, Sameness::Identical);
}

#[test]
fn nan_payloads_signs_of_zero_and_infinity() {
    let nan = |payload: u32| f32::from_bits(0x7fc0_0000 | payload);
    let a = npy("'<f4'", "(5,)", &floats([nan(1), 0.0, nan(0), f32::INFINITY, 1.0]));
    let b = npy("'<f4'", "(5,)", &floats([nan(2), -0.0, nan(0), 1.0, 1.0]));
    let found = compare(&a, &b, "x.npy");
    let elements = elements(&found).1;
    assert_eq!((elements.differing, elements.nan_payloads, elements.zero_signs, elements.non_finite), (3, 1, 1, 1));
    assert_eq!(elements.bits, Some(("0x7fc00001".to_owned(), "0x7fc00002".to_owned())));
    assert_eq!(elements.distance.unwrap().ulp, Some(0));
}

#[test]
fn every_bit_of_narrow_and_wide_numbers_is_found() {
    for (class, size) in [("BF16", 2), ("F16", 2), ("F8_E4M3", 1), ("F64", 8), ("I64", 8), ("U8", 1)] {
        let data: Vec<u8> = (0..size * 6).map(|i| (i * 37 % 251) as u8).collect();
        let header = format!("{{\"t\":{{\"dtype\":\"{class}\",\"shape\":[2,3],\"data_offsets\":[0,{}]}}}}", data.len());
        let a = tensors(&header, &data);
        for bit in 0..data.len() * 8 {
            let mut other = data.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            let found = compare(&a, &tensors(&header, &other), "t.safetensors");
            let (place, elements) = elements(&found);
            let at = (bit / 8 / size) as u64;
            assert_eq!((place, &elements.first[..]), ("t", &[at / 3, at % 3][..]), "{class} bit {bit}");
        }
    }
}

#[test]
fn safetensors_noise_and_metadata() {
    let t = r#""t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}"#;
    let of = |meta: &str, pad: &str| tensors(&format!("{{\"__metadata__\":{{{meta}}},{t}}}{pad}"), &[9]);
    let a = of(r#""x":"1","y":"2""#, "");
    let found = compare(&a, &of(r#""y":"2","x":"1""#, "   "), "m.safetensors");
    assert_eq!((found.verdict, kinds(&found)), (Sameness::SameContent, vec![NoiseKind::Order, NoiseKind::Padding]));
    let found = compare(&a, &of(r#""x":"1","y":"3""#, ""), "m.safetensors");
    assert_eq!(found.differences[0].place, "__metadata__ » y");
}

#[test]
fn json_values_not_spelling() {
    let found = compare(br#"{"a": {"acc": 1.0, "n": [1e1]}}"#, br#"{"a":{"n":[10],"acc":1}}"#, "m.json");
    assert_eq!((found.verdict, kinds(&found)), (Sameness::SameContent, vec![NoiseKind::Order, NoiseKind::Spelling]));
    let found = compare(br#"{"a": {"acc": 0.5}}"#, br#"{"a": {"acc": 0.5000000000000001}}"#, "m.json");
    assert_eq!(found.differences[0].place, "a.acc");
    assert!(matches!(found.differences[0].change, Change::Value { distance: Some(Distance { ulp: Some(1), .. }), .. }));
    // Beyond 2^53 two whole numbers are one f64, and still two numbers.
    assert_eq!(compare(b"[9007199254740993]", b"[9007199254740992]", "m.json").verdict, Sameness::Different);
    assert_eq!(
        compare(b"{\"a\":1}\n{\"a\":2}\n", b"{\"a\":1}\n{\"a\":3}\n", "m.jsonl").differences[0].place,
        "line 2 » a"
    );
}

#[test]
fn tables() {
    let found = compare(b"epoch,loss\n0,0.5\n1,0.25\n", b"epoch,\"loss\"\r\n0,5e-1\r\n1,0.26\r\n", "loss.csv");
    let (place, elements) = elements(&found);
    assert_eq!((place, &elements.first[..], elements.differing), ("loss", &[1][..], 1));
    let found = compare(b"id,x\n007,1\n", b"id,x\n7,1\n", "t.csv");
    assert_eq!(found.verdict, Sameness::Different, "leading zeros are a label");
    assert_eq!(compare(b"a,b\n1,2", b"a,b\r\n1.0,2\r\n", "t.csv").verdict, Sameness::SameContent);
    assert_eq!(compare(b"a,b\n1,2\n", b"b,a\n2,1\n", "t.csv").verdict, Sameness::Different);
}

#[test]
fn pickles_of_two_protocols_and_a_differing_value() {
    // {'lr': 0.5, 'n': [1, 2]} as protocol 0 and as protocol 4.
    let old = b"(dp0\nVlr\np1\nF0.5\nsVn\np2\n(lp3\nI1\naI2\nas.";
    let new = |n: u8| {
        let half = 0.5f64.to_be_bytes();
        [b"\x80\x04}\x94(\x8c\x02lr\x94G", &half[..], b"\x8c\x01n\x94]\x94(K\x01K", &[n], b"eu."].concat()
    };
    let found = compare(old, &new(2), "m.pkl");
    assert_eq!((found.verdict, kinds(&found)), (Sameness::SameContent, vec![NoiseKind::Version]));
    let found = compare(&new(2), &new(3), "m.pkl");
    assert_eq!((found.differences[0].place.as_str(), found.total), ("n[1]", 1));
    // A list in itself ends.
    let loops = |n: u8| [&b"\x80\x04]\x94(h\x00K"[..], &[n], b"e."].concat();
    assert_eq!(compare(&loops(1), &loops(2), "m.pkl").differences[0].place, "[1]");
}

#[test]
fn damaged_files_are_compared_as_bytes() {
    let good = zip_of(&[("x.npy", &npy("'<f4'", "(2,)", &[1; 8]))], 2020, true);
    let found = compare(&good, &good[..good.len() - 5], "x.npz");
    assert_eq!(found.verdict, Sameness::Different);
    assert!(matches!(found.differences[0].change, Change::Type { .. }), "{found:?}");
    assert!(matches!(found.differences[1].change, Change::Bytes { .. }), "{found:?}");
    let found = compare(b"one\ntwo\n", b"one\ntwx\n", "log.txt");
    assert!(matches!(found.differences[0].change, Change::Text { line: 2, column: 3, offset: 6, .. }), "{found:?}");
    let deep = "[".repeat(1_000_000);
    assert_eq!(compare(deep.as_bytes(), &deep.as_bytes()[1..], "deep.json").verdict, Sameness::Different);
}

const PLAIN: &[u8] = include_bytes!("../../../../fixtures/parquet/plain.parquet");
const ENCODED: &[u8] = include_bytes!("../../../../fixtures/parquet/encoded.parquet");

#[test]
fn parquet_by_content() {
    // Row groups, compression, page version, dictionaries and encodings differ; the values do not.
    let found = compare(PLAIN, ENCODED, "t.parquet");
    assert_eq!((found.verdict, found.noise[0].kind), (Sameness::SameContent, NoiseKind::Compression), "{found:?}");
    assert_eq!(found.noise[0].a, "snappy in 3 row groups");
    // Snappy leaves bytes that don't come again as they are.
    let at = PLAIN.windows(8).position(|bytes| bytes == 20f64.sin().to_le_bytes());
    let mut other = PLAIN.to_vec();
    other[at.unwrap()] ^= 1;
    for one in [PLAIN, ENCODED] {
        let found = compare(one, &other, "t.parquet");
        let (place, elements) = elements(&found);
        assert_eq!((place, &elements.first[..], elements.differing, elements.of), ("x", &[20][..], 1, 40));
        assert_eq!(elements.distance.unwrap().ulp, Some(1));
    }
}

/// A Parquet file with a column `x` of 32-bit numbers that may be null: as many rows as `rows` says, in one page.
fn nulls(rows: u64) -> Vec<u8> {
    let varint = |mut n: u64| {
        let mut out = Vec::new();
        while n >= 128 {
            out.push(n as u8 | 128);
            n >>= 7;
        }
        out.push(n as u8);
        out
    };
    let int = |n: u64| varint(n << 1);
    let run = [varint(rows << 1), vec![0]].concat();
    let page = [(run.len() as u32).to_le_bytes().to_vec(), run].concat();
    let size = int(page.len() as u64);
    let header =
        [&[0x15, 0][..], &[0x15], &size, &[0x15], &size, &[0x2c, 0x15], &int(rows), &[0x15, 0, 0x15, 6, 0x15, 6, 0, 0]];
    let schema = [&[0x19, 0x2c, 0x48, 1, b's', 0x15, 2, 0][..], &[0x15, 2, 0x25, 2, 0x18, 1, b'x', 0]].concat();
    let chunk = [&[0x3c, 0x45, 0, 0x15][..], &int(rows), &[0x46], &int(4), &[0, 0]].concat();
    let group = [&[0x19, 0x1c][..], &chunk, &[0x26], &int(rows), &[0]].concat();
    let footer = [&[0x15, 2][..], &schema, &[0x16], &int(rows), &[0x19, 0x1c], &group, &[0]].concat();
    let len = (footer.len() as u32).to_le_bytes();
    [b"PAR1", &header.concat()[..], &page, &footer, &len, b"PAR1"].concat()
}

#[test]
fn parquet_that_counts_more_than_it_holds() {
    let found = compare(&nulls(7), &nulls(8), "t.parquet");
    assert!(matches!(found.differences[..], [Difference { change: Change::Shape { .. }, .. }]), "{found:?}");
    assert!(walk::digest(&Blob::memory(nulls(1000)), "t.parquet", 0).unwrap().is_some());
    // Neither memory nor hours for a page of a few bytes that stands for two thousand million nulls.
    let found = compare(&nulls(1 << 31), &nulls((1 << 31) - 1), "t.parquet");
    assert!(matches!(found.differences[0].change, Change::Bytes { .. }), "{found:?}");
    assert!(found.to_string().ends_with("compared as bytes: it stands for too many values"), "{found}");
}

#[test]
fn mutated_and_cut_files_never_panic() {
    let array = npy("[('x', '<f4'), ('y', '>i2')]", "(3,)", &[3; 18]);
    let pickled = b"\x80\x04}\x94(\x8c\x02lr\x94G?\xe0\0\0\0\0\0\0\x8c\x01n\x94]\x94(K\x01K\x02eu.".to_vec();
    let t = r#"{"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    let files = [
        ("a.npy", array.clone()),
        ("a.npz", zip_of(&[("a.npy", &array), ("p.pkl", &pickled)], 2020, true)),
        ("p.pkl", pickled),
        ("t.safetensors", tensors(t, &[5; 8])),
        ("m.json", br#"{"a": [1, 2.5, "\u00e4"], "b": null}"#.to_vec()),
        ("t.csv", b"a,\"b\"\n1,\"2\"\"\"\n".to_vec()),
        ("g.csv.gz", gzip(b"a,b\n1,2\n", 3)),
        ("e.parquet", ENCODED.to_vec()),
    ];
    for (name, file) in files {
        for at in 0..file.len() {
            compare(&file, &file[..at], name);
            for change in [1, 0x80, 0xff] {
                let mut other = file.clone();
                other[at] ^= change;
                assert_ne!(compare(&file, &other, name).verdict, Sameness::Identical, "{name} at {at}");
            }
        }
    }
}

#[test]
fn tolerances() {
    let tolerance = Tolerance { abs: 1e-6, rel: 1e-3 };
    assert!(tolerance.within(1000.0, 1000.9) && !tolerance.within(1000.0, 1001.2));
    assert!(tolerance.within(0.0, 1e-6) && !tolerance.within(0.0, 2e-6));
    assert!(tolerance.within(f64::NAN, f64::NAN) && !tolerance.within(f64::NAN, 1.0));
    assert!(!tolerance.within(f64::INFINITY, 1.0) && !tolerance.within(f64::MAX, f64::MIN));
    assert!(!Tolerance::default().within(5e-324, 1e-323));
}

#[test]
fn folders_are_compared_path_by_path() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (folder, text) in [(&a, "1"), (&b, "2")] {
        fs_err::create_dir(folder.path().join("sub")).unwrap();
        fs_err::write(folder.path().join("sub/x.txt"), text).unwrap();
        fs_err::write(folder.path().join("same"), "same").unwrap();
    }
    fs_err::write(a.path().join("only-a"), "").unwrap();
    fs_err::write(b.path().join("only-b"), "").unwrap();
    let found = compare_folders(a.path(), b.path()).unwrap();
    let paths: Vec<&str> = found.iter().map(|found| found.path.as_str()).collect();
    assert_eq!(paths, ["only-a", "only-b", "sub/x.txt"]);
    assert_eq!(found[0].change, FolderChange::Missing);
    let json = serde_json::to_string(&found).unwrap();
    assert_eq!(serde_json::from_str::<Vec<FolderDifference>>(&json).unwrap(), found);
}
