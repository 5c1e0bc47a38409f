//! What the locked addresses answer now, and where else each input can be had.

use super::{Report, Section, count};
use crate::equip::index_for;
use crate::exit::{Failure, Problem};
use crate::locking::{shown, unstable_addresses};
use crate::project::{self, Project};
use crate::ui::printable;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use trainlock_fetch::{Answer, Fetcher, Found, Settings, Want, Wanted};
use trainlock_lock::{Content, DataPin, Lock, Reason, ToolPin, satisfies};
use trainlock_manifest::Data;
use trainlock_types::{DataSource, PinnedFile, Platform, SourceUrl, ToolFrom, ToolProvider, Validator};
use url::Url;

/// Says it of all locked inputs of these members; without `offline` their addresses are asked.
pub(super) fn audit(
    project: &Project,
    lock: &Lock,
    members: &[usize],
    offline: bool,
    report: &mut Report<'_>,
) -> Result<(), Failure> {
    let pins: Vec<(&Data, &DataPin)> = project
        .data_of(members)
        .into_iter()
        .filter_map(|data| Some((data, lock.data(data.request.member.as_ref(), &data.request.name)?)))
        .filter(|(data, pin)| !satisfies(pin, &data.request).iter().any(Reason::relocks))
        .collect();
    for (_, pin) in &pins {
        for words in unstable_addresses(pin) {
            let name = shown(pin);
            let fact = json!({ "kind": "data", "name": name, "state": "unstable", "why": words });
            report.find(Section::Addresses, &fact, &format!("data {name}: {words}"));
        }
    }
    if !offline {
        addresses(project, lock, members, &pins, report)?;
    }
    copies(project, lock, members, &pins, report)
}

fn addresses(
    project: &Project,
    lock: &Lock,
    members: &[usize],
    pins: &[(&Data, &DataPin)],
    report: &mut Report<'_>,
) -> Result<(), Failure> {
    let (tools, packages) = project.equipment_files(lock, members)?;
    let session = project.store.session()?;
    let mut asked = Asked { agree: 0, report };
    {
        let (events, _display) = asked.report.ui.events();
        let fetcher = Fetcher::new(project.fetch_settings(false), events);
        let mut wants: Vec<(Want, Option<&Validator>)> = Vec::new();
        for (data, pin) in pins {
            let want = project::want(pin, &data.request.source);
            wants.push((Want { name: format!("data {}", want.name), ..want }, pin.validator.as_ref()));
        }
        // Of other platforms too: a teammate's machine may need them.
        let mut builds = Vec::new();
        let mut of_index = BTreeMap::new();
        let mut of_npm: Vec<(&ToolPin, &PinnedFile)> = Vec::new();
        for pin in tools {
            let ToolProvider::Fetched(fetched) = &pin.provider else { continue };
            let package = fetched.package.as_deref().unwrap_or(&pin.name);
            for artifact in pin.artifacts.values() {
                let file = &artifact.file;
                let want = |source| Want {
                    name: format!("tool {}", pin.name),
                    sources: vec![source],
                    content: Wanted::File { sha256: file.sha256, size: file.size },
                };
                match SourceUrl::parse(&file.file) {
                    Ok(published) if fetched.from == ToolFrom::Python => {
                        let mirror = project.settings.python.mirror.as_ref();
                        let want = want(fetcher.build_source(&published, mirror));
                        builds.push((published, want));
                    }
                    Ok(source) => wants.push((want(source), None)),
                    Err(_) if fetched.from == ToolFrom::Npm => of_npm.push((pin, file)),
                    Err(_) => {
                        drop(of_index.insert(file.sha256, (format!("tool {}", pin.name), package, file, &[][..])))
                    }
                }
            }
        }
        for (pin, selected) in &packages {
            for one in selected {
                let name = format!("package {} {}", one.name, one.version);
                of_index.entry(one.file.sha256).or_insert((name, one.name.as_str(), &one.file, &pin.index[..]));
            }
        }
        for ((want, _), answers) in wants.iter().zip(fetcher.all_answers(&session, &wants)) {
            let answers = answers.map_err(|error| project::fetch_failure(&[error]))?;
            answers.iter().for_each(|answer| asked.say(&want.name, answer));
        }
        for (published, want) in builds {
            let answers = fetcher.answers(&session, &want, None).map_err(|error| project::fetch_failure(&[error]))?;
            for Answer { found, .. } in answers {
                // A mirror's address is nobody's business.
                asked.say(&want.name, &Answer { url: published.redacted(), found });
            }
        }
        // What is not configured keeps nothing else from being asked.
        let all = if of_index.is_empty() { None } else { Some(project.package_index()) };
        let mut questions = Vec::new();
        let mut names = Vec::new();
        for (name, package, file, only) in of_index.values() {
            let index = match &all {
                Some(Ok(all)) => index_for(all, package, only).map_err(|error| error.to_string()),
                Some(Err(failure)) => Err(in_words(failure)),
                None => continue,
            };
            match index {
                Ok(index) => {
                    names.push((name, *file));
                    questions.push((index, *package, *file));
                }
                Err(why) => asked.say(name, &Answer { url: file.file.clone(), found: Found::Fails(why) }),
            }
        }
        let questions: Vec<_> =
            questions.iter().map(|(index, package, file)| (index.as_ref(), *package, *file)).collect();
        for ((name, file), found) in names.into_iter().zip(fetcher.index_answers(&questions)) {
            let found = found.map_err(|error| project::fetch_failure(&[error]))?;
            asked.say(name, &Answer { url: file.file.clone(), found });
        }
        for (pin, file) in of_npm {
            let found = match project.npm.settings() {
                Ok(settings) => fetcher.npm_answer(settings, file).map_err(|error| project::fetch_failure(&[error]))?,
                Err(error) => Found::Fails(error.to_string()),
            };
            asked.say(&format!("tool {}", pin.name), &Answer { url: file.file.clone(), found });
        }
        for (image, _) in project.images(lock, members) {
            let Some(pin) = lock.image(image) else { continue };
            let answers = fetcher.image_answers(image, &pin.digest, &pin.platforms);
            for answer in answers.map_err(|error| project::fetch_failure(&[error]))? {
                asked.say("image", &answer);
            }
        }
    }
    session.finish(false)?;
    let agree = asked.agree;
    if agree > 0 && !asked.report.ui.json() {
        let words = if agree == 1 { "answers as is locked" } else { "answer as is locked" };
        let addresses = if agree == 1 { "1 address".to_owned() } else { format!("{agree} addresses") };
        asked.report.say(Section::Addresses, &json!({}), &format!("{addresses} {words}"));
    }
    Ok(())
}

