//! The canonical form of train.lock, version 1.
//!
//! The text is a pure function of the [`Lock`]'s content:
//!
//! - a comment of two lines, `version = 1`, then the parts in this order: `[[data]]` and `[[tool]]`
//!   blocks sorted by (name, member), `[[python]]` by (member, profile), `[[package]]` by (name, member, profile, version), `[determinism]`, `[params.MEMBER]`, `[profile.PROFILE.MEMBER]`,
//!   `[[result]]` blocks sorted by (step, member, profile, class);
//! - one block an entry, one fact a line, a blank line between blocks, keys in the order of the
//!   functions below: first who asks, then the request repeated, then what was found;
//! - a string is a basic string on one line; an array of more than one string has a line each; params
//!   are written by [`Value`](trainlock_types::Value)'s `Display`, their dotted names quoted;
//! - the root project's entries have no `member` and its determinism stands in `[determinism]`
//!   itself. Other members' stands in `[determinism.members.NAME]`: `members` is no key of the table, so
//!   that a member may be called `seed`. Params name every project, the root's too;
//! - what a level means stands in `[determinism.switches.ARCHITECTURE]` (members':
//!   `[determinism.members.NAME.switches.ARCHITECTURE]`): its own name, then the variables;
//! - data has `etag` or `modified` behind what it holds, where the server said so of the bytes: a hint;
//! - a result has a line an output, `<sha256>[+x|/] <size> <path>` (`/`: a folder's listing), a line an output
//!   whose container may differ while its content is the same, `<sha256 of the content> <path>`, and a line a metric,
//!   `<number> <name>`;
//! - a fetched tool has a line a platform, `<platform> <sha256> <size> <file>` (an address, where no index says where the
//!   file lies) and `<platform> <sha256> <path in the file>` of the program; a package a line a wheel,
//!   `<sha256> <size> <file>`: an index's address stands nowhere;
//! - keys that this version does not know stand behind the known ones of their block, byte for byte as
//!   they were, and tables that it does not know behind the part that they followed.
//!
//! History: version 1 is the first. A later version names in `requires-trainlock`, behind `version`, the
//! trainlock that reads it.

use crate::pin::Section;
use crate::{
    Content, DataPin, Determinism, ImagePin, Lock, PackagePin, PythonPin, ResultPin, SealedOutput, ToolArtifact,
    ToolPin, VERSION,
};
use std::fmt::Write as _;
use trainlock_types::{
    DataSource, Digest, Params, PinnedFile, Platform, SourceUrl, ToolMatch, ToolProvider, Validator, quoted,
};

const HEAD: &str = "\
# Written by trainlock: what train.toml asks for, pinned by content. Commit this file.
# `trainlock lock` brings it up to date; there is nothing in it to edit by hand.
";

