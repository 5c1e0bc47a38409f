//! What this crate's unit tests share: a project in a temporary folder.

use fs_err as fs;
use std::collections::BTreeMap;
use std::path::Path;
use trainlock_lock::Lock;
use trainlock_manifest::Workspace;
use trainlock_store::{Index, Store};
use trainlock_types::{Name, Params};

use crate::bench::{Bench, Shell};
use crate::result::State;

/// A project named `t`.
pub(crate) struct Project {
    folder: tempfile::TempDir,
    pub(crate) workspace: Workspace,
    pub(crate) lock: Lock,
    pub(crate) store: Store,
    pub(crate) params: BTreeMap<Name, Params>,
    equipment: BTreeMap<trainlock_env::Outfit, trainlock_env::Equipment>,
    shell: Shell,
}

impl Project {
    /// These files, and a train.toml with this behind its `[project]`.
    pub(crate) fn new(manifest: &str, files: &[(&str, &str)]) -> Project {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("project");
        let text = format!("[project]\nname = \"t\"\n\n{manifest}");
        for (path, text) in files.iter().copied().chain([("train.toml", text.as_str())]) {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let workspace = trainlock_manifest::load(&root.join("train.toml")).unwrap();
        Project {
            params: workspace.members.iter().map(|m| (m.name.clone(), m.params.clone())).collect(),
            workspace,
            lock: Lock::default(),
            store: Store::open(&folder.path().join("store")).unwrap(),
            equipment: BTreeMap::new(),
            shell: Shell { program: "/bin/sh".into(), options: &["-eu", "-c"] },
            folder,
        }
    }

    /// The project's folder.
    pub(crate) fn root(&self) -> &Path {
        &self.workspace.root
    }

    /// A bench without anything remembered but this.
    pub(crate) fn bench(&self, state: State) -> Bench<'_> {
        let index = Index::load(&self.folder.path().join("index"), self.root(), Some(self.store.clone()));
        Bench::new(&self.workspace, &self.lock, &self.store, &self.params, &self.equipment, &self.shell, index, state)
    }
}

/// Somewhere, for as long.
pub(crate) fn circumstances(seconds: f64) -> crate::result::Circumstances {
    crate::result::Circumstances {
        seconds,
        class: "linux-x86_64-gnu/x86-64-v3".to_owned(),
        isolation: trainlock_env::Isolation::none("a test"),
        machine: trainlock_env::Machine::here(),
        libraries: Vec::new(),
    }
}
