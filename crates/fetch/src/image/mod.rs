//! Container images: what a reference names now, and an image as a tree of the store.
//!
//! Sources: the OCI image specification 1.1 (index, manifest, configuration), and docker's older forms of the same
//! (image manifest version 2, schema 2). Every digest is of the bytes that came, never a server's word.

mod compiled;
mod docker;
mod layers;
mod registry;

pub use docker::DockerFiles;

use crate::error::{FetchError, IMAGE, Reason};
use crate::fetcher::{Fetcher, open, unpack_error};
use crate::many;
use crate::receive::{Expect, Progress};
use crate::standing::{Answer, Found, fails};
use layers::Root;
use registry::Repository;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use trainlock_store::{Session, Store, StoreError};
use trainlock_types::{Digest, ImageReference, Platform, SourceUrl};

/// What a reference names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundImage {
    /// The digest of the index of manifests, or of the only manifest.
    pub digest: Digest,
    /// The digest of each platform's manifest, and its size in bytes.
    pub platforms: BTreeMap<Platform, (Digest, u64)>,
}

/// What an image says of how it is to be used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// Its environment variables, in its order.
    pub variables: Vec<(String, String)>,
}

/// What is needed of an image's manifest. Digests are `sha256:…`, sizes are in bytes.
#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    platform: Option<PlatformOf>,
}

