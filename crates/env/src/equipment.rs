//! What a member's steps are equipped with: its tools, the packages that its Python imports, or an image.
//!
//! What a step's key needs of it (versions and digests) is known from the lock and the machine at once. Where a fetched
//! program or the installed packages lie is known only when they are needed and have been brought: it is set once.

use crate::python::{Environment, Selected};
use crate::tools::HostTool;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use trainlock_types::{Digest, ImageReference, Name, is_python};

/// All that one member's steps have besides their inputs.
#[derive(Debug, Default)]
pub struct Equipment {
    /// The tools, in the order of the manifest.
    pub tools: Vec<(Name, Tool)>,
    /// The python packages; none if the member asks for none.
    pub packages: Option<Packages>,
    /// The image that is the root file system; none for this machine's own.
    pub image: Option<Image>,
}

/// Whose equipment it is: a member's steps with the same image, or those without one.
pub type Outfit = (Name, Option<ImageReference>);

/// A container image.
#[derive(Debug)]
pub struct Image {
    /// As the manifest names it.
    pub reference: ImageReference,
    /// The digest of its manifest for this machine.
    pub digest: Digest,
    /// Its file system, once it was unpacked.
    pub place: OnceLock<ImagePlace>,
}

/// An image's file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagePlace {
    /// The tree of the store that it is.
    pub tree: Digest,
    /// The folder that is its root.
    pub root: PathBuf,
    /// The environment variables that it sets.
    pub variables: Vec<(String, String)>,
    /// What the engine knows it by that steps are handed to, if there is one.
    pub handed: Option<String>,
}

impl ImagePlace {
    /// The folders that its programs are looked for in.
    pub fn path(&self) -> &str {
        let path = self.variables.iter().rev().find(|(name, _)| name == "PATH");
        path.map_or(crate::STEP_PATH, |(_, value)| value)
    }
}

/// A tool.
#[derive(Debug)]
pub enum Tool {
    /// A program of this machine.
    Host(HostTool),
    /// A program that was fetched.
    Fetched(FetchedTool),
}

/// A program that was fetched.
#[derive(Debug)]
pub struct FetchedTool {
    /// Its version.
    pub version: String,
    /// The digest that it is locked by: the program's own, else its file's.
    pub digest: Digest,
    /// Where it lies, once it was brought.
    pub place: OnceLock<Place>,
    /// The machine's program of the same version, where that serves in its place.
    pub stand_in: OnceLock<HostTool>,
}

/// Where a fetched program lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The program.
    pub program: PathBuf,
    /// The folder of the store that holds it and all that came with it.
    pub tree: PathBuf,
}

/// The python packages of a member.
#[derive(Debug)]
pub struct Packages {
    /// Those that are for this machine, sorted by name.
    pub selected: Vec<Selected>,
    /// Those that come from one index alone, each as `<package> <name of the index>`.
    pub index: Vec<String>,
    /// Where they are installed, once they were.
    pub environment: OnceLock<Environment>,
}

impl Equipment {
    /// Whether all of it can be used at once.
    pub fn is_ready(&self) -> bool {
        self.tools.iter().all(|(_, tool)| tool.program().is_some())
            && self.packages.as_ref().is_none_or(|packages| packages.environment.get().is_some())
            && self.image.as_ref().is_none_or(|image| image.place.get().is_some())
    }

    /// The interpreter, if there is one among the tools.
    pub fn python(&self) -> Option<&Tool> {
        self.tools.iter().find(|(name, _)| is_python(name)).map(|(_, tool)| tool)
    }

    /// What a step's key says of it: a name and a value each.
    pub fn facts(&self) -> Vec<(String, String)> {
        let tools = self.tools.iter().map(|(name, tool)| (format!("tool:{name}"), tool.fact()));
        let packages = self.packages.iter().flat_map(|packages| &packages.selected);
        let package =
            |p: &Selected| (format!("package:{}", p.name), format!("{} ({})", p.version, p.file.sha256.short()));
        let image = self.image.iter().map(|image| ("image".to_owned(), format!("sha256:{}", image.digest)));
        tools.chain(packages.map(package)).chain(image).collect()
    }

    /// The file system of the image, once it is there.
    pub fn image(&self) -> Option<&ImagePlace> {
        self.image.as_ref()?.place.get()
    }

    /// The installed packages, once they are.
    pub fn environment(&self) -> Option<&Environment> {
        self.packages.as_ref()?.environment.get()
    }
}

impl Tool {
    /// Its version.
    pub fn version(&self) -> &str {
        match self {
            Tool::Host(tool) => &tool.version,
            Tool::Fetched(tool) => &tool.version,
        }
    }

    /// What a step's key says of it.
    fn fact(&self) -> String {
        match self {
            Tool::Host(tool) => tool.version.clone(),
            Tool::Fetched(tool) => format!("{} ({})", tool.version, tool.digest.short()),
        }
    }

    /// The program; none for a fetched one that was not brought yet.
    pub fn program(&self) -> Option<&Path> {
        match self {
            Tool::Host(tool) => Some(&tool.program),
            Tool::Fetched(tool) => {
                let place = tool.place.get().map(|place| place.program.as_path());
                place.or_else(|| tool.stand_in.get().map(|host| host.program.as_path()))
            }
        }
    }

    /// What a sandbox must show for it to run; see [`HostTool::shown`].
    pub fn shown(&self, private: &[&Path]) -> Vec<PathBuf> {
        match self {
            Tool::Host(tool) => tool.shown(private),
            Tool::Fetched(tool) => match (tool.place.get(), tool.stand_in.get()) {
                (Some(place), _) => vec![place.tree.clone()],
                (None, Some(host)) => host.shown(private),
                (None, None) => Vec::new(),
            },
        }
    }
}
