//! What is done with an archive's members: all become a tree, or one becomes a file.

use super::error::{ArchiveError, shown};
use super::names::{Places, parse};
use super::walk::{Content, Kind, walk};
use fs_err::File;
use std::collections::BTreeSet;
use trainlock_types::{RelPath, nearest};

/// How much an archive may unpack to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Bytes that may be decoded in all, with headers, padding and members that are not kept.
    pub(crate) decoded: u64,
    /// Bytes of all files of the tree together.
    pub(crate) size: u64,
    /// Files and links of the tree.
    pub(crate) count: u64,
}

/// Where the files of a tree go.
pub(crate) trait Sink {
    /// Why it could not take something.
    type Error: From<ArchiveError>;

    /// Takes a file; `content` gives all its bytes.
    fn file(&mut self, path: &RelPath, exec: bool, content: &mut Content) -> Result<(), Self::Error>;
    /// Takes another name of a file that it has.
    fn copy(&mut self, from: &RelPath, path: &RelPath) -> Result<(), Self::Error>;
    /// Takes a symbolic link.
    fn link(&mut self, path: &RelPath, target: &str) -> Result<(), Self::Error>;
}

/// Gives all files and links of an archive to `sink`.
///
/// # Errors
/// What is wrong with the archive, or what the sink says. The sink may then have taken a part.
pub(crate) fn unpack<S: Sink>(archive: File, limits: Limits, sink: &mut S) -> Result<(), S::Error> {
    let mut places = Places::default();
    let (mut size, mut count) = (0u64, 0u64);
    let mut grow = |bytes: u64| {
        size = size.saturating_add(bytes);
        count += 1;
        match (size > limits.size, count > limits.count) {
            (true, _) => Err(ArchiveError::TooLarge { limit: limits.size }),
            (_, true) => Err(ArchiveError::TooMany { limit: limits.count }),
            _ => Ok(()),
        }
    };
    walk::<S::Error>(
        archive,
        limits.decoded,
        |_| true,
        |member, content| {
            let path = parse(&member.name)?;
            match member.kind {
                Kind::Folder => Ok(places.folder(&path)?),
                Kind::File { size, exec } => {
                    places.file(&path, size)?;
                    grow(size)?;
                    sink.file(&path, exec, content)
                }
                Kind::Symlink(target) => {
                    let target = places.link(&path, &target)?;
                    grow(target.len() as u64)?;
                    sink.link(&path, &target)
                }
                Kind::HardLink(target) => {
                    let from = parse(&target).ok().and_then(|from| Some((places.file_size(&from)?, from)));
                    let (size, from) =
                        from.ok_or_else(|| ArchiveError::HardLink { name: path.to_string(), target: shown(&target) })?;
                    places.file(&path, size)?;
                    grow(size)?;
                    sink.copy(&from, &path)
                }
                Kind::Special(kind) => Err(ArchiveError::Special { name: path.to_string(), kind }.into()),
            }
        },
    )
}

/// Calls `take` with path, size and bytes of each file of an archive that is wanted.
///
/// # Errors
/// What is wrong with the archive (a wanted file that stands there twice), or what `take` says.
pub(crate) fn extract_some<E: From<ArchiveError>>(
    archive: File,
    limits: Limits,
    wants: impl Fn(&RelPath) -> bool + Sync,
    mut take: impl FnMut(RelPath, u64, &mut Content) -> Result<(), E>,
) -> Result<(), E> {
    let wanted = |name: &[u8]| parse(name).ok().filter(&wants);
    let mut taken: BTreeSet<RelPath> = BTreeSet::new();
    let mut left = limits.size;
    walk(
        archive,
        limits.decoded,
        |member| matches!(member.kind, Kind::File { .. }) && wanted(&member.name).is_some(),
        |member, content| {
            let Some(path) = wanted(&member.name) else { return Ok(()) };
            let Kind::File { size, .. } = member.kind else { return Ok(()) };
            if !taken.insert(path.clone()) {
                return Err(ArchiveError::Twice(path.to_string()).into());
            }
            if taken.len() as u64 > limits.count {
                return Err(ArchiveError::TooMany { limit: limits.count }.into());
            }
            left = left.checked_sub(size).ok_or(ArchiveError::TooLarge { limit: limits.size })?;
            take(path, size, content)
        },
    )
}

