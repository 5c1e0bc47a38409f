//! How long large manifests take: `cargo bench -p trainlock-manifest`. Prints the best and the median of several loads.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Instant;
use trainlock_manifest::{ManifestError, load};

fn data(count: usize) -> String {
    let mut text = String::from("[project]\nname = \"p\"\n[data]\n");
    for i in 0..count {
        let _ = writeln!(
            text,
            "d{i} = {{ url = \"https://example.org/some/folder/part-{i:05}.parquet\", to = \"data/parts/part-{i:05}.parquet\", size = {i}, checksum = \"sha256:{i:064x}\" }}"
        );
    }
    text
}

fn chain(count: usize) -> String {
    let mut text = String::from("[project]\nname = \"p\"\n[params]\na = 1\nb = { c = 2.0 }\n");
    for i in 0..count {
        let _ = writeln!(
            text,
            "[steps.s{i}]\nrun = \"python src/s.py {{inputs.0}} {{outputs.0}} --a {{params.a}} --c {{params.b.c}}\"\ninputs = [\"build/s{}/out.txt\", \"src/s.py\", \"lib/**/*.py\"]\noutputs = [\"build/s{i}/out.txt\"]\nmetrics = [\"build/s{i}/m.json\"]\nparams = [\"b\"]",
            if i == 0 { "x".to_owned() } else { (i - 1).to_string() },
        );
    }
    text
}

/// Every step has a mistake with a near name.
fn mistakes(count: usize) -> String {
    chain(count).replace("{params.b.c}", "{params.b.d}").replace("metrics", "metrisc")
}

fn main() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let manifest = folder.path().join("train.toml");
    let mut out = std::io::stdout().lock();
    for (name, text) in
        [("10,000 data sets", data(10_000)), ("10,000 steps", chain(10_000)), ("10,000 mistakes", mistakes(10_000))]
    {
        fs_err::write(&manifest, &text).expect("a file");
        let mut times: Vec<f64> = (0..15)
            .map(|_| {
                let start = Instant::now();
                let loaded = load(&manifest);
                let time = start.elapsed().as_secs_f64() * 1e3;
                assert!(matches!(loaded, Ok(_) | Err(ManifestError::Invalid(_))));
                time
            })
            .collect();
        times.sort_by(f64::total_cmp);
        let size = text.len() as f64 / 1e6;
        let _ = writeln!(out, "{name} ({size:.1} MB): best {:.1} ms, median {:.1} ms", times[0], times[7]);
    }
}