#[derive(Deserialize)]
struct PlatformOf {
    os: String,
    architecture: String,
    #[serde(default)]
    variant: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Typed {
    media_type: Option<String>,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    config: Option<Run>,
    os: Option<String>,
    architecture: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Run {
    #[serde(default)]
    env: Option<Vec<String>>,
}

impl Descriptor {
    fn digest(&self) -> Option<Digest> {
        self.digest.strip_prefix("sha256:")?.parse().ok()
    }
}

impl PlatformOf {
    fn platform(&self) -> Option<Platform> {
        match (self.os.as_str(), self.architecture.as_str(), self.variant.as_deref()) {
            ("linux", "amd64", None | Some("" | "v1")) => Some(Platform::LinuxX86_64),
            ("linux", "arm64", None | Some("" | "v8")) => Some(Platform::LinuxAarch64),
            _ => None,
        }
    }
}

impl Fetcher {
    /// Finds out what an image's reference names now: the digest of what the registry answers, and the manifests in it for
    /// the platforms that trainlock knows. The manifests are kept in the store.
    ///
    /// # Errors
    /// Where the registry can't be asked, and [`FetchError::Contents`] where it answers with what is no image for a known
    /// platform.
    pub fn resolve_image(&self, session: &Session, image: &ImageReference) -> Result<FoundImage, FetchError> {
        let name = format!("{IMAGE}{image}");
        let repository = Repository::open(self, image)?;
        let (digest, body) = repository.manifest(&image.target())?;
        let keep = |body: &[u8]| session.put_bytes(body).map_err(|error| store(&name, error));
        let mut platforms = BTreeMap::new();
        if let Ok(index) = serde_json::from_slice::<Index>(&body) {
            for entry in &index.manifests {
                let Some(platform) = entry.platform.as_ref().and_then(PlatformOf::platform) else { continue };
                if platforms.contains_key(&platform) {
                    continue;
                }
                let (found, body) = repository.manifest(&entry.digest)?;
                manifest(&name, &body)?;
                keep(&body)?;
                platforms.insert(platform, (found, body.len() as u64));
            }
        } else {
            // The only one there is: what it is for stands in its configuration.
            let (config, _) = manifest(&name, &body)?;
            let size = body.len() as u64;
            keep(&body)?;
            self.blobs(session, &name, image, &[config], Some(repository))?;
            let read = read(session.store(), &name, &config.0, config.1)?;
            let config: Config = serde_json::from_slice(&read).map_err(|e| contents(&name, e.to_string()))?;
            let of = PlatformOf {
                os: config.os.unwrap_or_default(),
                architecture: config.architecture.unwrap_or_default(),
                variant: None,
            };
            platforms.extend(of.platform().map(|platform| (platform, (digest, size))));
        }
        if platforms.is_empty() {
            return Err(contents(&name, "it is for no platform that trainlock knows (linux on amd64 or arm64)"));
        }
        Ok(FoundImage { digest, platforms })
    }

    /// The digest of the manifest, or of the index of manifests, that a registry has under a tag or digest.
    pub(crate) fn image_manifest(&self, image: &ImageReference, target: &str) -> Result<Digest, FetchError> {
        Ok(Repository::open(self, image)?.manifest(target)?.0)
    }

    /// What the registry answers for a locked image: for what was named, the manifest of each platform, and the configuration and
    /// layers that it names.
    ///
    /// # Errors
    /// If the user interrupts.
    pub fn image_answers(
        &self,
        image: &ImageReference,
        locked: &Digest,
        platforms: &BTreeMap<Platform, (Digest, u64)>,
    ) -> Result<Vec<Answer>, FetchError> {
        let at = |digest: &Digest| format!("{image} sha256:{digest}");
        let repository = match Repository::open(self, image) {
            Ok(repository) => repository,
            Err(error) => return Ok(vec![Answer { url: image.to_string(), found: fails(error)? }]),
        };
        let mut answers = Vec::new();
        let mut blobs: BTreeMap<Digest, u64> = BTreeMap::new();
        let manifests: BTreeSet<&Digest> =
            std::iter::once(locked).chain(platforms.values().map(|(digest, _)| digest)).collect();
        for digest in manifests {
            let found = match repository.manifest(&format!("sha256:{digest}")) {
                Ok((_, body)) => {
                    // What was named may be an index, which has no layers of its own.
                    if let Ok((config, layers)) = manifest("", &body) {
                        blobs.extend(std::iter::once(config).chain(layers));
                    }
                    Found::Agrees("digest")
                }
                Err(error) if error.is_verification() => Found::Differs("another manifest than is locked".to_owned()),
                Err(error) => fails(error)?,
            };
            answers.push(Answer { url: at(digest), found });
        }
        let blobs: Vec<(Digest, u64)> = blobs.into_iter().collect();
        let name = format!("{IMAGE}{image}");
        let of_blob = |(digest, size): &(Digest, u64)| {
            let source = SourceUrl::Http(repository.blob(digest).into());
            let Answer { found, .. } = self.answer(&name, &source, *size)?;
            Ok(Answer { url: at(digest), found })
        };
        answers.extend(self.each(&blobs, of_blob).into_iter().collect::<Result<Vec<_>, FetchError>>()?);
        Ok(answers)
    }

    /// Brings all bytes of an image's manifest (digest, and size in bytes) into the store, each verified: the manifest, the
    /// configuration, the layers. What is there already is not fetched.
    ///
    /// # Errors
    /// Where they can't be had, or are not what the digests say.
    pub fn bring_image(
        &self,
        session: &Session,
        image: &ImageReference,
        (sha256, size): (Digest, u64),
    ) -> Result<(), FetchError> {
        let name = format!("{IMAGE}{image}");
        let mut repository = None;
        let there = session.store().object(&sha256, Some(size)).map_err(|error| store(&name, error))?;
        if there.is_none() {
            let opened = repository.insert(Repository::open(self, image)?);
            let (_, body) = opened.manifest(&format!("sha256:{sha256}"))?;
            session.put_bytes(&body).map_err(|error| store(&name, error))?;
        }
        let body = read(session.store(), &name, &sha256, size)?;
        let (config, layers) = manifest(&name, &body)?;
        let all: Vec<(Digest, u64)> = std::iter::once(config).chain(layers).collect();
        self.blobs(session, &name, image, &all, repository)
    }

    /// Unpacks an image that was brought; the digest of the tree.
    ///
    /// # Errors
    /// What is wrong with a layer, or with the store.
    pub fn unpack_image(
        &self,
        session: &Session,
        image: &ImageReference,
        (sha256, size): (Digest, u64),
    ) -> Result<Digest, FetchError> {
        let name = format!("{IMAGE}{image}");
        let body = read(session.store(), &name, &sha256, size)?;
        let (_, layers) = manifest(&name, &body)?;
        let total = layers.iter().map(|(_, size)| size).sum();
        let mut progress = Progress::start(&self.events, self.next_id(), &name, "unpack", None);
        let mut root = Root::default();
        for (digest, _) in &layers {
            let file = open(session, &name, digest)?;
            // A layer may be small and unpack to much; all of them together are what the image is.
            let added = root.add(session, file, self.limits(total), &self.settings.cancel, |bytes| progress.add(bytes));
            if let Err(error) = added {
                progress.finish(None);
                return Err(unpack_error(&name, format!("its layer sha256:{digest}"), error));
            }
        }
        root.settle_compiled(session).map_err(|error| store(&name, error))?;
        let listing = root.listing(session).map_err(|error| store(&name, error))?;
        let tree = session.system_from_objects(&listing).map_err(|error| many::put_error(&name, error))?;
        progress.finish(Some(tree.digest));
        Ok(tree.digest)
    }

    /// Brings blobs of an image that the store lacks.
    fn blobs(
        &self,
        session: &Session,
        name: &str,
        image: &ImageReference,
        blobs: &[(Digest, u64)],
        repository: Option<Repository<'_>>,
    ) -> Result<(), FetchError> {
        let mut missing = Vec::new();
        for (digest, size) in blobs {
            if session.store().object(digest, Some(*size)).map_err(|error| store(name, error))?.is_none()
                && !missing.contains(&(*digest, *size))
            {
                missing.push((*digest, *size));
            }
        }
        let mut repository = match repository {
            _ if missing.is_empty() => return Ok(()),
            Some(open) => open,
            None => Repository::open(self, image)?,
        };
        // A registry's token lasts some minutes: a large layer takes longer on a slow line.
        for last in [false, true] {
            let bring = |(digest, size): &(Digest, u64)| {
                let _lock = self.lock(session, name, digest)?;
                if session.store().object(digest, Some(*size)).map_err(|error| store(name, error))?.is_some() {
                    return Ok(());
                }
                let source = SourceUrl::Http(repository.blob(digest).into());
                let expect = Expect { sha256: Some(*digest), size: Some(*size), checksum: None };
                self.download(session, name, &[source], expect).map(drop)
            };
            let mut refused = Vec::new();
            for (blob, result) in missing.iter().zip(self.each(&missing, bring)) {
                match result {
                    Err(error) if !last && is_refused(&error) => refused.push(*blob),
                    other => other?,
                }
            }
            if refused.is_empty() {
                return Ok(());
            }
            missing = refused;
            repository = Repository::open(self, image)?;
        }
        Ok(())
    }
}

/// The digests of all that an image's manifest keeps in the store, and its own, if it is there.
pub fn image_parts(store: &Store, (sha256, size): (Digest, u64)) -> Vec<(Digest, u64)> {
    let Ok(body) = read(store, "", &sha256, size) else { return Vec::new() };
    match manifest("", &body) {
        Ok((config, layers)) => [(sha256, size), config].into_iter().chain(layers).collect(),
        Err(_) => vec![(sha256, size)],
    }
}

/// What a brought image says of how it is to be used.
///
/// # Errors
/// Where its configuration is not in the store or can't be read.
pub fn image_config(store: &Store, image: &ImageReference, at: (Digest, u64)) -> Result<ImageConfig, FetchError> {
    let name = format!("{IMAGE}{image}");
    let (config, _) = manifest(&name, &read(store, &name, &at.0, at.1)?)?;
    let body = read(store, &name, &config.0, config.1)?;
    let config: Config =
        serde_json::from_slice(&body).map_err(|e| contents(&name, format!("its configuration: {e}")))?;
    let variables = config.config.and_then(|run| run.env).unwrap_or_default();
    let pair = |text: String| text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    Ok(ImageConfig { variables: variables.into_iter().filter_map(pair).collect() })
}

/// The digest of a brought image's configuration, which other programs know the image by.
///
/// # Errors
/// Where its manifest is not in the store.
pub fn image_config_digest(of: &Store, image: &ImageReference, at: (Digest, u64)) -> Result<Digest, FetchError> {
    let name = format!("{IMAGE}{image}");
    Ok(manifest(&name, &read(of, &name, &at.0, at.1)?)?.0.0)
}

/// Lays a brought image out in an empty folder as other programs read it (OCI image layout 1.0.0).
///
/// # Errors
/// Where parts of it are not in the store, or the folder can't be written.
pub fn image_layout(
    of: &Store,
    image: &ImageReference,
    (sha256, size): (Digest, u64),
    folder: &Path,
) -> Result<(), FetchError> {
    let name = format!("{IMAGE}{image}");
    let body = read(of, &name, &sha256, size)?;
    let failed = |source| store(&name, StoreError::Io { action: "write", path: folder.to_owned(), source });
    let blobs = folder.join("blobs/sha256");
    fs_err::create_dir_all(&blobs).map_err(failed)?;
    for (digest, size) in image_parts(of, (sha256, size)) {
        let from = of.object(&digest, Some(size)).map_err(|error| store(&name, error))?;
        let from = from.ok_or_else(|| store(&name, StoreError::Missing(digest)))?;
        let to = blobs.join(digest.to_hex());
        // The store may be on another file system.
        if fs_err::hard_link(&from, &to).is_err() {
            fs_err::copy(&from, &to).map_err(failed)?;
        }
    }
    let kind = match serde_json::from_slice::<Typed>(&body) {
        Ok(Typed { media_type: Some(kind) }) => kind,
        _ => "application/vnd.oci.image.manifest.v1+json".to_owned(),
    };
    let entry = serde_json::json!({ "mediaType": kind, "digest": format!("sha256:{sha256}"), "size": size });
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [entry] });
    fs_err::write(folder.join("index.json"), index.to_string()).map_err(failed)?;
    fs_err::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).map_err(failed)
}