/// What a failure says first.
fn in_words(failure: &Failure) -> String {
    match failure.problems.first() {
        Some(Problem::Plain { message, .. }) => message.clone(),
        Some(Problem::Placed(diagnostic)) => diagnostic.message.clone(),
        Some(Problem::Lacking(_)) | None => String::new(),
    }
}

/// What was asked.
struct Asked<'r, 'u> {
    /// How many answers agree with the lock.
    agree: usize,
    report: &'r mut Report<'u>,
}

impl Asked<'_, '_> {
    fn say(&mut self, name: &str, Answer { url, found }: &Answer) {
        let fact = |state: &str, by: Option<&str>, why: Option<&str>| json!({ "input": name, "address": url, "state": state, "by": by, "why": why });
        let line = |words: &str| printable(&format!("{name}: {url}: {words}"));
        match found {
            Found::Agrees(by) => {
                self.agree += 1;
                if self.report.ui.json() || self.report.ui.verbose() {
                    self.report.say(
                        Section::Addresses,
                        &fact("agrees", Some(by), None),
                        &line(&format!("as locked ({by})")),
                    );
                }
            }
            Found::Differs(why) => {
                self.report.differ += 1;
                self.report.find(Section::Addresses, &fact("differs", None, Some(why)), &line(&format!("has {why}")));
            }
            Found::Suspect(why) => {
                let words = format!("may have changed: {why}");
                self.report.find(Section::Addresses, &fact("suspect", None, Some(why)), &line(&words));
            }
            Found::Fails(why) => self.report.find(Section::Addresses, &fact("fails", None, Some(why)), &line(why)),
            Found::Unknown(why) => {
                self.report.say(
                    Section::Addresses,
                    &fact("unknown", None, Some(why)),
                    &line(&format!("not known: {why}")),
                );
            }
        }
    }
}

