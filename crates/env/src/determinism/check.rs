//! Whether a level's switches took effect: a library silently ignores a variable that it does not know.

use std::collections::BTreeMap;

/// The Python program that prints, as one line of JSON, what numeric libraries really do. It imports numpy and torch
/// where they are.
pub const SELF_CHECK: &str = include_str!("self_check.py");

/// What did not take effect of a level's variables, by what [`SELF_CHECK`] printed; empty if all did.
///
/// # Errors
/// If the output is not what the check prints.
pub fn judge(variables: &BTreeMap<String, String>, output: &str) -> Result<Vec<String>, serde_json::Error> {
    let line = output.lines().last().unwrap_or_default();
    let found: serde_json::Value = serde_json::from_str(line)?;
    let mut problems = Vec::new();
    let wanted = |name: &str| variables.get(name).map(String::as_str);
    for library in found["openblas"].as_array().into_iter().flatten() {
        let file = library["file"].as_str().unwrap_or_default();
        if let (Some(core), Some(real)) = (wanted("OPENBLAS_CORETYPE"), library["core"].as_str())
            && !core.eq_ignore_ascii_case(real)
        {
            problems.push(format!("OPENBLAS_CORETYPE={core} was set, but {file} runs its {real} kernels"));
        }
        if let (Some(threads), Some(real)) = (wanted("OPENBLAS_NUM_THREADS"), library["threads"].as_u64())
            && threads.parse() != Ok(real)
        {
            problems.push(format!("OPENBLAS_NUM_THREADS={threads} was set, but {file} uses {real}"));
        }
    }
    if let Some(disabled) = wanted("NPY_DISABLE_CPU_FEATURES") {
        let features = found["numpy"]["features"].as_array().into_iter().flatten().filter_map(|f| f.as_str());
        let on: Vec<&str> = features.filter(|f| disabled.split(' ').any(|d| d == *f)).collect();
        if !on.is_empty() {
            problems.push(format!("NPY_DISABLE_CPU_FEATURES names {}, but numpy uses them", on.join(", ")));
        }
    }
    if let (Some(capability), Some(real)) = (wanted("ATEN_CPU_CAPABILITY"), found["torch"]["capability"].as_str())
        && !is_capability(capability, real)
    {
        problems.push(format!("ATEN_CPU_CAPABILITY={capability} was set, but torch runs its {real} code"));
    }
    if let (Some(threads), Some(real)) = (wanted("OMP_NUM_THREADS"), found["torch"]["threads"].as_u64())
        && threads.parse() != Ok(real)
    {
        problems.push(format!("OMP_NUM_THREADS={threads} was set, but torch uses {real}"));
    }
    Ok(problems)
}

/// What could not be asked, because it is there and can't be imported: each library with its error.
pub fn unasked(output: &str) -> Vec<String> {
    let found: Option<serde_json::Value> = output.lines().last().and_then(|line| serde_json::from_str(line).ok());
    let failed = found.as_ref().and_then(|found| found["failed"].as_object()).into_iter().flatten();
    failed.map(|(name, error)| format!("{name} ({})", error.as_str().unwrap_or_default())).collect()
}

/// Whether torch's name for what it runs is that of the wanted capability: its code for no extension is `DEFAULT`, or `NO AVX`
/// where others would have been possible.
fn is_capability(wanted: &str, real: &str) -> bool {
    wanted.eq_ignore_ascii_case(real) || wanted.eq_ignore_ascii_case("default") && real.eq_ignore_ascii_case("NO AVX")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_did_not_take_effect_is_named() {
        let variables = super::super::resolve("portable", "x86_64", None, &BTreeMap::new()).unwrap().variables;
        let printed = |core: &str, threads: u32, feature: &str| {
            format!(
                "a warning\n{{\"openblas\": [{{\"file\": \"libopenblas.so\", \"core\": \"{core}\", \"threads\": {threads}}}], \
                 \"numpy\": {{\"version\": \"2.4.6\", \"features\": [\"{feature}\"]}}, \"torch\": null}}"
            )
        };
        assert!(judge(&variables, &printed("Haswell", 1, "AVX2")).unwrap().is_empty());
        let problems = judge(&variables, &printed("SkylakeX", 2, "AVX512F")).unwrap();
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(problems[0].contains("runs its SkylakeX kernels"));
        assert!(judge(&variables, "Traceback").is_err());
        let torch = |capability: &str, threads: u32| {
            format!("{{\"torch\": {{\"threads\": {threads}, \"capability\": \"{capability}\"}}}}")
        };
        assert!(judge(&variables, &torch("AVX2", 1)).unwrap().is_empty());
        assert_eq!(judge(&variables, &torch("AVX512", 8)).unwrap().len(), 2);
        assert_eq!(judge(&variables, &torch("NO AVX", 1)).unwrap().len(), 1);
        let lower = super::super::resolve("x86-64-v2", "x86_64", None, &BTreeMap::new()).unwrap().variables;
        for same in ["NO AVX", "DEFAULT"] {
            assert!(judge(&lower, &torch(same, 1)).unwrap().is_empty(), "{same}");
        }
        assert_eq!(judge(&lower, &torch("AVX2", 1)).unwrap().len(), 1);
        let unknown = "{\"torch\": {\"threads\": 1, \"capability\": null}}";
        assert!(judge(&variables, unknown).unwrap().is_empty());
        let broken = "{\"torch\": null, \"failed\": {\"torch\": \"ImportError: libx.so\"}}";
        assert!(judge(&variables, broken).unwrap().is_empty());
        assert_eq!(unasked(broken), ["torch (ImportError: libx.so)"]);
        assert!(unasked(unknown).is_empty() && unasked("Traceback").is_empty());
        let nothing = "{\"openblas\": [], \"numpy\": null, \"torch\": null}";
        assert!(judge(&variables, nothing).unwrap().is_empty());
    }
}
