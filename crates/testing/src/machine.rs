//! What tests take from the machine that they run on.

use std::process::Command;

/// Says that something was not tested. Where everything must be (`TRAINLOCK_REQUIRE_REAL=1`) and it was needed, that is
/// a failure.
///
/// # Panics
/// In that case.
#[track_caller]
pub fn skipped(why: &str, needed: bool) {
    #[expect(clippy::disallowed_methods, reason = "a switch of the tests themselves")]
    let required = std::env::var_os("TRAINLOCK_REQUIRE_REAL").is_some_and(|value| value == "1");
    assert!(!(required && needed), "{why}");
    #[expect(clippy::print_stderr, reason = "whoever runs the tests should know what they did not do")]
    {
        eprintln!("skipped: {why}");
    }
}

/// Gives a command what this machine has for reaching the package index that it is configured for.
pub fn as_configured(command: &mut Command) {
    #[expect(clippy::disallowed_methods, reason = "the real index is reached as the machine says")]
    let all = std::env::vars_os();
    let is_for = |name: &str| {
        let lower = name.to_ascii_lowercase();
        ["pip_", "uv_", "ssl_cert"].iter().any(|p| lower.starts_with(p)) || lower.ends_with("_proxy")
    };
    command.envs(all.filter(|(name, _)| name.to_str().is_some_and(|name| is_for(name) || name == "HOME")));
}
