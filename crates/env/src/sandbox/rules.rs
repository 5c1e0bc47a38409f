//! Landlock: what a process forbids itself.

use super::channel::Rules;
use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope,
};
use std::ffi::OsString;
use std::io::{Error, ErrorKind};

/// The newest rights that are known here: of a kernel that knows fewer, as many as it has.
const KNOWN: ABI = ABI::V6;

/// Applies the rules to this process and all that it starts. Where everything may be read (namespaces hold what may
/// not), only writing is handled: then opening a file costs nothing more. An error if `rules` restrict reading and the
/// kernel has no Landlock.
pub(super) fn apply(rules: &Rules, network: bool) -> std::io::Result<()> {
    let other = |e: landlock::RulesetError| Error::other(e);
    // What a device does with a request of its own is no matter of files.
    let write = AccessFs::from_write(KNOWN) & !AccessFs::IoctlDev;
    let read = AccessFs::from_read(KNOWN);
    let handled = if rules.read.is_some() { write | read } else { write };
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(handled)
        .and_then(|r| r.scope(Scope::from_all(KNOWN)))
        .map_err(other)?;
    if !network && rules.read.is_some() {
        ruleset = ruleset.handle_access(AccessNet::from_all(KNOWN)).map_err(other)?;
    }
    let mut ruleset = ruleset.create().map_err(other)?;
    let rights = [(read, rules.read.as_ref()), (write | read, Some(&rules.write))];
    for (rights, paths) in rights.into_iter().filter_map(|(r, p)| Some((r, p?))) {
        for path in paths {
            // What is not there needs no rule.
            let Ok(fd) = PathFd::new(path) else { continue };
            let folder = fs_err::metadata(path).is_ok_and(|m| m.is_dir());
            let rights = if folder { rights } else { rights & AccessFs::from_file(KNOWN) };
            ruleset = ruleset.add_rule(PathBeneath::new(fd, rights & handled)).map_err(other)?;
        }
    }
    let status = ruleset.restrict_self().map_err(other)?;
    if rules.read.is_some() && status.ruleset == RulesetStatus::NotEnforced {
        return Err(Error::new(ErrorKind::Unsupported, "the kernel has no Landlock"));
    }
    Ok(())
}

/// Whether a path lies at or below one of these.
pub(super) fn covers(paths: &[OsString], path: &std::path::Path) -> bool {
    paths.iter().any(|p| path.starts_with(p))
}
