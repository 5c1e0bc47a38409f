//! Where bits are promised.

/// The numeric class: platform, C library and level; the CPU's model at `machine`, and the GPUs' where there are any. `changed`
/// are the variables of the level that the step itself set otherwise.
///
/// `linux-x86_64-gnu/x86-64-v3`, `linux-x86_64-gnu/machine/amd-epyc-9r14`, `linux-x86_64-gnu/x86-64-v3/OMP_NUM_THREADS=4`.
pub fn numeric_class(
    platform: &str,
    libc: &str,
    level: &str,
    cpu: &str,
    gpus: &[String],
    changed: &[(String, String)],
) -> String {
    let libc = match libc.split(' ').next().unwrap_or_default() {
        "glibc" => "-gnu",
        "musl" => "-musl",
        _ => "",
    };
    let mut class = format!("{platform}{libc}/{level}");
    if level == "machine" {
        class = format!("{class}/{}", word(cpu));
    }
    for gpu in gpus {
        class = format!("{class}/{}", word(gpu));
    }
    for (name, value) in changed {
        class = format!("{class}/{name}={value}");
    }
    class
}

/// A model's name in lower case, its parts joined by dashes.
fn word(model: &str) -> String {
    let parts = model.split(|c: char| !c.is_ascii_alphanumeric()).filter(|p| !p.is_empty());
    let word = parts.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("-");
    if word.is_empty() { "unknown".to_owned() } else { word }
}

/// Why the bits of results that are sealed for these classes can't be expected in the class of this machine; none if
/// they can.
pub fn elsewhere(sealed: &[&str], here: &str) -> Option<String> {
    if sealed.is_empty() || sealed.contains(&here) {
        return None;
    }
    let part = |class: &str, n: usize| class.split('/').nth(n).unwrap_or_default().to_owned();
    let why = match sealed.iter().find(|class| part(class, 0) == part(here, 0)) {
        None => "no switch makes two architectures, systems or C libraries agree",
        Some(_) if part(here, 1) == "machine" => "at level `machine` bits are promised on the same model of CPU alone",
        Some(class) if part(class, 1) == part(here, 1) => "another model of GPU, or variables of the step's own",
        Some(_) => "another level was in force",
    };
    Some(format!("sealed for {}; this machine is {here}: {why}", sealed.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_name_what_the_bits_depend_on() {
        let class = |level, gpus: &[String], changed: &[(String, String)]| {
            numeric_class("linux-x86_64", "glibc 2.36", level, "AMD EPYC 9R14 (x)", gpus, changed)
        };
        assert_eq!(class("x86-64-v3", &[], &[]), "linux-x86_64-gnu/x86-64-v3");
        assert_eq!(class("machine", &[], &[]), "linux-x86_64-gnu/machine/amd-epyc-9r14-x");
        assert_eq!(class("x86-64-v3", &["NVIDIA L4".into()], &[]), "linux-x86_64-gnu/x86-64-v3/nvidia-l4");
        let changed = [("OMP_NUM_THREADS".to_owned(), "4".to_owned())];
        assert_eq!(class("x86-64-v3", &[], &changed), "linux-x86_64-gnu/x86-64-v3/OMP_NUM_THREADS=4");
        assert_eq!(numeric_class("macos-aarch64", "", "armv8-a", "", &[], &[]), "macos-aarch64/armv8-a");
    }

    #[test]
    fn where_bits_can_not_be_expected() {
        let here = "linux-x86_64-gnu/x86-64-v3";
        assert_eq!(elsewhere(&[here, "macos-aarch64/armv8-a"], here), None);
        assert_eq!(elsewhere(&[], here), None);
        let told = elsewhere(&["macos-aarch64/armv8-a"], here).unwrap();
        assert!(told.contains("this machine is linux-x86_64-gnu/x86-64-v3: no switch"), "{told}");
        assert!(elsewhere(&["linux-x86_64-gnu/x86-64-v2"], here).unwrap().contains("another level"));
    }
}
