//! `credential_process`: a program that prints the credentials for S3, as Amazon's own tools call it.

use crate::auth;
use crate::error::Reason;
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use serde::Deserialize;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// Credentials that end are asked for again after this time: none that the tools give out end sooner.
const FRESH: Duration = Duration::from_secs(300);

/// A program that prints the credentials for S3. Its `Debug` shows no argument.
#[derive(Clone, PartialEq, Eq)]
pub struct CredentialProcess {
    /// The command, with its arguments quoted as for a shell. It is not given to a shell.
    pub command: String,
    /// Which profile of which file says so, in words.
    pub said_by: String,
}

impl fmt::Debug for CredentialProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialProcess").field("said_by", &self.said_by).finish_non_exhaustive()
    }
}

/// What it prints.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Printed {
    version: u32,
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
    expiration: Option<String>,
}

/// The credentials of a process, while they last.
pub(crate) struct Provider {
    process: CredentialProcess,
    known: Mutex<Option<Known>>,
}

struct Known {
    credential: Arc<AwsCredential>,
    until: Option<Instant>,
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider").field("process", &self.process).finish_non_exhaustive()
    }
}

impl CredentialProcess {
    pub(crate) fn provider(self) -> Arc<Provider> {
        Arc::new(Provider { process: self, known: Mutex::default() })
    }

    /// Asks the program. What it prints is not repeated in an error: it may be what must not be shown.
    fn ask(&self) -> Result<Printed, Reason> {
        let failed = |why: String| Reason::Credentials {
            why: format!("{}: its `credential_process` gives no credentials: {why}", self.said_by),
            hint: "run the command by hand to see why".to_owned(),
        };
        let line = shlex::split(&self.command).ok_or_else(|| failed("a quotation mark is not closed".to_owned()))?;
        let text = auth::run(&line, "").map_err(failed)?;
        let no_form = || failed("it does not print the JSON object that is wanted".to_owned());
        let printed: Printed = serde_json::from_str(&text).map_err(|_| no_form())?;
        match printed.version {
            1 => Ok(printed),
            other => Err(failed(format!("it prints `Version` {other}, and 1 is known"))),
        }
    }
}

impl CredentialProvider for Provider {
    type Credential = AwsCredential;

    fn get_credential<'life0, 'async_trait>(
        &'life0 self,
    ) -> Pin<Box<dyn Future<Output = object_store::Result<Arc<AwsCredential>>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async move {
            // Held while the program runs, so that many requests ask it once.
            let mut known = self.known.lock().await;
            if let Some(known) = known.as_ref().filter(|known| known.until.is_none_or(|until| Instant::now() < until)) {
                return Ok(Arc::clone(&known.credential));
            }
            let process = self.process.clone();
            let asked = tokio::task::spawn_blocking(move || process.ask()).await;
            let failed = |source| object_store::Error::Generic { store: "S3", source };
            let printed = asked.map_err(|error| failed(error.into()))?.map_err(|reason| failed(reason.into()))?;
            let credential = Arc::new(AwsCredential {
                key_id: printed.access_key_id,
                secret_key: printed.secret_access_key,
                token: printed.session_token,
            });
            let until = printed.expiration.map(|_| Instant::now() + FRESH);
            *known = Some(Known { credential: Arc::clone(&credential), until });
            Ok(credential)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(command: &str) -> CredentialProcess {
        CredentialProcess { command: command.to_owned(), said_by: "the profile `lab` of config".to_owned() }
    }

    #[test]
    fn what_a_process_prints() {
        let printed = process(
            r#"/bin/sh -c 'echo "{\"Version\": 1, \"AccessKeyId\": \"$0\", \"SecretAccessKey\": \"S\"}"' "a key""#,
        );
        let printed = printed.ask().map(|printed| (printed.access_key_id, printed.session_token));
        assert_eq!(printed.unwrap(), ("a key".to_owned(), None));
        for (command, words) in [
            ("/bin/sh -c 'echo s3cret; exit 3'", "exit status: 3"),
            ("/bin/echo s3cret", "the JSON object"),
            (r#"/bin/echo '{"Version": 2, "AccessKeyId": "A", "SecretAccessKey": "s3cret"}'"#, "`Version` 2"),
            ("/no/such/program", "does not start"),
            ("/bin/echo 's3cret", "quotation mark"),
            ("", "no name"),
        ] {
            let Err(Reason::Credentials { why, .. }) = process(command).ask() else { panic!("{command}") };
            assert!(why.contains(words) && why.contains("`lab` of config") && !why.contains("s3cret"), "{why}");
        }
    }

    #[test]
    fn it_is_asked_once_while_it_lasts() {
        let folder = tempfile::tempdir().unwrap();
        let count = folder.path().join("count");
        let asked = |expiration: &str| {
            let _ = fs_err::remove_file(&count);
            let command = format!(
                "/bin/sh -c 'echo >>{}; echo \"$0\"' '{{\"Version\": 1, \"AccessKeyId\": \"A\", \"SecretAccessKey\": \"S\"{expiration}}}'",
                count.display()
            );
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            runtime.block_on(async {
                let provider = process(&command).provider();
                for _ in 0..3 {
                    assert_eq!(provider.get_credential().await.unwrap().key_id, "A");
                }
                if let Some(known) = &mut *provider.known.lock().await {
                    known.until = known.until.map(|until| until - FRESH);
                }
                provider.get_credential().await.unwrap();
            });
            fs_err::read_to_string(&count).unwrap().lines().count()
        };
        assert_eq!((asked(""), asked(r#", "Expiration": "2026-01-01T00:00:00Z""#)), (1, 2));
    }
}