fn copies(
    project: &Project,
    lock: &Lock,
    members: &[usize],
    pins: &[(&Data, &DataPin)],
    report: &mut Report<'_>,
) -> Result<(), Failure> {
    let mut say = |name: &str, hosts: &BTreeSet<String>, stored: bool| {
        let mut places: Vec<String> = hosts.iter().cloned().collect();
        places.extend(stored.then(|| "the store".to_owned()));
        let copies = places.len();
        let fact = json!({ "input": name, "copies": copies, "hosts": hosts, "store": stored });
        let words = if copies == 0 { "nowhere".to_owned() } else { places.join(", ") };
        report.say(Section::Copies, &fact, &format!("{name}: {} ({words})", count(copies, "place")));
    };
    for (data, pin) in pins {
        let stored = match &pin.content {
            Content::File { sha256, size } => project.store.object(sha256, Some(*size))?.is_some(),
            Content::Tree { tree, listing, .. } => {
                let mut all = project.store.has_tree(tree);
                if let (false, Some(listing)) = (all, listing) {
                    // While it is locked its files come one by one.
                    all = true;
                    for entry in listing.entries() {
                        all &= project.store.object(&entry.sha256, Some(entry.size))?.is_some();
                    }
                }
                all
            }
        };
        let want = project::want(pin, &data.request.source);
        let mut hosts: BTreeSet<String> = want.sources.iter().filter_map(|url| host(project, url)).collect();
        if let DataSource::Croissant(place) = &data.request.source {
            hosts.extend(SourceUrl::parse(place).ok().and_then(|url| host(project, &url)));
        }
        if let DataSource::Pooch { base: Some(base), .. } = &data.request.source {
            hosts.extend(host(project, base));
        }
        say(&format!("data {}", shown(pin)), &hosts, stored);
    }
    let (tools, packages) = project.equipment_files(lock, members)?;
    let index = "the package index".to_owned();
    for pin in tools {
        let Some(artifact) = pin.artifacts.get(&Platform::host()) else { continue };
        let file = &artifact.file;
        let is_npm = matches!(&pin.provider, ToolProvider::Fetched(fetched) if fetched.from == ToolFrom::Npm);
        let named = if is_npm { "the npm registry".to_owned() } else { index.clone() };
        let at = SourceUrl::parse(&file.file).ok().and_then(|url| host(project, &url));
        let stored = project.store.object(&file.sha256, Some(file.size))?.is_some();
        say(&format!("tool {}", pin.name), &BTreeSet::from([at.unwrap_or(named)]), stored);
    }
    let mut seen = BTreeSet::new();
    for one in packages.iter().flat_map(|(_, selected)| selected).filter(|one| seen.insert(one.file.sha256)) {
        let stored = project.store.object(&one.file.sha256, Some(one.file.size))?.is_some();
        say(&format!("package {} {}", one.name, one.version), &BTreeSet::from([index.clone()]), stored);
    }
    for (image, (manifest, size)) in project.images(lock, members) {
        let stored = project.store.object(&manifest, Some(size))?.is_some();
        say(&format!("image {image}"), &BTreeSet::from([image.registry().to_owned()]), stored);
    }
    Ok(())
}

/// Who has what is at an address: copies of one host go with it.
fn host(project: &Project, url: &SourceUrl) -> Option<String> {
    match url {
        SourceUrl::Http(url) | SourceUrl::Git(url) => host_of(url),
        SourceUrl::Object(url) => Some(format!("{}://{}", url.scheme(), url.host_str()?)),
        SourceUrl::File(_) => Some("this machine".to_owned()),
        SourceUrl::Hf(_) => match &project.settings.hub {
            Some(hub) => host_of(hub),
            None => host_of(&Settings::default().hub),
        },
        SourceUrl::Pypi(_) => Some("the package index".to_owned()),
        SourceUrl::Doi(_) => Some(url.to_string()),
    }
}

fn host_of(url: &Url) -> Option<String> {
    match url.host_str() {
        Some(host) if !host.is_empty() => Some(host.to_owned()),
        _ => (url.scheme() == "git+file").then(|| "this machine".to_owned()),
    }
}