/// The files of an archive, in its order, and whether they can be executed. At most `decoded` bytes are looked at.
pub(crate) fn list(archive: File, decoded: u64, count: u64) -> Result<Vec<(RelPath, bool)>, ArchiveError> {
    let mut files = Vec::new();
    walk(
        archive,
        decoded,
        |_| false,
        |member, _| {
            if let Kind::File { exec, .. } = member.kind {
                if files.len() as u64 >= count {
                    return Err(ArchiveError::TooMany { limit: count });
                }
                files.push((parse(&member.name)?, exec));
            }
            Ok(())
        },
    )?;
    Ok(files)
}

/// How many names are kept to find the one that was meant.
const NAMES_KEPT: usize = 100_000;

/// Calls `take` with the size and bytes of the one file `wanted` of an archive, and returns what it returns.
///
/// The archive is read to its end: a member that stands there twice is refused. The names of other
/// members do not matter, for nothing is written under them.
pub(crate) fn extract<T, E: From<ArchiveError>>(
    archive: File,
    limits: Limits,
    wanted: &RelPath,
    mut take: impl FnMut(u64, &mut Content) -> Result<T, E>,
) -> Result<T, E> {
    let is_it = |name: &[u8]| parse(name).is_ok_and(|path| path == *wanted);
    let mut taken = None;
    let mut names: BTreeSet<String> = BTreeSet::new();
    let walked: Result<(), E> = walk(
        archive,
        limits.decoded,
        |member| is_it(&member.name),
        |member, content| {
            if is_it(&member.name) {
                let Kind::File { size, .. } = member.kind else {
                    return Err(ArchiveError::NotAFile { member: wanted.to_string(), kind: member.kind.words() }.into());
                };
                if taken.is_some() {
                    return Err(ArchiveError::Twice(wanted.to_string()).into());
                }
                if size > limits.size {
                    return Err(ArchiveError::TooLarge { limit: limits.size }.into());
                }
                taken = Some(take(size, content)?);
            } else if taken.is_none() && names.len() < NAMES_KEPT && matches!(member.kind, Kind::File { .. }) {
                names.extend(parse(&member.name).ok().map(|path| path.to_string()));
            }
            Ok(())
        },
    );
    walked?;
    taken.ok_or_else(|| ArchiveError::NoMember { member: wanted.to_string(), near: near(wanted, names.iter()) }.into())
}

/// The same name in another folder, then a name that is written almost the same.
fn near<'a>(wanted: &RelPath, names: impl Iterator<Item = &'a String> + Clone) -> Vec<String> {
    let same = |name: &&String| name.rsplit('/').next() == Some(wanted.file_name());
    let mut near: Vec<String> = names.clone().filter(same).take(3).cloned().collect();
    let other = nearest(wanted.as_str(), names.map(String::as_str));
    near.extend(other.filter(|name| !near.iter().any(|n| n == name)).map(str::to_owned));
    near
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Seek as _, Write as _};

    /// A member that nobody wants is decoded all the same, and counts.
    #[test]
    fn decoded_bytes_are_bounded() {
        let mut builder = ::tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
        let mut header = ::tar::Header::new_gnu();
        header.set_size(1 << 20);
        header.set_mode(0o644);
        builder.append_data(&mut header, "big", std::io::repeat(0).take(1 << 20)).unwrap();
        let packed = builder.into_inner().unwrap().finish().unwrap();
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("archive");
        let mut file = File::options().create(true).truncate(true).read(true).write(true).open(path).unwrap();
        file.write_all(&packed).unwrap();
        let run = |decoded| {
            let mut file: File = file.try_clone().unwrap();
            file.rewind().unwrap();
            let limits = Limits { decoded, size: u64::MAX, count: u64::MAX };
            extract::<(), ArchiveError>(file, limits, &RelPath::parse("x").unwrap(), |_, _| Ok(()))
        };
        assert!(matches!(run(1 << 20), Err(ArchiveError::TooLarge { limit }) if limit == 1 << 20));
        assert!(matches!(run(2 << 20), Err(ArchiveError::NoMember { .. })));
    }
}
