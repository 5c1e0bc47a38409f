//! What came of a reproduction, in a folder of its own: `verdict.json`, `report.md`, `run.json` and the logs.

use crate::exit::{Exit, Failure};
use fs_err as fs;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use trainlock_lock::{Lock, ResultPin};
use trainlock_run::record;

/// A report's folder: new, and taken away if nothing is written into it.
#[derive(Debug)]
pub(super) struct Report {
    folder: PathBuf,
    written: bool,
}

/// What was to be reproduced.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) repository: &'a str,
    pub(super) rev: Option<&'a str>,
    pub(super) commit: &'a str,
    pub(super) manifest: &'a str,
    pub(super) profile: Option<&'a str>,
}

impl Report {
    /// Makes the folder. One that is there is never written to: by default another name is taken.
    pub(super) fn begin(wanted: Option<&Path>, name: &str, commit: &str) -> Result<Report, Failure> {
        if let Some(wanted) = wanted {
            if let Some(parent) = wanted.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::create_dir(wanted)?;
            return Ok(Report { folder: wanted.to_owned(), written: false });
        }
        let mut number = 1;
        loop {
            let nth = if number == 1 { String::new() } else { format!("-{number}") };
            let folder = PathBuf::from(format!("trainlock-report-{name}-{}{nth}", &commit[..12]));
            match fs::create_dir(&folder) {
                Ok(()) => return Ok(Report { folder, written: false }),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Writes it, of the last run in `runs`; its folder.
    pub(super) fn write(
        mut self,
        asked: &Asked<'_>,
        lock: &Lock,
        sealed: &[&ResultPin],
        exit: Exit,
        runs: &Path,
    ) -> Result<PathBuf, Failure> {
        self.written = true;
        let run = record::ids(runs)?.pop().map(|id| runs.join(id));
        let record: Value = match &run {
            Some(run) => serde_json::from_slice(&fs::read(run.join("run.json"))?).map_err(std::io::Error::other)?,
            None => Value::Null,
        };
        let facts = facts(asked, lock, sealed, exit, &record);
        let pretty = serde_json::to_string_pretty(&facts).map_err(std::io::Error::other)?;
        fs::write(self.folder.join("verdict.json"), pretty + "\n")?;
        fs::write(self.folder.join("report.md"), words(&facts))?;
        if let Some(run) = run {
            fs::copy(run.join("run.json"), self.folder.join("run.json"))?;
            let logs = self.folder.join("logs");
            for entry in fs::read_dir(run)? {
                let entry = entry?;
                if entry.file_type()?.is_file() && entry.file_name() != "run.json" {
                    fs::create_dir_all(&logs)?;
                    fs::copy(entry.path(), logs.join(entry.file_name()))?;
                }
            }
        }
        Ok(self.folder.clone())
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        if !self.written {
            let _ = fs::remove_dir(&self.folder);
        }
    }
}

/// The verdict in one word.
fn verdict<'a>(sealed: &[&ResultPin], exit: Exit, record: &'a Value) -> &'a str {
    match (exit, record["verdict"].as_str()) {
        (_, Some(verdict)) => verdict,
        (Exit::Interrupted, None) => "interrupted",
        (Exit::Done | Exit::Diverged, None) if sealed.is_empty() => "nothing-sealed",
        (Exit::Done | Exit::Diverged, None) => "not-compared",
        _ => "failed",
    }
}

fn facts(asked: &Asked<'_>, lock: &Lock, sealed: &[&ResultPin], exit: Exit, record: &Value) -> Value {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let judged = list(&record["judged"]);
    let steps: Vec<Value> = list(&record["steps"])
        .iter()
        .map(|step| {
            let name = step["step"].as_str().unwrap_or_default();
            let judged = judged.iter().find(|judged| judged["step"] == name);
            let class = judged.and_then(|judged| judged["class"].as_str()).or(step["class"].as_str());
            step_facts(name, step, judged, pin(sealed, name, class))
        })
        .collect();
    json!({
        "repository": asked.repository,
        "rev": asked.rev,
        "commit": asked.commit,
        "manifest": asked.manifest,
        "profile": asked.profile,
        "lock": lock.digest(),
        "trainlock": env!("CARGO_PKG_VERSION"),
        "verdict": verdict(sealed, exit, record),
        "exit-code": exit as u8,
        "machine": record["machine"],
        "steps": steps,
    })
}

/// The result that a step was compared with: that of its class, or the only one.
fn pin<'a>(sealed: &[&'a ResultPin], step: &str, class: Option<&str>) -> Option<&'a ResultPin> {
    let name = |pin: &ResultPin| match &pin.member {
        Some(member) => format!("{member}/{}", pin.step),
        None => pin.step.to_string(),
    };
    let mut of_step = sealed.iter().copied().filter(|pin| name(pin) == step);
    match class {
        Some(class) => of_step.find(|pin| pin.class == class),
        None => of_step.next().filter(|_| of_step.next().is_none()),
    }
}

