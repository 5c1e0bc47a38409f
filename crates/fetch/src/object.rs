//! `s3:`, `gs:`, `az:`: the buckets of object stores.
//!
//! The protocols (addresses, signatures, listings) are those of crate `object_store`; the bytes go the way of all others: the same client,
//! with its certificates and proxies, and the same channel to the worker that hashes. An ETag is never taken for a hash of the content.

use crate::budget::{Budget, Permit};
use crate::error::{Failure, Reason};
use crate::net::Ask;
use crate::process::CredentialProcess;
use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body::{Body, Frame, SizeHint};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::Path;
use object_store::{BackoffConfig, ClientOptions, GetOptions, GetRange, ObjectStore, RetryConfig};
use reqwest::header::RETRY_AFTER;
use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep, timeout};
use url::Url;

/// So many bytes of a server's refusal are read, to say why.
const REFUSAL: usize = 16 << 10;

/// What the environment and the usual files say of object stores, by the names that crate `object_store` has for it (`aws_region`,
/// `google_bearer_token`, `azure_storage_account_name`). Its `Debug` shows no value.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ObjectSettings {
    /// For `s3:`.
    pub s3: BTreeMap<String, String>,
    /// For `gs:`.
    pub gs: BTreeMap<String, String>,
    /// For `az:`.
    pub az: BTreeMap<String, String>,
    /// How else the credentials for `s3:` are had, or not.
    pub profile: Option<Profile>,
}

/// What a profile of Amazon's tools says of credentials that it does not hold itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Profile {
    /// A program prints them (`credential_process`).
    Process(CredentialProcess),
    /// They are meant, and can't be had.
    Unusable {
        /// Which, where that is said, and why not; in words.
        why: String,
        /// What to do about it.
        hint: String,
    },
}

impl fmt::Debug for ObjectSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = |options: &BTreeMap<String, String>| options.keys().cloned().collect::<Vec<_>>();
        let ObjectSettings { s3, gs, az, profile } = self;
        f.debug_struct("ObjectSettings")
            .field("s3", &keys(s3))
            .field("gs", &keys(gs))
            .field("az", &keys(az))
            .field("profile", profile)
            .finish()
    }
}

impl ObjectSettings {
    fn of(&self, scheme: &str) -> &BTreeMap<String, String> {
        match scheme {
            "s3" => &self.s3,
            "gs" => &self.gs,
            _ => &self.az,
        }
    }

    /// Whether requests go without a signature.
    fn anonymous(&self, scheme: &str) -> bool {
        let key = match scheme {
            "s3" => "aws_skip_signature",
            "gs" => "google_skip_signature",
            _ => "azure_skip_signature",
        };
        self.of(scheme).get(key).is_some_and(|value| value == "true")
    }
}

/// An object of a bucket, at one version if one is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) scheme: String,
    pub(crate) bucket: String,
    /// The key, or a prefix of keys.
    pub(crate) key: Path,
    pub(crate) version: Option<String>,
}

/// The version of an object that was put while its bucket kept none.
pub(crate) const NO_VERSION: &str = "null";

/// The part of a query that names a version, in the addresses of all kinds of stores.
const VERSION: &str = "versionId";

impl Place {
    /// What an address names; in words, if it can name nothing.
    pub(crate) fn of(url: &Url) -> Result<Place, String> {
        let bucket = url.host_str().filter(|host| !host.is_empty()).ok_or("the address has no bucket")?;
        let key = Path::from_url_path(url.path()).map_err(|e| format!("the key can't be used: {e}"))?;
        let mut version = None;
        for (name, value) in url.query_pairs() {
            match &*name {
                VERSION => version = Some(value.into_owned()),
                other => return Err(format!("`{other}` means nothing in the address of an object")),
            }
        }
        Ok(Place { scheme: url.scheme().to_owned(), bucket: bucket.to_owned(), key, version })
    }

