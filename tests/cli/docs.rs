//! Pages of the docs that are made from the code: written by `TRAINLOCK_BLESS=1 cargo test`, checked otherwise.

use crate::context;
use std::path::{Path, PathBuf};

fn docs(page: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/src/reference").join(page)
}

/// Compares a page with what it should be, or writes it.
#[track_caller]
fn check(page: &str, text: &str) {
    let file = docs(page);
    #[expect(clippy::disallowed_methods, reason = "a switch of the test itself")]
    if std::env::var_os("TRAINLOCK_BLESS").is_some() {
        fs_err::write(&file, text).unwrap();
    }
    let found = fs_err::read_to_string(&file).unwrap_or_default();
    assert!(
        found == text,
        "{} is not what the code says: run TRAINLOCK_BLESS=1 cargo test --test cli docs",
        file.display()
    );
}

#[test]
fn keys_variables_and_configuration() {
    let context = context();
    for page in ["manifest", "determinism", "environment", "configuration"] {
        check(&format!("{page}.md"), &context.run(["reference", page]).expect(0).stdout);
    }
}

#[test]
fn the_schemas() {
    let context = context();
    check("train.schema.json", &context.run(["schema"]).expect(0).stdout);
    check("run.schema.json", &context.run(["schema", "run"]).expect(0).stdout);
}

#[test]
fn the_commands() {
    let context = context();
    let help = |command: &[&str]| context.run(command.iter().copied().chain(["--help"])).expect(0).stdout;
    let mut page = "# Commands\n\nThis page is what `trainlock COMMAND --help` prints.\n".to_owned();
    let main = help(&[]);
    page.push_str(&format!("\n## trainlock\n\n```text\n{}```\n", main));
    let names = main.lines().skip_while(|l| !l.starts_with("Commands:")).skip(1).take_while(|l| l.starts_with("  "));
    for name in names.filter_map(|l| l.split_whitespace().next()).filter(|n| *n != "help") {
        let text = help(&[name]);
        page.push_str(&format!("\n## trainlock {name}\n\n```text\n{text}```\n"));
        let below =
            text.lines().skip_while(|l| !l.starts_with("Commands:")).skip(1).take_while(|l| l.starts_with("  "));
        for sub in below.filter_map(|l| l.split_whitespace().next()).filter(|n| *n != "help") {
            page.push_str(&format!("\n### trainlock {name} {sub}\n\n```text\n{}```\n", help(&[name, sub])));
        }
    }
    check("commands.md", &page);
}