fn step_facts(name: &str, step: &Value, judged: Option<&Value>, pin: Option<&ResultPin>) -> Value {
    let mut found = step["outputs"].as_array().cloned().unwrap_or_default();
    // The record's paths are relative to the member's folder, the lock's to the workspace: the latter are shown.
    for output in &mut found {
        let path = output["path"].as_str().unwrap_or_default();
        let same =
            |sealed: &str| sealed.strip_suffix(path).is_some_and(|above| above.is_empty() || above.ends_with('/'));
        let sealed = pin.iter().flat_map(|pin| &pin.outputs).find(|sealed| same(sealed.path.as_str()));
        if let Some(sealed) = sealed {
            output["path"] = json!(sealed.path.as_str());
        }
    }
    let paths = found.iter().filter_map(|output| output["path"].as_str());
    let paths: BTreeSet<&str> =
        paths.chain(pin.iter().flat_map(|pin| pin.outputs.iter().map(|o| o.path.as_str()))).collect();
    let outputs: Vec<Value> = paths
        .into_iter()
        .map(|path| {
            let sealed = pin.and_then(|pin| pin.outputs.iter().find(|output| output.path.as_str() == path));
            let found = found.iter().find(|output| output["path"] == path);
            let sha256 = found.and_then(|output| output["sha256"].as_str());
            json!({
                "path": path,
                "sealed": sealed.map(|output| json!({ "sha256": output.sha256, "size": output.size })),
                "found": found.map(|output| json!({ "sha256": output["sha256"], "size": output["size"] })),
                "same": sealed.map(|output| Some(output.sha256.to_string().as_str()) == sha256),
            })
        })
        .collect();
    let numbers = step["metrics"].as_object().cloned().unwrap_or_default();
    let names: BTreeSet<&str> = numbers
        .keys()
        .map(String::as_str)
        .chain(pin.iter().flat_map(|pin| pin.metrics.keys().map(String::as_str)))
        .collect();
    let metrics: Vec<Value> = names
        .into_iter()
        .map(|name| {
            let sealed = pin.and_then(|pin| pin.metrics.get(name));
            json!({ "name": name, "sealed": sealed, "found": numbers.get(name) })
        })
        .collect();
    json!({
        "step": name,
        "outcome": step["outcome"],
        "error": step["error"],
        "isolation": step["isolation"],
        "class": step["class"],
        "compared-with": pin.map(|pin| &pin.class),
        "judged": judged,
        "outputs": outputs,
        "metrics": metrics,
    })
}

