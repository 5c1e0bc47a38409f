//! Builds of the Python interpreter: which there are, brought, and what serves where one can't be had.

use super::{EquipError, Workshop, host_python, is_build};
use crate::exit::{Exit, Failure};
use crate::lacking::Lacking;
use crate::project::Project;
use crate::ui::Ui;
use trainlock_env::python::{PythonError, compile_library, list_builds};
use trainlock_env::{HostTool, HostTools, Place};
use trainlock_fetch::{FetchError, PythonBuild, Want, Wanted, python_builds};
use trainlock_lock::{HashFrom, ToolPin};
use trainlock_store::{Link, place_tree};
use trainlock_types::{
    Digest, FetchedTool, PinnedFile, Platform, RelPath, SourceUrl, ToolFrom, ToolProvider, ToolRequest,
};

/// Builds with what is stated of them, and who states it.
type Stated = (Vec<(PythonBuild, Digest)>, HashFrom);

/// What is known of which builds there are.
pub(crate) enum Builds {
    /// These.
    Listed(Vec<PythonBuild>),
    /// Nothing, and why not.
    Unlisted(&'static str),
    /// Nothing: the list did not come.
    Unreachable(FetchError),
    /// Nobody is there to be asked.
    NotAsked,
    /// They are not to be fetched.
    Never,
}

impl Workshop<'_> {
    /// The builds that a request is locked to; none where the machine's interpreter serves: it is so wanted, nothing says
    /// which builds there are, or they can't be reached, which is told.
    pub(crate) fn python_builds(
        &self,
        request: &ToolRequest,
        resolver: Option<&ToolPin>,
        ui: &Ui,
    ) -> Result<Option<Stated>, EquipError> {
        let told = |why: &str| {
            ui.note("Using", format!("the {} of this machine: {why}", request.name));
            Ok(None)
        };
        let builds = match self.list_of_builds(resolver)? {
            Builds::Listed(builds) => builds,
            Builds::Unlisted(why) => return told(why),
            Builds::Unreachable(_) => return told("the list that UV_PYTHON_DOWNLOADS_JSON_URL names can't be read"),
            Builds::NotAsked => {
                return told(
                    "nothing says which builds of it there are (`uv = \"*\"` in [tools] does, or UV_PYTHON_DOWNLOADS_JSON_URL)",
                );
            }
            Builds::Never => return Ok(None),
        };
        match self.fetcher.stated_builds(request, &builds, self.python.mirror.as_ref()) {
            Ok(Some((builds, true))) => Ok(Some((builds, HashFrom::Index))),
            Ok(Some((builds, false))) => Ok(Some((builds, HashFrom::Publisher))),
            Ok(None) => told(&format!("there is no build that satisfies `{}`", request.version)),
            Err(_) => told("the published builds of Python can't be reached"),
        }
    }

    /// The builds that there are, as the list says that the user names, else `resolver`.
    pub(crate) fn list_of_builds(&self, resolver: Option<&ToolPin>) -> Result<Builds, EquipError> {
        if self.python.never {
            return Ok(Builds::Never);
        }
        if self.offline {
            return Ok(Builds::Unlisted("which builds of it there are is asked with a network only"));
        }
        let text = match (&self.python.list, resolver) {
            (Some(list), _) => {
                let url = url::Url::parse(list).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
                match url {
                    Some(url) => match self.fetcher.text("the list of builds of Python", &url) {
                        Ok(text) => text,
                        Err(error) => return Ok(Builds::Unreachable(error)),
                    },
                    None => match fs_err::read_to_string(list.strip_prefix("file://").unwrap_or(list)) {
                        Ok(text) => text,
                        Err(_) => {
                            let why = "the list that UV_PYTHON_DOWNLOADS_JSON_URL names can't be read";
                            return Ok(Builds::Unlisted(why));
                        }
                    },
                }
            }
            (None, Some(uv)) if uv.artifacts.contains_key(&Platform::host()) => {
                let place = self.tool(uv)?;
                let scratch = self.session.work_dir("builds")?;
                let listed = list_builds(&place.program, &scratch);
                self.session.discard(&scratch)?;
                match listed {
                    Ok(text) => text,
                    // One of the machine's own choosing may not know the command.
                    Err(PythonError::Uv(_)) => return Ok(Builds::Unlisted("uv lists no builds of Python")),
                    Err(source) => return Err(EquipError::Python { what: "list the builds of Python", source }),
                }
            }
            (None, _) => return Ok(Builds::NotAsked),
        };
        let none = Builds::Unlisted("what lists the builds of Python is no such list");
        Ok(python_builds(&text).map_or(none, Builds::Listed))
    }

