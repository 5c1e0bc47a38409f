//! What a lock holds, as values.

use std::collections::BTreeMap;
use trainlock_types::{
    DataRequest, DataSource, Digest, ImageReference, LISTING_IN_LOCK, Listing, Name, Params, PinnedFile, Platform,
    PythonRequest, RelPath, TakenLock, ToolProvider, ToolRequest, Validator,
};

/// A lock. The root project is member `None` where an entry belongs to a member; tables of params
/// name every project, the root's too.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Lock {
    /// The data sets, sorted by (name, member), each once.
    pub data: Vec<DataPin>,
    /// The tools, sorted by (name, member), each once.
    pub tools: Vec<ToolPin>,
    /// What each member's python packages were resolved from, sorted by (member, profile), each once.
    pub python: Vec<PythonPin>,
    /// The python packages, sorted by (name, member, profile, version), each once.
    pub packages: Vec<PackagePin>,
    /// The container images, sorted by reference, each once.
    pub images: Vec<ImagePin>,
    /// Seed and level of each member.
    pub determinism: BTreeMap<Option<Name>, Determinism>,
    /// Each member's hyperparameters, by its project's name.
    pub params: BTreeMap<Name, Params>,
    /// What a profile lays over a member's hyperparameters, by (profile, member).
    pub profiles: BTreeMap<(Name, Name), Params>,
    /// The sealed results, sorted by (step, member, profile, class), each once.
    pub results: Vec<ResultPin>,
    /// What a later trainlock wrote, kept as it stands.
    pub extra: Extra,
}

/// A locked data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataPin {
    /// The member that asks; none for the root project.
    pub member: Option<Name>,
    /// The data set's name.
    pub name: Name,
    /// The request, repeated. `size` of [`DataSource::Url`] is always none: what the manifest states
    /// of the size is compared with the content's.
    pub source: DataSource,
    /// The address with its revision resolved, where that is not the `url` itself.
    pub resolved: Option<String>,
    /// What steps get.
    pub content: Content,
    /// SHA-256 and size of the fetched archive, for `extract` and `unpack`.
    pub archive: Option<(Digest, u64)>,
    /// The version of each object of the listing, in its order, where the bucket keeps versions; empty otherwise. By them the
    /// objects are found again; what they hold the listing says.
    pub versions: Vec<String>,
    /// What the server said of the bytes at the address when they were fetched, where no stated SHA-256 made that needless. A
    /// hint: nothing is decided by it.
    pub validator: Option<Validator>,
    /// Lines of its block that this version does not know, as they stand.
    pub extra: String,
}

/// What a data set holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// One file.
    File {
        /// The digest of its bytes.
        sha256: Digest,
        /// Their number.
        size: u64,
    },
    /// A folder.
    Tree {
        /// The digest of its sorted listing.
        tree: Digest,
        /// The bytes of all files together.
        size: u64,
        /// The number of files.
        count: u64,
        /// The listing, where it is short enough to stand in a lock ([`LISTING_IN_LOCK`]), or versions belong to it.
        listing: Option<Listing>,
    },
}

/// A locked tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolPin {
    /// The member that asks; none for the root project.
    pub member: Option<Name>,
    /// The program's name.
    pub name: Name,
    /// The requirement as the manifest has it.
    pub request: String,
    /// Who provides it.
    pub provider: ToolProvider,
    /// The version.
    pub version: semver::Version,
    /// The platforms that were asked for; empty where nothing is fetched.
    pub platforms: Vec<Platform>,
    /// What is fetched, by platform; a platform that nothing is published for is missing.
    pub artifacts: BTreeMap<Platform, ToolArtifact>,
    /// Where the digests come from; none for tools of the host.
    pub hash_from: Option<HashFrom>,
    /// Lines of its block that this version does not know, as they stand.
    pub extra: String,
}

