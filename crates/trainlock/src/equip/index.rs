//! Where python packages are looked for.

use crate::exit::{Exit, Failure};
use crate::project::Project;
use std::collections::BTreeSet;
use std::path::PathBuf;
use trainlock_fetch::{IndexPlaces, IndexSettings};
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
        self.index_settings().map_err(|reason| {
            let hint = match IndexSettings::is_missing(&reason) {
                true => {
                    "set PIP_INDEX_URL or UV_DEFAULT_INDEX to its address, or have pip with `python3`, which knows one"
                }
                false => "it needs an address such as https://HOST/simple",
            };
            Failure::new(Exit::Failed, reason).hint(hint)
        })
    }

    /// The same; where nothing is configured, the index that pip asks then.
    pub(crate) fn index_settings(&self) -> Result<IndexSettings, String> {
        let mut index = self.configured_index()?;
        index.yanked = meant_all_the_same(&self.workspace);
        index.yanked.extend(self.settings.yanked.iter().cloned());
        Ok(index)
    }

    /// What pip says is remembered in the store: it takes a while to start.
    fn configured_index(&self) -> Result<IndexSettings, String> {
        let found = IndexSettings::find(&self.settings.index_places);
        let Err(reason) = &found else { return found };
        if !IndexSettings::is_missing(reason) {
            return found;
        }
        let file = self.store.root().join("package-index");
        let remembered = fs_err::read_to_string(&file).ok().filter(|text| !text.trim().is_empty());
        let known = remembered.or_else(|| {
            let text = self.index_of_pip()?;
            // Only to be quicker the next time.
            let _ = fs_err::write(&file, &text);
            Some(text)
        });
        let default = known.map(|text| text.trim().to_owned());
        IndexSettings::find(&IndexPlaces { default, ..self.settings.index_places.clone() })
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
        command.args(["-I", "-c", ASK]).env("PATH", &self.settings.path).stdin(std::process::Stdio::null());
        let output = command.output().ok().filter(|output| output.status.success())?;
        String::from_utf8(output.stdout).ok().filter(|text| text.starts_with("http"))
    }

    /// uv's cache of what an index says: no part of what is verified, and removable at any time.
    pub(crate) fn uv_cache(&self) -> PathBuf {
        self.store.root().join("uv")
    }
}
