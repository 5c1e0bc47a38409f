//! GPUs for steps in images: what the machine's Container Device Interface files say must be added to a container.
//!
//! Source: the CDI specification (cncf-tags/container-device-interface, SPEC.md, versions 0.3 to 1.0): JSON or YAML files
//! in `/etc/cdi` and `/var/run/cdi`, each with a `kind`, `devices` by name, and edits for all of them. Hooks are programs
//! that would run on the host: the two that NVIDIA's files name are done without them (`create-symlinks` as links,
//! `update-ldcache` as `LD_LIBRARY_PATH`), others are left out.

use crate::sandbox::Bind;
use fs_err as fs;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Where the files are; the later folder goes before.
const FOLDERS: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// What is added to a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edits {
    /// Device nodes.
    pub devices: Vec<PathBuf>,
    /// Driver libraries and programs.
    pub binds: Vec<Bind>,
    /// Links: where, and what they hold.
    pub links: Vec<(PathBuf, PathBuf)>,
    /// Variables.
    pub variables: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    kind: String,
    #[serde(default)]
    devices: Vec<Device>,
    #[serde(default)]
    container_edits: ContainerEdits,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Device {
    /// A name; YAML may have it as a number.
    name: Name,
    #[serde(default)]
    container_edits: ContainerEdits,
}

