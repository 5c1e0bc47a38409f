//! train.toml: from text with places to a validated workspace.
