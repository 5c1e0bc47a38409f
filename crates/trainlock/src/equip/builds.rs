//! Builds of the Python interpreter: which there are, brought, and what serves where one can't be had.

use super::{EquipError, Workshop, host_python, is_build};
use crate::exit::{Exit, Failure};
use crate::project::Project;
use crate::ui::Ui;
use trainlock_env::python::{PythonError, list_builds};
use trainlock_env::{HostTool, HostTools, Place};
use trainlock_fetch::{PythonBuild, Want, Wanted, python_builds};
use trainlock_lock::{HashFrom, ToolPin};
use trainlock_types::{Digest, FetchedTool, PinnedFile, Platform, SourceUrl, ToolFrom, ToolProvider, ToolRequest};

/// Builds with what is stated of them, and who states it.
type Stated = (Vec<(PythonBuild, Digest)>, HashFrom);

impl Workshop<'_> {
    /// The builds that a request is locked to; none where the machine's interpreter serves: it is so wanted, nothing says
    /// which builds there are, or they can't be reached, which is told.
    pub(crate) fn python_builds(
        &self,
        request: &ToolRequest,
        resolver: Option<&ToolPin>,
        ui: &Ui,
    ) -> Result<Option<Stated>, EquipError> {
        if self.python.never || self.offline {
            return Ok(None);
        }
        let told = |why: &str| {
            ui.note("Using", format!("the {} of this machine: {why}", request.name));
            Ok(None)
        };
        let text = match (&self.python.list, resolver) {
            (Some(list), _) => {
                let url = url::Url::parse(list).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
                let text = match url {
                    Some(url) => self.fetcher.text("the list of builds of Python", &url).ok(),
                    None => fs_err::read_to_string(list.strip_prefix("file://").unwrap_or(list)).ok(),
                };
                match text {
                    Some(text) => text,
                    None => return told("the list that UV_PYTHON_DOWNLOADS_JSON_URL names can't be read"),
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
                    Err(PythonError::Uv(_)) => return told("uv lists no builds of Python"),
                    Err(source) => return Err(EquipError::Python { what: "list the builds of Python", source }),
                }
            }
            (None, _) => return Ok(None),
        };
        let Some(builds) = python_builds(&text) else { return told("what lists the builds of Python is no such list") };
        match self.fetcher.stated_builds(request, &builds, self.python.mirror.as_ref()) {
            Ok(Some((builds, true))) => Ok(Some((builds, HashFrom::Index))),
            Ok(Some((builds, false))) => Ok(Some((builds, HashFrom::Publisher))),
            Ok(None) => told(&format!("there is no build that satisfies `{}`", request.version)),
            Err(_) => told("the published builds of Python can't be reached"),
        }
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
        let error = match workshop.tool(pin) {
            Ok(place) => return Ok(Ok(place)),
            Err(error) => error,
        };
        // What came and is not what is locked is no reason to look elsewhere.
        if !is_build(pin) || error.exit() != Exit::Failed {
            return Err(error.into());
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
        let Ok(host) = host_python(&mut tools, &request, &pin.version.to_string()) else { return Err(error.into()) };
        ui.note("Using", format!("{} {} of this machine: the locked build can't be had", pin.name, pin.version));
        Ok(Err(host))
    }
}
