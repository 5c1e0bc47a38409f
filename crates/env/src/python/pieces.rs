//! Which of the installed files belong to which package, so that what was installed once can be put together with others.

use super::layout::each_info;
use fs_err as fs;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use trainlock_types::{Listing, RelPath, normalized_package};

/// The files of each installed package by its normalized name, compiled ones too. A package that shares a file with another is left
/// out; none at all if there is a file that belongs to nobody.
pub fn pieces(packages: &Path, line: &str, listing: &Listing) -> std::io::Result<BTreeMap<String, Listing>> {
    let site = format!("lib/python{line}/site-packages");
    let mut owners: HashMap<RelPath, usize> = HashMap::new();
    let (mut names, mut shared) = (Vec::new(), Vec::new());
    let Ok(site) = RelPath::parse(&site) else { return Ok(BTreeMap::new()) };
    each_info(&site.on(packages), |folder, name| {
        let package = normalized_package(name.rsplit_once('-').map_or(name, |(package, _)| package));
        for path in fs::read_to_string(folder.join("RECORD"))?.lines().filter_map(recorded) {
            if let Ok(path) = site.resolve(&path)
                && let Some(other) = owners.insert(path, names.len())
                && other != names.len()
            {
                shared.extend([other, names.len()]);
            }
        }
        names.push(package);
        Ok(())
    })?;
    let mut entries: BTreeMap<usize, Vec<_>> = BTreeMap::new();
    for entry in listing.entries() {
        let owner = owners.get(&entry.path).copied().or_else(|| owners.get(&compiled_from(&entry.path)?).copied());
        let Some(owner) = owner else { return Ok(BTreeMap::new()) };
        entries.entry(owner).or_default().push(entry.clone());
    }
    entries.retain(|owner, _| !shared.contains(owner));
    if names.iter().enumerate().any(|(i, name)| names[..i].contains(name)) {
        return Ok(BTreeMap::new());
    }
    let piece = |(owner, entries): (usize, Vec<_>)| Some((names[owner].clone(), Listing::new(entries).ok()?));
    Ok(entries.into_iter().filter_map(piece).collect())
}

/// The path of a line of a RECORD: `path,hash,size`, the path in quotes where it has a comma.
fn recorded(line: &str) -> Option<String> {
    match line.strip_prefix('"') {
        Some(quoted) => Some(quoted.rsplit_once("\",")?.0.replace("\"\"", "\"")),
        None => line.rsplitn(3, ',').nth(2).map(str::to_owned),
    }
}

/// The source of a compiled file: `a/b.py` of `a/__pycache__/b.cpython-311.pyc`.
fn compiled_from(path: &RelPath) -> Option<RelPath> {
    let (folder, file) = path.as_str().rsplit_once('/')?;
    let module = file.strip_suffix(".pyc")?.rsplit_once(".cpython-")?.0;
    RelPath::parse(&format!("{}/{module}.py", folder.strip_suffix("/__pycache__")?)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use trainlock_types::{Digest, Entry, EntryKind};

    #[test]
    fn files_and_their_packages() {
        let folder = tempfile::tempdir().unwrap();
        let site = folder.path().join("lib/python3.11/site-packages");
        let info = |name: &str, record: &str| {
            fs::create_dir_all(site.join(name)).unwrap();
            fs::write(site.join(name).join("RECORD"), record).unwrap();
        };
        info(
            "My_Demo-1.0.dist-info",
            "demo/__init__.py,sha256=x,3\n\"demo/a, b.txt\",,\n../../../bin/say,,\nMy_Demo-1.0.dist-info/RECORD,,\n",
        );
        info("base-2.0.dist-info", "base.py,,\ntests/__init__.py,,\nbase-2.0.dist-info/RECORD,,\n");
        info("more-3.0.dist-info", "tests/__init__.py,,\n");
        info("my-demo-more-1.0.dist-info", "");
        let listing = |more: &[&str]| {
            let at = "lib/python3.11/site-packages";
            let paths = [
                "bin/say".to_owned(),
                format!("{at}/demo/__init__.py"),
                format!("{at}/demo/__pycache__/__init__.cpython-311.pyc"),
                format!("{at}/demo/a, b.txt"),
                format!("{at}/base.py"),
                format!("{at}/tests/__init__.py"),
            ];
            let entry = |path: &str| Entry {
                path: RelPath::parse(path).unwrap(),
                sha256: Digest::of(path.as_bytes()),
                size: 1,
                kind: EntryKind::File,
            };
            Listing::new(paths.iter().map(String::as_str).chain(more.iter().copied()).map(entry).collect()).unwrap()
        };
        let found = pieces(folder.path(), "3.11", &listing(&[])).unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), ["my-demo"]);
        assert_eq!(found["my-demo"].count(), 4);
        assert!(pieces(folder.path(), "3.11", &listing(&["lib/stray"])).unwrap().is_empty());
    }
}
