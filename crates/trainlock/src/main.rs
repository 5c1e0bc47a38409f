//! A workspace build tool with a lockfile, for reproducible training pipelines.
fn main() {}
