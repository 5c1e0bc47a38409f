//! A step handed to a container engine: the same stage, mounts and variables, in a container of the engine's own making.
//!
//! What the engine enforces is the engine's word: trainlock claims nothing for such a step.

use super::plan::{Given, given};
use super::{Sandbox, SetupError};
use crate::{Engine, EngineKind, Invocation};
use fs_err as fs;
use serde_json::{Value, json};
use std::path::Path;

/// One container.
#[derive(Debug, Clone, Copy)]
pub struct Container<'a> {
    /// Who runs it.
    pub engine: &'a Engine,
    /// The image as the engine knows it: podman's id, docker's reference by digest, a folder in the OCI layout for
    /// apptainer. runc is given the file system itself, at `rootfs` in the stage.
    pub image: &'a str,
    /// A name that no other container has.
    pub name: &'a str,
}

impl Container<'_> {
    /// The engine's command line for a step's own.
    ///
    /// # Errors
    /// Where the stage can't be looked at, or holds a path that the engine's options can't name.
    pub fn invocation(&self, step: &Invocation, sandbox: &Sandbox) -> Result<Invocation, SetupError> {
        let given = given(sandbox)?;
        let arguments = match self.engine.kind {
            EngineKind::Podman | EngineKind::Docker => self.run(step, sandbox, &given)?,
            EngineKind::Apptainer => self.exec(step, sandbox, &given)?,
            EngineKind::Runc => self.bundle(step, sandbox, &given)?,
        };
        Ok(Invocation {
            program: self.engine.program.clone(),
            arguments,
            folder: sandbox.stage.clone(),
            environment: self.engine.environment.clone(),
            timeout: step.timeout,
            sandbox: None,
        })
    }

    /// What removes the container of a step that was ended; nothing where it ends with its process.
    pub fn removal(&self) -> Option<Vec<String>> {
        let words: &[&str] = match self.engine.kind {
            EngineKind::Podman => &["rm", "--force", "--ignore", "--time", "0"],
            EngineKind::Docker => &["rm", "--force"],
            EngineKind::Apptainer | EngineKind::Runc => return None,
        };
        Some(words.iter().map(|w| (*w).to_owned()).chain([self.name.to_owned()]).collect())
    }

    fn run(&self, step: &Invocation, sandbox: &Sandbox, given: &[Given]) -> Result<Vec<String>, SetupError> {
        let podman = self.engine.kind == EngineKind::Podman;
        let mut words = Words::new(&["run", "--rm", "--name", self.name, "--hostname", &sandbox.hostname]);
        words.all(&["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]);
        words.all(&["--security-opt", "label=disable"]);
        if podman {
            // A user without root is root in a container of podman's, and itself outside.
            words.all(&["--pull", "never", "--read-only-tmpfs=false", "--unsetenv-all", "--http-proxy=false"]);
            words.all(&["--user", "0:0", "--umask", &format!("{:04o}", sandbox.umask)]);
        } else {
            let (user, group) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
            words.all(&["--pull", "never", "--user", &format!("{user}:{group}")]);
        }
        if !sandbox.network {
            words.all(&["--network", "none"]);
        }
        if let Some(memory) = sandbox.memory {
            words.all(&["--memory", &memory.to_string()]);
        }
        if !sandbox.devices.is_empty() {
            words.all(if podman { &["--device", "nvidia.com/gpu=all"] } else { &["--gpus", "all"] });
        }
        for one in given {
            let (from, to) = (one.from()?, one.to()?);
            if from.contains(',') || to.contains(',') {
                return Err(unnamed(&one.from));
            }
            let read_only = if one.writable { "" } else { ",readonly" };
            words.all(&["--mount", &format!("type=bind,source={from},target={to}{read_only}")]);
        }
        for (name, value) in &step.environment {
            words.all(&["--env", &format!("{name}={value}")]);
        }
        words.all(&["--workdir", &text(&step.folder)?, "--entrypoint", &text(&step.program)?, self.image]);
        Ok(words.with(&step.arguments))
    }

    fn exec(&self, step: &Invocation, sandbox: &Sandbox, given: &[Given]) -> Result<Vec<String>, SetupError> {
        let mut words = Words::new(&["--quiet", "exec", "--containall", "--cleanenv", "--no-eval"]);
        words.all(&["--hostname", &sandbox.hostname, "--pwd", &text(&step.folder)?]);
        if !sandbox.network {
            words.all(&["--net", "--network", "none"]);
        }
        if !sandbox.devices.is_empty() {
            words.all(&["--nv"]);
        }
        for one in given {
            let (from, to) = (one.from()?, one.to()?);
            if from.contains([',', ':']) || to.contains([',', ':']) {
                return Err(unnamed(&one.from));
            }
            words.all(&["--bind", &format!("{from}:{to}:{}", if one.writable { "rw" } else { "ro" })]);
        }
        for (name, value) in &step.environment {
            words.all(&["--env", &format!("{name}={value}")]);
        }
        words.all(&[&format!("oci:{}", self.image), &text(&step.program)?]);
        Ok(words.with(&step.arguments))
    }

    /// Writes `config.json` (OCI runtime specification 1.0) into the stage, beside `rootfs`.
    fn bundle(&self, step: &Invocation, sandbox: &Sandbox, given: &[Given]) -> Result<Vec<String>, SetupError> {
        let args: Vec<String> = std::iter::once(text(&step.program)?).chain(step.arguments.iter().cloned()).collect();
        let env: Vec<String> = step.environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mount = |to: &str, kind: &str, options: &[&str]| json!({"destination": to, "type": kind, "source": kind, "options": options});
        let mut mounts = vec![
            mount("/proc", "proc", &["nosuid", "nodev", "noexec"]),
            mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777"]),
        ];
        for one in given {
            let options =
                if one.writable { ["rbind", "rw", "nosuid", "nodev"] } else { ["rbind", "ro", "nosuid", "nodev"] };
            mounts.push(json!({"destination": one.to()?, "type": "bind", "source": one.from()?, "options": options}));
        }
        let mut namespaces: Vec<Value> = ["pid", "ipc", "uts", "mount"].map(|kind| json!({"type": kind})).to_vec();
        if !sandbox.network {
            namespaces.push(json!({"type": "network"}));
        }
        let mut linux = json!({});
        let (user, group) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        if user != 0 {
            namespaces.push(json!({"type": "user"}));
            linux["uidMappings"] = json!([{"containerID": 0, "hostID": user, "size": 1}]);
            linux["gidMappings"] = json!([{"containerID": 0, "hostID": group, "size": 1}]);
        }
        linux["namespaces"] = namespaces.into();
        let none: [&str; 0] = [];
        let capabilities =
            json!({"bounding": none, "effective": none, "permitted": none, "inheritable": none, "ambient": none});
        let config = json!({
            "ociVersion": "1.0.2",
            "process": {
                "terminal": false,
                "user": {"uid": 0, "gid": 0, "umask": sandbox.umask},
                "args": args,
                "env": env,
                "cwd": text(&step.folder)?,
                "capabilities": capabilities,
                "noNewPrivileges": true,
            },
            "root": {"path": "rootfs", "readonly": true},
            "hostname": sandbox.hostname,
            "mounts": mounts,
            "linux": linux,
        });
        let file = sandbox.stage.join("config.json");
        fs::write(&file, config.to_string())
            .map_err(|source| SetupError { operation: format!("write {}", file.display()), source })?;
        let state = text(&sandbox.stage.join("runc"))?;
        Ok(Words::new(&["--root", &state, "run", self.name]).0)
    }
}

struct Words(Vec<String>);

impl Words {
    fn new(words: &[&str]) -> Words {
        Words(words.iter().map(|w| (*w).to_owned()).collect())
    }

    fn all(&mut self, words: &[&str]) {
        self.0.extend(words.iter().map(|w| (*w).to_owned()));
    }

    fn with(mut self, more: &[String]) -> Vec<String> {
        self.0.extend(more.iter().cloned());
        self.0
    }
}

impl Given {
    fn from(&self) -> Result<String, SetupError> {
        text(&self.from)
    }

    fn to(&self) -> Result<String, SetupError> {
        text(&self.to)
    }
}

fn text(path: &Path) -> Result<String, SetupError> {
    path.to_str().map(str::to_owned).ok_or_else(|| unnamed(path))
}

fn unnamed(path: &Path) -> SetupError {
    let operation = format!("name `{}` to the engine", path.display());
    SetupError { operation, source: rustix::io::Errno::INVAL.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::{Bind, Tier};
    use std::collections::BTreeMap;
    use trainlock_types::RelPath;

    /// The command line of an engine for a step with an output folder, an input and a tool.
    fn line(kind: EngineKind, output: &str) -> (String, String) {
        let folder = tempfile::tempdir().unwrap();
        let stage = fs::canonicalize(folder.path()).unwrap();
        for part in ["root/out", "tmp", "home", "bin"] {
            fs::create_dir_all(stage.join(part)).unwrap();
        }
        fs::write(stage.join("root/out/input"), "x").unwrap();
        let mut sandbox = Sandbox::new(Tier::Namespaces, &stage, "p");
        sandbox.writable = vec![RelPath::root().resolve(output).unwrap()];
        sandbox.read_only = vec![Bind::same("/opt/tool")];
        let step = Invocation {
            program: "/bin/sh".into(),
            arguments: vec!["-c".to_owned(), "echo $A".to_owned()],
            folder: "/trainlock/p".into(),
            environment: BTreeMap::from([("A".to_owned(), "1 2".to_owned())]),
            timeout: None,
            sandbox: None,
        };
        let engine = Engine { kind, program: "/usr/bin/engine".into(), environment: BTreeMap::new() };
        let container = Container { engine: &engine, image: "IMAGE", name: "n" };
        let made = container.invocation(&step, &sandbox).unwrap();
        let place = |text: String| text.replace(stage.to_str().unwrap(), "STAGE");
        let config = fs::read_to_string(stage.join("config.json")).unwrap_or_default();
        (place(made.arguments.join(" ")), place(config))
    }

    #[test]
    fn an_engine_is_given_what_the_sandbox_would_show() {
        for kind in [EngineKind::Podman, EngineKind::Docker] {
            let (line, _) = line(kind, "out");
            let in_order = [
                "run --rm --name n",
                "--network none",
                "source=STAGE/tmp,target=/tmp ",
                "source=STAGE/home,target=/home/trainlock ",
                "source=/opt/tool,target=/opt/tool,readonly",
                "source=STAGE/root,target=/trainlock/p,readonly",
                "source=STAGE/root/out,target=/trainlock/p/out ",
                "source=STAGE/root/out/input,target=/trainlock/p/out/input,readonly",
                "source=STAGE/bin,target=/trainlock/.bin,readonly",
                "--env A=1 2 --workdir /trainlock/p --entrypoint /bin/sh IMAGE -c echo $A",
            ];
            let mut rest = line.as_str();
            for part in in_order {
                rest = rest.split_once(part).unwrap_or_else(|| panic!("{part}: {line}")).1;
            }
            assert!(line.contains("--pull never"), "{line}");
        }
    }

    #[test]
    fn no_place_is_mounted_twice() {
        let (line, _) = line(EngineKind::Docker, ".");
        assert!(line.contains("source=STAGE/root,target=/trainlock/p "), "{line}");
        assert_eq!(line.matches("target=/trainlock/p ").count() + line.matches("target=/trainlock/p,").count(), 1);
    }

    #[test]
    fn apptainer_and_runc() {
        let (line, _) = line(EngineKind::Apptainer, "out");
        assert!(
            line.starts_with("--quiet exec --containall --cleanenv")
                && line.contains("--bind STAGE/root/out:/trainlock/p/out:rw"),
            "{line}"
        );
        assert!(line.ends_with("--env A=1 2 oci:IMAGE /bin/sh -c echo $A"), "{line}");
        let (line, config) = super::tests::line(EngineKind::Runc, "out");
        assert_eq!(line, "--root STAGE/runc run n");
        let config: Value = serde_json::from_str(&config).unwrap();
        assert_eq!(config["process"]["args"], json!(["/bin/sh", "-c", "echo $A"]));
        assert_eq!(config["mounts"][3]["source"], "STAGE/tmp");
        assert!(config["linux"]["namespaces"].as_array().unwrap().contains(&json!({"type": "network"})));
    }
}
