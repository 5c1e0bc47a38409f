//! Croissant descriptions: what a data set's `distribution` lists (mlcommons Croissant 1.0, JSON-LD).
//!
//! A file object with an address becomes a file by its `name`. One that lies in an archive, and the files that a file set chooses of it,
//! are taken out of it; the archive itself is then no file of the data set. Hashes that are stated are checked, the others
//! computed. A file set is seen at its paths in the archive.
//!
//! Where they lie in a repository (`"encodingFormat": "git+https"`, as in the descriptions that the Hugging Face hub makes), the
//! repository is one of the hub's or of git's, its commit is locked, and files keep their paths in it. What is locked is then
//! known by commit and paths: of the hub it is brought without the description, which the hub writes anew as it likes.

use super::description::{self, Place};
use super::repository::Repository;
use super::{Chosen, Files, Found, Item, Locked, ManyWanted, Question, Source, contents, hf, now};
use crate::error::{FetchError, Mismatch};
use crate::receive::Expect;
use crate::standing::{Answer, Found as Says, Standing};
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use trainlock_types::{Algorithm, Checksum, Digest, RelPath, SourceUrl};
use url::Url;

/// A description at an address, or a file of the repository.
pub(crate) struct Croissant<'a> {
    pub(crate) place: &'a str,
    /// The server in the hub's place.
    pub(crate) hub: &'a Url,
}

/// A file object or file set.
#[derive(Debug, Default)]
struct Node {
    id: String,
    name: String,
    url: Option<String>,
    /// The ids of what it lies in.
    within: Vec<String>,
    sha256: Option<Digest>,
    md5: Option<Checksum>,
    encoding: String,
    /// Globs of a file set; none for a file object.
    chooses: Option<(Vec<String>, Vec<String>)>,
}

