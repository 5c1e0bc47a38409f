//! A limit of memory for all of a step's processes together.

use super::report::errno_name;
use fs_err as fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A control group of one step's own.
#[derive(Debug)]
pub(super) struct Cgroup {
    folder: PathBuf,
    unified: bool,
}

impl Cgroup {
    /// Makes one below trainlock's own, with this limit, and puts a process into it; or why that can't be.
    pub(super) fn new(limit: u64, pid: u32) -> Result<Cgroup, String> {
        let (own, unified) = own_group().ok_or_else(|| "no cgroup with the memory controller".to_owned())?;
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = own.join(format!("trainlock-{}-{number}", std::process::id()));
        let why = |what: &str, e: &std::io::Error| {
            let reason = e.raw_os_error().map_or_else(|| e.to_string(), errno_name);
            format!("{what} of a cgroup: {reason}")
        };
        fs::create_dir(&folder).map_err(|e| why("creation", &e))?;
        let group = Cgroup { folder, unified };
        let (name, swap) = if unified {
            ("memory.max", ("memory.swap.max", "0".to_owned()))
        } else {
            ("memory.limit_in_bytes", ("memory.memsw.limit_in_bytes", limit.to_string()))
        };
        write(&group.folder, name, &limit.to_string()).map_err(|e| why("limit", &e))?;
        // Where there is no swap there is no such file.
        let _ = write(&group.folder, swap.0, &swap.1);
        write(&group.folder, "cgroup.procs", &pid.to_string()).map_err(|e| why("use", &e))?;
        Ok(group)
    }

    /// Whether the kernel ended a process of it for want of memory.
    pub(super) fn killed(&self) -> bool {
        let name = if self.unified { "memory.events" } else { "memory.oom_control" };
        let text = fs::read_to_string(self.folder.join(name)).unwrap_or_default();
        text.lines().filter_map(|l| l.strip_prefix("oom_kill ")).any(|n| n.trim() != "0")
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A process that has just ended may be counted for a moment more.
        for _ in 0..100 {
            match fs::remove_dir(&self.folder) {
                Err(e) if e.raw_os_error() == Some(libc::EBUSY) => std::thread::yield_now(),
                _ => return,
            }
        }
    }
}

fn write(folder: &Path, name: &str, text: &str) -> std::io::Result<()> {
    use std::io::Write;
    // The file is the kernel's: it is never created.
    fs::OpenOptions::new().write(true).open(folder.join(name))?.write_all(text.as_bytes())
}

/// The folder of the group that this process is in, of the hierarchy that limits memory, and whether that is version 2.
fn own_group() -> Option<(PathBuf, bool)> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    find_group(&groups, &mounts).find(|(folder, unified)| {
        !unified
            || fs::read_to_string(folder.join("cgroup.subtree_control"))
                .is_ok_and(|c| c.split_whitespace().any(|c| c == "memory"))
    })
}

/// The candidates that the two files of /proc name, version 1 first: where both are there, it has the controller.
fn find_group<'a>(groups: &'a str, mounts: &'a str) -> impl Iterator<Item = (PathBuf, bool)> + 'a {
    [false, true].into_iter().filter_map(move |unified| {
        let path = groups.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            let right = if unified { controllers.is_empty() } else { controllers.split(',').any(|c| c == "memory") };
            right.then_some(path)
        })?;
        mounts.lines().find_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let mut left = left.split(' ').skip(3);
            let (root, point) = (left.next()?, left.next()?);
            let mut right = right.split(' ');
            let kind = right.next()?;
            let options = right.nth(1)?;
            let right =
                if unified { kind == "cgroup2" } else { kind == "cgroup" && options.split(',').any(|o| o == "memory") };
            let below = path.strip_prefix(root.trim_end_matches('/'))?;
            right.then(|| (Path::new(point).join(below.trim_start_matches('/')), unified))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_group_of_both_versions() {
        let both = "5:devices:/\n4:memory:/a/b\n0::/user.slice/x\n";
        let mounts = "36 35 0:30 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
                      37 35 0:31 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let found: Vec<_> = find_group(both, mounts).collect();
        assert_eq!(found[0], ("/sys/fs/cgroup/memory/a/b".into(), false));
        assert_eq!(found[1], ("/sys/fs/cgroup/unified/user.slice/x".into(), true));
        let inner = "36 35 0:30 /a /sys/fs/cgroup rw - cgroup cgroup rw,memory\n";
        assert_eq!(find_group("4:memory:/a/b", inner).next().unwrap().0, Path::new("/sys/fs/cgroup/b"));
        assert_eq!(find_group("4:memory:/c", inner).next(), None);
    }
}
