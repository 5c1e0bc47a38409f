//! The lock's format, its file, and merging.

#[cfg(unix)]
mod diff;
mod file;
mod format;
mod invent;
mod merge;
