//! The machine's content-addressed store, and the stat index that saves hashing twice.
