//! Ctrl-C, and the other ways of being asked to stop.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use trainlock_env::Cancel;

/// A switch that the first signal throws: what runs is ended in good order. A second signal ends the
/// program, and the steps that it left running, at once (what the store holds is whole at every instant).
pub(crate) fn cancel_on_signals(fetching: trainlock_fetch::Cancel) -> std::io::Result<Cancel> {
    let cancel = Cancel::new()?;
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    if !hangup_is_ignored() {
        signals.add_signal(SIGHUP)?;
    }
    let switch = cancel.clone();
    std::thread::spawn(move || {
        for (i, _) in signals.forever().enumerate() {
            if i > 0 {
                switch.kill();
                std::process::exit(crate::exit::Exit::Interrupted as i32);
            }
            switch.throw();
            fetching.throw();
        }
    });
    Ok(cancel)
}

/// Whether whoever started this program wants it to outlive the terminal, as `nohup` does.
pub(crate) fn hangup_is_ignored() -> bool {
    let status = fs_err::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|l| l.strip_prefix("SigIgn:"));
    mask.and_then(|m| u64::from_str_radix(m.trim(), 16).ok()).is_some_and(|m| m & 1 << (SIGHUP - 1) != 0)
}
