//! Inputs for machines without a network: a folder of them, or one file with the project itself.
//!
//! A folder (`vendor`) holds files named by their SHA-256, below a folder of the name's first two digits. A data set of many files is
//! its listing (whose digest names the tree) and the files that it names. A bundle is a tar file of the project's
//! files below `project/` and of such a folder below `inputs/`. Every byte is verified on the way in.

use crate::exit::{Exit, Failure};
use crate::links::leads_inside;
use crate::project::Project;
use fs_err as fs;
use ignore::WalkBuilder;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use trainlock_fetch::image_parts;
use trainlock_lock::{Content, Lock};
use trainlock_store::{PutError, Session, Store};
use trainlock_types::{Digest, EntryKind, Listing, Platform, RelPath};

/// The parts of a bundle.
const PROJECT: &str = "project";
const INPUTS: &str = "inputs";

/// All bundles have this time in them.
const TIME: u64 = 315_532_800;

/// What is needed of the store: by digest, what it is for. Trees are named by their listing's digest.
#[derive(Debug, Default)]
pub(crate) struct Inputs {
    objects: BTreeMap<Digest, String>,
    trees: BTreeMap<Digest, String>,
    /// By their manifests, which name the rest.
    images: BTreeMap<(Digest, u64), String>,
}

/// The inputs of members that this machine uses.
pub(crate) fn inputs(project: &Project, lock: &Lock, members: &[usize]) -> Result<Inputs, Failure> {
    let mut inputs = Inputs::default();
    for data in project.data_of(members) {
        let request = &data.request;
        let Some(pin) = lock.data(request.member.as_ref(), &request.name) else { continue };
        let what = format!("data {}", request.name);
        match &pin.content {
            Content::File { sha256, .. } => drop(inputs.objects.insert(*sha256, what)),
            Content::Tree { tree, .. } => drop(inputs.trees.insert(*tree, what)),
        }
    }
    let (tools, packages) = project.equipment_files(lock, members)?;
    for pin in tools {
        let artifact = pin.artifacts.get(&Platform::host());
        inputs.objects.extend(artifact.map(|a| (a.file.sha256, format!("tool {}", pin.name))));
    }
    for selected in packages.iter().flat_map(|(_, selected)| selected) {
        inputs.objects.insert(selected.file.sha256, format!("package {}", selected.name));
    }
    let images = project.images(lock, members).into_iter();
    inputs.images.extend(images.map(|(image, manifest)| (manifest, format!("image {image}"))));
    Ok(inputs)
}

/// One file of the inputs: its digest, and its bytes where they lie or as they are.
enum Source {
    At(PathBuf),
    Bytes(Vec<u8>),
}

impl Inputs {
    /// Calls `take` with each file, sorted by digest, each once.
    fn each(
        &self,
        store: &Store,
        mut take: impl FnMut(&Digest, Source) -> Result<(), Failure>,
    ) -> Result<u64, Failure> {
        let mut files: BTreeMap<Digest, Source> = BTreeMap::new();
        let missing = |what: &str| {
            Failure::new(Exit::Failed, format!("{what} is not in the store")).hint("run `trainlock fetch` first")
        };
        for (digest, what) in &self.objects {
            files.insert(*digest, Source::At(store.object(digest, None)?.ok_or_else(|| missing(what))?));
        }
        for (digest, what) in &self.trees {
            let (Some(tree), Some(listing)) = (store.tree(digest), store.listing(digest)?) else {
                return Err(missing(what));
            };
            for entry in listing.entries() {
                let at = entry.path.on(&tree);
                let source = match entry.kind {
                    EntryKind::Symlink => {
                        Source::Bytes(fs::read_link(&at)?.to_string_lossy().into_owned().into_bytes())
                    }
                    EntryKind::File | EntryKind::Executable => Source::At(at),
                };
                files.insert(entry.sha256, source);
            }
            files.insert(*digest, Source::Bytes(listing.to_text().into_bytes()));
        }
        for (manifest, what) in &self.images {
            for (digest, size) in image_parts(store, *manifest) {
                files.insert(digest, Source::At(store.object(&digest, Some(size))?.ok_or_else(|| missing(what))?));
            }
            if !files.contains_key(&manifest.0) {
                return Err(missing(what));
            }
        }
        let count = files.len() as u64;
        files.into_iter().try_for_each(|(digest, source)| take(&digest, source))?;
        Ok(count)
    }

