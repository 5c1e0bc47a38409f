//! Where steps run. `local`: on this machine.

pub(crate) mod local;
pub(crate) mod stand;