/// A text, or a number as one.
struct Name(String);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Name, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Name;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a name")
            }

            fn visit_str<E>(self, text: &str) -> Result<Name, E> {
                Ok(Name(text.to_owned()))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Name, E> {
                Ok(Name(number.to_string()))
            }
        }
        from.deserialize_any(Visitor)
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ContainerEdits {
    env: Vec<String>,
    device_nodes: Vec<Node>,
    mounts: Vec<Mount>,
    hooks: Vec<Hook>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Node {
    path: PathBuf,
    host_path: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mount {
    host_path: PathBuf,
    container_path: PathBuf,
}

#[derive(Deserialize)]
struct Hook {
    #[serde(default)]
    args: Vec<String>,
}

/// What a step in an image gets for these GPUs of this machine, by the first vendor whose files name GPUs. Files that
/// can't be read, and those of other devices, say nothing.
pub fn gpu_edits(gpus: &[u32]) -> Edits {
    edits_of(&FOLDERS.map(PathBuf::from), gpus)
}

fn edits_of(folders: &[PathBuf], gpus: &[u32]) -> Edits {
    // A file of a later folder stands for one of the same name before.
    let mut files: BTreeMap<String, PathBuf> = BTreeMap::new();
    for entry in folders.iter().flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten()) {
        files.insert(entry.file_name().to_string_lossy().into_owned(), entry.path());
    }
    for path in files.values() {
        let Ok(text) = fs::read_to_string(path) else { continue };
        let spec: Option<Spec> = match path.extension().and_then(|end| end.to_str()) {
            Some("json") => serde_json::from_str(&text).ok(),
            Some("yaml" | "yml") => serde_saphyr::from_str(&text).ok(),
            _ => None,
        };
        let Some(spec) = spec.filter(|spec| spec.kind.ends_with("/gpu")) else { continue };
        let wanted: Vec<String> = gpus.iter().map(u32::to_string).collect();
        let named = |name: &str| spec.devices.iter().find(|device| device.name.0 == name);
        // Where they have other names than their numbers, there is at least one for all.
        let by_number: Option<Vec<&Device>> = wanted.iter().map(|name| named(name)).collect();
        let devices = by_number.filter(|devices| !devices.is_empty()).or_else(|| named("all").map(|all| vec![all]));
        let Some(devices) = devices else { continue };
        let mut edits = Edits::default();
        for part in std::iter::once(&spec.container_edits).chain(devices.iter().map(|device| &device.container_edits)) {
            edits.add(part);
        }
        edits.find_libraries();
        return edits;
    }
    Edits::default()
}

impl Edits {
    fn add(&mut self, part: &ContainerEdits) {
        for node in &part.device_nodes {
            // A node under another name would take the right to make one.
            let same = node.host_path.as_ref().is_none_or(|host| *host == node.path);
            if same && fs::metadata(&node.path).is_ok() && !self.devices.contains(&node.path) {
                self.devices.push(node.path.clone());
            }
        }
        for mount in &part.mounts {
            let bind = Bind { from: mount.host_path.clone(), to: mount.container_path.clone() };
            if bind.to.is_absolute() && fs::metadata(&bind.from).is_ok() && !self.binds.contains(&bind) {
                self.binds.push(bind);
            }
        }
        for hook in part.hooks.iter().filter(|hook| hook.args.iter().any(|arg| arg == "create-symlinks")) {
            for pair in hook.args.windows(2).filter(|pair| pair[0] == "--link") {
                if let Some((target, at)) = pair[1].split_once("::") {
                    self.links.push((at.into(), target.into()));
                }
            }
        }
        self.variables.extend(part.env.iter().filter_map(|pair| {
            let (name, value) = pair.split_once('=')?;
            Some((name.to_owned(), value.to_owned()))
        }));
    }

    /// There is no cache of libraries for what was added: they are found by a variable.
    fn find_libraries(&mut self) {
        let is_library = |path: &&PathBuf| path.to_string_lossy().contains(".so");
        let folders: BTreeSet<&Path> =
            self.binds.iter().map(|bind| &bind.to).filter(is_library).filter_map(|path| path.parent()).collect();
        if !folders.is_empty() {
            let path = folders.iter().map(|folder| folder.to_string_lossy()).collect::<Vec<_>>().join(":");
            self.variables.insert("LD_LIBRARY_PATH".to_owned(), path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `nvidia-ctk cdi generate` writes it, with files of this machine in place of the driver's.
    const NVIDIA: &str = r#"
cdiVersion: 0.5.0
kind: nvidia.com/gpu
containerEdits:
  deviceNodes:
  - path: /dev/null
  env:
  - NVIDIA_VISIBLE_DEVICES=void
  hooks:
  - args: [nvidia-cdi-hook, create-symlinks, --link, libcuda.so.1::/usr/lib/libcuda.so, --link, a::/usr/lib/b]
    hookName: createContainer
    path: /usr/bin/nvidia-cdi-hook
  mounts:
  - containerPath: /usr/lib/libcuda.so.550.54
    hostPath: /etc/passwd
    options: [ro, nosuid, nodev, bind]
  - containerPath: /usr/lib/gone.so
    hostPath: /nowhere/gone.so
devices:
- containerEdits:
    deviceNodes:
    - path: /dev/zero
  name: "0"
- containerEdits:
    deviceNodes:
    - path: /dev/full
  name: 1
- containerEdits:
    deviceNodes:
    - path: /dev/zero
    - path: /dev/full
  name: all
"#;

    #[test]
    fn the_machines_files_say_what_is_added() {
        let folder = tempfile::tempdir().unwrap();
        let at = [folder.path().join("etc"), folder.path().join("run")];
        for place in &at {
            fs::create_dir(place).unwrap();
        }
        assert_eq!(edits_of(&at, &[0]), Edits::default());
        fs::write(at[0].join("a.yaml"), "kind: example.org/nic\ncontainerEdits: {env: [A=1]}\n").unwrap();
        fs::write(at[0].join("broken.yaml"), "kind: [").unwrap();
        fs::write(at[0].join("nvidia.yaml"), NVIDIA).unwrap();
        let edits = edits_of(&at, &[1]);
        assert_eq!(edits.devices, ["/dev/null", "/dev/full"].map(PathBuf::from));
        assert_eq!(edits.binds, [Bind { from: "/etc/passwd".into(), to: "/usr/lib/libcuda.so.550.54".into() }]);
        assert_eq!(edits.links[0], ("/usr/lib/libcuda.so".into(), "libcuda.so.1".into()));
        assert_eq!(edits.variables["NVIDIA_VISIBLE_DEVICES"], "void");
        assert_eq!(edits.variables["LD_LIBRARY_PATH"], "/usr/lib");
        // A number that no device has: all of them.
        assert_eq!(edits_of(&at, &[7]).devices.len(), 3);
        // The run-time folder goes before, in JSON too.
        fs::write(at[1].join("nvidia.yaml"), r#"{"kind": "nvidia.com/gpu", "devices": [{"name": "all"}]}"#).unwrap();
        assert_eq!(edits_of(&at, &[0]), Edits::default());
    }
}
