//! The environment that every step starts from.

use std::collections::BTreeMap;

/// Where a step's shell looks for programs, behind the project's own tools.
pub const STEP_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The variables that are the same on every machine. Nothing of the caller's environment is among
/// them; the folder-dependent ones (`HOME`, `TMPDIR`, `PATH`) are added by the stage.
///
/// `SOURCE_DATE_EPOCH` is 1980-01-01, the earliest time that zip files can hold and the one that
/// the store gives to all files.
pub(crate) fn base_variables() -> BTreeMap<String, String> {
    [
        ("LANG", "C.UTF-8"),
        ("LC_ALL", "C.UTF-8"),
        ("TZ", "UTC"),
        ("SOURCE_DATE_EPOCH", "315532800"),
        ("PYTHONHASHSEED", "0"),
        ("PYTHONDONTWRITEBYTECODE", "1"),
        ("PYTHONUNBUFFERED", "1"),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect()
}
