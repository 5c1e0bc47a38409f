//! The levels: which environment variables pin which behaviour of numeric libraries.
//!
//! Measured with numpy 2.4, scipy 1.17, scikit-learn 1.9, jax 0.10, torch 2.15, lightgbm 4.7 and xgboost 3.2 on x86-64:
//! natively on a CPU with AVX-512, and under emulation of Haswell, EPYC (Zen 1) and Nehalem.

use std::collections::BTreeMap;

/// One environment variable, and its value at each level; none: it is not set there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Switch {
    /// Its name.
    pub variable: &'static str,
    /// At `x86-64-v3`: every CPU with AVX2 and FMA.
    pub v3: Option<&'static str>,
    /// At `x86-64-v2`: every CPU with SSE4.2.
    pub v2: Option<&'static str>,
    /// At `armv8-a`.
    pub armv8: Option<&'static str>,
    /// At `machine`.
    pub machine: Option<&'static str>,
    /// The divergence that it removes.
    pub removes: &'static str,
    /// What it costs.
    pub cost: &'static str,
}

/// Stands for the number of threads.
const THREADS: &str = "{threads}";

const fn everywhere(variable: &'static str, value: &'static str, removes: &'static str, cost: &'static str) -> Switch {
    let value = Some(value);
    Switch { variable, v3: value, v2: value, armv8: value, machine: value, removes, cost }
}

/// All switches, as they are explained.
pub const SWITCHES: &[Switch] = &[
    everywhere(
        "OMP_NUM_THREADS",
        THREADS,
        "sums in another order: gemm, cholesky, svd, k-means, logistic regression",
        "the speed-up of more threads",
    ),
    everywhere("OPENBLAS_NUM_THREADS", THREADS, "the same, in OpenBLAS", "the same"),
    everywhere("MKL_NUM_THREADS", THREADS, "the same, in MKL", "the same"),
    everywhere("NUMEXPR_NUM_THREADS", THREADS, "the same, in numexpr", "the same"),
    everywhere("MKL_DYNAMIC", "FALSE", "MKL choosing fewer threads when the machine is busy", "none"),
    Switch {
        variable: "OPENBLAS_CORETYPE",
        v3: Some("Haswell"),
        v2: Some("Nehalem"),
        armv8: Some("ARMV8"),
        machine: None,
        removes: "OpenBLAS choosing its kernels by the CPU: dot, gemm, cholesky, solve, svd, eigh, qr, least squares",
        cost: "v3: none to 10 %; v2: matrix products 3x",
    },
    Switch {
        variable: "OPENBLAS_L2_SIZE",
        v3: Some("262144"),
        v2: Some("262144"),
        armv8: None,
        machine: None,
        removes: "OpenBLAS choosing block sizes by the CPU's cache",
        cost: "none measured",
    },
    Switch {
        variable: "NPY_DISABLE_CPU_FEATURES",
        v3: Some("X86_V4 AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR"),
        v2: Some(
            "X86_V3 X86_V4 AVX F16C FMA3 AVX2 AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR",
        ),
        armv8: Some("ASIMDHP ASIMDDP ASIMDFHM SVE"),
        machine: None,
        removes: "numpy's own dispatch: exp, log, power, complex products, and ties of argsort (names of before numpy 2.4 and after stand together)",
        cost: "exp 4x slower, sorting of 64-bit floats 5x faster; v2: sorting 1.5x slower",
    },
    Switch {
        variable: "GLIBC_TUNABLES",
        v3: Some("glibc.cpu.hwcaps=-FMA4,-AVX512F,-AVX512VL,-AVX512BW,-AVX512DQ"),
        v2: Some("glibc.cpu.hwcaps=-AVX,-AVX2,-FMA,-FMA4,-AVX512F,-AVX512VL,-AVX512BW,-AVX512DQ"),
        armv8: None,
        machine: None,
        removes: "glibc's mathematical functions with and without FMA: exp, sin, log, pow",
        cost: "v2: sin 1.2x",
    },
    Switch {
        variable: "MKL_CBWR",
        v3: Some("COMPATIBLE"),
        v2: Some("COMPATIBLE"),
        armv8: None,
        machine: None,
        removes: "MKL choosing code by the CPU and its maker (torch): matmul, linear, svd, exp, erf",
        cost: "torch matmul 3x",
    },
    Switch {
        variable: "ATEN_CPU_CAPABILITY",
        v3: Some("avx2"),
        v2: Some("default"),
        armv8: Some("default"),
        machine: None,
        removes: "torch's own dispatch: randn, sigmoid, softmax, layer norm, convolution",
        cost: "v3: softmax 2x; v2: softmax 7x, convolution 3x",
    },
    Switch {
        variable: "ONEDNN_MAX_CPU_ISA",
        v3: Some("AVX2"),
        v2: Some("SSE41"),
        armv8: None,
        machine: None,
        removes: "oneDNN's dispatch: convolution",
        cost: "with the above",
    },
    Switch {
        variable: "XLA_FLAGS",
        v3: Some("--xla_cpu_max_isa=AVX2 --xla_cpu_multi_thread_eigen=false"),
        v2: Some("--xla_cpu_max_isa=SSE4_2 --xla_cpu_multi_thread_eigen=false"),
        armv8: Some("--xla_cpu_multi_thread_eigen=false"),
        machine: Some("--xla_cpu_multi_thread_eigen=false"),
        removes: "jax: random normals, exp, tanh, log1p, softmax",
        cost: "v3: none; v2: 3x",
    },
    everywhere(
        "CUBLAS_WORKSPACE_CONFIG",
        ":4096:8",
        "cuBLAS choosing algorithms by free memory (GPU; not measured here)",
        "some memory",
    ),
    everywhere(
        "TF_DETERMINISTIC_OPS",
        "1",
        "TensorFlow's operations that add in any order (GPU; not measured here)",
        "depends on the model",
    ),
    everywhere(
        "TF_ENABLE_ONEDNN_OPTS",
        "0",
        "TensorFlow's oneDNN kernels, chosen by the CPU (not measured here)",
        "depends on the model",
    ),
    everywhere(
        "NVIDIA_TF32_OVERRIDE",
        "0",
        "products in 19-bit floats where the GPU has them (not measured here)",
        "slower products on such GPUs",
    ),
];