    /// A locked build in its place, or the machine's interpreter of exactly its version where that can't be had. If there is one, a build
    /// that has to be fetched is asked for once: nobody waits for a server that is not there.
    pub(super) fn build_or_host(
        &self,
        pin: &ToolPin,
        host: &mut HostTools,
        request: &ToolRequest,
    ) -> Result<Result<Place, HostTool>, EquipError> {
        let (mut stand_in, version) = (None, pin.version.to_string());
        if !self.has_tool(pin)? {
            stand_in = host_python(host, request, &version).ok();
        }
        if let Some(host) = &stand_in {
            let fetcher = self.fetcher.impatient();
            match (Workshop { fetcher: &fetcher, ..*self }).tool(pin) {
                Ok(place) => return Ok(Ok(place)),
                Err(EquipError::Fetch(error)) if error.is_unreachable() => return Ok(Err(host.clone())),
                // What came and is not what is locked is no reason to look elsewhere.
                Err(error) if error.exit() != Exit::Failed => return Err(error),
                // Something answered: it may be worth waiting for.
                Err(_) => {}
            }
        }
        match self.tool(pin) {
            Err(error) if error.exit() == Exit::Failed => match stand_in {
                Some(host) => Ok(Err(host)),
                None => host_python(host, request, &version).map(Err).map_err(|_| error),
            },
            other => other.map(Ok),
        }
    }

    /// Puts the tree of a build that the store has into the store, with its standard library compiled: steps can't write into it.
    pub(super) fn tree_of_build(&self, file: &PinnedFile, program: &RelPath) -> Result<Digest, EquipError> {
        let tree = self.fetcher.tree_of_build(self.session, &file.file, (file.sha256, file.size))?;
        let scratch = self.session.work_dir("build")?;
        let whole = scratch.join("build");
        place_tree(self.store, &tree, &whole, Link::Auto)?;
        let compiled = match compile_library(&whole, program, &scratch) {
            true => self.session.take_tree(&whole)?.digest,
            false => tree,
        };
        self.session.discard(&scratch)?;
        Ok(compiled)
    }

    /// Brings a locked build.
    pub(super) fn bring_build(&self, pin: &ToolPin, file: &PinnedFile) -> Result<(), EquipError> {
        let published = SourceUrl::parse(&file.file).map_err(|error| EquipError::Index(error.to_string()))?;
        let mirror = self.python.mirror.as_ref();
        let sources = vec![self.fetcher.build_source(&published, mirror)];
        let content = Wanted::File { sha256: file.sha256, size: file.size };
        let want = Want { name: pin.name.to_string(), sources, content };
        let brought = self.fetcher.bring_all(self.session, &[want]).into_iter().collect::<Result<(), _>>();
        Ok(brought.map_err(|error| self.fetcher.without_mirror(error, mirror))?)
    }
}

impl Project {
    /// A fetched tool in its place; of a build of Python that can't be had, the machine's interpreter of exactly its version.
    pub(super) fn tool_or_host(
        &self,
        workshop: &Workshop<'_>,
        pin: &ToolPin,
        ui: &Ui,
    ) -> Result<Result<Place, HostTool>, Failure> {
        let failed = |error: EquipError| match pin.artifacts.get(&Platform::host()) {
            Some(artifact) if error.is_offline() => vec![Lacking::tool(pin, &artifact.file)].into(),
            _ => Failure::from(error),
        };
        if !is_build(pin) {
            return workshop.tool(pin).map(Ok).map_err(failed);
        }
        let request = ToolRequest {
            member: pin.member.clone(),
            name: pin.name.clone(),
            version: pin.request.clone(),
            requirement: semver::VersionReq::STAR,
            provider: ToolProvider::Fetched(FetchedTool::new(ToolFrom::Python)),
            platforms: Vec::new(),
        };
        let mut tools = HostTools::new(self.settings.path.clone(), self.own_folder()?.join("tools.json"));
        let found = workshop.build_or_host(pin, &mut tools, &request).map_err(failed)?;
        if found.is_err() {
            ui.note("Using", format!("{} {} of this machine: the locked build can't be had", pin.name, pin.version));
        }
        Ok(found)
    }
}
