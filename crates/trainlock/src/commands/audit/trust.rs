//! What of the manifests no publisher's hash and no wall stands behind.

use super::{Report, Section};
use serde::Serialize;
use std::ops::Range;
use std::sync::Arc;
use trainlock_lock::{HashFrom, Lock};
use trainlock_manifest::{Member, Sandbox, Workspace};
use trainlock_types::{Algorithm, DataSource, SourceText, SourceUrl, ToolMatch, ToolProvider};

/// Something that rests on trust alone.
#[derive(Debug, Serialize)]
struct Trusted {
    /// Where it is asked for: `train.toml:LINE:COLUMN`.
    place: String,
    /// What: `data raw`, `step train`.
    what: String,
    rule: &'static str,
    message: String,
    /// What to write.
    help: &'static str,
}

/// Says it of all that these members ask for.
pub(super) fn audit(workspace: &Workspace, lock: Option<&Lock>, members: &[usize], report: &mut Report<'_>) {
    for member in members.iter().map(|i| &workspace.members[*i]) {
        let mut found = data(workspace, member);
        found.extend(tools(workspace, member, lock));
        found.extend(steps(workspace, member));
        for one in &found {
            let Trusted { place, what, rule, message, help } = one;
            let text = format!("{place}: {what}: {message} [{rule}]\n    {help}");
            report.find(Section::Trust, one, &text);
        }
    }
}

fn data(workspace: &Workspace, member: &Member) -> Vec<Trusted> {
    let mut found = Vec::new();
    for data in &member.data {
        let mut add = |rule, message: String, help| {
            let what = format!("data {}", data.request.name);
            found.push(Trusted { place: place(workspace, &data.source, &data.span), what, rule, message, help });
        };
        let (urls, checksum): (Vec<&SourceUrl>, _) = match &data.request.source {
            DataSource::Url { url, mirrors, checksum, .. } => {
                (std::iter::once(url).chain(mirrors).collect(), checksum.as_ref())
            }
            DataSource::Pooch { base, .. } => (base.iter().collect(), None),
            DataSource::Croissant(_) | DataSource::Path(_) => (Vec::new(), None),
        };
        let one_file =
            matches!(&data.request.source, DataSource::Url { url: SourceUrl::Http(_) | SourceUrl::File(_), .. });
        if one_file && checksum.is_none() {
            add(
                "first-download",
                "its hash is that of the bytes that came first: nobody else states it".to_owned(),
                "`checksum = \"sha256:…\"`, as its publisher states it",
            );
        }
        let strong = checksum.is_some_and(|c| matches!(c.algorithm, Algorithm::Sha256 | Algorithm::Sha512));
        let is_open = |url: &&&SourceUrl| matches!(url, SourceUrl::Http(url) if url.scheme() == "http");
        if let Some(url) = urls.iter().find(is_open).filter(|_| !strong) {
            add(
                "no-tls",
                format!(
                    "{} is not https: whoever stands between can have changed it before it was locked",
                    url.redacted()
                ),
                "an https address, or `checksum = \"sha256:…\"` from where you trust it",
            );
        }
    }
    found
}

fn tools(workspace: &Workspace, member: &Member, lock: Option<&Lock>) -> Vec<Trusted> {
    let mut found = Vec::new();
    for tool in &member.tools {
        let mut add = |rule, message: &str, help| {
            let (place, message) = (place(workspace, &tool.source, &tool.span), message.to_owned());
            found.push(Trusted { place, what: format!("tool {}", tool.request.name), rule, message, help });
        };
        let pin = lock.and_then(|lock| lock.tool(tool.request.member.as_ref(), &tool.request.name));
        if pin.is_some_and(|pin| pin.hash_from == Some(HashFrom::FirstDownload)) {
            add(
                "first-download",
                "its hash is that of the bytes that came first: its publisher states none",
                "another source of it that states one (`from = \"pypi\"`, or a list with `from = \"index\"`)",
            );
        }
        if let ToolProvider::Host { accept: ToolMatch::Requirement, .. } = tool.request.provider {
            add(
                "any-version",
                "any version of the machine's own that satisfies the requirement is taken",
                "leave out `match = \"requirement\"`, or have it fetched",
            );
        }
    }
    found
}

fn steps(workspace: &Workspace, member: &Member) -> Vec<Trusted> {
    let mut found = Vec::new();
    for step in &member.steps {
        let mut add = |rule, message: &str, help| {
            let (place, message) = (place(workspace, &member.source, &step.span), message.to_owned());
            found.push(Trusted { place, what: format!("step {}", step.name), rule, message, help });
        };
        if step.sandbox == Sandbox::Off {
            add(
                "no-sandbox",
                "it runs without a sandbox: what it reads besides its inputs is not known",
                "`sandbox = \"best-effort\"`, or `\"required\"`",
            );
        }
        if step.network {
            add(
                "network",
                "it may use the network: what it fetches is not locked",
                "`network = false`, and a [data] entry for what it needs",
            );
        }
    }
    found
}

/// `train.toml:LINE:COLUMN`, relative to the workspace.
fn place(workspace: &Workspace, source: &Arc<SourceText>, span: &Range<usize>) -> String {
    let before = source.text.get(..span.start).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    let path = source.path.strip_prefix(&workspace.root).unwrap_or(&source.path);
    format!("{}:{line}:{column}", path.display())
}