    /// The address of the object.
    pub(crate) fn url(&self) -> Result<Url, url::ParseError> {
        let mut url = Url::parse(&format!("{}://{}/", self.scheme, self.bucket))?;
        if let Ok(mut path) = url.path_segments_mut() {
            path.clear().extend(self.key.as_ref().split('/'));
        }
        if let Some(version) = &self.version {
            url.query_pairs_mut().append_pair(VERSION, version);
        }
        Ok(url)
    }
}

/// The stores that were asked so far.
pub(crate) struct Stores {
    settings: ObjectSettings,
    wire: Wire,
    open: Mutex<HashMap<(String, String), Arc<dyn ObjectStore>>>,
}

/// An object that comes.
pub(crate) struct Coming {
    pub(crate) place: Place,
    pub(crate) version: Option<String>,
    /// The store's name for these bytes, which is no hash of them.
    pub(crate) etag: Option<String>,
    /// Whether it is the part that was asked for.
    pub(crate) is_part: bool,
    /// The bytes that come, and the size of the whole.
    pub(crate) range: Range<u64>,
    pub(crate) total: u64,
    pub(crate) stream: Stream,
}

/// The bytes of an object, in pieces.
pub(crate) type Stream = futures_util::stream::BoxStream<'static, object_store::Result<bytes::Bytes>>;

/// A key below a prefix and its size in bytes.
pub(crate) type Listed = (Path, u64);

impl Stores {
    pub(crate) fn new(settings: ObjectSettings, budget: Arc<Budget>, patience: Duration) -> Stores {
        Stores { settings, wire: Wire { budget, patience }, open: Mutex::default() }
    }

    fn store(&self, place: &Place) -> Result<Arc<dyn ObjectStore>, Reason> {
        if let Some(Profile::Unusable { why, hint }) = self.settings.profile.as_ref().filter(|_| place.scheme == "s3") {
            return Err(Reason::Credentials { why: why.clone(), hint: hint.clone() });
        }
        let key = (place.scheme.clone(), place.bucket.clone());
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = open.get(&key) {
            return Ok(Arc::clone(store));
        }
        let store = self.build(place).map_err(|error| self.setup(&place.scheme, &error))?;
        open.insert(key, Arc::clone(&store));
        Ok(store)
    }

    fn build(&self, place: &Place) -> object_store::Result<Arc<dyn ObjectStore>> {
        let Place { scheme, bucket, .. } = place;
        let options = self.settings.of(scheme);
        // Whether it is tried again is decided above, where the bytes that came already are known.
        let wait = Duration::from_secs(1);
        let backoff = BackoffConfig { init_backoff: wait, max_backoff: wait, base: 1.0 };
        let retry = RetryConfig { backoff, max_retries: 0, retry_timeout: wait };
        // An endpoint is plain http where the user says so.
        let client = ClientOptions::new().with_allow_http(true);
        Ok(match &**scheme {
            "s3" => {
                let mut builder = AmazonS3Builder::new().with_bucket_name(bucket);
                for (name, value) in options {
                    builder = builder.with_config(name.parse::<AmazonS3ConfigKey>()?, value);
                }
                if let Some(Profile::Process(process)) = &self.settings.profile {
                    builder = builder.with_credentials(process.clone().provider());
                }
                let builder = builder.with_client_options(client).with_retry(retry);
                Arc::new(builder.with_http_connector(self.wire.clone()).build()?)
            }
            "gs" => {
                let mut builder = GoogleCloudStorageBuilder::new().with_bucket_name(bucket);
                for (name, value) in options {
                    builder = builder.with_config(name.parse::<GoogleConfigKey>()?, value);
                }
                let builder = builder.with_client_options(client).with_retry(retry);
                Arc::new(builder.with_http_connector(self.wire.clone()).build()?)
            }
            _ => {
                let mut builder = MicrosoftAzureBuilder::new().with_container_name(bucket);
                for (name, value) in options {
                    builder = builder.with_config(name.parse::<AzureConfigKey>()?, value);
                }
                let builder = builder.with_client_options(client).with_retry(retry);
                Arc::new(builder.with_http_connector(self.wire.clone()).build()?)
            }
        })
    }

