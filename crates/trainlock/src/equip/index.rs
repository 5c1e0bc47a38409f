//! Where python packages are looked for.

use crate::exit::{Exit, Failure};
use crate::project::Project;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;
use trainlock_fetch::{IndexPlaces, IndexSettings, PackageIndex};
use trainlock_manifest::Workspace;
use trainlock_types::normalized_package;

/// Packages of which manifests mean versions that their publishers have withdrawn.
pub(super) fn meant_all_the_same(workspace: &Workspace) -> BTreeSet<String> {
    let all = workspace.members.iter().flat_map(|member| member.python.iter().chain(member.python_profiles.values()));
    all.flat_map(|python| &python.yanked).map(|name| normalized_package(name)).collect()
}

impl Project {
    /// Where packages are looked for, as the environment and pip's and uv's configuration say.
    pub(crate) fn package_index(&self) -> Result<IndexSettings, Failure> {
        self.index_search().find().map_err(|reason| {
            let hint = match IndexSettings::is_missing(&reason) {
                true => {
                    "set PIP_INDEX_URL or UV_DEFAULT_INDEX to its address, or have pip with `python3`, which knows one"
                }
                false => "it needs an address such as https://HOST/simple",
            };
            Failure::new(Exit::Failed, reason).hint(hint)
        })
    }

    /// The same, and once it is asked for: to find out may take a while.
    pub(crate) fn later_index(&self) -> PackageIndex {
        let search = self.index_search();
        PackageIndex::later(move || search.find())
    }

    fn index_search(&self) -> Search {
        let mut yanked = meant_all_the_same(&self.workspace);
        yanked.extend(self.settings.yanked.iter().cloned());
        Search {
            places: self.settings.index_places.clone(),
            yanked,
            remembered: self.store.root().join("package-index"),
            path: self.settings.path.clone(),
        }
    }

    /// uv's cache of what an index says: no part of what is verified, and removable at any time.
    pub(crate) fn uv_cache(&self) -> PathBuf {
        self.store.root().join("uv")
    }
}

/// How an index is found.
struct Search {
    places: IndexPlaces,
    yanked: BTreeSet<String>,
    /// The file of the store that has what pip said.
    remembered: PathBuf,
    /// Where programs are.
    path: OsString,
}

impl Search {
    /// As is configured; where nothing is, the index that pip asks then.
    fn find(self) -> Result<IndexSettings, String> {
        let mut index = self.configured()?;
        index.yanked = self.yanked;
        Ok(index)
    }

    /// What pip says is remembered in the store: it takes a while to start.
    fn configured(&self) -> Result<IndexSettings, String> {
        let found = IndexSettings::find(&self.places);
        let Err(reason) = &found else { return found };
        if !IndexSettings::is_missing(reason) {
            return found;
        }
        let remembered = fs_err::read_to_string(&self.remembered).ok().filter(|text| !text.trim().is_empty());
        let known = remembered.or_else(|| {
            let text = self.index_of_pip()?;
            // Only to be quicker the next time.
            let _ = fs_err::write(&self.remembered, &text);
            Some(text)
        });
        let default = known.map(|text| text.trim().to_owned());
        IndexSettings::find(&IndexPlaces { default, ..self.places.clone() })
    }

    /// The index that pip asks where nothing is configured: of the pip that `python3` has, or brings along for new environments.
    fn index_of_pip(&self) -> Option<String> {
        const ASK: &str = "\
try:
    from pip._internal.models.index import PyPI
except ImportError:
    import ensurepip, glob, os, sys
    sys.path[:0] = glob.glob(os.path.join(os.path.dirname(ensurepip.__file__), '_bundled', 'pip-*.whl'))
    from pip._internal.models.index import PyPI
print(PyPI.simple_url)
";
        let mut command = std::process::Command::new("python3");
        command.args(["-I", "-c", ASK]).env("PATH", &self.path).stdin(std::process::Stdio::null());
        let output = command.output().ok().filter(|output| output.status.success())?;
        String::from_utf8(output.stdout).ok().filter(|text| text.starts_with("http"))
    }
}
