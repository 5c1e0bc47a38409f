//! Measures unpacking and downloading: `speed unpack ARCHIVE...` and `speed fetch URL SHA256 SIZE`.
//!
//! Each run has an empty store in the current folder, which is removed afterwards.

use std::io::Write as _;
use std::time::Instant;
use trainlock_fetch::{Content, Fetcher, Settings, Want, Wanted};
use trainlock_store::Store;
use trainlock_types::{DataRequest, DataSource, Digest, Events, Name, RelPath, SourceUrl};

type Failed = Box<dyn std::error::Error>;

fn main() -> Result<(), Failed> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["unpack", ref archives @ ..] => {
            archives.iter().try_for_each(|archive| in_store(|store| unpack(store, archive)))
        }
        ["fetch", url, sha256, size] => in_store(|store| fetch(store, url, sha256.parse()?, size.parse()?)),
        _ => Err("speed unpack ARCHIVE... | speed fetch URL SHA256 SIZE".into()),
    }
}

fn in_store(run: impl FnOnce(&Store) -> Result<(), Failed>) -> Result<(), Failed> {
    let root = std::path::absolute("speed-store")?;
    let done = run(&Store::open(&root)?);
    fs_err::remove_dir_all(&root)?;
    done
}

fn say(what: &str, started: Instant) -> Result<(), Failed> {
    writeln!(std::io::stdout(), "{:.3} s {what}", started.elapsed().as_secs_f64())?;
    Ok(())
}

/// The archive is put into the store first; then its bytes are hashed, unpacked and hashed again, as
/// the bench's peers do with `sha256sum`, `tar` and `sha256sum -c`.
fn unpack(store: &Store, archive: &str) -> Result<(), Failed> {
    let session = store.session()?;
    let fetcher = Fetcher::new(Settings::default(), Events::none());
    let url = SourceUrl::parse(&format!("file://{}", fs_err::canonicalize(archive)?.display()))?;
    let source = DataSource::Url {
        url,
        mirrors: vec![],
        checksum: None,
        size: None,
        rev: None,
        files: vec![],
        extract: None,
        unpack: true,
    };
    let request = DataRequest { member: None, name: Name::entry("set")?, source, to: RelPath::root() };
    let started = Instant::now();
    let resolved = fetcher.resolve_all(&session, &[&request]).remove(0)?;
    let Content::Tree { count, size, .. } = resolved.content else {
        return Err("no tree".into());
    };
    say(&format!("hash, unpack and hash {archive}: {count} files, {size} bytes"), started)
}

fn fetch(store: &Store, url: &str, sha256: Digest, size: u64) -> Result<(), Failed> {
    let session = store.session()?;
    let fetcher = Fetcher::new(Settings::default(), Events::none());
    let want =
        Want { name: "file".into(), sources: vec![SourceUrl::parse(url)?], content: Wanted::File { sha256, size } };
    let started = Instant::now();
    fetcher.bring_all(&session, &[want]).remove(0)?;
    say(&format!("fetch {url}: {size} bytes"), started)
}