/// A manifest's configuration and layers.
#[expect(clippy::type_complexity, reason = "digest and size, one and many")]
fn manifest(name: &str, body: &[u8]) -> Result<((Digest, u64), Vec<(Digest, u64)>), FetchError> {
    let manifest: Manifest = serde_json::from_slice(body).map_err(|_| {
        contents(
            name,
            "the registry answered with what is no image manifest (schema 1 of docker's is too old to be read)",
        )
    })?;
    let part = |descriptor: &Descriptor| {
        let kind = &descriptor.media_type;
        if kind.contains("foreign") || kind.contains("nondistributable") || kind.contains("encrypted") {
            return Err(contents(
                name,
                format!("a layer is of the kind `{kind}`, which is not to be had from a registry"),
            ));
        }
        let digest = descriptor.digest();
        let digest = digest.ok_or_else(|| contents(name, format!("`{}` is no sha256 digest", descriptor.digest)))?;
        Ok((digest, descriptor.size))
    };
    Ok((part(&manifest.config)?, manifest.layers.iter().map(part).collect::<Result<_, _>>()?))
}

/// The bytes of an object of which the size is known, and small.
fn read(of: &Store, name: &str, sha256: &Digest, size: u64) -> Result<Vec<u8>, FetchError> {
    let path = of.object(sha256, Some(size)).map_err(|error| store(name, error))?;
    let path = path.ok_or_else(|| store(name, StoreError::Missing(*sha256)))?;
    fs_err::read(&path).map_err(|source| store(name, StoreError::Io { action: "read", path, source }))
}

fn is_refused(error: &FetchError) -> bool {
    let FetchError::Sources { failures, .. } = error else { return false };
    failures.0.iter().any(|failure| matches!(failure.reason, Reason::Denied { .. }))
}

fn store(name: &str, error: StoreError) -> FetchError {
    FetchError::Store { name: name.to_owned(), error }
}

fn contents(name: &str, reason: impl Into<String>) -> FetchError {
    many::contents(name, reason, None)
}
