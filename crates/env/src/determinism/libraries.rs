//! The machine's own libraries that a step mapped: not locked, and used all the same.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use trainlock_types::Digest;

/// A program or library of the machine that a step mapped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostLibrary {
    /// Its name without version and ending, for example `libm`.
    pub name: String,
    /// Its file.
    pub path: PathBuf,
    /// The digest of its bytes.
    #[schemars(with = "String")]
    pub sha256: Digest,
}

/// The folders that hold what a step was given: its project, its own files, kernel's views.
const GIVEN: [&str; 6] = ["/trainlock", "/tmp", "/home/trainlock", "/proc", "/dev", "/memfd:"];

/// The files among `mapped` that are the machine's, each with its digest, sorted by name. A file that is gone is left out.
pub fn host_libraries(mapped: &[PathBuf], mut hash: impl FnMut(&Path) -> std::io::Result<Digest>) -> Vec<HostLibrary> {
    let own = |path: &&PathBuf| path.is_absolute() && !GIVEN.iter().any(|given| path.starts_with(given));
    let library = |path: &PathBuf| {
        let file = path.file_name()?.to_string_lossy().into_owned();
        let name = file.split(".so").next().unwrap_or(&file).to_owned();
        Some(HostLibrary { name, path: path.clone(), sha256: hash(path).ok()? })
    };
    let mut libraries: Vec<HostLibrary> = mapped.iter().filter(own).filter_map(library).collect();
    libraries.sort_by(|a, b| (&a.name, &a.path).cmp(&(&b.name, &b.path)));
    libraries.dedup_by(|a, b| a.path == b.path);
    libraries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_own_with_their_digests() {
        let mapped: Vec<PathBuf> = ["/usr/lib/libm.so.6", "/trainlock/p/x.so", "/usr/bin/bash", "/gone/libx.so"]
            .into_iter()
            .map(PathBuf::from)
            .collect();
        let found = host_libraries(&mapped, |path| match path.starts_with("/gone") {
            true => Err(std::io::ErrorKind::NotFound.into()),
            false => Ok(Digest::of(b"x")),
        });
        let names: Vec<&str> = found.iter().map(|l| l.name.as_str()).collect();
        assert_eq!(names, ["bash", "libm"]);
    }
}