    fn setup(&self, scheme: &str, error: &object_store::Error) -> Reason {
        match scheme {
            "az" if !self.settings.az.contains_key("azure_storage_account_name") => {
                Reason::Setup("set AZURE_STORAGE_ACCOUNT to the account that holds the container".to_owned())
            }
            _ => Reason::Setup(innermost(error)),
        }
    }

    /// Asks for an object, or for a range of its bytes: for all of them if it is not the one with this ETag any more.
    pub(crate) async fn get(&self, url: &Url, ask: &Ask) -> Result<Coming, Failure> {
        let place = Place::of(url).map_err(Reason::Setup)?;
        let store = self.store(&place)?;
        let part = ask.range.map(|(from, to)| match to {
            Some(to) => GetRange::Bounded(from..to),
            None => GetRange::Offset(from),
        });
        let is_part = part.is_some();
        let mut whole = GetOptions { version: place.version.clone(), ..GetOptions::default() };
        if ask.spare {
            whole.extensions.insert(Spare);
        }
        let options = GetOptions { range: part, if_match: ask.if_range.clone().filter(|_| is_part), ..whole.clone() };
        let (got, is_part) = match store.get_opts(&place.key, options).await {
            Ok(got) => (got, is_part),
            Err(error) if is_part && status(&error) == Some(412) => {
                (store.get_opts(&place.key, whole).await.map_err(|error| self.reason(&place, &error))?, false)
            }
            // Not the part that was asked for.
            Err(error) if is_part && matches!(status(&error), None | Some(416)) && !is_network(&error) => {
                return Err(Reason::Resume.into());
            }
            Err(error) => return Err(self.reason(&place, &error).into()),
        };
        let version = got.meta.version.clone();
        let (etag, range, total) = (got.meta.e_tag.clone(), got.range.clone(), got.meta.size);
        Ok(Coming { place, version, etag, is_part, range, total, stream: got.into_stream() })
    }

    /// Adds the keys below a prefix, in their order: those behind the last that was found already.
    pub(crate) async fn list(&self, url: &Url, found: &mut Vec<Listed>) -> Result<(), Failure> {
        let place = Place::of(url).map_err(Reason::Setup)?;
        let store = self.store(&place)?;
        let prefix = Some(&place.key).filter(|key| !key.as_ref().is_empty());
        let after = found.last().map(|(key, _)| key.clone());
        let mut listing = match &after {
            Some(after) => store.list_with_offset(prefix, after),
            None => store.list(prefix),
        };
        while let Some(object) = listing.next().await {
            let object = object.map_err(|error| self.reason(&place, &error))?;
            found.push((object.location, object.size));
        }
        Ok(())
    }

    /// What an error of a store means.
    pub(crate) fn reason(&self, place: &Place, error: &object_store::Error) -> Reason {
        let bucket = format!("{}://{}", place.scheme, place.bucket);
        let Some(refusal) = causes(error).find_map(|cause| cause.downcast_ref::<Refusal>()) else {
            match causes(error).find_map(|cause| cause.downcast_ref::<Reason>()) {
                Some(Reason::NoneToSpare) => return Reason::NoneToSpare,
                Some(Reason::Stalled(patience)) => return Reason::Stalled(*patience),
                Some(Reason::Setup(why)) => return Reason::Setup(why.clone()),
                Some(Reason::Credentials { why, hint }) => {
                    return Reason::Credentials { why: why.clone(), hint: hint.clone() };
                }
                _ => {}
            }
            if let Some(error) = causes(error).find_map(|cause| cause.downcast_ref::<reqwest::Error>()) {
                return crate::net::broken(error);
            }
            return Reason::Objects { bucket, why: innermost(error) };
        };
        let anonymous = self.settings.anonymous(&place.scheme);
        match (refusal.status, &*refusal.code) {
            (_, "NoSuchBucket" | "ContainerNotFound" | "InvalidBucketName") => Reason::NoBucket { bucket },
            (404, _) if refusal.message.contains("bucket does not exist") => Reason::NoBucket { bucket },
            (404 | 410, _) => Reason::NotFound(refusal.status),
            (status @ (401 | 403 | 407), _) => Reason::BucketDenied { bucket, status, why: refusal.why(), anonymous },
            (status @ (408 | 425 | 429 | 500..=599), _) => Reason::Status { status, retry_after: refusal.retry_after },
            // Some servers don't even see that it is meant for a bucket.
            (status @ 400..=499, "") if anonymous => {
                Reason::BucketDenied { bucket, status, why: refusal.why(), anonymous }
            }
            (301 | 307 | 308 | 400, _) if refusal.region.is_some() => {
                Reason::Region { bucket, region: refusal.region.clone().unwrap_or_default() }
            }
            (status, _) => Reason::Objects { bucket, why: format!("status {status}{}", refusal.why()) },
        }
    }
}

