//! Container images that steps stand in: brought and unpacked, or handed to an engine.

use super::{EquipError, Workshop, goes_into_images, kept};
use crate::exit::{Exit, Failure, Problem};
use crate::lacking::Lacking;
use crate::project::Project;
use crate::ui::Ui;
use std::collections::BTreeSet;
use std::path::PathBuf;
use trainlock_env::{Engine, EngineKind, ImagePlace};
use trainlock_fetch::{FetchError, image_config, image_config_digest, image_layout};
use trainlock_lock::Lock;
use trainlock_manifest::Run;
use trainlock_store::StoreError;
use trainlock_types::{Digest, ImageReference, Platform, is_python};

/// What the tree of an image is kept under. The number is that of what a tree holds of an image: those of another are made anew.
pub(super) fn image_key(manifest: &Digest) -> Digest {
    Digest::of(format!("trainlock image 2\n{manifest}\n").as_bytes())
}

impl Workshop<'_> {
    /// An image's file system in the store: brought, verified and unpacked if it is not there.
    pub(super) fn image(
        &self,
        image: &ImageReference,
        manifest: (Digest, u64),
        ui: &Ui,
    ) -> Result<ImagePlace, EquipError> {
        let key = image_key(&manifest.0);
        let tree = match kept(self.store, &key)? {
            // What it says of its use is read of it each time.
            Some(tree) if self.store.object(&manifest.0, Some(manifest.1))?.is_some() => tree,
            kept => {
                let _lock = self.store.lock(&format!("image-{key}"), |_| {})?;
                if !self.offline {
                    ui.note("Fetching", format!("image {image}"));
                }
                match self.fetcher.bring_image(self.session, image, manifest) {
                    Ok(()) => {}
                    Err(FetchError::Offline { .. }) => {
                        return Err(EquipError::Lacking(vec![Lacking::image(self.store, image, manifest)?]));
                    }
                    Err(error) => return Err(error.into()),
                }
                let tree = match kept {
                    Some(tree) => tree,
                    None => self.fetcher.unpack_image(self.session, image, manifest)?,
                };
                self.session.replace_result(&key, tree.to_hex().as_bytes())?;
                ui.status("Unpacked", format!("image {image}, as locked"));
                tree
            }
        };
        let root = self.store.tree(&tree).ok_or(StoreError::Missing(tree))?;
        let variables = image_config(self.store, image, manifest)?.variables;
        Ok(ImagePlace { tree, root, variables, handed: None })
    }
}

impl Project {
    /// Tells of steps that call, in an image, what the project has and the image does not get: it is the image's own there, if
    /// anything. Whoever means that calls it by its path.
    pub(crate) fn warn_of_images(&self, lock: &Lock, ui: &Ui) {
        for member in &self.workspace.members {
            let left_out: Vec<&str> = member
                .tools
                .iter()
                .filter(|tool| !goes_into_images(lock.tool(tool.request.member.as_ref(), &tool.request.name)))
                .map(|tool| tool.request.name.as_str())
                .collect();
            for step in &member.steps {
                let Some(image) = &step.image else { continue };
                let written = match &step.run {
                    Run::Shell(text) => std::slice::from_ref(text),
                    Run::Exec(words) => words.as_slice(),
                };
                let inner = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/'));
                let mut words = written.iter().flat_map(|text| text.written.split(inner));
                let is = |word: &str, tool: &str| word == tool || is_python(word) && is_python(tool);
                let Some(word) = words.find(|word| left_out.iter().any(|tool| is(word, tool))) else { continue };
                let (line, column) = member.source.line_column(step.span.start);
                let place = format!("{}:{line}:{column}", member.source.path.display());
                let what = match is_python(word) && (member.python.is_some() || !member.python_profiles.is_empty()) {
                    true => "the interpreter of [tools] and the packages of [python] are",
                    false => "that of [tools] is",
                };
                let step = &step.name;
                ui.warning(&format!(
                    "step `{step}` ({place}) calls `{word}` in the image {image}: it is the image's own there, {what} not in it; take the step out of the image, or call `{word}` by its path there if it is what you mean"
                ));
            }
        }
    }

