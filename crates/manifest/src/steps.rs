//! `[steps]`: each step by itself, and what it names of its member.

use crate::data::DataSets;
use crate::document::{Found, Report, Span, Text, View, integer, number, text};
use crate::entries::{Scope, glob_mistake, is_glob, is_reserved, path};
use crate::model::{Bounds, Input, InputPattern, Output, OutputKind, Resources, Run, Sandbox, Service, Step};
use crate::params::Known;
use crate::template::{Piece, Template, Token, looks_like_placeholder, split};
use std::collections::{BTreeMap, HashSet};
use std::time::Duration;
use trainlock_types::{DataSource, ImageReference, RelPath, parse_duration, parse_size};

/// What a member's steps can name, and what holds where they say nothing.
pub(crate) struct Surroundings<'a> {
    pub(crate) data: &'a DataSets<'a>,
    pub(crate) params: &'a Known,
    pub(crate) sandbox: Sandbox,
    pub(crate) image: Option<ImageReference>,
}

/// Reads a member's `[steps]`; steps with a mistake are told and left out.
pub(crate) fn read(scope: &Scope<'_>, around: &Surroundings<'_>, report: &mut Report) -> Vec<Step> {
    let mut steps = Vec::new();
    let Some(table) = scope.view.table("steps") else {
        return steps;
    };
    let mut globs = HashSet::new();
    for entry in table.entries() {
        let name = scope.name("steps", &entry, report);
        let view = table.view(&entry).filter(|_| !scope.unsound.has(entry.node));
        let (Some(name), Some(view)) = (name, view) else {
            continue;
        };
        let mut reader = Reader { scope, around, view: &view, report, globs: &mut globs, sound: true, listed: false };
        let inputs = reader.inputs();
        let outputs = reader.outputs();
        reader.listed = reader.sound;
        let run = reader.run(&inputs, &outputs);
        let mut params = reader.params();
        params.extend(named_params(&run));
        params.sort_unstable();
        params.dedup();
        let step = Step {
            name,
            run,
            params,
            env: reader.env(),
            image: reader.image().or_else(|| around.image.clone()),
            resources: reader.resources(),
            timeout: reader.time("timeout", &view),
            retries: view.int("retries").and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
            network: view.bool("network").unwrap_or(false),
            serve: view.list("serve").iter().map(|_| Service::Hf).take(1).collect(),
            sandbox: sandbox(&view).unwrap_or(around.sandbox),
            expect: reader.expect(&outputs),
            tolerance: reader.tolerance(&outputs),
            inputs,
            outputs,
            needs: Vec::new(),
            span: entry.span.clone(),
        };
        if step.network && !step.serve.is_empty() {
            let span = view.list("serve").first().map(|text| text.span.clone());
            reader
                .error(
                    span.unwrap_or_else(|| entry.span.clone()),
                    format!("step `{}` has both `network` and `serve`", step.name),
                )
                .help("what is served stands on a network of the step's own: leave one of the two out");
        }
        if reader.sound {
            steps.push(step);
        }
    }
    steps
}

/// The word of a `sandbox` key.
pub(crate) fn sandbox(view: &View<'_>) -> Option<Sandbox> {
    let word = view.str("sandbox")?;
    Sandbox::ALL.into_iter().find(|s| s.as_str() == word.text)
}

/// An image reference; nothing (and the mistake is told) if it is none.
pub(crate) fn image(view: &View<'_>, report: &mut Report) -> Option<Result<ImageReference, ()>> {
    let text = view.str("image")?;
    Some(match text.text.parse() {
        Ok(image) => Ok(image),
        Err(mistake) => {
            report
                .error(view.source, text.span, format!("bad image reference: {mistake}"))
                .help("for example `docker.io/library/python:3.11-slim` or `ghcr.io/org/name@sha256:…`");
            Err(())
        }
    })
}

fn named_params(run: &Run) -> Vec<String> {
    let templates = match run {
        Run::Shell(template) => std::slice::from_ref(template),
        Run::Exec(templates) => templates,
    };
    let param = |piece: &Piece| match piece {
        Piece::Param(name) => Some(name.clone()),
        _ => None,
    };
    templates.iter().flat_map(|t| &t.pieces).filter_map(param).collect()
}

