//! Everything that talks to a network: sources, downloads, unpacking into the store.
