//! A build of the Python interpreter, made of the one that the machine has.

use std::path::Path;
use std::process::Command;

/// Packs the machine's interpreter as a build is packed: below `python/`, `python3` a link, and descriptions of terminals in folders
/// whose names differ in case alone. It is started by a script, which finds its library where that lies.
const PACK: &str = r##"
import io, os, sys, sysconfig, tarfile
line = "%d.%d" % sys.version_info[:2]
stdlib = sysconfig.get_path("stdlib")
out = tarfile.open(sys.argv[1], "w:gz", compresslevel=1)
def text(name, data, mode=0o755):
    info = tarfile.TarInfo("python/" + name); info.size = len(data); info.mode = mode
    out.addfile(info, io.BytesIO(data))
def link(name, to):
    info = tarfile.TarInfo("python/" + name); info.type = tarfile.SYMTYPE; info.linkname = to
    out.addfile(info)
real = os.path.realpath(sys.executable)
out.add(real, "python/bin/.interpreter")
text("bin/python" + line, b"""#!/bin/bash
here=$(dirname "$(readlink -f "$0")")
export LD_LIBRARY_PATH=$here/../lib
exec -a "$0" "$here/.interpreter" "$@"
""")
link("bin/python3", "python" + line)
library = os.path.join(sysconfig.get_config_var("LIBDIR") or "", sysconfig.get_config_var("INSTSONAME") or "")
if library.endswith(".so.1.0") and os.path.isfile(library):
    out.add(os.path.realpath(library), "python/lib/" + os.path.basename(library))
skip = {"site-packages", "dist-packages", "test", "tests", "__pycache__", "idlelib", "lib2to3", "ensurepip", "pydoc_data"}
def wanted(info):
    name = os.path.basename(info.name)
    return None if name in skip or name.startswith("config-") else info
out.add(stdlib, "python/lib/python" + line, filter=wanted)
text("lib/python" + line + "/made-for-the-test", b"")
text("share/terminfo/A/a", b"one", 0o644)
text("share/terminfo/a/a", b"two", 0o644)
out.close()
print("%d.%d.%d" % sys.version_info[:3])
"##;

/// The machine's interpreter in an archive as builds of it come in (`.tar.gz`), made in this folder, and its version. Its standard library
/// has a file `made-for-the-test`.
///
/// # Panics
/// If there is no `python3` that can pack itself.
pub fn packed_interpreter(at: &Path) -> (Vec<u8>, String) {
    let file = at.join("build.tar.gz");
    let output = Command::new("python3").args(["-I", "-c", PACK]).arg(&file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (fs_err::read(file).unwrap(), String::from_utf8(output.stdout).unwrap().trim().to_owned())
}
