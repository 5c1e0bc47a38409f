//! `file:`: a file of this machine, copied while it is hashed.

use crate::error::{Failure, Reason};
use crate::receive::{Expect, Progress, Receive};
use crate::settings::Cancel;
use std::fs::Metadata;
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::FileTypeExt as _;
use trainlock_store::Session;
use trainlock_types::Digest;
use url::Url;

/// Brings the file at `url` into the store; its digest and size in bytes.
pub(crate) fn fetch(
    session: &Session,
    url: &Url,
    expect: Expect<'_>,
    progress: &mut Progress<'_>,
    cancel: &Cancel,
) -> Result<(Digest, u64), Failure> {
    let path = url.to_file_path().map_err(|()| Reason::NoFile)?;
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => Reason::NoFile,
        _ => Reason::Read(error),
    };
    // Looked at before it is opened: opening a named pipe would wait for its other end.
    let metadata = fs_err::metadata(&path).map_err(failed)?;
    if let Some(kind) = no_file(&metadata) {
        return Err(Reason::NotAFile(kind).into());
    }
    let mut source = fs_err::File::open(&path).map_err(failed)?;
    let mut file = Receive::start(session, expect, Some(metadata.len()), false)?;
    let mut buffer = vec![0; 256 << 10];
    loop {
        if cancel.is_thrown() {
            return Err(Failure::Interrupted);
        }
        match source.read(&mut buffer) {
            Ok(0) => return file.finish(),
            Ok(n) => {
                file.take(&buffer[..n])?;
                progress.add(n as u64);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(Reason::Read(error).into()),
        }
    }
}

/// What a path is that is not a regular file, with its article.
fn no_file(metadata: &Metadata) -> Option<&'static str> {
    let kind = metadata.file_type();
    match () {
        () if kind.is_file() => None,
        () if kind.is_dir() => Some("a folder"),
        () if kind.is_fifo() => Some("a named pipe"),
        () if kind.is_socket() => Some("a socket"),
        () => Some("a device"),
    }
}