/// The same for people.
fn words(facts: &Value) -> String {
    let text = |value: &Value| match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => plain(text),
        other => plain(&other.to_string()),
    };
    let verdict = facts["verdict"].as_str().unwrap_or_default();
    let meaning = match verdict {
        "reproduced" => "every sealed step gave the same bytes",
        "equivalent" => "other bytes with the same content, or metrics within their tolerance",
        "diverged" => "a sealed step gave something else",
        "elsewhere" => "what is sealed is of other classes of machines, whose bits are not promised here",
        "nothing-sealed" => "it ran, but train.lock has no results to compare with",
        "not-compared" => "it ran, but was not compared with what is sealed",
        "interrupted" => "it was interrupted",
        _ => "it did not come to its end",
    };
    let mut out = format!("# {}: {verdict}\n\n{}.\n\n", text(&facts["repository"]), sentence(meaning));
    for (key, name) in [
        ("commit", "commit"),
        ("rev", "revision asked for"),
        ("manifest", "manifest"),
        ("profile", "profile"),
        ("lock", "sha256 of train.lock"),
        ("trainlock", "trainlock"),
        ("exit-code", "exit code"),
    ] {
        let _ = writeln!(out, "- {name}: {}", text(&facts[key]));
    }
    let machine = &facts["machine"];
    if machine.is_object() {
        let (cpu, cpus) = (text(&machine["cpu"]), text(&machine["cpus"]));
        let _ =
            writeln!(out, "- machine: {cpu}, {cpus} cpus, {}, {}", text(&machine["kernel"]), text(&machine["libc"]));
    }
    for step in facts["steps"].as_array().into_iter().flatten() {
        let judged = match &step["judged"]["verdict"] {
            Value::Null => "not compared".to_owned(),
            verdict => text(verdict),
        };
        let _ = write!(out, "\n## Step `{}`: {judged}\n\n- outcome: {}\n", text(&step["step"]), text(&step["outcome"]));
        for key in ["error", "class", "compared-with"].iter().filter(|key| !step[**key].is_null()) {
            let _ = writeln!(out, "- {}: {}", key.replace('-', " "), text(&step[*key]));
        }
        if let Some(isolation) = step["isolation"].as_str().or(step["isolation"]["tier"].as_str()) {
            let _ = writeln!(out, "- isolation: {}", plain(isolation));
        }
        findings(&mut out, &step["judged"]);
        let rows = step["outputs"].as_array().into_iter().flatten();
        table(
            &mut out,
            "output",
            rows.map(|output| {
                let digest =
                    |side: &Value| side["sha256"].as_str().map_or("none".to_owned(), |hex| format!("`{}`", plain(hex)));
                (text(&output["path"]), digest(&output["sealed"]), digest(&output["found"]))
            }),
        );
        let rows = step["metrics"].as_array().into_iter().flatten();
        table(
            &mut out,
            "metric",
            rows.map(|metric| (text(&metric["name"]), text(&metric["sealed"]), text(&metric["found"]))),
        );
    }
    out
}

/// What the comparison says of a step, one thing a line.
fn findings(out: &mut String, judged: &Value) {
    let list = |key: &str| judged[key].as_array().cloned().unwrap_or_default();
    let strings = |values: &Value| -> Vec<String> {
        values.as_array().into_iter().flatten().filter_map(Value::as_str).map(plain).collect()
    };
    for file in list("files") {
        let _ = writeln!(
            out,
            "- `{}`: sealed {}; found {}",
            plain(file["path"].as_str().unwrap_or_default()),
            plain(file["expected"].as_str().unwrap_or_default()),
            plain(file["found"].as_str().unwrap_or_default())
        );
        for detail in strings(&file["details"]) {
            let _ = writeln!(out, "  - {detail}");
        }
    }
    for (key, name) in
        [("metrics", "metric "), ("notes", ""), ("causes", "what differs besides: "), ("classes", "sealed for ")]
    {
        for line in strings(&judged[key]) {
            let _ = writeln!(out, "- {name}{line}");
        }
    }
    if let Some(step) = judged["verdict"].as_str().filter(|v| *v == "follows").and(judged["because-of"].as_str()) {
        let _ = writeln!(out, "- it follows `{}`", plain(step));
    }
}

fn table(out: &mut String, what: &str, rows: impl Iterator<Item = (String, String, String)>) {
    for (i, (name, sealed, found)) in rows.enumerate() {
        if i == 0 {
            let _ = write!(out, "\n| {what} | sealed | found |\n| --- | --- | --- |\n");
        }
        let _ = writeln!(out, "| {name} | {sealed} | {found} |");
    }
}

fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// A stranger's text as it can stand in a page: on one line, and without what would be read as markup.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '`' | '|' | '<' | '>' | '[' | ']' | '*' | '!' => out.extend(['\\', c]),
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}