/// The file that a fetched tool comes in on one platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolArtifact {
    /// The file: by its name, where an index says where it lies, else by its address.
    pub file: PinnedFile,
    /// The program inside it and its own digest; none if the file is the program.
    pub program: Option<(RelPath, Digest)>,
}

/// Who said what the bytes' digest is, when it was locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashFrom {
    /// The package index.
    Index,
    /// The publisher, beside the file.
    Publisher,
    /// Nobody: it is that of the bytes that came first.
    FirstDownload,
}

impl HashFrom {
    /// All of them.
    pub const ALL: [HashFrom; 3] = [HashFrom::Index, HashFrom::Publisher, HashFrom::FirstDownload];

    /// The word in train.lock.
    pub const fn as_str(self) -> &'static str {
        match self {
            HashFrom::Index => "index",
            HashFrom::Publisher => "publisher",
            HashFrom::FirstDownload => "first-download",
        }
    }
}

/// What the python packages of one member were resolved from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PythonPin {
    /// The member that asks; none for the root project.
    pub member: Option<Name>,
    /// The profile that asks; none for `[python]` itself.
    pub profile: Option<Name>,
    /// The interpreter's line, such as `3.11`.
    pub python: String,
    /// The lock of another tool that was taken over, if one was.
    pub taken: Option<TakenLock>,
    /// The requirements as they were asked for.
    pub dependencies: Vec<String>,
    /// What bounded versions besides.
    pub constraints: Vec<String>,
    /// Packages that come from a named index alone, each as `<package> <index>`.
    pub index: Vec<String>,
    /// Packages that may be built from source.
    pub sdist: Vec<String>,
    /// The platforms that were resolved for.
    pub platforms: Vec<Platform>,
    /// When the newest file of the resolution was uploaded: nothing later was looked at. None where the index does not say.
    pub exclude_newer: Option<String>,
    /// Lines of its block that this version does not know, as they stand.
    pub extra: String,
}

/// A locked python package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackagePin {
    /// The member that asks; none for the root project.
    pub member: Option<Name>,
    /// The profile that it was resolved for; none for `[python]` itself.
    pub profile: Option<Name>,
    /// The package, its name normalized.
    pub name: Name,
    /// Its version, as PEP 440 writes it.
    pub version: String,
    /// Where it is wanted: a marker of PEP 508; none for everywhere.
    pub marker: Option<String>,
    /// Its wheels for the locked platforms, sorted by file name.
    pub wheels: Vec<PinnedFile>,
    /// Its source distribution, where it may be built.
    pub source: Option<PinnedFile>,
    /// Lines of its block that this version does not know, as they stand.
    pub extra: String,
}

/// A locked container image. Whichever member asks for it, it is the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagePin {
    /// The reference as the manifest has it.
    pub reference: ImageReference,
    /// The digest of what the reference names: an index of manifests, or the only manifest.
    pub digest: Digest,
    /// The digest of each platform's manifest, and its size in bytes.
    pub platforms: BTreeMap<Platform, (Digest, u64)>,
    /// Lines of its block that this version does not know, as they stand.
    pub extra: String,
}

/// What one member's steps are made deterministic with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Determinism {
    /// The seed that all others come from, at most 2^63 - 1.
    pub seed: u64,
    /// The level's name.
    pub level: String,
    /// The number of threads, where the manifest names one.
    pub threads: Option<u32>,
    /// Whether the languages' global generators are seeded.
    pub seed_globals: bool,
    /// What the level means, by the architecture's name (`x86_64`, `aarch64`); empty in a lock of before.
    pub switches: BTreeMap<String, Switches>,
    /// Lines of its table that this version does not know, as they stand.
    pub extra: String,
}

/// What a level means on one architecture: resolved once, so that a later trainlock does not change it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Switches {
    /// The level by its own name: `portable` resolved, for example to `x86-64-v3`.
    pub level: String,
    /// Environment variables: upper-case names.
    pub variables: BTreeMap<String, String>,
    /// Lines of its table that this version does not know, as they stand.
    pub extra: String,
}

