//! How long a lock of 10,000 pins takes: `cargo bench -p trainlock-lock`.
//!
//! Each figure is the best of some runs, on a lock that is made up in memory.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::path::Path;
use std::time::{Duration, Instant};
use trainlock_lock::{Content, DataPin, Lock, satisfies};
use trainlock_types::{DataRequest, DataSource, Digest, Name, RelPath, SourceUrl};

const PINS: usize = 10_000;
const RUNS: usize = 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let requests = (0..PINS).map(request).collect::<Result<Vec<_>, _>>()?;
    let pin = |request: &DataRequest| {
        let sha256 = Digest::of(request.name.as_bytes());
        DataPin::new(request, None, Content::File { sha256, size: 57_523 }, None)
    };
    let lock = Lock { data: requests.iter().map(pin).collect(), ..Lock::default() };
    let text = lock.to_text();
    let path = Path::new("train.lock");
    println!("{PINS} pins, {:.1} MB", text.len() as f64 / 1e6);
    best("read", || Lock::parse(&text, path).map(|lock| lock.data.len()));
    let later = format!("{text}\n[[later]]\nkey = 1\n");
    best("read, with a table that is not known", || Lock::parse(&later, path).map(|lock| lock.data.len()));
    best("read, by the toml crate (its tree alone)", || toml::de::DeTable::parse(&text).map(|t| t.get_ref().len()));
    best("write", || lock.to_text().len());
    best("compare with the requests", || {
        let fresh =
            |r: &&DataRequest| lock.data(r.member.as_ref(), &r.name).is_some_and(|pin| satisfies(pin, r).is_empty());
        assert_eq!(requests.iter().filter(fresh).count(), PINS);
    });
    Ok(())
}

fn request(i: usize) -> Result<DataRequest, Box<dyn std::error::Error>> {
    let url = format!(
        "https://data.example.org/collections/2026/speech/clips/part-{i:05}.flac?download=true&revision=7f3a9c"
    );
    // One data set in ten has a mirror.
    let mirrors =
        (i.is_multiple_of(10)).then(|| SourceUrl::parse(&format!("https://mirror.example.org/part-{i:05}.flac")));
    let mirrors = mirrors.transpose()?.into_iter().collect();
    let source = DataSource::Url {
        url: SourceUrl::parse(&url)?,
        mirrors,
        checksum: None,
        size: None,
        rev: None,
        files: Vec::new(),
        extract: None,
        unpack: false,
    };
    let name = Name::entry(&format!("clip-{i:05}"))?;
    let to = RelPath::parse(&format!("data/part-{i:05}.flac"))?;
    Ok(DataRequest { member: None, name, source, to })
}

fn best<T>(what: &str, mut work: impl FnMut() -> T) {
    let mut least = Duration::MAX;
    for _ in 0..RUNS {
        let start = Instant::now();
        std::hint::black_box(work());
        least = least.min(start.elapsed());
    }
    println!("{:>9.2} ms  {what}", least.as_secs_f64() * 1e3);
}
