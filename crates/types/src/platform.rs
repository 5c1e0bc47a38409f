//! The platforms that a lock can name.

use serde::Serialize;
use std::fmt;
use std::str::FromStr;

/// An operating system and a processor family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Platform {
    /// Linux on 64-bit Arm.
    #[serde(rename = "linux-aarch64")]
    LinuxAarch64,
    /// Linux on x86-64.
    #[serde(rename = "linux-x86_64")]
    LinuxX86_64,
    /// macOS on Apple's processors.
    #[serde(rename = "macos-aarch64")]
    MacosAarch64,
    /// macOS on Intel's processors.
    #[serde(rename = "macos-x86_64")]
    MacosX86_64,
}

/// A platform that trainlock does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown platform `{0}`")]
pub struct UnknownPlatform(pub String);

impl Platform {
    /// All of them, sorted.
    pub const ALL: [Platform; 4] =
        [Platform::LinuxAarch64, Platform::LinuxX86_64, Platform::MacosAarch64, Platform::MacosX86_64];

    /// Those locked for when `[workspace] platforms` says nothing.
    pub const DEFAULT: [Platform; 3] = [Platform::LinuxAarch64, Platform::LinuxX86_64, Platform::MacosAarch64];

    /// The one that this program was built for.
    pub const fn host() -> Platform {
        match (cfg!(target_os = "macos"), cfg!(target_arch = "aarch64")) {
            (false, false) => Platform::LinuxX86_64,
            (false, true) => Platform::LinuxAarch64,
            (true, true) => Platform::MacosAarch64,
            (true, false) => Platform::MacosX86_64,
        }
    }

    /// The name, for example `linux-x86_64`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Platform::LinuxAarch64 => "linux-aarch64",
            Platform::LinuxX86_64 => "linux-x86_64",
            Platform::MacosAarch64 => "macos-aarch64",
            Platform::MacosX86_64 => "macos-x86_64",
        }
    }
}

impl FromStr for Platform {
    type Err = UnknownPlatform;

    fn from_str(text: &str) -> Result<Platform, UnknownPlatform> {
        Platform::ALL.into_iter().find(|p| p.as_str() == text).ok_or_else(|| UnknownPlatform(text.to_owned()))
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
