//! What makes the same program give the same bits on another machine, and how far that goes.
//!
//! Levels are data ([`SWITCHES`]); what they mean is resolved once and locked. Whether it took effect is asked of the
//! libraries themselves ([`judge`]). Where no switch helps, the numeric class says so.

mod check;
mod class;
mod cpu;
mod levels;
mod libraries;
mod lint;

pub use check::{SELF_CHECK, judge, unasked};
pub use class::{elsewhere, numeric_class};
pub use cpu::missing_features;
pub use levels::{Resolved, SWITCHES, Switch, cost, reference, resolve};
pub use libraries::{HostLibrary, host_libraries};
pub use lint::{Finding, RULES, Rule, lint};

/// The module that seeds the languages' global generators, for `seed-globals = true`: put into a folder that stands
/// first on PYTHONPATH as `sitecustomize.py`.
pub const SEED_GLOBALS: &str = include_str!("sitecustomize.py");

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::process::Command;

    fn python(path: &Path, code: &str) -> String {
        let mut command = Command::new("python3");
        command.args(["-c", code]).env("PYTHONPATH", path).env("TRAINLOCK_SEED", "7");
        let output = command.output().expect("python3 runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    /// The generators of a process and of its forked children give the same each time, and no two of them the same.
    #[test]
    fn seeded_with_all_its_children() {
        let folder = tempfile::tempdir().unwrap();
        fs_err::write(folder.path().join("sitecustomize.py"), SEED_GLOBALS).unwrap();
        let code = "
import os, random
print(random.random(), flush=True)
for child in range(3):
    if os.fork() == 0:
        if os.fork() == 0:
            os.write(1, f'grandchild {child} {random.random()}\\n'.encode())
            os._exit(0)
        os.wait()
        os.write(1, f'child {child} {random.random()}\\n'.encode())
        os._exit(0)
    os.wait()
print(random.random())
";
        let first = python(folder.path(), code);
        assert_eq!(first, python(folder.path(), code));
        let numbers: std::collections::BTreeSet<&str> =
            first.lines().filter_map(|line| line.split(' ').next_back()).collect();
        assert_eq!(numbers.len(), 8, "{first}");
    }

    /// torch is asked what it chose, and a choice against the level is found.
    #[test]
    fn what_torch_chose_is_judged() {
        let folder = tempfile::tempdir().unwrap();
        let torch = "
class cpu:
    get_cpu_capability = staticmethod(lambda: 'AVX512')
class backends:
    cpu = cpu
def get_num_threads():
    return 1
";
        fs_err::write(folder.path().join("torch.py"), torch).unwrap();
        let printed = python(folder.path(), SELF_CHECK);
        assert!(printed.contains("AVX512"), "{printed}");
        let wanted =
            |capability: &str| [("ATEN_CPU_CAPABILITY".to_owned(), capability.to_owned())].into_iter().collect();
        let problems = judge(&wanted("avx2"), &printed).unwrap();
        assert!(problems.iter().any(|problem| problem.contains("torch")), "{problems:?}");
        assert_eq!(judge(&wanted("avx512"), &printed).unwrap(), Vec::<String>::new());
    }
}