/// The connections that all of trainlock shares, as `object_store` wants them. Refusals become errors that say what the server said.
#[derive(Clone)]
struct Wire {
    budget: Arc<Budget>,
    /// How long a server may take to answer, and for each further piece.
    patience: Duration,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("patience", &self.patience).finish_non_exhaustive()
    }
}

/// Marks a request that is only made if there is a connection to spare.
#[derive(Debug, Clone, Copy)]
struct Spare;

impl HttpConnector for Wire {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

impl HttpService for Wire {
    fn call<'life0, 'async_trait>(
        &'life0 self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async move {
            let spare = request.extensions().get::<Spare>().is_some();
            let url = request.uri().to_string().parse::<Url>();
            let unasked = |reason| HttpError::new(HttpErrorKind::Unknown, reason);
            let url = url.map_err(|error| unasked(Reason::Setup(error.to_string())))?;
            // Its host and not the bucket's name says which server it is.
            let mut permit = self.budget.take(&url, spare).await.map_err(unasked)?;
            let answered = timeout(self.patience, permit.client().call(request)).await;
            let (head, body) = answered.map_err(|_| stalled(self.patience))??.into_parts();
            if !spare {
                permit.answered(head.version);
            }
            let still = Box::pin(sleep(self.patience));
            let body = HttpResponseBody::new(Answer { body, still, patience: self.patience, permit });
            let response = HttpResponse::from_parts(head, body);
            if response.status().is_success() {
                return Ok(response);
            }
            Err(HttpError::new(HttpErrorKind::Unknown, Refusal::read(response).await))
        })
    }
}