/// A flag of XLA, which aborts on one that it does not know: it is given to those that do.
struct XlaFlag {
    flag: &'static str,
    /// The first jaxlib whose library holds the flag's name (looked up in the wheels before and after).
    since: [u64; 3],
}

/// Keeps XLA from using instructions beyond the level's.
const XLA_ISA: XlaFlag = XlaFlag { flag: "--xla_cpu_max_isa=", since: [0, 4, 35] };
/// Keeps XLA's matrix products from being chosen by the CPU.
const XLA_PRODUCTS: XlaFlag = XlaFlag { flag: "--xla_cpu_experimental_ynn_fusion_type=", since: [0, 8, 1] };

/// What a level means on one architecture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The level by its own name.
    pub level: &'static str,
    /// The variables.
    pub variables: BTreeMap<String, String>,
}

/// What a level means on an architecture (`x86_64`, `aarch64`); none if it has no meaning there. `packages` are the
/// locked packages with their versions: some names depend on them. Only known levels of train.toml may be given.
pub fn resolve(
    level: &str,
    architecture: &str,
    threads: Option<u32>,
    packages: &BTreeMap<String, String>,
) -> Option<Resolved> {
    let (level, value): (_, fn(&Switch) -> Option<&'static str>) = match (level, architecture) {
        ("portable" | "x86-64-v3", "x86_64") => ("x86-64-v3", |s| s.v3),
        ("x86-64-v2", "x86_64") => ("x86-64-v2", |s| s.v2),
        ("portable", "aarch64") => ("armv8-a", |s| s.armv8),
        ("machine", _) => ("machine", |s| s.machine),
        ("off", _) => ("off", |_| None),
        _ => return None,
    };
    let threads = threads.unwrap_or(1).to_string();
    let value = |switch: &Switch| Some((switch.variable.to_owned(), value(switch)?.replace(THREADS, &threads)));
    let mut variables: BTreeMap<String, String> = SWITCHES.iter().filter_map(value).collect();
    if let (Some(jaxlib), Some(flags)) = (packages.get("jaxlib"), variables.get_mut("XLA_FLAGS")) {
        let jaxlib = numbers(jaxlib);
        let mut known: Vec<&str> =
            flags.split(' ').filter(|flag| jaxlib >= XLA_ISA.since || !flag.starts_with(XLA_ISA.flag)).collect();
        if jaxlib >= XLA_PRODUCTS.since && level.starts_with("x86-64") {
            known.push(XLA_PRODUCTS.flag);
        }
        *flags = known.join(" ");
    }
    Some(Resolved { level, variables })
}