impl Lock {
    /// The canonical text.
    pub fn to_text(&self) -> String {
        let mut out = String::with_capacity(1024 + self.data.len() * 400);
        out.push_str(HEAD);
        let _ = writeln!(out, "version = {VERSION}");
        for line in &self.extra.keys {
            out.push_str(line);
            out.push('\n');
        }
        self.unknown_after(Section::Top, &mut out);
        for pin in sorted(&self.data, |pin| pin.place()) {
            data(&mut out, pin);
        }
        self.unknown_after(Section::Data, &mut out);
        for pin in sorted(&self.tools, |pin| pin.place()) {
            tool(&mut out, pin);
        }
        self.unknown_after(Section::Tool, &mut out);
        for pin in sorted(&self.python, |pin| pin.place()) {
            python(&mut out, pin);
        }
        self.unknown_after(Section::Python, &mut out);
        for pin in sorted(&self.packages, |pin| pin.place()) {
            package(&mut out, pin);
        }
        self.unknown_after(Section::Package, &mut out);
        for pin in sorted(&self.images, |pin| &pin.reference) {
            image(&mut out, pin);
        }
        self.unknown_after(Section::Image, &mut out);
        for (member, table) in &self.determinism {
            match member {
                None => out.push_str("\n[determinism]\n"),
                Some(name) => drop(write!(out, "\n[determinism.members.{name}]\n")),
            }
            determinism(&mut out, table);
            for (architecture, switches) in &table.switches {
                let member = member.as_ref().map(|name| format!("members.{name}.")).unwrap_or_default();
                let _ = write!(out, "\n[determinism.{member}switches.{architecture}]\n");
                text(&mut out, "level", &switches.level);
                for (variable, value) in &switches.variables {
                    text(&mut out, variable, value);
                }
                unknown(&mut out, &switches.extra);
            }
        }
        self.unknown_after(Section::Determinism, &mut out);
        for (member, table) in &self.params {
            let _ = write!(out, "\n[params.{member}]\n");
            params(&mut out, table);
        }
        self.unknown_after(Section::Params, &mut out);
        for ((profile, member), table) in &self.profiles {
            let _ = write!(out, "\n[profile.{profile}.{member}]\n");
            params(&mut out, table);
        }
        self.unknown_after(Section::Profile, &mut out);
        for pin in sorted(&self.results, |pin| pin.place()) {
            result(&mut out, pin);
        }
        self.unknown_after(Section::Result, &mut out);
        out
    }

    fn unknown_after(&self, section: Section, out: &mut String) {
        for (_, text) in self.extra.tables.iter().filter(|(after, _)| *after == section) {
            out.push('\n');
            out.push_str(text);
            out.push('\n');
        }
    }
}