    /// Puts what the store lacks of it into the store, from files that `open` has.
    pub(crate) fn supply(
        &self,
        store: &Store,
        mut open: impl FnMut(&Digest) -> io::Result<Option<Box<dyn Read>>>,
    ) -> Result<u64, Failure> {
        let session = store.session()?;
        let mut count = 0;
        let mut bring = |digest: &Digest, what: &str| -> Result<(), Failure> {
            if store.object(digest, None)?.is_none() {
                let file = open(digest)?;
                let mut file =
                    file.ok_or_else(|| Failure::new(Exit::Failed, format!("{what} is not there: no file {digest}")))?;
                put(&session, digest, &mut file, what)?;
                count += 1;
            }
            Ok(())
        };
        for (digest, what) in &self.objects {
            bring(digest, what)?;
        }
        for (digest, what) in self.trees.iter().filter(|(digest, _)| !store.has_tree(digest)) {
            bring(digest, what)?;
            let listing = store.listing(digest)?.unwrap_or_default();
            for entry in listing.entries() {
                bring(&entry.sha256, &format!("{what}: {}", entry.path))?;
            }
            rebuild(&session, &listing, what)?;
        }
        for (manifest, what) in &self.images {
            bring(&manifest.0, what)?;
            for (digest, _) in image_parts(store, *manifest) {
                bring(&digest, what)?;
            }
        }
        session.finish(false)?;
        Ok(count)
    }
}

/// Makes a tree of what the store has.
fn rebuild(session: &Session, listing: &Listing, what: &str) -> Result<(), Failure> {
    session.tree_from_objects(listing).map(drop).map_err(|error| put_failure(&error, what))
}

/// Puts a file into the store, if it has this digest.
fn put(session: &Session, digest: &Digest, from: &mut dyn Read, what: &str) -> Result<(), Failure> {
    let mut writer = session.writer()?;
    io::copy(from, &mut writer)?;
    writer.finish(Some((*digest, None))).map(drop).map_err(|error| put_failure(&error, what))
}

fn put_failure(error: &PutError, what: &str) -> Failure {
    match error {
        PutError::Sha256 { expected, found, .. } => Failure::new(
            Exit::Unverified,
            format!("{what} failed verification: expected sha256 {expected}, found {found}"),
        ),
        other => Failure::from_error(Exit::Failed, other),
    }
}

/// Where a file of a vendored folder lies.
fn vendored(folder: &Path, digest: &Digest) -> PathBuf {
    let hex = digest.to_hex();
    folder.join(&hex[..2]).join(hex)
}

/// Writes inputs into a folder, beside those that it has; how many files it has of these.
pub(crate) fn vendor(inputs: &Inputs, store: &Store, folder: &Path) -> Result<u64, Failure> {
    inputs.each(store, |digest, source| {
        let target = vendored(folder, digest);
        if target.is_file() {
            return Ok(());
        }
        let parent = target.parent().unwrap_or(folder);
        fs::create_dir_all(parent)?;
        // Whole, or not there at all.
        let mut temporary = tempfile::NamedTempFile::new_in(parent)?;
        match source {
            Source::At(path) => drop(io::copy(&mut fs::File::open(path)?, &mut temporary)?),
            Source::Bytes(bytes) => temporary.write_all(&bytes)?,
        }
        temporary.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
        temporary.persist(&target).map_err(|e| Failure::from(e.error))?;
        Ok(())
    })
}

