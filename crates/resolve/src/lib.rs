//! Manifest, old lock and what the sources answer, made into a new lock.
