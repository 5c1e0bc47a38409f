//! train.lock: the canonical reader and writer, what satisfies a request, and healing.