/// Opens a file of a vendored folder.
pub(crate) fn from_folder(folder: &Path) -> impl FnMut(&Digest) -> io::Result<Option<Box<dyn Read>>> {
    let folder = folder.to_owned();
    move |digest| match fs::File::open(vendored(&folder, digest)) {
        Ok(file) => Ok(Some(Box::new(file))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The project's files: what git does not ignore, but for outputs.
fn project_files(project: &Project) -> Result<Vec<RelPath>, Failure> {
    let root = &project.workspace.root;
    let outputs: Vec<&RelPath> =
        project.workspace.members.iter().flat_map(|m| &m.steps).flat_map(|s| &s.outputs).map(|o| &o.path).collect();
    let mut files = Vec::new();
    let walk = WalkBuilder::new(root).hidden(false).parents(false).git_global(false).require_git(false).build();
    for entry in walk {
        let entry = entry.map_err(|e| Failure::new(Exit::Failed, e.to_string()))?;
        let path = entry.path().strip_prefix(root).unwrap_or(entry.path());
        let Some(text) = path.to_str() else {
            return Err(Failure::new(Exit::Failed, format!("`{}` has a name that is not UTF-8", path.display())));
        };
        let is_own =
            matches!(path.components().next(), Some(c) if [".git", ".trainlock"].iter().any(|n| c.as_os_str() == *n));
        if text.is_empty() || is_own || entry.file_type().is_some_and(|kind| kind.is_dir()) {
            continue;
        }
        let path = RelPath::parse(text).map_err(|e| Failure::new(Exit::Failed, format!("`{text}`: {e}")))?;
        if outputs.iter().any(|output| path.below(output).is_some()) {
            continue;
        }
        if entry.path_is_symlink() && !leads_inside(root, entry.path()) {
            return Err(Failure::new(Exit::Failed, format!("`{path}` is a link that leads out of the project"))
                .hint("put what it leads to into the project, or take it out of it"));
        }
        files.push(path);
    }
    files.sort();
    Ok(files)
}

/// Writes a bundle; how many inputs and files of the project it holds.
pub(crate) fn bundle(project: &Project, inputs: &Inputs, file: &Path) -> Result<(u64, usize), Failure> {
    let folder = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut temporary = tempfile::NamedTempFile::new_in(folder)?;
    let own = fs::canonicalize(folder).ok().and_then(|folder| Some(folder.join(file.file_name()?)));
    let mut tar = tar::Builder::new(io::BufWriter::new(&mut temporary));
    let files = project_files(project)?;
    let mut count = 0;
    for path in &files {
        let at = path.on(&project.workspace.root);
        // A bundle of before, or this one's beginning, is no part of the project.
        if own.as_ref() == Some(&at) || at.file_name().is_some_and(|n| n.to_string_lossy().starts_with(".tmp")) {
            continue;
        }
        let metadata = fs::symlink_metadata(&at)?;
        let mut header = header(metadata.len());
        let name = format!("{PROJECT}/{path}");
        if metadata.is_symlink() {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            tar.append_link(&mut header, name, fs::read_link(&at)?)?;
        } else {
            header.set_mode(if metadata.permissions().mode() & 0o100 == 0 { 0o644 } else { 0o755 });
            tar.append_data(&mut header, name, fs::File::open(&at)?)?;
        }
        count += 1;
    }
    let inputs = inputs.each(&project.store, |digest, source| {
        let name = format!("{INPUTS}/{}", digest.to_hex());
        match source {
            Source::At(path) => {
                let file = fs::File::open(path)?;
                tar.append_data(&mut header(file.metadata()?.len()), name, file)?;
            }
            Source::Bytes(bytes) => tar.append_data(&mut header(bytes.len() as u64), name, bytes.as_slice())?,
        }
        Ok(())
    })?;
    tar.into_inner()?.flush()?;
    temporary.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
    temporary.persist(file).map_err(|e| Failure::from(e.error))?;
    Ok((inputs, count))
}

fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(TIME);
    header
}

/// Opens a bundle: its inputs go into the store, those that have the digests of their names; its project, if that is
/// wanted, into a new folder.
pub(crate) fn open(file: &Path, store: &Store, into: Option<&Path>) -> Result<(), Failure> {
    let wrong =
        |what: String| Failure::new(Exit::Unverified, format!("`{}` is no sound bundle: {what}", file.display()));
    let damaged = |e: io::Error| wrong(e.to_string());
    let mut archive = tar::Archive::new(io::BufReader::new(fs::File::open(file)?));
    let session = store.session()?;
    let mut sound = false;
    let mut links = Vec::new();
    for entry in archive.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        let name =
            String::from_utf8(entry.path_bytes().into_owned()).map_err(|_| wrong("a name is not UTF-8".to_owned()))?;
        let path = RelPath::parse(&name).map_err(|e| wrong(format!("`{}`: {e}", name.escape_debug())))?;
        let kind = entry.header().entry_type();
        if let Some((INPUTS, hex)) = path.as_str().split_once('/') {
            let digest: Digest = hex.parse().map_err(|_| wrong(format!("`{path}` is named by no digest")))?;
            if kind != tar::EntryType::Regular {
                return Err(wrong(format!("`{path}` is no file")));
            }
            if store.object(&digest, None)?.is_none() {
                put(&session, &digest, &mut entry, &format!("`{path}` of the bundle"))?;
            }
            sound = true;
            continue;
        }
        let Some(path) = RelPath::parse(PROJECT).ok().and_then(|project| path.below(&project)) else {
            return Err(wrong(format!("`{path}` belongs to neither part of it")));
        };
        sound |= path.as_str() == "train.toml";
        let Some(into) = into else { continue };
        let target = path.on(into);
        fs::create_dir_all(target.parent().unwrap_or(into))?;
        match kind {
            tar::EntryType::Regular => {
                // A new file, never through something that is there.
                let mut out = fs::OpenOptions::new().write(true).create_new(true).open(&target)?;
                io::copy(&mut entry, &mut out).map_err(damaged)?;
                let mode = if entry.header().mode().map_err(damaged)? & 0o100 == 0 { 0o644 } else { 0o755 };
                fs::set_permissions(&target, std::fs::Permissions::from_mode(mode))?;
            }
            // Made last, so that nothing is written through them.
            tar::EntryType::Symlink => {
                let to = entry.link_name().map_err(damaged)?.map(|to| to.into_owned()).unwrap_or_default();
                links.push((target, to));
            }
            _ => return Err(wrong(format!("`{path}` is neither a file nor a link"))),
        }
    }
    for (target, to) in links {
        fs::os::unix::fs::symlink(to, &target)?;
        let top = into.map(fs::canonicalize).transpose()?.unwrap_or_default();
        if !leads_inside(&top, &top.join(target.strip_prefix(into.unwrap_or(&top)).unwrap_or(&target))) {
            fs::remove_file(&target)?;
            return Err(wrong(format!("the link `{}` leads out of the project", target.display())));
        }
    }
    session.finish(false)?;
    if sound { Ok(()) } else { Err(wrong("it holds no project and no inputs".to_owned())) }
}

/// What `--from` names: a vendored folder or a bundle.
pub(crate) fn take(inputs: &Inputs, from: &Path, store: &Store) -> Result<u64, Failure> {
    if from.is_dir() {
        return inputs.supply(store, from_folder(from));
    }
    open(from, store, None)?;
    inputs.supply(store, |_| Ok(None))
}