impl Source for Croissant<'_> {
    fn look(&self, question: &Question<'_>) -> Result<Found, FetchError> {
        let place = self.description_at(question)?;
        let (text, by) = self.description(question, &place)?;
        let nodes = nodes(&text).map_err(|reason| contents(question.name, reason, None))?;
        if let Some(inside) = InRepository::of(question.name, &nodes, self.hub)? {
            return Ok(Found { by: Some(by), ..inside.look(question, self.hub)? });
        }
        let mut items = Vec::new();
        let mut archives: BTreeMap<&str, Vec<&Node>> = BTreeMap::new();
        for node in &nodes {
            match &node.within[..] {
                [] => {}
                [one] => archives.entry(one).or_default().push(node),
                _ => {
                    let reason = format!("`{}` lies in several archives, which can't be told apart", node.id);
                    return Err(contents(question.name, reason, None));
                }
            }
        }
        for node in &nodes {
            if !node.within.is_empty() {
                continue;
            }
            let item = node.item(&place, question)?;
            match archives.remove(node.id.as_str()) {
                Some(members) => items.extend(members_of(question, &item, &members)?),
                None => items.push(item),
            }
        }
        if let Some((id, members)) = archives.into_iter().next() {
            let what = members.first().map_or("", |node| node.id.as_str());
            let reason = match nodes.iter().any(|node| node.id == id) {
                true => format!("`{what}` lies in `{id}`, which lies in an archive itself"),
                false => format!("`{what}` lies in `{id}`, which the description does not have"),
            };
            return Err(contents(question.name, reason, None));
        }
        Ok(Found { resolved: None, by: Some(by), files: Files::Listed(items) })
    }

    // What lies in archives is only known once they are there: so it is the description that is looked at, and then the addresses.
    fn standing(&self, question: &Question<'_>, wanted: &ManyWanted) -> Result<Standing, FetchError> {
        let place = self.description_at(question)?;
        let text = description::now(question, &place)?;
        let now = Digest::of(&text);
        if wanted.resolved.is_some() {
            let moved = self.in_repository(question, &text, |source| source.standing(question, wanted))?;
            if let Some(moved @ Standing::Moved { .. }) = moved {
                return Ok(moved);
            }
        }
        let locked = wanted.by.map_or(now, |(digest, _)| digest);
        let words = |digest: Digest| format!("sha256 {}", digest.short());
        match Standing::of_revision("description", &words(locked), &words(now)) {
            Standing::Same { .. } if wanted.resolved.is_some() => Ok(Standing::Same { by: "commit" }),
            Standing::Same { .. } => now::by_addresses(question, wanted, &addresses(question, &place, &text)?),
            other => Ok(other),
        }
    }

    fn answers(&self, question: &Question<'_>, wanted: &ManyWanted) -> Result<Vec<Answer>, FetchError> {
        let place = self.description_at(question)?;
        let now = description::now(question, &place)?;
        let url = match &place {
            Place::Url(url) => url.redacted(),
            Place::Path(path) => path.to_string(),
        };
        let mut answers = match wanted.by {
            Some((locked, _)) if locked != Digest::of(&now) => {
                vec![Answer { url, found: Says::Differs("another description than is locked".to_owned()) }]
            }
            _ => vec![Answer { url, found: Says::Agrees("digest") }],
        };
        if wanted.resolved.is_some() {
            let of_all = self.in_repository(question, &now, |source| source.answers(question, wanted))?;
            answers.extend(of_all.into_iter().flatten());
            return Ok(answers);
        }
        if matches!(answers[..], [Answer { found: Says::Differs(_), .. }]) {
            return Ok(answers);
        }
        let items = addresses(question, &place, &now)?;
        let listed: BTreeMap<&RelPath, u64> =
            wanted.listing.iter().flat_map(|l| l.entries()).map(|entry| (&entry.path, entry.size)).collect();
        let fetcher = question.fetcher;
        let of_item = |item: &Item| {
            // Each has one address; the size of an archive stands in no lock.
            let Some(source) = item.sources.first() else { return Ok(None) };
            match listed.get(&item.path) {
                Some(size) => fetcher.answer(question.name, source, *size).map(Some),
                None => fetcher.answer_at_all(question.name, source).map(Some),
            }
        };
        for answer in fetcher.each(&items, of_item) {
            answers.extend(answer?);
        }
        Ok(answers)
    }

    fn explained(&self, question: &Question<'_>, error: FetchError) -> FetchError {
        match question.locked.and_then(|locked| of_hub(&locked)) {
            Some(address) => hf::Hf { address, rev: None, endpoint: self.hub }.explained(question, error),
            None => error,
        }
    }

    fn place(&self, locked: &Locked<'_>, path: &RelPath) -> Option<Vec<SourceUrl>> {
        hf::Hf { address: of_hub(locked)?, rev: None, endpoint: self.hub }.place(locked, path)
    }
}

/// The address of the hub's repository that a lock names.
fn of_hub<'l>(locked: &Locked<'l>) -> Option<&'l str> {
    let (address, _) = locked.resolved?.rsplit_once('@')?;
    address.starts_with("hf:").then_some(address)
}

impl Croissant<'_> {
    /// The description that is locked. What lies in a repository at a commit is what was locked whatever has become of the
    /// description: the digest of the listing decides.
    fn description(&self, question: &Question<'_>, place: &Place) -> Result<(String, (Digest, u64)), FetchError> {
        match (description::read(question, place), question.locked) {
            (Err(error), Some(Locked { resolved: Some(_), by: Some(by) })) if error.is_verification() => {
                Ok((String::from_utf8_lossy(&description::now(question, place)?).into_owned(), by))
            }
            (read, _) => read,
        }
    }

    /// What the repository of a description says, if its files lie in one.
    fn in_repository<T>(
        &self,
        question: &Question<'_>,
        text: &[u8],
        ask: impl FnOnce(&dyn Source) -> Result<T, FetchError>,
    ) -> Result<Option<T>, FetchError> {
        let nodes = nodes(&String::from_utf8_lossy(text)).map_err(|reason| contents(question.name, reason, None))?;
        let inside = InRepository::of(question.name, &nodes, self.hub)?;
        let source = inside.as_ref().and_then(|inside| inside.repository.source(self.hub));
        source.map(|source| ask(&*source)).transpose()
    }

    fn description_at(&self, question: &Question<'_>) -> Result<Place, FetchError> {
        Ok(match SourceUrl::parse(self.place) {
            Ok(url @ SourceUrl::Http(_)) => Place::Url(url),
            _ => Place::Path(RelPath::parse(self.place).map_err(|e| contents(question.name, e.to_string(), None))?),
        })
    }
}