/// A sealed result of one step, as one class of machines gives it.
#[derive(Debug, Clone, PartialEq)]
pub struct ResultPin {
    /// The step's member; none for the root project.
    pub member: Option<Name>,
    /// The step.
    pub step: Name,
    /// The profile that it was made under.
    pub profile: Option<Name>,
    /// The numeric class: where these bits are promised, for example `linux-x86_64-gnu/x86-64-v3`.
    pub class: String,
    /// The step's key when it was sealed.
    pub key: Digest,
    /// Outputs, metrics and plots, sorted by path.
    pub outputs: Vec<SealedOutput>,
    /// The numbers of its metric files, all finite.
    pub metrics: BTreeMap<String, f64>,
    /// Lines of its block that this version does not know, as they stand.
    pub extra: String,
}

/// One output of a sealed result.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SealedOutput {
    /// Relative to the workspace.
    pub path: RelPath,
    /// What kind of thing it is.
    pub kind: SealedKind,
    /// The digest of the file's bytes, or of the folder's listing.
    pub sha256: Digest,
    /// Bytes, of a folder those of all its files.
    pub size: u64,
    /// The digest of what a container holds, without times and the order of members; none where the bytes
    /// themselves are the content.
    pub content: Option<Digest>,
}

/// What a sealed output is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SealedKind {
    /// A file.
    File,
    /// A file that its owner may execute.
    Executable,
    /// A folder.
    Folder,
}

/// What finds a result: step, member, profile, class.
pub type ResultPlace<'a> = (&'a Name, Option<&'a Name>, Option<&'a Name>, &'a str);

/// Top-level keys and whole tables of a later trainlock, as they stand in the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extra {
    /// Lines behind `version`.
    pub(crate) keys: Vec<String>,
    /// Each table's text with its header, and the part of the file that it follows.
    pub(crate) tables: Vec<(Section, String)>,
}

/// The parts of a lock, in the order of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Section {
    Top,
    Data,
    Tool,
    Python,
    Package,
    Image,
    Determinism,
    Params,
    Profile,
    Result,
}

impl Lock {
    /// The pin of a member's data set.
    pub fn data(&self, member: Option<&Name>, name: &Name) -> Option<&DataPin> {
        let found = self.data.binary_search_by(|pin| pin.place().cmp(&(name, member)));
        found.ok().map(|i| &self.data[i])
    }

    /// The pin of a member's tool.
    pub fn tool(&self, member: Option<&Name>, name: &Name) -> Option<&ToolPin> {
        let found = self.tools.binary_search_by(|pin| pin.place().cmp(&(name, member)));
        found.ok().map(|i| &self.tools[i])
    }

    /// What a member's python packages were resolved from, under a profile or without one.
    pub fn python(&self, member: Option<&Name>, profile: Option<&Name>) -> Option<&PythonPin> {
        self.python.iter().find(|pin| pin.place() == (member, profile))
    }

    /// The same for whoever runs under a profile: one without packages of its own has those of `[python]`.
    pub fn python_under(&self, member: Option<&Name>, profile: Option<&str>) -> Option<&PythonPin> {
        let own = |pin: &&PythonPin| pin.member.as_ref() == member && pin.profile.as_deref() == profile;
        self.python.iter().find(own).or_else(|| self.python(member, None))
    }

