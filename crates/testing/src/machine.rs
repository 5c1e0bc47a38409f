//! What tests take from the machine that they run on.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

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

/// Writes a program: a script, say. A process of its own does it: what this process has open for writing, another thread's
/// new process has as well for a moment, and a program that anybody has open for writing is not run ("Text file busy").
///
/// # Panics
/// If it can't be written.
pub fn write_program(at: &Path, content: impl AsRef<[u8]>) {
    let mut child = Command::new("install")
        .args(["-m", "755", "/dev/stdin"])
        .arg(at)
        .stdin(Stdio::piped())
        .spawn()
        .expect("`install` starts");
    let input = child.stdin.take();
    input.expect("a pipe").write_all(content.as_ref()).expect("`install` reads");
    assert!(child.wait().expect("`install` ends").success(), "{}", at.display());
}

/// Copies a program, as [`write_program`] writes one.
///
/// # Panics
/// If it can't be copied.
pub fn copy_program(from: impl AsRef<Path>, to: &Path) {
    let copied = Command::new("install").args(["-m", "755"]).arg(from.as_ref()).arg(to).status();
    assert!(copied.expect("`install` starts").success(), "{}", to.display());
}