impl Node {
    fn is_repository(&self) -> bool {
        let has_scheme = self.url.as_ref().is_some_and(|url| url.starts_with("git+"));
        self.chooses.is_none() && self.within.is_empty() && (self.encoding.starts_with("git+") || has_scheme)
    }

    /// The file of a node that lies in no archive.
    fn item(&self, description: &Place, question: &Question<'_>) -> Result<Item, FetchError> {
        let wrong = |reason: String, hint: Option<String>| contents(question.name, reason, hint);
        if self.chooses.is_some() {
            let reason = format!("file set `{}` names no archive that it lies in", self.id);
            return Err(wrong(reason, None));
        }
        let Some(url) = &self.url else {
            return Err(wrong(format!("`{}` has no `contentUrl`", self.id), None));
        };
        let path = RelPath::parse(&self.name)
            .map_err(|e| wrong(format!("the name `{}` is no path of a file: {e}", self.name), None))?;
        let unusable = |e: &dyn std::fmt::Display| wrong(format!("the address `{url}` of `{}`: {e}", self.id), None);
        let source = match (url.contains("://"), description) {
            (true, _) => SourceUrl::parse(url).map_err(|e| unusable(&e))?,
            (false, Place::Url(SourceUrl::Http(base))) => {
                SourceUrl::Http(base.join(url).map_err(|e| unusable(&e))?.into())
            }
            (false, Place::Path(file)) => {
                let folder = file.parent().unwrap_or_else(RelPath::root);
                let file = folder.resolve(url).map_err(|e| unusable(&e))?.on(&question.fetcher.settings.root);
                let file = std::path::absolute(&file).map_err(|e| unusable(&e))?;
                SourceUrl::File(url::Url::from_file_path(file).map_err(|()| unusable(&"no path"))?.into())
            }
            (false, Place::Url(_)) => return Err(unusable(&"it is relative to nothing")),
        };
        match (&source, description) {
            (SourceUrl::Http(address), Place::Url(SourceUrl::Http(from)))
                if address.scheme() == "http" && from.scheme() == "https" && self.sha256.is_none() =>
            {
                let hint = "it would have to state a sha256, or an https address".to_owned();
                return Err(wrong(format!("`{}` is at {url}, which nothing protects", self.id), Some(hint)));
            }
            // A stranger's description names no file of this machine.
            (SourceUrl::File(_), Place::Url(_)) => return Err(unusable(&"it names a file of this machine")),
            (SourceUrl::File(_), Place::Path(_)) if url.contains("://") => {
                return Err(unusable(&"write the path of a file of the repository"));
            }
            (SourceUrl::Http(_) | SourceUrl::File(_) | SourceUrl::Object(_), _) => {}
            _ => return Err(unusable(&"it names no single file")),
        }
        Ok(Item {
            path,
            size: None,
            sha256: self.sha256,
            checksum: self.md5.clone(),
            blob: None,
            sources: vec![source],
        })
    }
}

/// The files of a description that lie at addresses of their own, archives too.
fn addresses(question: &Question<'_>, place: &Place, text: &[u8]) -> Result<Vec<Item>, FetchError> {
    let nodes = nodes(&String::from_utf8_lossy(text)).map_err(|reason| contents(question.name, reason, None))?;
    nodes.iter().filter(|node| node.within.is_empty()).map(|node| node.item(place, question)).collect()
}

/// What nodes name of what they lie in.
#[derive(Default)]
struct Picks<'n> {
    /// File objects, by their paths in it.
    single: BTreeMap<RelPath, &'n Node>,
    /// What file sets choose, and what of that they leave out.
    sets: Vec<(&'n Node, GlobSet, GlobSet)>,
}

