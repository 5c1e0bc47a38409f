//! Where packages of npm are looked for: found out when one is needed.

use super::EquipError;
use crate::settings::Settings;
use std::ffi::OsString;
use std::sync::OnceLock;
use trainlock_fetch::{NpmPlaces, NpmSettings};

/// The npm registries that this machine is configured for.
#[derive(Debug)]
pub(crate) struct Npm {
    places: NpmPlaces,
    path: OsString,
    found: OnceLock<Result<NpmSettings, String>>,
}

impl Npm {
    /// As the environment and npm's configuration say.
    pub(crate) fn new(settings: &Settings) -> Npm {
        Npm { places: settings.npm_places.clone(), path: settings.path.clone(), found: OnceLock::new() }
    }

    /// The registries; where nothing is configured, the one that npm asks then.
    pub(crate) fn settings(&self) -> Result<&NpmSettings, EquipError> {
        let found = self.found.get_or_init(|| match NpmSettings::find(&self.places) {
            Err(reason) if NpmSettings::is_missing(&reason) => {
                NpmSettings::find(&NpmPlaces { default: self.of_npm(), ..self.places.clone() })
            }
            found => found,
        });
        found.as_ref().map_err(|reason| EquipError::Npm(reason.clone()))
    }

    /// What npm itself says. It is asked at `/`: the address is the user's affair, not the project's.
    fn of_npm(&self) -> Option<String> {
        let mut command = std::process::Command::new("npm");
        command.args(["config", "get", "registry"]).env("PATH", &self.path).current_dir("/");
        let output = command.stdin(std::process::Stdio::null()).output().ok().filter(|o| o.status.success())?;
        String::from_utf8(output.stdout).ok().filter(|text| text.starts_with("http"))
    }
}