/// What comes over a connection of the budget, which is given back behind it.
struct Answer {
    body: HttpResponseBody,
    /// Ends when nothing has come for too long.
    still: Pin<Box<Sleep>>,
    patience: Duration,
    permit: Permit,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let answer = self.get_mut();
        match Pin::new(&mut answer.body).poll_frame(cx) {
            Poll::Ready(frame) => {
                if let Some(Ok(bytes)) = frame.as_ref().map(|frame| frame.as_ref().map(|f| f.data_ref())) {
                    answer.permit.came(bytes.map_or(0, Bytes::len));
                }
                answer.still.as_mut().reset(Instant::now() + answer.patience);
                Poll::Ready(frame)
            }
            Poll::Pending => answer.still.as_mut().poll(cx).map(|()| Some(Err(stalled(answer.patience)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A server that did not answer in time.
fn stalled(patience: Duration) -> HttpError {
    HttpError::new(HttpErrorKind::Timeout, Reason::Stalled(patience))
}

/// What a server says that does not give what is asked for.
#[derive(Debug, Default, thiserror::Error)]
#[error("status {status}{}", self.why())]
struct Refusal {
    status: u16,
    /// The store's own word for it.
    code: String,
    /// Its explanation.
    message: String,
    /// The region that the bucket is in, if that is the matter.
    region: Option<String>,
    retry_after: Option<Duration>,
}

impl Refusal {
    async fn read(response: HttpResponse) -> Refusal {
        let (head, body) = response.into_parts();
        let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let mut bytes = Vec::new();
        let mut stream = body.bytes_stream();
        while let Some(Ok(piece)) = stream.next().await {
            bytes.extend_from_slice(&piece);
            if bytes.len() >= REFUSAL {
                break;
            }
        }
        let body = String::from_utf8_lossy(&bytes);
        let mut refusal = Refusal::of(&body);
        refusal.status = head.status.as_u16();
        refusal.region = text("x-amz-bucket-region").or(refusal.region);
        if refusal.code.is_empty() {
            refusal.code = text("x-ms-error-code").unwrap_or_default();
        }
        refusal.retry_after =
            text(RETRY_AFTER.as_str()).and_then(|after| crate::retry::retry_after(&after, text("date").as_deref()));
        refusal
    }

    /// What an answer in XML (S3, Azure, Google) or JSON (Google) says.
    fn of(body: &str) -> Refusal {
        let element = |name: &str| {
            let (_, rest) = body.split_once(&format!("<{name}>"))?;
            let (text, _) = rest.split_once(&format!("</{name}>"))?;
            let text = text.replace("&quot;", "\"").replace("&apos;", "'").replace("&amp;", "&");
            // The first line: further ones are about the request.
            Some(text.lines().next().unwrap_or_default().trim().to_owned())
        };
        let mut refusal = Refusal {
            code: element("Code").unwrap_or_default(),
            message: element("Message").unwrap_or_default(),
            region: element("Region"),
            ..Refusal::default()
        };
        if let Ok(json) = serde_json::from_str::<serde_json::Value>(body) {
            refusal.message = json["error"]["message"].as_str().unwrap_or_default().to_owned();
        }
        refusal
    }

    fn why(&self) -> String {
        let message = self.message.trim_end_matches('.');
        match (&*self.code, message) {
            ("", "") => String::new(),
            (code, "") => format!(": {code}"),
            ("", message) => format!(": {message}"),
            (code, message) => format!(": {message} ({code})"),
        }
    }
}

/// The status of a refusal.
fn status(error: &object_store::Error) -> Option<u16> {
    causes(error).find_map(|cause| cause.downcast_ref::<Refusal>()).map(|refusal| refusal.status)
}

/// Whether no answer came at all.
fn is_network(error: &object_store::Error) -> bool {
    causes(error).any(|cause| cause.is::<reqwest::Error>() || cause.is::<Reason>())
}

/// An error, its cause, that one's cause, and so on.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

/// The last cause, which says most and holds no address.
fn innermost(error: &(dyn Error + 'static)) -> String {
    causes(error).last().map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_name_keys_and_versions() {
        let place = |text: &str| Place::of(&Url::parse(text).unwrap());
        let object = place("s3://bucket/a/b%20c%23.tar?versionId=v%2B1").unwrap();
        assert_eq!((object.key.as_ref(), object.version.as_deref()), ("a/b c#.tar", Some("v+1")));
        assert_eq!(place(object.url().unwrap().as_str()).unwrap(), object);
        assert_eq!(place("gs://bucket/").unwrap().key.as_ref(), "");
        assert!(place("s3://bucket/a?part=1").unwrap_err().contains("part"));
        assert!(place("s3://bucket/a//b").is_err());
    }

    #[test]
    fn what_servers_say() {
        let refusal = Refusal::of(
            "<?xml version='1.0'?><Error><Code>AuthorizationHeaderMalformed</Code><Message>the region 'us-east-1' is wrong.\nsecond</Message><Region>eu-west-1</Region></Error>",
        );
        assert_eq!(refusal.why(), ": the region 'us-east-1' is wrong (AuthorizationHeaderMalformed)");
        assert_eq!(refusal.region.as_deref(), Some("eu-west-1"));
        let google = Refusal::of(r#"{"error": {"code": 404, "message": "The specified bucket does not exist."}}"#);
        assert_eq!(google.why(), ": The specified bucket does not exist");
        assert_eq!(Refusal::of("<html>").why(), "");
    }

    #[test]
    fn no_value_is_shown() {
        let mut settings = ObjectSettings::default();
        settings.s3.insert("aws_secret_access_key".to_owned(), "s-e-c".to_owned());
        let text = format!("{settings:?}");
        assert!(text.contains("aws_secret_access_key") && !text.contains("s-e-c"), "{text}");
    }
}