impl<'n> Picks<'n> {
    fn of(name: &str, nodes: &[&'n Node]) -> Result<Picks<'n>, FetchError> {
        let wrong = |reason: String| contents(name, reason, None);
        let mut picks = Picks::default();
        for node in nodes {
            match (&node.chooses, &node.url) {
                (Some((includes, _)), _) if includes.is_empty() => {
                    return Err(wrong(format!("file set `{}` has no `includes`", node.id)));
                }
                (Some((includes, excludes)), _) => {
                    let set = |globs: &[String]| -> Result<GlobSet, globset::Error> {
                        let mut builder = GlobSetBuilder::new();
                        for glob in globs {
                            // As `fnmatch` has it, by which these globs are defined: `*` goes across folders.
                            builder.add(GlobBuilder::new(glob.trim_start_matches("./")).build()?);
                        }
                        builder.build()
                    };
                    let unusable = |e: globset::Error| wrong(format!("file set `{}`: {e}", node.id));
                    picks.sets.push((node, set(includes).map_err(unusable)?, set(excludes).map_err(unusable)?));
                }
                (None, Some(member)) => {
                    let path = RelPath::root().resolve(member);
                    let path = path.map_err(|e| wrong(format!("`{member}` of `{}`: {e}", node.id)))?;
                    picks.single.insert(path, node);
                }
                (None, None) => return Err(wrong(format!("`{}` has no `contentUrl`", node.id))),
            }
        }
        Ok(picks)
    }

    /// What is stated of a file, if it is picked.
    fn wants(&self, path: &RelPath) -> Option<Expect<'n>> {
        if let Some(node) = self.single.get(path) {
            return Some(Expect { sha256: node.sha256, size: None, checksum: node.md5.as_ref() });
        }
        let is_in = |(_, includes, excludes): &(&Node, GlobSet, GlobSet)| {
            includes.is_match(path.as_str()) && !excludes.is_match(path.as_str())
        };
        self.sets.iter().any(is_in).then(Expect::default)
    }

    /// The same as a choice.
    fn chosen(&self) -> Chosen {
        let path = |path: &RelPath| globset::escape(path.as_str());
        let of_sets = self.sets.iter().filter_map(|(node, ..)| node.chooses.as_ref()).flat_map(|(globs, _)| globs);
        let globs: Vec<String> = self.single.keys().map(path).chain(of_sets.cloned()).collect();
        let sets = self.sets.iter().map(|(_, includes, excludes)| (includes.clone(), excludes.clone()));
        let single = self.single.keys().filter_map(|one| {
            let glob = GlobBuilder::new(&path(one)).build().ok()?;
            Some((GlobSet::builder().add(glob).build().ok()?, GlobSet::empty()))
        });
        Chosen::of_sets(globs, sets.chain(single).collect())
    }

    /// An error if something that is named is not there.
    fn all_in(&self, name: &str, what: &str, there: &BTreeSet<&RelPath>) -> Result<(), FetchError> {
        if let Some(missing) = self.single.keys().find(|path| !there.contains(path)) {
            return Err(contents(name, format!("`{what}` has no file `{missing}`"), None));
        }
        for (node, includes, excludes) in &self.sets {
            if !there.iter().any(|path| includes.is_match(path.as_str()) && !excludes.is_match(path.as_str())) {
                return Err(contents(name, format!("file set `{}` chooses no file of `{what}`", node.id), None));
            }
        }
        Ok(())
    }
}

/// The repository that all files of a description lie in.
struct InRepository<'n> {
    repository: Repository,
    id: &'n str,
    picks: Picks<'n>,
}