struct Reader<'r, 'a> {
    scope: &'r Scope<'a>,
    around: &'r Surroundings<'a>,
    view: &'r View<'a>,
    report: &'r mut Report,
    /// Globs of other steps that were found good: most steps of a member have the same.
    globs: &'r mut HashSet<&'a str>,
    /// Whether nothing was wrong so far.
    sound: bool,
    /// Whether inputs and outputs are as they are written: those with a mistake are left out, so that what the command
    /// says of them can't be judged.
    listed: bool,
}

impl<'a> Reader<'_, 'a> {
    fn error(&mut self, span: Span, message: impl Into<String>) -> Found<'_> {
        self.sound = false;
        self.report.error(self.view.source, span, message)
    }

    /// A mistake in a part of a text.
    fn error_in(&mut self, (text, part): (&Text<'a>, Span), message: String) -> Found<'_> {
        self.error(text.part(self.view.source, part), message)
    }

    fn path(&mut self, text: &Text<'a>) -> Option<RelPath> {
        let path = path(self.view.source, text, &self.scope.dir, self.report);
        self.sound &= path.is_some();
        path
    }

    /// Tells of every path that stands twice; `paths` are what they mean, as written, and where they stand.
    fn once<K: Ord>(&mut self, mut paths: Vec<(K, &str, Span)>) {
        paths.sort_unstable_by(|(a, _, at), (b, _, bt)| (a, at.start).cmp(&(b, bt.start)));
        for [(first, _, at), (second, written, span)] in paths.array_windows() {
            if first == second {
                let source = self.view.source;
                self.error(span.clone(), format!("`{written}` stands twice in this step"))
                    .related(source, at.clone(), "it stands here already")
                    .help("leave one of them out");
            }
        }
    }

    fn inputs(&mut self) -> Vec<Input> {
        let mut inputs: Vec<Input> = Vec::new();
        for text in self.view.list("inputs") {
            if looks_like_placeholder(text.text) {
                self.error(text.span.clone(), format!("`inputs` has no placeholders, found `{}`", text.text))
                    .help("write the path itself: placeholders are for `run`");
                continue;
            }
            let pattern = if is_glob(text.text) {
                self.glob(&text)
            } else {
                self.path(&text).map(|path| InputPattern::Path { path, folder: text.text.ends_with('/') })
            };
            let Some(pattern) = pattern else { continue };
            let written = text.text.to_owned();
            inputs.push(Input { written, pattern, origins: Vec::new(), span: text.span });
        }
        if inputs.len() > 1 {
            let paths = inputs.iter().map(|input| {
                let meant = match &input.pattern {
                    InputPattern::Path { path, .. } => (path, ""),
                    InputPattern::Glob { folder, glob } => (folder, glob.as_str()),
                };
                (meant, input.written.as_str(), input.span.clone())
            });
            self.once(paths.collect());
        }
        inputs
    }

    /// A glob as its literal folder and the rest.
    fn glob(&mut self, text: &Text<'a>) -> Option<InputPattern> {
        let magic = text.text.find(['*', '?', '[', '{'])?;
        let (prefix, glob) = match text.text[..magic].rfind('/') {
            Some(slash) => (&text.text[..=slash], &text.text[slash + 1..]),
            None => ("./", text.text),
        };
        let mistake = if glob.split('/').any(|c| matches!(c, "" | "." | "..")) {
            Some("`.`, `..`, `//` and a trailing `/` can't follow a wildcard".to_owned())
        } else if self.globs.contains(glob) {
            None
        } else {
            glob_mistake(glob)
        };
        if let Some(mistake) = mistake {
            self.error(text.span.clone(), format!("bad glob `{}`", text.text.escape_debug())).help(mistake);
            return None;
        }
        let folder = self.path(&Text { text: prefix, span: text.span.clone() })?;
        Some(InputPattern::Glob { folder, glob: glob.to_owned() })
    }

    fn outputs(&mut self) -> Vec<Output> {
        let mut outputs: Vec<Output> = Vec::new();
        let mut any = false;
        for kind in [OutputKind::Output, OutputKind::Metric, OutputKind::Plot] {
            for text in self.view.list(kind.key()) {
                any = true;
                if is_glob(text.text) {
                    let help = if looks_like_placeholder(text.text) {
                        "write the path itself: placeholders are for `run`"
                    } else {
                        "name each file, or the folder that they lie in with a trailing `/`"
                    };
                    self.error(text.span.clone(), format!("an output can't be a glob, found `{}`", text.text))
                        .help(help);
                    continue;
                }
                let Some(path) = self.path(&text) else {
                    continue;
                };
                let folder = text.text.ends_with('/');
                if path.is_root() || self.scope.dir.below(&path).is_some() {
                    self.error(text.span.clone(), "an output can't be the project's own folder")
                        .help("name a folder in it, for example `build/`");
                } else if is_reserved(&path) {
                    self.error(text.span.clone(), format!("`{}` is a reserved name", text.text))
                        .help("train.toml, train.lock, .trainlock and .git have another purpose");
                } else if folder && kind == OutputKind::Metric {
                    self.error(text.span.clone(), "a metric is a file, not a folder")
                        .help("name the JSON file that holds the numbers");
                } else {
                    outputs.push(Output { written: text.text.to_owned(), path, folder, kind, span: text.span });
                }
            }
        }
        if outputs.len() > 1 {
            self.once(outputs.iter().map(|o| (&o.path, o.written.as_str(), o.span.clone())).collect());
        }
        if !any {
            let name = self.view.span.clone();
            self.error(name, "the step has no outputs")
                .help("add `outputs = [\"…\"]` (or metrics or plots): what a step writes nowhere is lost");
        }
        outputs
    }

    fn run(&mut self, inputs: &[Input], outputs: &[Output]) -> Run {
        let empty = |text: &Text<'_>| text.text.trim().is_empty();
        if let Some(text) = self.view.str("run") {
            if empty(&text) {
                self.error(text.span.clone(), "`run` is empty")
                    .help("write the command, for example `run = \"python src/train.py\"`");
            }
            return Run::Shell(self.template(&text, inputs, outputs));
        }
        let texts = self.view.list("run");
        if texts.first().is_none_or(empty)
            && let Some(entry) = self.view.get("run")
        {
            let span = texts.first().map_or(entry.node.span(), |text| text.span.clone());
            self.error(span, "`run` names no program")
                .help("write the program and its arguments, for example `run = [\"python\", \"src/train.py\"]`");
        }
        Run::Exec(texts.iter().map(|text| self.template(text, inputs, outputs)).collect())
    }

    fn template(&mut self, text: &Text<'a>, inputs: &[Input], outputs: &[Output]) -> Template {
        if text.text.contains('\0') {
            self.error(text.span.clone(), "a command can't hold a null character");
        }
        let tokens = split(text.text);
        let mut pieces = Vec::with_capacity(tokens.len());
        for (token, part) in tokens {
            match token {
                Token::Text(text) => pieces.push(Piece::Text(text)),
                Token::Placeholder { root, name } => {
                    let found = self.placeholder(root, name, (text, part), inputs, outputs);
                    pieces.extend(found);
                }
            }
        }
        Template { written: text.text.to_owned(), pieces }
    }

    fn placeholder(
        &mut self,
        root: &str,
        name: Option<&str>,
        place: (&Text<'a>, Span),
        inputs: &[Input],
        outputs: &[Output],
    ) -> Option<Piece> {
        const LITERAL: &str = "write `{{` for a brace that stands for itself";
        let around = self.around;
        match (root, name) {
            ("seed", None) => return Some(Piece::Seed),
            ("step", None) => return Some(Piece::Step),
            ("project", None) => return Some(Piece::Project),
            ("params", Some(name)) if around.params.has(name) => {
                return Some(Piece::Param(name.to_owned()));
            }
            ("params", Some(name)) => {
                let near = around.params.near(name, self.report);
                self.error_in(place, format!("unknown param `{name}`"))
                    .help(format!("add it to `[params]`; {LITERAL}"))
                    .maybe_help(near);
            }
            ("data", Some(name)) => match around.data.get(name) {
                Some(Some(index)) => return self.data(index, place, inputs),
                // The entry has a mistake of its own, which was told.
                Some(None) => self.sound = false,
                None => {
                    let near = self.report.near(name, around.data.names());
                    self.error_in(place, format!("unknown data `{name}`"))
                        .help(format!("add it to `[data]`; {LITERAL}"))
                        .maybe_help(near);
                }
            },
            ("inputs" | "outputs", Some(name)) => {
                let count = if root == "inputs" { inputs.len() } else { outputs.len() };
                match name.parse::<usize>() {
                    Ok(index) if index < count || !self.listed => {
                        return Some(if root == "inputs" { Piece::Input(index) } else { Piece::Output(index) });
                    }
                    Ok(index) => {
                        let help = match count {
                            0 => format!("the step has no {root}"),
                            1 => format!("the only one is `{{{root}.0}}`"),
                            _ => format!("they count from `{{{root}.0}}` to `{{{root}.{}}}`", count - 1),
                        };
                        self.error_in(place, format!("`{{{root}.{index}}}` is out of range")).help(help);
                    }
                    Err(_) => {
                        self.error_in(place, format!("unknown name `{name}` in `{{{root}.…}}`"))
                            .help(format!("{root} are numbered: `{{{root}.0}}` is the first; {LITERAL}"));
                    }
                }
            }
            (root, _) => {
                self.error_in(place, format!("`{{{root}}}` has nothing inside it"))
                    .help(format!("write `{{{root}}}`; {LITERAL}"));
            }
        }
        None
    }

    /// `{data.X}`, whose path must be among the inputs: else the step would not see it.
    fn data(&mut self, index: usize, place: (&Text<'a>, Span), inputs: &[Input]) -> Option<Piece> {
        let request = &self.around.data.sets[index].request;
        let sees = |input: &Input| match &input.pattern {
            InputPattern::Path { path, .. } => path.below(&request.to).is_some() || request.to.below(path).is_some(),
            InputPattern::Glob { folder, .. } => folder.below(&request.to).is_some(),
        };
        if !inputs.iter().any(sees) && self.listed {
            let many = !matches!(&request.source, DataSource::Path(_)) && !is_one_file(&request.source);
            let written = request.to.relative_to(&self.scope.dir);
            let slash = if many { "/" } else { "" };
            let name = request.name.clone();
            self.error_in(place, format!("data `{name}` is not among the step's inputs"))
                .help(format!("add `\"{written}{slash}\"` to `inputs`"));
            return None;
        }
        Some(Piece::Data(request.name.clone()))
    }

    fn params(&mut self) -> Vec<String> {
        let mut names = Vec::new();
        for text in self.view.list("params") {
            if self.around.params.has(text.text) {
                names.push(text.text.to_owned());
            } else {
                let near = self.around.params.near(text.text, self.report);
                self.error(text.span, format!("unknown param `{}`", text.text))
                    .help("add it to `[params]`")
                    .maybe_help(near);
            }
        }
        names
    }

    fn env(&mut self) -> BTreeMap<String, String> {
        let mut env = BTreeMap::new();
        for entry in self.view.entries_of("env") {
            let good = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
            let Some(value) = text(entry.node) else {
                continue;
            };
            if entry.name.is_empty()
                || entry.name.starts_with(|c: char| c.is_ascii_digit())
                || !entry.name.bytes().all(good)
            {
                self.error(entry.span, format!("bad name of an environment variable: `{}`", entry.name.escape_debug()))
                    .help("it has letters, digits and `_`, and does not begin with a digit");
            } else if entry.name.starts_with("TRAINLOCK_") {
                self.error(entry.span, format!("`{}` is a reserved name", entry.name))
                    .help("trainlock sets these variables itself");
            } else if value.text.contains('\0') {
                self.error(value.span, "an environment variable can't hold a null character");
            } else {
                env.insert(entry.name.to_owned(), value.text.to_owned());
            }
        }
        env
    }

    fn image(&mut self) -> Option<ImageReference> {
        let image = image(self.view, self.report)?;
        self.sound &= image.is_ok();
        image.ok()
    }

    fn time(&mut self, key: &str, view: &View<'a>) -> Option<Duration> {
        let text = view.str(key)?;
        match parse_duration(text.text) {
            Ok(time) => Some(time),
            Err(error) => {
                self.error(text.span, error.to_string());
                None
            }
        }
    }

    fn resources(&mut self) -> Resources {
        let default = Resources::default();
        let Some(view) = self.view.table("resources") else {
            return default;
        };
        let count = |key, default| view.int(key).and_then(|n| u32::try_from(n).ok()).unwrap_or(default);
        let memory = view.get("memory").and_then(|entry| match text(entry.node) {
            None => integer(entry.node).and_then(|n| u64::try_from(n).ok()),
            Some(text) => match parse_size(text.text) {
                Ok(0) => {
                    self.error(text.span, "no step runs in no memory");
                    None
                }
                Ok(size) => Some(size),
                Err(error) => {
                    self.error(text.span, error.to_string());
                    None
                }
            },
        });
        Resources {
            cpus: count("cpus", default.cpus),
            memory,
            gpus: count("gpus", default.gpus),
            time: self.time("time", &view),
        }
    }

    /// A table of a step's that is about its metrics, which it must then have.
    fn about_metrics(&mut self, key: &'static str, outputs: &[Output]) -> Option<View<'a>> {
        let table = self.view.table(key)?;
        if !outputs.iter().any(|o| o.kind == OutputKind::Metric) && self.view.list("metrics").is_empty() {
            self.error(table.span.clone(), format!("`{key}` needs metrics, and the step has none"))
                .help("add `metrics = [\"…\"]`: the JSON file that holds the numbers");
        }
        Some(table)
    }

    fn tolerance(&mut self, outputs: &[Output]) -> BTreeMap<String, f64> {
        let mut tolerance = BTreeMap::new();
        for entry in self.about_metrics("tolerance", outputs).iter().flat_map(View::entries) {
            match number(entry.node) {
                _ if entry.name.is_empty() => drop(self.error(entry.span, "a metric has a name")),
                Some(most) if most < 0.0 => {
                    self.error(entry.span, "a tolerance is not negative");
                }
                Some(most) => drop(tolerance.insert(entry.name.to_owned(), most)),
                None => {}
            }
        }
        tolerance
    }

    fn expect(&mut self, outputs: &[Output]) -> BTreeMap<String, Bounds> {
        let mut expect = BTreeMap::new();
        let Some(table) = self.about_metrics("expect", outputs) else {
            return expect;
        };
        for entry in table.entries() {
            let Some(view) = table.view(&entry) else {
                continue;
            };
            let bound = |key| view.get(key).and_then(|e| number(e.node));
            let bounds = Bounds { min: bound("min"), max: bound("max"), equals: bound("equals") };
            if entry.name.is_empty() {
                self.error(entry.span, "a metric has a name");
            } else if view.table.len() == 0 {
                self.error(entry.span, format!("`{}` has no bounds", entry.name)).help("add `min`, `max` or `equals`");
            } else if bounds.equals.is_some() && view.table.len() > 1 {
                self.error(entry.span, "`equals` can't stand beside `min` and `max`").help("leave one of them out");
            } else if let (Some(min), Some(max)) = (bounds.min, bounds.max)
                && min > max
            {
                self.error(entry.span, format!("no number is at least {min} and at most {max}"))
                    .help("`min` is not above `max`");
            } else {
                expect.insert(entry.name.to_owned(), bounds);
            }
        }
        expect
    }
}

/// Whether a data set is one file; what lies in the repository may be either.
fn is_one_file(source: &DataSource) -> bool {
    use trainlock_types::SourceUrl::{File, Http, Object};
    match source {
        DataSource::Url { url: Http(_) | File(_), unpack, .. } => !unpack,
        DataSource::Url { url: Object(url), unpack, files, .. } => {
            !unpack && files.is_empty() && !url.path().ends_with('/')
        }
        _ => false,
    }
}