    /// A member's python packages under a profile that has its own, or without one; sorted by name and version.
    pub fn packages<'a>(
        &'a self,
        member: Option<&'a Name>,
        profile: Option<&'a Name>,
    ) -> impl Iterator<Item = &'a PackagePin> {
        self.packages.iter().filter(move |pin| (pin.member.as_ref(), pin.profile.as_ref()) == (member, profile))
    }

    /// The pin of an image.
    pub fn image(&self, reference: &ImageReference) -> Option<&ImagePin> {
        self.images.iter().find(|pin| pin.reference == *reference)
    }

    /// The sealed results of a step under a profile, one a class.
    pub fn results<'a>(
        &'a self,
        member: Option<&'a Name>,
        step: &'a Name,
        profile: Option<&'a Name>,
    ) -> impl Iterator<Item = &'a ResultPin> {
        let from = self
            .results
            .partition_point(|r| (&r.step, r.member.as_ref(), r.profile.as_ref()) < (step, member, profile));
        self.results[from..]
            .iter()
            .take_while(move |r| (&r.step, r.member.as_ref(), r.profile.as_ref()) == (step, member, profile))
    }

    /// Puts a result in its place; the one that stood there, if any.
    pub fn seal(&mut self, result: ResultPin) -> Option<ResultPin> {
        match self.results.binary_search_by(|r| r.place().cmp(&result.place())) {
            Ok(i) => Some(std::mem::replace(&mut self.results[i], result)),
            Err(i) => {
                self.results.insert(i, result);
                None
            }
        }
    }

    /// The digest of the lock's text: what a run's record names the lock by.
    pub fn digest(&self) -> Digest {
        Digest::of(self.to_text().as_bytes())
    }
}

impl DataPin {
    /// The answer to a request, as it is pinned. `resolved` is the address that was really read.
    pub fn new(
        request: &DataRequest,
        resolved: Option<String>,
        content: Content,
        archive: Option<(Digest, u64)>,
    ) -> DataPin {
        let source = repeated(&request.source);
        let resolved = match &source {
            DataSource::Url { url, .. } => resolved.filter(|text| *text != url.to_string()),
            _ => resolved,
        };
        DataPin {
            member: request.member.clone(),
            name: request.name.clone(),
            source,
            resolved,
            content: content.for_lock(),
            archive,
            versions: Vec::new(),
            validator: None,
            extra: String::new(),
        }
    }

    /// The same pin with the versions of its objects. Their listing stands beside them, however long it is.
    pub fn with_versions(self, content: Content, versions: Vec<String>) -> DataPin {
        match versions.is_empty() {
            true => self,
            false => DataPin { content, versions, ..self },
        }
    }

    /// The same pin with what the server said of the bytes.
    pub fn with_validator(self, validator: Option<Validator>) -> DataPin {
        DataPin { validator, ..self }
    }

    /// Where its block stands: the order of the file.
    pub fn place(&self) -> (&Name, Option<&Name>) {
        (&self.name, self.member.as_ref())
    }

    /// The same pin, with the request's fields written anew.
    pub fn with_request(&self, request: &DataRequest) -> DataPin {
        // Where a SHA-256 is stated there is none: it may be locked without asking the server.
        let is_stated = matches!(
            &request.source,
            DataSource::Url { checksum: Some(checksum), .. } if checksum.sha256().is_some()
        );
        DataPin {
            member: self.member.clone(),
            name: self.name.clone(),
            source: repeated(&request.source),
            resolved: self.resolved.clone(),
            content: self.content.clone(),
            archive: self.archive,
            versions: self.versions.clone(),
            validator: self.validator.clone().filter(|_| !is_stated),
            extra: self.extra.clone(),
        }
    }
}

impl ToolPin {
    /// The answer to a request, as it is pinned.
    pub fn new(
        request: &ToolRequest,
        version: semver::Version,
        artifacts: BTreeMap<Platform, ToolArtifact>,
        hash_from: Option<HashFrom>,
    ) -> ToolPin {
        ToolPin {
            member: request.member.clone(),
            name: request.name.clone(),
            request: request.version.clone(),
            provider: request.provider.clone(),
            version,
            platforms: if artifacts.is_empty() { Vec::new() } else { request.platforms.clone() },
            artifacts,
            hash_from,
            extra: String::new(),
        }
    }

    /// Where its block stands: the order of the file.
    pub fn place(&self) -> (&Name, Option<&Name>) {
        (&self.name, self.member.as_ref())
    }