impl<'n> InRepository<'n> {
    /// It, if the description names one.
    fn of(name: &str, nodes: &'n [Node], hub: &Url) -> Result<Option<InRepository<'n>>, FetchError> {
        let mut all = nodes.iter().filter(|node| node.is_repository());
        let Some(first) = all.next() else { return Ok(None) };
        let parse = |node: &Node| {
            let Some(url) = node.url.as_deref() else {
                return Err(contents(name, format!("`{}` has no `contentUrl`", node.id), None));
            };
            Repository::parse(url, hub).map_err(|why| {
                let hint = "name the repository as data of its own: `url = \"git+https://…\"` with `rev` and `files`";
                let shown = SourceUrl::parse(url).map_or_else(|_| "its address".to_owned(), |url| url.redacted());
                contents(
                    name,
                    format!("`{}` is a git repository, and {shown} can't be used: {why}", node.id),
                    Some(hint.to_owned()),
                )
            })
        };
        let repository = parse(first)?;
        let own = format!("name the repository as data of its own: {repository}, with `files`");
        if let Some(other) = all.next() {
            let hint = format!("name each as data of its own: {repository} and {}, with `files`", parse(other)?);
            let reason = format!("`{}` and `{}` are two repositories", first.id, other.id);
            return Err(contents(name, reason, Some(hint)));
        }
        let mut inside = Vec::new();
        for node in nodes.iter().filter(|node| node.id != first.id) {
            if node.within != [first.id.as_str()] {
                let reason = format!("`{}` lies beside the git repository `{}`, and not in it", node.id, first.id);
                return Err(contents(name, reason, Some(own)));
            }
            inside.push(node);
        }
        if inside.is_empty() {
            let reason = format!("`{}` is a git repository, and nothing says which of its files are meant", first.id);
            return Err(contents(name, reason, Some(own)));
        }
        Ok(Some(InRepository { repository, id: &first.id, picks: Picks::of(name, &inside)? }))
    }

    /// The files that are picked of it, at their paths in it.
    fn look(&self, question: &Question<'_>, hub: &Url) -> Result<Found, FetchError> {
        let name = question.name;
        let Some(source) = self.repository.source(hub) else { unreachable!("it is the hub's or git's") };
        let chosen = self.picks.chosen();
        let mut found = source.look(&Question { chosen: &chosen, ..*question })?;
        let label = |path: &RelPath| format!("{name}/{path}");
        let differs = |path: &RelPath, expected: Digest, found: Digest| FetchError::Unpacked {
            name: label(path),
            url: self.repository.to_string(),
            mismatch: Mismatch::Sha256 { expected, found },
        };
        match &mut found.files {
            Files::Listed(items) => {
                items.retain(|item| chosen.has(&item.path));
                for item in &mut *items {
                    let Some(node) = self.picks.single.get(&item.path) else { continue };
                    let (stated, known) = (node.sha256, item.sha256);
                    if let (Some(stated), Some(known)) = (stated, known)
                        && stated != known
                    {
                        return Err(differs(&item.path, stated, known));
                    }
                    if stated.is_some() && known.is_none() || node.md5.is_some() {
                        // What the description states is checked on the bytes: without a size they are fetched.
                        (item.sha256, item.checksum, item.size) = (known.or(stated), node.md5.clone(), None);
                    }
                }
                self.picks.all_in(name, self.id, &items.iter().map(|item| &item.path).collect())?;
            }
            Files::Whole(tree) => {
                let entries = tree.listing.entries();
                self.picks.all_in(name, self.id, &entries.iter().map(|entry| &entry.path).collect())?;
                for entry in entries {
                    let Some(node) = self.picks.single.get(&entry.path) else { continue };
                    match (node.sha256, &node.md5) {
                        (Some(stated), _) if stated != entry.sha256 => {
                            return Err(differs(&entry.path, stated, entry.sha256));
                        }
                        (None, Some(_)) => {
                            let reason = format!("`{}` lies in a git repository, and states an MD5 alone", node.id);
                            let hint = format!("name the repository as data of its own: {}", self.repository);
                            return Err(contents(name, reason, Some(hint)));
                        }
                        _ => {}
                    }
                }
            }
        }
        Ok(found)
    }
}

/// The files that nodes name in an archive; all in the store afterwards.
fn members_of(question: &Question<'_>, archive: &Item, nodes: &[&Node]) -> Result<Vec<Item>, FetchError> {
    let Question { fetcher, session, name, .. } = question;
    let mut picks = Picks::of(name, nodes)?;
    let (sha256, size, _) = fetcher.one(session, name, archive, None)?;
    let taken =
        fetcher.extract_some(session, name, &archive.sources, (sha256, size), &|path: &RelPath| picks.wants(path))?;
    let mut items = Vec::new();
    for (member, sha256, size) in taken {
        let path = match picks.single.remove(&member) {
            Some(node) => RelPath::parse(&node.name)
                .map_err(|e| contents(name, format!("the name `{}` is no path of a file: {e}", node.name), None))?,
            None => member,
        };
        items.push(Item {
            path,
            size: Some(size),
            sha256: Some(sha256),
            checksum: None,
            blob: None,
            sources: Vec::new(),
        });
    }
    match picks.single.into_keys().next() {
        Some(missing) => Err(contents(name, format!("`{}` has no member `{missing}`", archive.path), None)),
        None => Ok(items),
    }
}

/// The file objects and file sets of a description.
fn nodes(text: &str) -> Result<Vec<Node>, String> {
    let document: Value = serde_json::from_str(text).map_err(|e| format!("the description is no JSON: {e}"))?;
    let list = |value: &Value| match value {
        Value::Array(values) => values.clone(),
        Value::Null => Vec::new(),
        one => vec![one.clone()],
    };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let id =
        |value: &Value| text(value).or_else(|| text(&value["@id"])).map(|id| id.trim_start_matches('#').to_owned());
    let mut nodes = Vec::new();
    for entry in list(&document["distribution"]) {
        let kind = list(&entry["@type"]).iter().filter_map(text).find_map(|kind| {
            ["FileObject", "FileSet"].into_iter().find(|known| kind.rsplit([':', '/']).next() == Some(known))
        });
        let Some(kind) = kind else { continue };
        let name = text(&entry["name"]);
        let Some(own) = id(&entry["@id"]).or_else(|| name.clone()) else {
            return Err("an entry of its `distribution` has neither `@id` nor `name`".to_owned());
        };
        let strings = |key: &str| list(&entry[key]).iter().filter_map(text).collect::<Vec<_>>();
        nodes.push(Node {
            name: name.unwrap_or_else(|| own.clone()),
            id: own,
            url: text(&entry["contentUrl"]),
            within: list(&entry["containedIn"]).iter().filter_map(id).collect(),
            // What some put in their place (a note that there is none) is no hash.
            sha256: text(&entry["sha256"]).and_then(|hex| hex.parse().ok()),
            md5: text(&entry["md5"])
                .and_then(|hex| format!("md5:{hex}").parse::<Checksum>().ok())
                .filter(|checksum| checksum.algorithm == Algorithm::Md5),
            encoding: text(&entry["encodingFormat"]).unwrap_or_default(),
            chooses: (kind == "FileSet").then(|| (strings("includes"), strings("excludes"))),
        });
    }
    if nodes.is_empty() { Err("the description has no `distribution` with files".to_owned()) } else { Ok(nodes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_a_description() {
        let text = r#"{"@type": "sc:Dataset", "distribution": [
            {"@type": "cr:FileObject", "@id": "a.zip", "contentUrl": "a.zip", "sha256": "see issue 80"},
            {"@type": ["cr:FileObject"], "@id": "one", "name": "one.csv", "contentUrl": "x/one.csv", "containedIn": {"@id": "a.zip"},
             "md5": "9e107d9d372bb6826bd81d3542a419d6"},
            {"@type": "https://mlcommons.org/croissant/FileSet", "@id": "rest", "containedIn": [{"@id": "a.zip"}],
             "includes": ["*.csv"], "excludes": "x/*"},
            {"@type": "cr:RecordSet", "@id": "r"}]}"#;
        let nodes = nodes(text).unwrap();
        let ids: Vec<&str> = nodes.iter().map(|n| n.id.as_str()).collect();
        assert_eq!(ids, ["a.zip", "one", "rest"]);
        assert!(nodes[0].sha256.is_none() && nodes[1].md5.is_some());
        assert_eq!(nodes[1].within, ["a.zip"]);
        assert_eq!(nodes[2].chooses, Some((vec!["*.csv".to_owned()], vec!["x/*".to_owned()])));
        assert!(super::nodes("{").unwrap_err().contains("JSON"));
        assert!(super::nodes("{}").unwrap_err().contains("distribution"));
    }
}