fn sorted<'a, T, K: Ord>(pins: &'a [T], key: impl Fn(&'a T) -> K) -> Vec<&'a T> {
    let mut refs: Vec<&T> = pins.iter().collect();
    refs.sort_by_key(|pin| key(pin));
    refs
}

fn data(out: &mut String, pin: &DataPin) {
    out.push_str("\n[[data]]\n");
    text(out, "name", &pin.name);
    if let Some(member) = &pin.member {
        text(out, "member", member);
    }
    match &pin.source {
        DataSource::Url { url, mirrors, checksum, size: _, rev, files, extract, unpack } => {
            address(out, "url", url);
            texts(out, "mirrors", &mirrors.iter().map(SourceUrl::to_string).collect::<Vec<_>>());
            if let Some(checksum) = checksum {
                text(out, "checksum", &checksum.to_string());
            }
            if let Some(rev) = rev {
                text(out, "rev", rev);
            }
            texts(out, "files", files);
            if let Some(extract) = extract {
                text(out, "extract", extract.as_str());
            }
            if *unpack {
                out.push_str("unpack = true\n");
            }
        }
        DataSource::Path(path) => text(out, "path", if path.is_root() { "." } else { path.as_str() }),
        DataSource::Croissant(place) => text(out, "croissant", place),
        DataSource::Pooch { registry, base } => {
            text(out, "pooch", registry.as_str());
            if let Some(base) = base {
                text(out, "base-url", &base.to_string());
            }
        }
    }
    if let Some(resolved) = &pin.resolved {
        text(out, "source", resolved);
    }
    if let Some((sha256, size)) = &pin.archive {
        digest(out, "archive-sha256", sha256);
        let _ = writeln!(out, "archive-size = {size}");
    }
    match &pin.content {
        Content::File { sha256, size } => {
            digest(out, "sha256", sha256);
            let _ = writeln!(out, "size = {size}");
        }
        Content::Tree { tree, size, count, listing } => {
            digest(out, "tree", tree);
            let _ = write!(out, "size = {size}\ncount = {count}\n");
            if let Some(listing) = listing {
                out.push_str("listing = [\n");
                for entry in listing.entries() {
                    element(out, &entry.to_line());
                }
                out.push_str("]\n");
            }
            texts(out, "versions", &pin.versions);
        }
    }
    match &pin.validator {
        Some(Validator::Tag(tag)) => text(out, "etag", tag),
        Some(Validator::Modified(date)) => text(out, "modified", date),
        None => {}
    }
    unknown(out, &pin.extra);
}

fn tool(out: &mut String, pin: &ToolPin) {
    out.push_str("\n[[tool]]\n");
    text(out, "name", &pin.name);
    if let Some(member) = &pin.member {
        text(out, "member", member);
    }
    text(out, "request", &pin.request);
    match &pin.provider {
        ToolProvider::Host { probe, accept } => {
            text(out, "from", "host");
            if !probe.is_empty() {
                let words: Vec<String> = probe.iter().map(|word| quoted(word)).collect();
                let _ = writeln!(out, "probe = [{}]", words.join(", "));
            }
            if *accept != ToolMatch::Version {
                text(out, "match", accept.as_str());
            }
        }
        ToolProvider::Fetched(tool) => {
            text(out, "from", tool.from.as_str());
            let options =
                [("package", &tool.package), ("bin", &tool.bin), ("repo", &tool.repo), ("index", &tool.index)];
            for (key, value) in options {
                if let Some(value) = value {
                    text(out, key, value);
                }
            }
            texts(out, "asset", &tool.asset.iter().map(|(p, file)| format!("{p} {file}")).collect::<Vec<_>>());
        }
    }
    text(out, "version", &pin.version.to_string());
    // A platform that nothing is published for is named all the same: it was asked for.
    let lacking: Vec<String> =
        pin.platforms.iter().filter(|p| !pin.artifacts.contains_key(p)).map(Platform::to_string).collect();
    texts(out, "lacking", &lacking);
    if let Some(from) = pin.hash_from {
        text(out, "hash-from", from.as_str());
    }
    let artifact = |(platform, a): (&Platform, &ToolArtifact)| format!("{platform} {}", a.file);
    texts(out, "artifacts", &pin.artifacts.iter().map(artifact).collect::<Vec<_>>());
    let program = |(platform, a): (&Platform, &ToolArtifact)| {
        a.program.as_ref().map(|(path, sha256)| format!("{platform} {sha256} {path}"))
    };
    texts(out, "programs", &pin.artifacts.iter().filter_map(program).collect::<Vec<_>>());
    unknown(out, &pin.extra);
}

fn python(out: &mut String, pin: &PythonPin) {
    out.push_str("\n[[python]]\n");
    text(out, "python", &pin.python);
    if let Some(member) = &pin.member {
        text(out, "member", member);
    }
    if let Some(profile) = &pin.profile {
        text(out, "profile", profile);
    }
    if let Some(taken) = &pin.taken {
        text(out, taken.kind.as_str(), taken.file.as_str());
        texts(out, "groups", &taken.groups);
        texts(out, "extras", &taken.extras);
        texts(out, "entries", &taken.entries);
    }
    texts(out, "dependencies", &pin.dependencies);
    texts(out, "constraints", &pin.constraints);
    texts(out, "index", &pin.index);
    texts(out, "sdist", &pin.sdist);
    texts(out, "platforms", &pin.platforms.iter().map(Platform::to_string).collect::<Vec<_>>());
    if let Some(newest) = &pin.exclude_newer {
        text(out, "exclude-newer", newest);
    }
    unknown(out, &pin.extra);
}

fn package(out: &mut String, pin: &PackagePin) {
    out.push_str("\n[[package]]\n");
    text(out, "name", &pin.name);
    if let Some(member) = &pin.member {
        text(out, "member", member);
    }
    if let Some(profile) = &pin.profile {
        text(out, "profile", profile);
    }
    text(out, "version", &pin.version);
    if let Some(marker) = &pin.marker {
        text(out, "marker", marker);
    }
    texts(out, "wheels", &pin.wheels.iter().map(PinnedFile::to_string).collect::<Vec<_>>());
    if let Some(source) = &pin.source {
        text(out, "source", &source.to_string());
    }
    unknown(out, &pin.extra);
}

fn image(out: &mut String, pin: &ImagePin) {
    out.push_str("\n[[image]]\n");
    text(out, "reference", pin.reference.as_str());
    digest(out, "digest", &pin.digest);
    let manifest = |(platform, (sha256, size)): (&Platform, &(Digest, u64))| format!("{platform} {sha256} {size}");
    texts(out, "platforms", &pin.platforms.iter().map(manifest).collect::<Vec<_>>());
    unknown(out, &pin.extra);
}

fn determinism(out: &mut String, table: &Determinism) {
    let _ = writeln!(out, "seed = {}", table.seed);
    text(out, "level", &table.level);
    if let Some(threads) = table.threads {
        let _ = writeln!(out, "threads = {threads}");
    }
    if table.seed_globals {
        out.push_str("seed-globals = true\n");
    }
    unknown(out, &table.extra);
}

fn result(out: &mut String, pin: &ResultPin) {
    out.push_str("\n[[result]]\n");
    text(out, "step", &pin.step);
    if let Some(member) = &pin.member {
        text(out, "member", member);
    }
    if let Some(profile) = &pin.profile {
        text(out, "profile", profile);
    }
    text(out, "class", &pin.class);
    digest(out, "key", &pin.key);
    let mut outputs: Vec<&SealedOutput> = pin.outputs.iter().collect();
    outputs.sort();
    texts(out, "outputs", &outputs.iter().map(|o| o.to_line()).collect::<Vec<_>>());
    let content = |o: &&SealedOutput| o.content.map(|content| format!("{content} {}", o.path));
    texts(out, "content", &outputs.iter().filter_map(content).collect::<Vec<_>>());
    texts(out, "metrics", &pin.metrics.iter().map(|(name, value)| format!("{value} {name}")).collect::<Vec<_>>());
    unknown(out, &pin.extra);
}

fn params(out: &mut String, params: &Params) {
    for (key, value) in params {
        let bare = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if !key.is_empty() && key.bytes().all(bare) {
            out.push_str(key);
        } else {
            string(out, key);
        }
        let _ = writeln!(out, " = {value}");
    }
}

fn unknown(out: &mut String, lines: &str) {
    if !lines.is_empty() {
        out.push_str(lines);
        out.push('\n');
    }
}

fn address(out: &mut String, key: &str, url: &SourceUrl) {
    match url {
        SourceUrl::Http(url) | SourceUrl::File(url) | SourceUrl::Git(url) | SourceUrl::Object(url) => {
            text(out, key, url.as_str());
        }
        SourceUrl::Hf(place) | SourceUrl::Pypi(place) | SourceUrl::Doi(place) => text(out, key, place),
    }
}

fn text(out: &mut String, key: &str, value: &str) {
    out.push_str(key);
    out.push_str(" = ");
    string(out, value);
    out.push('\n');
}

fn digest(out: &mut String, key: &str, value: &Digest) {
    text(out, key, &value.to_hex());
}

/// Nothing for no strings, one line for one, a line each for more.
fn texts(out: &mut String, key: &str, values: &[String]) {
    match values {
        [] => {}
        [one] => {
            let _ = write!(out, "{key} = [");
            string(out, one);
            out.push_str("]\n");
        }
        many => {
            let _ = writeln!(out, "{key} = [");
            many.iter().for_each(|value| element(out, value));
            out.push_str("]\n");
        }
    }
}

fn element(out: &mut String, value: &str) {
    out.push_str("    ");
    string(out, value);
    out.push_str(",\n");
}

/// A basic string; what needs no escape is copied whole.
fn string(out: &mut String, value: &str) {
    if value.bytes().all(|b| matches!(b, b' '..=b'~') && b != b'"' && b != b'\\') {
        out.push('"');
        out.push_str(value);
        out.push('"');
    } else {
        out.push_str(&quoted(value));
    }
}
