//! Whether installed packages have what they need of each other: what `pip check` answers, out of what each states of itself.
//!
//! Packages are resolved together, but a lock may be taken over from another tool, and environments are put together from what was
//! installed at several times. Nothing is run for it.

use super::layout::each_info;
use super::select::Target;
use fs_err as fs;
use pep508_rs::pep440_rs::Version;
use pep508_rs::{Requirement, VerbatimUrl, VersionOrUrl};
use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;
use trainlock_types::normalized_package;

impl Target {
    /// What the packages of a `site-packages` folder need and do not have there, in words. What none of this version can read is passed
    /// over.
    pub fn unmet(&self, site: &Path) -> std::io::Result<Vec<String>> {
        let mut installed: BTreeMap<String, Option<Version>> = BTreeMap::new();
        let mut needs: Vec<(String, Requirement<VerbatimUrl>)> = Vec::new();
        if !site.is_dir() {
            return Ok(Vec::new());
        }
        each_info(site, |folder, _| {
            let bytes = fs::read(folder.join("METADATA"))?;
            let text = String::from_utf8_lossy(&bytes);
            // The description behind the fields may look like some.
            let fields = || text.lines().take_while(|line| !line.is_empty()).filter_map(|line| line.split_once(':'));
            let field = |key: &str| fields().find(|(k, _)| k.eq_ignore_ascii_case(key)).map(|(_, value)| value.trim());
            let (name, version) = (field("Name").unwrap_or_default(), field("Version").unwrap_or_default());
            installed.insert(normalized_package(name), Version::from_str(version).ok());
            let required = fields().filter(|(key, _)| key.eq_ignore_ascii_case("Requires-Dist"));
            let required = required.filter_map(|(_, text)| Requirement::from_str(text.trim()).ok());
            needs.extend(required.map(|requirement| (format!("{name} {version}"), requirement)));
            Ok(())
        })?;
        let unmet = |(package, needed): &(String, Requirement<VerbatimUrl>)| {
            if !self.wants_requirement(needed) {
                return None;
            }
            match (installed.get(needed.name.as_ref()), &needed.version_or_url) {
                (None, _) => Some(format!("{package} needs {needed}, which is not among the packages")),
                (Some(Some(found)), Some(VersionOrUrl::VersionSpecifier(allowed))) if !allowed.contains(found) => {
                    Some(format!("{package} needs {needed}, and {} {found} is there", needed.name))
                }
                _ => None,
            }
        };
        Ok(needs.iter().filter_map(unmet).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trainlock_types::Platform;

    #[test]
    fn what_packages_need_of_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let info = |name: &str, version: &str, more: &str| {
            let at = folder.path().join(format!("{}-{version}.dist-info", name.replace('-', "_")));
            fs::create_dir_all(&at).unwrap();
            fs::write(
                at.join("METADATA"),
                format!("Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{more}\nRequires-Dist: told\n"),
            )
            .unwrap();
        };
        info("base", "2.0rc1+cpu", "");
        info(
            "Demo-It",
            "1.0",
            "Requires-Dist: Base>=2.0rc1\nRequires-Dist: x; extra == 'x'\nrequires-dist: no way (\n",
        );
        info("more", "3", "Requires-Dist: demo_it (>=1,<2)\nRequires-Dist: y; sys_platform == 'win32'\n");
        let target = Target::new(Platform::LinuxX86_64, "glibc 2.36", "3.11.7").unwrap();
        assert_eq!(target.unmet(folder.path()).unwrap(), Vec::<String>::new());
        info("last", "4", "Requires-Dist: base>=3; python_version >= '3.11'\nRequires-Dist: gone\n");
        let unmet = target.unmet(folder.path()).unwrap();
        assert_eq!(unmet.len(), 2, "{unmet:?}");
        assert!(unmet[0].starts_with("last 4 needs base>=3") && unmet[0].ends_with("and base 2.0rc1+cpu is there"));
        assert_eq!(unmet[1], "last 4 needs gone, which is not among the packages");
    }
}
