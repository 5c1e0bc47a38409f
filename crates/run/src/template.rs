//! A step's command, with what its placeholders stand for.

use crate::plan::Node;
use std::collections::BTreeMap;
use trainlock_manifest::{InputPattern, Piece, Run, Template, leaves};
use trainlock_types::{Params, RelPath, Value};

/// Why a command could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TemplateError {
    /// One argument can't be several paths.
    #[error(
        "`{{inputs.{index}}}` stands for {count} files: as part of an argument it must be one (alone, it may be several)"
    )]
    Several {
        /// The index.
        index: usize,
        /// How many files the input's glob matches.
        count: usize,
    },
    /// A text that no shell can be given.
    #[error("a value with a NUL character can't be part of a command")]
    Nul,
}

/// What placeholders stand for.
pub(crate) struct Scope<'a> {
    pub(crate) node: &'a Node<'a>,
    /// All params of the member.
    pub(crate) params: &'a Params,
    pub(crate) seed: u64,
    /// The files that each input which is a glob stands for, by the input's index.
    pub(crate) globbed: &'a [Vec<RelPath>],
}

/// A command ready to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// A script for the shell.
    Shell(String),
    /// A program and its arguments.
    Exec(Vec<String>),
}

impl Scope<'_> {
    /// The step's command.
    pub(crate) fn command(&self) -> Result<Command, TemplateError> {
        match &self.node.step.run {
            Run::Shell(template) => {
                let mut script = String::new();
                for piece in &template.pieces {
                    if let Piece::Text(text) = piece {
                        script.push_str(text);
                        continue;
                    }
                    let words: Result<Vec<_>, _> =
                        self.words(piece).iter().map(|w| shlex::try_quote(w).map(|q| q.into_owned())).collect();
                    script.push_str(&words.map_err(|_| TemplateError::Nul)?.join(" "));
                }
                Ok(Command::Shell(script))
            }
            Run::Exec(templates) => {
                let mut arguments = Vec::new();
                for template in templates {
                    self.argument(template, &mut arguments)?;
                }
                Ok(Command::Exec(arguments))
            }
        }
    }

    fn argument(&self, template: &Template, arguments: &mut Vec<String>) -> Result<(), TemplateError> {
        if let [piece @ Piece::Input(_)] = &template.pieces[..] {
            arguments.extend(self.words(piece));
            return Ok(());
        }
        let mut argument = String::new();
        for piece in &template.pieces {
            if let Piece::Text(text) = piece {
                argument.push_str(text);
                continue;
            }
            let words = self.words(piece);
            match (&words[..], piece) {
                ([word], _) => argument.push_str(word),
                (_, Piece::Input(index)) => {
                    return Err(TemplateError::Several { index: *index, count: words.len() });
                }
                _ => unreachable!("only an input can be several words"),
            }
        }
        arguments.push(argument);
        Ok(())
    }

    /// What a placeholder stands for: one word, or several for an input that is a glob.
    fn words(&self, piece: &Piece) -> Vec<String> {
        let step = self.node.step;
        let dir = &self.node.member.dir;
        match piece {
            Piece::Text(text) => vec![text.clone()],
            Piece::Param(name) => vec![param(self.params, name)],
            Piece::Data(name) => {
                let data = self.node.member.data.iter().find(|d| d.request.name == *name);
                vec![data.expect("validation knows the data set").request.to.relative_to(dir)]
            }
            Piece::Input(index) => match &step.inputs[*index].pattern {
                InputPattern::Path { path, .. } => vec![path.relative_to(dir)],
                InputPattern::Glob { .. } => self.globbed[*index].iter().map(|p| p.relative_to(dir)).collect(),
            },
            Piece::Output(index) => vec![step.outputs[*index].path.relative_to(dir)],
            Piece::Seed => vec![self.seed.to_string()],
            Piece::Step => vec![step.name.to_string()],
            Piece::Project => vec![self.node.member.name.to_string()],
        }
    }
}

/// A param as a word: a leaf's value, or a whole table as JSON.
fn param(params: &Params, name: &str) -> String {
    match params.get(name) {
        Some(value) => value.to_argument(),
        None => {
            let prefix = name.len() + 1;
            let below: Params = leaves(params, name).map(|(n, v)| (n[prefix..].to_owned(), v.clone())).collect();
            nested(&below).to_json()
        }
    }
}