    /// The same pin, with the request's fields written anew.
    pub fn with_request(&self, request: &ToolRequest) -> ToolPin {
        ToolPin {
            request: request.version.clone(),
            provider: request.provider.clone(),
            platforms: if self.artifacts.is_empty() { Vec::new() } else { request.platforms.clone() },
            ..self.clone()
        }
    }
}

impl PythonPin {
    /// Where its block stands: the order of the file.
    pub fn place(&self) -> (Option<&Name>, Option<&Name>) {
        (self.member.as_ref(), self.profile.as_ref())
    }

    /// What was asked for, with all that a resolution depends on but for the interpreter.
    pub fn request(&self) -> PythonRequest {
        PythonRequest {
            member: self.member.clone(),
            profile: self.profile.clone(),
            taken: self.taken.clone(),
            dependencies: self.dependencies.clone(),
            constraints: self.constraints.clone(),
            index: self.index.clone(),
            sdist: self.sdist.clone(),
            platforms: self.platforms.clone(),
        }
    }
}

impl PackagePin {
    /// Where its block stands: the order of the file.
    pub fn place(&self) -> (&Name, Option<&Name>, Option<&Name>, &str) {
        (&self.name, self.member.as_ref(), self.profile.as_ref(), &self.version)
    }
}

impl ResultPin {
    /// Where its block stands: the order of the file.
    pub fn place(&self) -> ResultPlace<'_> {
        (&self.step, self.member.as_ref(), self.profile.as_ref(), &self.class)
    }
}

impl SealedKind {
    /// What stands behind the digest in a line of the lock.
    pub(crate) const fn mark(self) -> &'static str {
        match self {
            SealedKind::File => "",
            SealedKind::Executable => "+x",
            SealedKind::Folder => "/",
        }
    }
}

impl SealedOutput {
    /// `<sha256>[+x|/] <size> <path>`
    pub fn to_line(&self) -> String {
        format!("{}{} {} {}", self.sha256, self.kind.mark(), self.size, self.path)
    }

    /// The opposite of [`SealedOutput::to_line`].
    pub fn parse(line: &str) -> Option<SealedOutput> {
        let (hex, rest) = line.split_at_checked(64)?;
        let (mark, rest) = rest.split_once(' ')?;
        let (size, path) = rest.split_once(' ')?;
        let kind =
            [SealedKind::File, SealedKind::Executable, SealedKind::Folder].into_iter().find(|k| k.mark() == mark)?;
        Some(SealedOutput {
            path: RelPath::parse(path).ok()?,
            kind,
            sha256: hex.parse().ok()?,
            size: size.parse().ok()?,
            content: None,
        })
    }
}

impl Content {
    /// The digest that names it: the file's or the tree's.
    pub fn digest(&self) -> Digest {
        match self {
            Content::File { sha256, .. } => *sha256,
            Content::Tree { tree, .. } => *tree,
        }
    }

    /// The bytes of the file, or of all files together.
    pub fn size(&self) -> u64 {
        match self {
            Content::File { size, .. } | Content::Tree { size, .. } => *size,
        }
    }

    /// A tree with this listing.
    pub fn tree(listing: Listing) -> Content {
        let (tree, size, count) = (listing.digest(), listing.size(), listing.count());
        Content::Tree { tree, size, count, listing: Some(listing) }
    }

    /// As it stands in a lock: without a listing that is too long for one.
    pub fn for_lock(self) -> Content {
        match self {
            Content::Tree { tree, size, count, listing } => {
                let listing = listing.filter(|l| l.count() <= LISTING_IN_LOCK as u64);
                Content::Tree { tree, size, count, listing }
            }
            file => file,
        }
    }
}

/// The request's own fields as a pin repeats them.
fn repeated(source: &DataSource) -> DataSource {
    let mut source = source.for_lock().into_owned();
    if let DataSource::Url { size, .. } = &mut source {
        *size = None;
    }
    source
}
