//! Metrics: the numbers in a step's JSON files.

use std::collections::BTreeMap;

/// The numbers of one JSON file, nested names dotted and list elements by their index; booleans and
/// texts are no metrics. The error says why the file is no JSON.
pub(crate) fn parse(text: &[u8]) -> Result<BTreeMap<String, f64>, serde_json::Error> {
    let mut numbers = BTreeMap::new();
    flatten(&serde_json::from_slice(text)?, String::new(), &mut numbers);
    Ok(numbers)
}

fn flatten(value: &serde_json::Value, name: String, numbers: &mut BTreeMap<String, f64>) {
    let below = |part: &str| {
        if name.is_empty() { part.to_owned() } else { format!("{name}.{part}") }
    };
    match value {
        serde_json::Value::Number(n) => {
            if let Some(n) = n.as_f64().filter(|n| n.is_finite()) {
                numbers.insert(if name.is_empty() { "value".to_owned() } else { name }, n);
            }
        }
        serde_json::Value::Object(map) => map.iter().for_each(|(k, v)| flatten(v, below(k), numbers)),
        serde_json::Value::Array(list) => {
            list.iter().enumerate().for_each(|(i, v)| flatten(v, below(&i.to_string()), numbers))
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_numbers() {
        let numbers =
            parse(br#"{"accuracy": 0.95, "loss": {"train": 1e-3, "steps": [1, 2]}, "name": "x", "ok": true}"#).unwrap();
        let expected = [("accuracy", 0.95), ("loss.steps.0", 1.0), ("loss.steps.1", 2.0), ("loss.train", 0.001)];
        assert_eq!(numbers, expected.map(|(n, v)| (n.to_owned(), v)).into());
        assert_eq!(parse(b"3").unwrap(), BTreeMap::from([("value".to_owned(), 3.0)]));
        assert!(parse(b"{\"accuracy\": NaN}").is_err());
        // Read as written, to the last bit.
        assert_eq!(parse(b"0.9415041782729805").unwrap()["value"], 0.9415041782729805);
    }
}