/// Dotted leaves as nested tables.
pub(crate) fn nested(params: &Params) -> Value {
    let mut root = BTreeMap::new();
    for (name, value) in params {
        let mut table = &mut root;
        let mut parts: Vec<&str> = name.split('.').collect();
        let last = parts.pop().expect("a name has a part");
        for part in parts {
            let next = table.entry(part.to_owned()).or_insert_with(|| Value::Table(BTreeMap::new()));
            let Value::Table(below) = next else { unreachable!("a name is a leaf or a table") };
            table = below;
        }
        table.insert(last.to_owned(), value.clone());
    }
    Value::Table(root)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params() -> Params {
        let leaf = |n: &str, v: Value| (n.to_owned(), v);
        [
            leaf("epochs", Value::Int(3)),
            leaf("opt.lr", Value::Float(0.1)),
            leaf("opt.name", Value::String("a b".into())),
            leaf("optimal", Value::Bool(true)),
        ]
        .into()
    }

    #[test]
    fn leaves_tables_and_words() {
        assert_eq!(param(&params(), "opt"), r#"{"lr": 0.1, "name": "a b"}"#);
        assert_eq!(param(&params(), "opt.name"), "a b");
        assert_eq!(nested(&params()).to_json(), r#"{"epochs": 3, "opt": {"lr": 0.1, "name": "a b"}, "optimal": true}"#);
    }

    /// The first step's command in a project with these files.
    fn command(run: &str, files: &[&str]) -> Result<Command, TemplateError> {
        let manifest = format!(
            "[params]\ntext = \"it's $HOME\"\n\n[steps.s]\nrun = {run}\ninputs = [\"src/*\"]\noutputs = [\"a b\"]\n"
        );
        let paths: Vec<String> = files.iter().map(|f| format!("src/{f}")).collect();
        let files: Vec<(&str, &str)> = paths.iter().map(|p| (p.as_str(), "")).collect();
        let project = crate::fixture::Project::new(&manifest, &files);
        let plan = crate::plan::Plan::new(&project.workspace, &[0], &[]).unwrap();
        let globbed = vec![plan.sources().into_iter().cloned().collect()];
        let params = &project.workspace.members[0].params;
        Scope { node: &plan.nodes[0], params, seed: 7, globbed: &globbed }.command()
    }

    #[test]
    fn a_script_is_quoted_for_the_shell() {
        let made =
            command(r#"'echo {params.text} {inputs.0} {seed} {{x} ${HOME} >{outputs.0}'"#, &["a", "b c", "$(d)"]);
        let Command::Shell(script) = made.unwrap() else { panic!("a string is for the shell") };
        // What the shell makes of it is what was meant, whatever the style of the quotes.
        let words = shlex::split(&script).unwrap();
        assert_eq!(words, ["echo", "it's $HOME", "src/$(d)", "src/a", "src/b c", "7", "{x}", "${HOME}", ">a b"]);
        let alone = std::process::Command::new("sh").arg("-c").arg(script.replace(">", "")).env("HOME", "h").output();
        let printed = String::from_utf8(alone.unwrap().stdout).unwrap();
        assert_eq!(printed, "it's $HOME src/$(d) src/a src/b c 7 {x} h a b\n");
    }

    #[test]
    fn arguments_are_taken_as_they_are() {
        let list = |words: &[&str]| Command::Exec(words.iter().map(|w| (*w).to_owned()).collect());
        let several = command(r#"["p", "{inputs.0}", "--t={params.text}", "{outputs.0}"]"#, &["a", "b c"]).unwrap();
        assert_eq!(several, list(&["p", "src/a", "src/b c", "--t=it's $HOME", "a b"]));
        assert_eq!(command(r#"["p", "-i={inputs.0}"]"#, &["a"]).unwrap(), list(&["p", "-i=src/a"]));
        let error = command(r#"["p", "-i={inputs.0}"]"#, &["a", "b"]).unwrap_err();
        assert!(error.to_string().starts_with("`{inputs.0}` stands for 2 files"), "{error}");
    }
}
