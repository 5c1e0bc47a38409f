//! What this CPU can do.

/// The instructions of a level that this CPU lacks, by their usual names; all of them if the level is of another
/// architecture. Asked of the CPU itself, not of the system.
///
/// The levels are those of the x86-64 psABI.
pub fn missing_features(level: &str) -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    {
        macro_rules! lacking {
            ($($feature:tt),*) => {
                [$(($feature, std::arch::is_x86_feature_detected!($feature))),*]
                    .into_iter()
                    .filter(|(_, there)| !there)
                    .map(|(feature, _)| feature)
                    .collect::<Vec<_>>()
            };
        }
        let v2 = || lacking!("cmpxchg16b", "popcnt", "sse3", "sse4.1", "sse4.2", "ssse3");
        match level {
            "x86-64-v2" => v2(),
            "x86-64-v3" => {
                let mut missing = v2();
                missing.extend(lacking!("avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "lzcnt", "movbe"));
                missing
            }
            "armv8-a" => vec!["an Arm processor"],
            _ => Vec::new(),
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        if level.starts_with("x86-64") { vec!["an x86-64 processor"] } else { Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_agrees_with_the_system() {
        let flags = fs_err::read_to_string("/proc/cpuinfo").unwrap_or_default();
        if cfg!(target_arch = "x86_64") && flags.contains("flags") {
            assert_eq!(missing_features("x86-64-v3").contains(&"avx2"), !flags.contains(" avx2 "));
            assert_eq!(missing_features("x86-64-v2").contains(&"sse4.2"), !flags.contains(" sse4_2 "));
        }
        assert!(missing_features("off").is_empty() && missing_features("machine").is_empty());
        let other = if cfg!(target_arch = "x86_64") { "armv8-a" } else { "x86-64-v2" };
        assert_eq!(missing_features(other).len(), 1);
    }
}
