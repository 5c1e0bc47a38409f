//! train.toml.example: valid, and complete.

use std::path::Path;
use trainlock_manifest::{InputPattern, Level, Origin, OutputKind, Run, Sandbox, load, reference, schema};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../train.toml.example");

fn text() -> String {
    fs_err::read_to_string(Path::new(EXAMPLE)).unwrap()
}

#[test]
fn the_example_is_valid_and_means_what_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = folder.path().join("train.toml");
    fs_err::write(&manifest, text()).unwrap();
    let workspace = load(&manifest).unwrap();

    let [digits] = &workspace.members[..] else { panic!("one member") };
    assert_eq!(workspace.current.as_ref(), Some(&digits.name));
    assert!(!workspace.is_virtual);
    assert_eq!(digits.determinism.seed, 42);
    assert_eq!(digits.determinism.level, Level::Portable);
    let places: Vec<&str> = digits.data.iter().map(|d| d.request.to.as_str()).collect();
    let expected = "data/digits.csv.gz annotations data/images data/labels.csv data/weights.bin data/reviews data/lexicon \
                    data/shards data/survey data/penguins data/titanic data/volumes";
    assert_eq!(places.join(" "), expected);

    let [prepare, train] = &digits.steps[..] else { panic!("two steps") };
    assert!(matches!(prepare.run, Run::Shell(_)));
    assert_eq!(prepare.inputs[1].origins, [Origin::Data { member: 0, data: 0 }]);
    assert_eq!(train.needs, [workspace.order[0]]);
    assert_eq!(workspace.step(workspace.order[0]).name, prepare.name);
    assert!(
        matches!(&train.inputs[0].pattern, InputPattern::Glob { folder, glob } if folder.as_str() == "src" && glob == "**/*.py")
    );
    let kinds: Vec<OutputKind> = train.outputs.iter().map(|o| o.kind).collect();
    assert_eq!(kinds, [OutputKind::Output, OutputKind::Output, OutputKind::Metric, OutputKind::Plot]);
    assert!(train.outputs[1].folder);
    let seen: Vec<String> = train.params_seen(&digits.params).into_keys().collect();
    assert_eq!(seen, ["epochs", "model.dropout", "model.width", "optimizer.lr"]);
    assert_eq!(train.resources.memory, Some(8 << 30));
    assert_eq!((train.sandbox, prepare.sandbox), (Sandbox::Required, Sandbox::BestEffort));
    assert_eq!(train.expect["val.count"].equals, Some(360.0));
    assert_eq!(digits.params_for(Some("smoke")).unwrap()["epochs"].to_string(), "1");
    assert_eq!(digits.params_for(None).unwrap()["epochs"].to_string(), "20");
    let error = digits.params_for(Some("smok")).unwrap_err();
    assert_eq!(error.to_string(), "project `digits` has no profile `smok` (did you mean `smoke`?)");
}

/// Every key of the schema, which is made from the table that the loader checks against.
fn keys(schema: &serde_json::Value, found: &mut Vec<String>) {
    for (name, value) in schema["properties"].as_object().into_iter().flatten() {
        found.push(name.clone());
        keys(value, found);
    }
    for inner in ["additionalProperties", "items"] {
        if schema[inner].is_object() {
            keys(&schema[inner], found);
        }
    }
    for choice in schema["anyOf"].as_array().into_iter().flatten() {
        keys(choice, found);
    }
}

#[test]
fn the_example_and_the_reference_have_every_key() {
    let mut all = Vec::new();
    keys(&schema(), &mut all);
    assert!(all.len() > 70, "{}", all.len());
    let (example, reference) = (text(), reference());
    for key in all {
        let has =
            |text: &str| text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_')).any(|w| w == key);
        assert!(has(&example), "train.toml.example lacks `{key}`");
        assert!(has(&reference), "the reference lacks `{key}`");
    }
}

#[test]
fn the_schema_accepts_the_example() {
    let example: toml::Table = text().parse().unwrap();
    let mut wrong = Vec::new();
    check(&schema(), &serde_json::to_value(example).unwrap(), "", &mut wrong);
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn the_schema_refuses_what_the_loader_refuses() {
    let cases = [
        "[project]\nnam = \"x\"",
        "[project]\nname = 3",
        "[steps.x]\nrun = 3",
        "[determinism]\nseed = -1",
        "[determinism]\nlevel = \"best\"",
        "[steps.x]\ninputs = []",
        "[data.x]\nworkspace = false",
    ];
    for case in cases {
        let table: toml::Table = case.parse().unwrap();
        let mut wrong = Vec::new();
        check(&schema(), &serde_json::to_value(table).unwrap(), "", &mut wrong);
        assert!(!wrong.is_empty(), "{case}");
    }
}

/// As much of a JSON schema validator as the schema uses (patterns aside).
fn check(schema: &serde_json::Value, value: &serde_json::Value, place: &str, wrong: &mut Vec<String>) {
    if let Some(choices) = schema["anyOf"].as_array() {
        let fits = |choice| {
            let mut wrong = Vec::new();
            check(choice, value, place, &mut wrong);
            wrong.is_empty()
        };
        if !choices.iter().any(fits) {
            wrong.push(format!("{place}: no choice fits"));
        }
        return;
    }
    let kind = schema["type"].as_str();
    let good = match kind {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string() && schema["enum"].as_array().is_none_or(|words| words.contains(value)),
        Some("integer") => value.as_i64().is_some_and(|i| {
            i >= schema["minimum"].as_i64().unwrap() && schema["maximum"].as_i64().is_none_or(|max| i <= max)
        }),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        _ => schema["const"] == *value,
    };
    if !good {
        wrong.push(format!("{place}: {value} is not {schema}"));
    }
    for required in schema["required"].as_array().into_iter().flatten() {
        if value.get(required.as_str().unwrap()).is_none() {
            wrong.push(format!("{place}: no {required}"));
        }
    }
    for (key, inner) in value.as_object().into_iter().flatten() {
        let place = format!("{place}.{key}");
        match (schema["properties"].get(key), schema.get("additionalProperties")) {
            (Some(schema), _) => check(schema, inner, &place, wrong),
            (None, Some(serde_json::Value::Bool(false))) => wrong.push(format!("{place}: unknown")),
            (None, Some(schema)) => check(schema, inner, &place, wrong),
            (None, None) => {}
        }
    }
    for item in value.as_array().into_iter().flatten() {
        check(&schema["items"], item, place, wrong);
    }
}
