//! Plan, keys and their reasons, scheduler, executors and run records.
