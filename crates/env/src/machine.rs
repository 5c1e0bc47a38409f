//! Facts of this machine, for the run record.

use serde::{Deserialize, Serialize};
use std::path::Path;

/// What a run record says of the machine that it ran on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Machine {
    /// The platform's name, for example `linux-x86_64`.
    pub platform: String,
    /// The processor's model as it names itself; empty where unknown.
    pub cpu: String,
    /// How many processors this process may use.
    pub cpus: usize,
    /// Bytes of memory; 0 where unknown.
    pub memory: u64,
    /// The GPUs' models, as their driver names them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<String>,
    /// The kernel's name and release.
    pub kernel: String,
    /// The C library that the machine's programs use, for example `glibc 2.36`; empty where unknown.
    pub libc: String,
}

impl Machine {
    /// The C library alone, as [`Machine::libc`] names it.
    pub fn libc_here() -> String {
        libc_name()
    }

    /// Reads the facts; what can't be had is left empty.
    pub fn here() -> Machine {
        let uname = rustix::system::uname();
        let proc = |name: &str| fs_err::read_to_string(format!("/proc/{name}")).unwrap_or_default();
        let field = |text: &str, key: &str| {
            let line = text.lines().find(|l| l.starts_with(key)).unwrap_or_default();
            line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let kib = field(&proc("meminfo"), "MemTotal");
        Machine {
            platform: trainlock_types::Platform::host().to_string(),
            cpu: field(&proc("cpuinfo"), "model name"),
            cpus: cpus(),
            memory: kib.split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 1024,
            gpus: gpus(Path::new("/proc/driver/nvidia/gpus")),
            kernel: format!("{} {}", uname.sysname().to_string_lossy(), uname.release().to_string_lossy()),
            libc: libc_name(),
        }
    }
}

/// The models in the files `*/information` that NVIDIA's driver keeps, sorted by their bus.
fn gpus(folder: &Path) -> Vec<String> {
    let mut files: Vec<_> = fs_err::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
    files.sort();
    let model = |file: &std::path::PathBuf| {
        let text = fs_err::read_to_string(file.join("information")).ok()?;
        text.lines().find_map(|l| l.strip_prefix("Model:")).map(|model| model.trim().to_owned())
    };
    files.iter().filter_map(model).collect()
}

/// How many processors this process may use.
pub(crate) fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// What this process gives back of its memory it keeps for itself, with glibc: else much of what one thread fetches and another
/// one writes is taken from the system anew for each file.
pub fn keep_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for (what, bytes) in
        [(libc::M_MMAP_THRESHOLD, 32 << 20), (libc::M_TRIM_THRESHOLD, 1 << 30), (libc::M_TOP_PAD, 1 << 20)]
    {
        // SAFETY: mallopt only sets numbers, and no other thread is there yet that could read them.
        #[expect(unsafe_code, reason = "glibc is told so by this call alone")]
        unsafe {
            libc::mallopt(what, bytes)
        };
    }
}

/// The version of the C library; only glibc tells it at run time.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn libc_name() -> String {
    // SAFETY: gnu_get_libc_version has no preconditions and returns a static C string.
    #[expect(unsafe_code, reason = "glibc tells its version by this call alone")]
    let version = unsafe { std::ffi::CStr::from_ptr(libc::gnu_get_libc_version()) };
    format!("glibc {}", version.to_string_lossy())
}

/// The version of the C library; only glibc tells it at run time.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn libc_name() -> String {
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_machine_says_of_itself() {
        let machine = Machine::here();
        assert!(machine.cpus > 0 && !machine.kernel.is_empty() && !machine.platform.is_empty());
        let folder = tempfile::tempdir().unwrap();
        for (bus, model) in [("0000:0b:00.0", "NVIDIA B"), ("0000:0a:00.0", "NVIDIA A")] {
            fs_err::create_dir(folder.path().join(bus)).unwrap();
            fs_err::write(folder.path().join(bus).join("information"), format!("Model: \t {model}\nIRQ: 1\n")).unwrap();
        }
        assert_eq!(gpus(folder.path()), ["NVIDIA A", "NVIDIA B"]);
        assert!(gpus(Path::new("/no/such/folder")).is_empty());
    }
}
