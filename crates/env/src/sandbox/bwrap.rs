//! The second backend: bwrap makes the namespaces and mounts, from the same plan, and trainlock's init runs inside.

use super::channel::{Job, Mode, Mount};
use super::{INIT, Sandbox, SetupError, USER, sys};
use fs_err as fs;
use std::ffi::{OsStr, OsString};
use std::path::Path;

/// The program. It is looked for where the system keeps it, not on a PATH that a project may have changed.
const PROGRAMS: [&str; 3] = ["/usr/bin/bwrap", "/usr/local/bin/bwrap", "/run/current-system/sw/bin/bwrap"];

/// Where the init's libraries stand in an image.
const LIBRARIES: &str = "/trainlock/.lib";

/// What the init's outer process executes, to find itself again inside.
pub(super) fn job(sandbox: &Sandbox, mounts: &[Mount]) -> Result<Job, SetupError> {
    let program = PROGRAMS
        .iter()
        .find(|p| fs::metadata(p).is_ok())
        .ok_or_else(|| SetupError { operation: "find bwrap".to_owned(), source: rustix::io::Errno::NOENT.into() })?;
    let failed = |operation: &str| {
        let operation = operation.to_owned();
        move |source| SetupError { operation, source }
    };
    let mut words: Vec<OsString> = [
        "--unshare-user",
        "--unshare-pid",
        "--unshare-ipc",
        "--unshare-uts",
        "--unshare-cgroup-try",
        "--as-pid-1",
        "--die-with-parent",
        "--clearenv",
    ]
    .map(OsString::from)
    .to_vec();
    if !sandbox.network {
        words.push("--unshare-net".into());
    }
    let user = USER.to_string();
    words.extend(["--uid", &user, "--gid", &user, "--hostname", &sandbox.hostname].map(OsString::from));
    let mut put = |option: &str, operands: [&OsStr; 2]| {
        words.push(option.into());
        words.extend(operands.into_iter().filter(|o| !o.is_empty()).map(OsStr::to_owned));
    };
    let none = OsStr::new("");
    let written = sandbox.stage.join("etc");
    fs::create_dir_all(&written).map_err(failed("write the sandbox's files"))?;
    for mount in mounts {
        match mount {
            Mount::Folder { to } => put("--dir", [to, none]),
            Mount::File { to, content } => {
                let name = Path::new(to).file_name().unwrap_or(to);
                let file = written.join(name);
                fs::write(&file, content).map_err(failed("write the sandbox's files"))?;
                put("--ro-bind", [file.as_os_str(), to]);
            }
            Mount::Link { to, target } => put("--symlink", [target, to]),
            Mount::Bind { from, to, mode, .. } => {
                let option = match mode {
                    Mode::ReadOnly => "--ro-bind",
                    Mode::Writable => "--bind",
                    Mode::Device => "--dev-bind",
                };
                put(option, [from, to]);
            }
            Mount::Memory { to } => {
                put("--perms", [OsStr::new("1777"), none]);
                put("--tmpfs", [to, none]);
            }
            Mount::Processes { to } => {
                put("--proc", [to, none]);
                put("--remount-ro", [to, none]);
            }
        }
    }
    let own = std::env::current_exe().map_err(failed("find trainlock's own program"))?;
    put("--ro-bind", [own.as_os_str(), OsStr::new(INIT)]);
    // An image has another C library, or none: the init's own come with it, and are its loader's alone to find.
    let mut loader = None;
    for library in sandbox.root.iter().flat_map(|_| sys::own_libraries()) {
        let name = library.file_name().unwrap_or_default();
        let to = Path::new(LIBRARIES).join(name);
        put("--ro-bind", [library.as_os_str(), to.as_os_str()]);
        if name.as_encoded_bytes().starts_with(b"ld-") {
            loader = Some(to);
        }
    }
    put("--remount-ro", [OsStr::new("/"), none]);
    put("--chdir", [OsStr::new("/"), none]);
    match &loader {
        Some(loader) => {
            put("--", [loader.as_os_str(), OsStr::new("--library-path")]);
            put(LIBRARIES, [OsStr::new(INIT), none]);
        }
        None => put("--", [OsStr::new(INIT), none]),
    }
    Ok(Job::Bwrap { program: program.into(), arguments: words })
}
