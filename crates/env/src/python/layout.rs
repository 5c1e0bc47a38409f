//! An installed set of packages, made into something that Python takes for a virtual environment.

use fs_err as fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Packages that lie in the store and the interpreter that they are for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// The interpreter.
    pub interpreter: PathBuf,
    /// Its line, such as `3.11`.
    pub line: String,
    /// The installed packages: a virtual environment's folder without its interpreter.
    pub packages: PathBuf,
}

/// What a virtual environment has besides packages: it names the machine and is made anew where it is needed.
const OWN: &[&str] = &["pyvenv.cfg", ".lock", ".gitignore", "CACHEDIR.TAG"];

impl Environment {
    /// Makes, in the empty or missing folder `at`, what Python takes for a virtual environment. `seen_at` is where programs will see that folder,
    /// `packages_at` where they will see the packages.
    pub fn lay_out(&self, at: &Path, seen_at: &Path, packages_at: &Path) -> std::io::Result<()> {
        let bin = at.join("bin");
        fs::create_dir_all(&bin)?;
        let home = self.interpreter.parent().unwrap_or(Path::new("/"));
        let config =
            format!("home = {}\ninclude-system-site-packages = false\nversion_info = {}\n", home.display(), self.line);
        fs::write(at.join("pyvenv.cfg"), config)?;
        for name in ["python", "python3", &format!("python{}", self.line)] {
            fs::os::unix::fs::symlink(&self.interpreter, bin.join(name))?;
        }
        for entry in fs::read_dir(&self.packages)? {
            let name = entry?.file_name();
            if name != "bin" {
                fs::os::unix::fs::symlink(packages_at.join(&name), at.join(&name))?;
            }
        }
        let Ok(programs) = fs::read_dir(self.packages.join("bin")) else { return Ok(()) };
        for entry in programs {
            let entry = entry?;
            let name = entry.file_name();
            let mut head = [0; 2];
            let script = fs::File::open(entry.path())?.read(&mut head)? == 2 && &head == b"#!";
            let text = if script { fs::read_to_string(entry.path()).ok() } else { None };
            match text.and_then(|text| with_interpreter(&text, &seen_at.join("bin/python"))) {
                Some(text) => {
                    fs::write(bin.join(&name), text)?;
                    fs::set_permissions(bin.join(&name), std::fs::Permissions::from_mode(0o755))?;
                }
                None => fs::os::unix::fs::symlink(packages_at.join("bin").join(&name), bin.join(&name))?,
            }
        }
        Ok(())
    }
}

/// A script of a relocatable environment with this interpreter named in place of the search for it; none if it is no such
/// script.
fn with_interpreter(text: &str, python: &Path) -> Option<String> {
    let rest = text.strip_prefix("#!/bin/sh\n'''exec' ")?;
    let (search, rest) = rest.split_once('\n')?;
    let rest = search.contains("python").then(|| rest.strip_prefix("' '''\n")).flatten()?;
    Some(format!("#!{}\n{rest}", python.display()))
}

/// Takes out of a virtual environment what names this machine.
pub(super) fn strip(folder: &Path, line: &str) -> std::io::Result<()> {
    for name in OWN {
        remove(&folder.join(name))?;
    }
    let bin = folder.join("bin");
    for name in ["python", "python3", &format!("python{line}")] {
        remove(&bin.join(name))?;
    }
    for entry in fs::read_dir(&bin)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let activates =
            ["activate", "deactivate", "pydoc"].iter().any(|p| name.starts_with(p)) || name == "Activate.ps1";
        if activates {
            remove(&path)?;
        }
    }
    forget_origin(&folder.join(format!("lib/python{line}/site-packages")))?;
    // On 64-bit Linux `lib64` leads to `lib`; what uv puts there it puts into both.
    let lib64 = folder.join("lib64");
    if fs::symlink_metadata(&lib64).is_ok_and(|m| m.is_symlink()) {
        remove(&lib64)?;
    }
    Ok(())
}

/// Goes through the folders in which packages say what they are: the folder, and its name without the ending.
pub(super) fn each_info(site: &Path, mut each: impl FnMut(&Path, &str) -> std::io::Result<()>) -> std::io::Result<()> {
    let mut found = Vec::new();
    for entry in fs::read_dir(site)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".dist-info")).map(str::to_owned);
        found.extend(name.map(|name| (path, name)));
    }
    found.sort();
    found.iter().try_for_each(|(path, name)| each(path, name))
}

/// Takes out what uv notes of the files that it installed from: when, and where they lay.
fn forget_origin(site: &Path) -> std::io::Result<()> {
    const NOTES: [&str; 2] = ["uv_cache.json", "direct_url.json"];
    if !site.is_dir() {
        return Ok(());
    }
    each_info(site, |folder, _| {
        if !NOTES.iter().any(|name| folder.join(name).exists()) {
            return Ok(());
        }
        let record = folder.join("RECORD");
        let text = fs::read_to_string(&record)?;
        let is_note = |line: &&str| NOTES.iter().any(|name| line.contains(&format!(".dist-info/{name},")));
        let kept: String = text.split_inclusive('\n').filter(|line| !is_note(line)).collect();
        // The file may be a link to the cache's.
        fs::remove_file(&record)?;
        fs::write(&record, kept)?;
        NOTES.iter().try_for_each(|name| remove(&folder.join(name)))
    })
}

fn remove(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether installed packages have a program of this name.
pub fn has_programs(packages: &Path, name: &str) -> bool {
    packages.join("bin").join(name).is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_get_their_interpreter() {
        let script = "#!/bin/sh\n'''exec' \"$(dirname -- \"$(realpath -- \"$0\")\")\"/'python3' \"$0\" \"$@\"\n' '''\nimport x\n";
        assert_eq!(with_interpreter(script, Path::new("/e/bin/python")).unwrap(), "#!/e/bin/python\nimport x\n");
        assert_eq!(with_interpreter("#!/bin/bash\necho", Path::new("/e")), None);
    }

    #[test]
    fn laid_out() {
        let folder = tempfile::tempdir().unwrap();
        let packages = folder.path().join("packages");
        fs::create_dir_all(packages.join("lib/python3.11/site-packages")).unwrap();
        fs::create_dir_all(packages.join("bin")).unwrap();
        fs::write(packages.join("bin/tool"), [0x7f, b'E', b'L', b'F']).unwrap();
        for own in ["pyvenv.cfg", "bin/python", "bin/activate.fish"] {
            fs::write(packages.join(own), "").unwrap();
        }
        strip(&packages, "3.11").unwrap();
        assert!(!packages.join("bin/python").exists() && !packages.join("bin/activate.fish").exists());
        let environment =
            Environment { interpreter: "/usr/bin/python3.11".into(), line: "3.11".into(), packages: packages.clone() };
        let at = folder.path().join("env");
        environment.lay_out(&at, Path::new("/seen"), &packages).unwrap();
        assert_eq!(fs::read_link(at.join("bin/python3")).unwrap(), Path::new("/usr/bin/python3.11"));
        assert!(at.join("lib/python3.11/site-packages").is_dir());
        assert!(at.join("bin/tool").is_file());
        assert!(fs::read_to_string(at.join("pyvenv.cfg")).unwrap().contains("home = /usr/bin\n"));
    }
}