/// The first three numbers of a version.
fn numbers(version: &str) -> [u64; 3] {
    let mut parts = version.split('.').map(|part| {
        let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        part[..digits].parse::<u64>().unwrap_or(0)
    });
    std::array::from_fn(|_| parts.next().unwrap_or(0))
}

/// What a level costs on this machine, in words; none if it costs nothing.
pub fn cost(level: &str, threads: u32, cpus: usize) -> Option<String> {
    let cores = format!("{threads} of {cpus} {}", if cpus == 1 { "core" } else { "cores" });
    match level {
        "off" => None,
        "x86-64-v3" => Some(format!("{cores}, AVX2")),
        "x86-64-v2" => Some(format!("{cores}, SSE4.2")),
        "armv8-a" => Some(format!("{cores}, NEON")),
        _ => Some(cores),
    }
}

/// The reference page, made from the tables.
pub fn reference() -> String {
    let mut text = String::from(
        "# Determinism\n\n<!-- Generated from the tables in crates/env/src/determinism; do not edit by hand. -->\n\n\
         Locked bytes and seeds are not enough: numeric libraries choose their code by the processor they meet. `[determinism] level`\n\
         pins that. What a level means is resolved by `trainlock lock` into `[determinism.switches.ARCHITECTURE]` of train.lock, so that a later\n\
         trainlock means the same by it; `trainlock update` takes a newer table.\n\n\
         | level | holds for |\n| --- | --- |\n\
         | `portable` | the widest common level of the platform: `x86-64-v3` on x86-64, `armv8-a` on Arm (not measured on Arm hardware) |\n\
         | `x86-64-v3` | every x86-64 CPU with AVX2 and FMA (2013 and later) |\n\
         | `x86-64-v2` | every x86-64 CPU with SSE4.2; jaxlib refuses to run on CPUs without AVX |\n\
         | `machine` | this model of CPU alone: its own fast paths, a fixed number of threads |\n\
         | `off` | nothing |\n\n\
         `threads` is 1 unless the manifest says otherwise. A number above 1 is capped by the cores that a library sees, and then other\n\
         bits come out on a machine with fewer. A CPU that lacks the level's instructions is refused before the first step.\n\n\
         ## Switches\n\n| variable | x86-64-v3 | x86-64-v2 | armv8-a | machine | removes | costs |\n| --- | --- | --- | --- | --- | --- | --- |\n",
    );
    let version = |numbers: [u64; 3]| numbers.map(|n| n.to_string()).join(".");
    let cell =
        |value: Option<&str>| value.map_or_else(|| "–".to_owned(), |v| format!("`{}`", v.replace(THREADS, "threads")));
    for s in SWITCHES {
        text.push_str(&format!(
            "| `{}` | {} | {} | {} | {} | {} | {} |\n",
            s.variable,
            cell(s.v3),
            cell(s.v2),
            cell(s.armv8),
            cell(s.machine),
            s.removes,
            s.cost
        ));
    }
    text.push_str(&format!(
        "\nA jaxlib aborts on a flag that it does not know. Where {} or later is locked, `XLA_FLAGS` also gets `{}` (matrix products and\n\
         gradients); one before {} does not get `{}` and is not held to the level's instructions.\n\
         A variable that a step's `env` sets itself goes before the switch, and the numeric class then says so.\n\n\
         ## What no switch removes\n\n\
         - x86-64 and Arm, two models of GPU, or two C libraries (17 of 26 single-precision functions of glibc 2.36 and 2.41 differ) don't agree.\n\
         - Threads that the code itself starts, `n_jobs` above 1, generators without a seed, dates: see the rules below.\n\
         - jax's convolutions differ in their last bits between processors (measured at `x86-64-v3` with jaxlib 0.10.2).\n\
         - `torch.save` writes whole storages, also the bytes that no tensor shows and that hold what was in memory before: a loss, as a\n\
           reduction gives it, and slices of larger tensors are such. `.clone()` before saving leaves nothing else. Compared by content, such files\n\
           are the same.\n\n\
         ## Numeric classes\n\n\
         Bits are promised within a class and nowhere else: platform, C library and level, for example `linux-x86_64-gnu/x86-64-v3`. At\n\
         `machine`, and for steps with GPUs, it also names the models. It says what was really in force when the step ran.\n\n\
         ## The self-check\n\n\
         A switch that is misspelt, or that a library of another version does not know, is silently ignored. Before a step with Python packages\n\
         (its `env` sets `PYTHONPATH`) trainlock asks the libraries themselves, in the step's sandbox: the kernels and threads of OpenBLAS, the\n\
         features of numpy, the capability and threads of torch (which takes the seconds that importing it takes). What did not take effect fails the step.\n\
         A library that is installed and can't be imported can't be asked: trainlock warns, and names its error.\n\n\
         ## seed-globals\n\n\
         `seed-globals = true` seeds `random` when Python starts, and numpy's, torch's and TensorFlow's global generators when they are first\n\
         imported, with the step's seed. It can't reach `default_rng()` without a seed, jax (whose keys are explicit) or `python -I`; children\n\
         that are forked get a seed each, by which fork of which parent they are; processes that are started anew (`spawn`, `forkserver`, `subprocess`)\n\
         all get the step's. TensorFlow is not seeded anew in forked children (it does not survive a fork well): they go on with what their parent had.\n\
         Where several threads fork, the order in which they get to it decides which child has which seed. Seeds in the code, from `TRAINLOCK_SEED`, are better.\n\n\
         ## Rules of `trainlock audit`\n\n| rule | what it finds | instead |\n| --- | --- | --- |\n",
        version(XLA_PRODUCTS.since), XLA_PRODUCTS.flag, version(XLA_ISA.since), XLA_ISA.flag
    ));
    for rule in super::RULES {
        text.push_str(&format!("| `{}` | {} | {} |\n", rule.name, rule.message, rule.help));
    }
    text.push_str("\n`# trainlock: ignore[RULE]` on the line silences a rule there.\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(level: &str, architecture: &str, jaxlib: Option<&str>) -> Resolved {
        let packages = jaxlib.map(|v| ("jaxlib".to_owned(), v.to_owned())).into_iter().collect();
        resolve(level, architecture, None, &packages).unwrap()
    }

    #[test]
    fn levels_mean_what_was_measured() {
        let v3 = resolved("portable", "x86_64", None);
        assert_eq!((v3.level, v3.variables["OPENBLAS_CORETYPE"].as_str()), ("x86-64-v3", "Haswell"));
        assert_eq!(v3, resolved("x86-64-v3", "x86_64", None));
        assert_eq!(v3.variables["OMP_NUM_THREADS"], "1");
        let v2 = resolved("x86-64-v2", "x86_64", None);
        assert!(v2.variables["NPY_DISABLE_CPU_FEATURES"].contains("AVX2"));
        let machine = resolve("machine", "x86_64", Some(4), &BTreeMap::new()).unwrap();
        assert_eq!(machine.variables["OMP_NUM_THREADS"], "4");
        assert!(!machine.variables.contains_key("MKL_CBWR"));
        assert!(resolved("off", "aarch64", None).variables.is_empty());
        assert_eq!(resolve("x86-64-v3", "aarch64", None, &BTreeMap::new()), None);
        assert_eq!(resolved("portable", "aarch64", None).level, "armv8-a");
    }

    #[test]
    fn a_flag_that_an_old_jaxlib_does_not_know_is_not_given_to_it() {
        let flags = |jaxlib| resolved("portable", "x86_64", jaxlib).variables["XLA_FLAGS"].clone();
        for (jaxlib, isa, products) in [
            (Some("0.10.2"), true, true),
            (Some("0.8.1"), true, true),
            (Some("0.8.0"), true, false),
            (Some("0.4.35"), true, false),
            (Some("0.4.34"), false, false),
            (Some("0.4.33.dev1"), false, false),
            (None, true, false),
        ] {
            let flags = flags(jaxlib);
            assert_eq!(flags.contains(XLA_ISA.flag), isa, "{jaxlib:?}: {flags}");
            assert_eq!(flags.ends_with(XLA_PRODUCTS.flag), products, "{jaxlib:?}: {flags}");
            assert!(flags.contains("--xla_cpu_multi_thread_eigen=false"), "{jaxlib:?}");
        }
    }

    #[test]
    fn the_table_is_sound() {
        let mut names: Vec<&str> = SWITCHES.iter().map(|s| s.variable).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), SWITCHES.len(), "no variable stands twice");
        let page = reference();
        for switch in SWITCHES {
            assert!(switch.v3.is_some() && switch.v2.is_some(), "{} pins nothing", switch.variable);
            assert!(!switch.removes.is_empty() && !switch.cost.is_empty());
            assert!(page.contains(switch.variable));
        }
        assert_eq!(cost("x86-64-v3", 1, 16).unwrap(), "1 of 16 cores, AVX2");
        assert_eq!(cost("off", 1, 16), None);
    }
}