    /// The engine of this name on this machine.
    pub(crate) fn engine(&self, kind: EngineKind) -> Result<Engine, Failure> {
        let is_program = |path: &PathBuf| fs_err::metadata(path).is_ok_and(|m| m.is_file());
        let mut places = std::env::split_paths(&self.settings.path).map(|folder| folder.join(kind.name()));
        match places.find(is_program) {
            Some(program) => Ok(Engine { kind, program, environment: self.settings.engine_variables.clone() }),
            None => Err(Failure::new(Exit::Failed, format!("there is no `{}` on PATH", kind.name()))
                .hint("without `--engine` trainlock runs images itself")),
        }
    }

    /// Gives an image that the store has to an engine: what the engine knows it by.
    pub(super) fn handed_over(
        &self,
        engine: &Engine,
        image: &ImageReference,
        manifest: (Digest, u64),
        offline: bool,
        ui: &Ui,
    ) -> Result<String, Failure> {
        let parent = self.own_folder()?.join("oci");
        fs_err::create_dir_all(&parent)?;
        let ask = |words: &[&str]| {
            let mut command = std::process::Command::new(&engine.program);
            command.args(words).current_dir(&parent).env_clear().envs(&engine.environment);
            let output = command.stdin(std::process::Stdio::null()).output()?;
            match self.cancel().is_thrown() {
                true => Err(Failure::new(Exit::Interrupted, "interrupted")),
                false => Ok(output),
            }
        };
        let refused = |why: &str| {
            let mut failure = Failure::new(Exit::Failed, format!("{} did not take image {image}", engine.kind.name()));
            if let Some(Problem::Plain { causes, .. }) = failure.problems.first_mut() {
                causes.push(why.trim().to_owned());
            }
            failure
        };
        match engine.kind {
            // It is given the file system.
            EngineKind::Runc => return Ok(String::new()),
            // It takes images from nowhere but registries: by digest, which it verifies.
            EngineKind::Docker => {
                let pinned = image.pinned(&manifest.0);
                if ask(&["image", "inspect", "--format", "{{.Id}}", &pinned])?.status.success() {
                    return Ok(pinned);
                }
                if offline {
                    let why = "docker fetches images itself, does not have this one, and the network is off";
                    return Err(refused(why).hint(format!("while there is a network: docker pull {pinned}")));
                }
                ui.note("Fetching", format!("image {image}, by docker"));
                // With its own words of it kept out of the step's log.
                let pulled = ask(&["pull", "--quiet", &pinned])?;
                return if pulled.status.success() {
                    Ok(pinned)
                } else {
                    Err(refused(&String::from_utf8_lossy(&pulled.stderr)))
                };
            }
            EngineKind::Podman | EngineKind::Apptainer => {}
        }
        // podman calls an image by its folder, and wants that in lower case.
        let name = format!("trainlock-{}", manifest.0.short());
        let folder = parent.join(&name);
        if !folder.is_dir() {
            let temporary = tempfile::tempdir_in(&parent)?;
            image_layout(&self.store, image, manifest, temporary.path()).map_err(EquipError::from)?;
            // Another process may have been faster, with the same.
            if let Err(error) = fs_err::rename(temporary.path(), &folder)
                && !folder.is_dir()
            {
                return Err(error.into());
            }
        }
        if engine.kind == EngineKind::Apptainer {
            return Ok(folder.display().to_string());
        }
        let id = image_config_digest(&self.store, image, manifest).map_err(EquipError::from)?.to_hex();
        if ask(&["image", "exists", &id])?.status.success() {
            return Ok(id);
        }
        let output = ask(&["pull", "--quiet", &format!("oci:{name}")])?;
        // Its id is the digest of the configuration, which names the content of the layers.
        if output.status.success() && String::from_utf8_lossy(&output.stdout).trim() == id {
            return Ok(id);
        }
        Err(refused(&String::from_utf8_lossy(&output.stderr)))
    }

    /// The images of members' steps, each once, with the manifest for this machine.
    pub(crate) fn images<'l>(&self, lock: &'l Lock, members: &[usize]) -> Vec<(&'l ImageReference, (Digest, u64))> {
        let steps = members.iter().flat_map(|i| &self.workspace.members[*i].steps);
        let named: BTreeSet<&ImageReference> = steps.filter_map(|step| step.image.as_ref()).collect();
        let pins = lock.images.iter().filter(|pin| named.contains(&pin.reference));
        pins.filter_map(|pin| Some((&pin.reference, *pin.platforms.get(&Platform::host())?))).collect()
    }
}
