//! Looks through Python sources for what makes results differ from run to run.
//!
//! Strings and comments are blanked first, so that nothing in them counts. The rules look at calls and assignments by
//! name: they know no types, and a name that means something else can be silenced on its line.

use serde::Serialize;

/// A rule, as the docs explain it.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// Its name.
    pub name: &'static str,
    /// What it finds.
    pub message: &'static str,
    /// What to write instead.
    pub help: &'static str,
    /// Whether the text behind `at` breaks it.
    test: fn(Place<'_>) -> bool,
    /// What it looks at: the text that begins a place.
    begins: &'static [&'static str],
}

/// A place in a source.
#[derive(Debug, Clone, Copy)]
struct Place<'a> {
    /// The line before it.
    before: &'a str,
    /// All that follows what the rule looks for.
    after: &'a str,
}

/// Something that a rule found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The source.
    pub path: String,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// The rule's name.
    pub rule: &'static str,
    /// What it is.
    pub message: &'static str,
    /// What to write instead.
    pub help: &'static str,
}

/// All rules.
pub const RULES: &[Rule] = &[
    Rule {
        name: "unseeded-rng",
        message: "a generator without a seed takes fresh randomness from the system",
        help: "`default_rng(seed)` with a seed from TRAINLOCK_SEED",
        test: |p| empty_call(p.after),
        begins: &["default_rng", "RandomState", "random.seed", "np.random.seed", "random.Random", "manual_seed"],
    },
    Rule {
        name: "random-state-none",
        message: "`random_state=None` draws from a generator that nobody seeded",
        help: "`random_state=seed`",
        test: |p| value(p.after).is_some_and(|v| v.starts_with("None")),
        begins: &["random_state"],
    },
    Rule {
        name: "parallel-sum",
        message: "several jobs may add numbers in any order",
        help: "`n_jobs=1` where floating-point results are combined",
        test: |p| {
            value(p.after).is_some_and(|v| {
                !v.starts_with('1') && (v.starts_with('-') || v.starts_with(|c: char| c.is_ascii_digit()))
            })
        },
        begins: &["n_jobs"],
    },
    Rule {
        name: "unsorted-listing",
        message: "the order of a folder's files differs between file systems",
        help: "`sorted(…)` around it",
        test: |p| p.after.starts_with('(') && !sorted(p.before),
        begins: &["os.listdir", "os.scandir", "glob.glob", "glob.iglob", ".iterdir", ".glob", ".rglob", "os.walk"],
    },
    Rule {
        name: "time-seed",
        message: "a seed from the clock is another one each time",
        help: "a seed from TRAINLOCK_SEED",
        test: |p| {
            p.after.trim_start_matches(['(', ' ']).starts_with("int(time.")
                || p.after.trim_start_matches(['(', ' ']).starts_with("time.")
        },
        begins: &[".seed", "manual_seed", "default_rng", "seed ="],
    },
    Rule {
        name: "system-randomness",
        message: "the system's randomness can't be seeded",
        help: "a generator seeded from TRAINLOCK_SEED",
        test: |p| p.after.starts_with('('),
        begins: &[
            "os.urandom",
            "uuid.uuid4",
            "uuid.uuid1",
            "secrets.token_bytes",
            "secrets.token_hex",
            "secrets.randbelow",
        ],
    },
    Rule {
        name: "cudnn-benchmark",
        message: "cuDNN then chooses its algorithms by how fast they were this time",
        help: "`torch.backends.cudnn.benchmark = False`",
        test: |p| value(p.after).is_some_and(|v| v.starts_with("True")),
        begins: &["cudnn.benchmark"],
    },
];

/// Whether a call with no arguments follows.
fn empty_call(after: &str) -> bool {
    after.strip_prefix('(').is_some_and(|rest| rest.trim_start().starts_with(')'))
}

/// What an assignment or keyword argument gives.
fn value(after: &str) -> Option<&str> {
    let rest = after.trim_start().strip_prefix('=')?;
    (!rest.starts_with('=')).then(|| rest.trim_start())
}

/// Whether what precedes a call on its line sorts its result, or only asks how much there is.
fn sorted(before: &str) -> bool {
    let start = before.trim_end_matches(|c: char| c.is_alphanumeric() || "_.)(\"' /".contains(c) && c != '(');
    ["sorted(", "len(", "set(", "any(", "all("].iter().any(|call| before.contains(call) || start.ends_with(call))
}

/// What the rules find in a source, in its order.
pub fn lint(path: &str, text: &str) -> Vec<Finding> {
    let blank = blanked(text);
    let mut findings = Vec::new();
    let mut at = 0;
    for (number, (line, code)) in text.split_inclusive('\n').zip(lines(&blank, text)).enumerate() {
        for rule in RULES {
            if silenced(line, rule.name) {
                continue;
            }
            let places = rule.begins.iter().flat_map(|word| code.match_indices(word));
            let mut broken: Vec<usize> = places
                .filter(|(i, word)| {
                    let whole =
                        word.starts_with('.') || !code[..*i].ends_with(|c: char| c.is_alphanumeric() || c == '_');
                    let end = i + word.len();
                    let name_ends = !code[end..].starts_with(|c: char| c.is_alphanumeric() || c == '_');
                    whole && name_ends && (rule.test)(Place { before: &code[..*i], after: &blank[at + end..] })
                })
                .map(|(i, _)| i)
                .collect();
            broken.sort_unstable();
            // `np.random.seed` is `random.seed` too, and a path's `.glob` is not another place than `glob.glob`.
            broken.dedup_by(|b, a| *b < *a + 12);
            findings.extend(broken.into_iter().map(|i| Finding {
                path: path.to_owned(),
                line: number + 1,
                column: line.get(..i).map_or(i, |before| before.chars().count()) + 1,
                rule: rule.name,
                message: rule.message,
                help: rule.help,
            }));
        }
        at += code.len();
    }
    findings.sort_by_key(|f| (f.line, f.column));
    findings
}

/// The blanked text by the lines of the original: both have the same length.
fn lines<'b>(blank: &'b str, text: &str) -> Vec<&'b str> {
    let mut rest = blank;
    let mut all = Vec::new();
    for line in text.split_inclusive('\n') {
        let (one, more) = rest.split_at(line.len());
        all.push(one);
        rest = more;
    }
    all
}

fn silenced(line: &str, rule: &str) -> bool {
    let Some((_, rest)) = line.split_once("trainlock: ignore[") else { return false };
    rest.split(']').next().is_some_and(|names| names.split(',').any(|name| name.trim() == rule))
}

/// The source with each byte of a string's inside, of a comment and outside ASCII as a blank; lines stay.
fn blanked(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out: Vec<u8> = bytes.iter().map(|b| if b.is_ascii() { *b } else { b' ' }).collect();
    let mut wipe = |from: usize, to: usize| {
        for byte in &mut out[from..to] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
    };
    let mut i = 0;
    while i < bytes.len() {
        match bytes[i] {
            b'#' => {
                let end = bytes[i..].iter().position(|b| *b == b'\n').map_or(bytes.len(), |n| i + n);
                wipe(i, end);
                i = end;
            }
            quote @ (b'"' | b'\'') => {
                let triple = bytes[i..].starts_with(&[quote; 3]);
                let width = if triple { 3 } else { 1 };
                let mut end = i + width;
                while end < bytes.len() {
                    match bytes[end] {
                        b'\\' => end += 2,
                        b'\n' if !triple => break,
                        b if b == quote && (!triple || bytes[end..].starts_with(&[quote; 3])) => break,
                        _ => end += 1,
                    }
                }
                let end = end.min(bytes.len());
                wipe((i + width).min(end), end);
                i = if end < bytes.len() && bytes[end] == b'\n' && !triple {
                    end
                } else {
                    (end + width).min(bytes.len())
                };
            }
            _ => i += 1,
        }
    }
    String::from_utf8(out).expect("only ASCII is left")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Vec<(usize, usize, &'static str)> {
        lint("a.py", text).into_iter().map(|f| (f.line, f.column, f.rule)).collect()
    }

    #[test]
    fn what_differs_from_run_to_run_is_found() {
        assert_eq!(rules("rng = np.random.default_rng()\n"), [(1, 17, "unseeded-rng")]);
        assert_eq!(rules("x\nnp.random.seed( )\n"), [(2, 1, "unseeded-rng")]);
        assert_eq!(rules("f(random_state=None)"), [(1, 3, "random-state-none")]);
        assert_eq!(rules("f(n_jobs=-1)\nf(n_jobs = 4)"), [(1, 3, "parallel-sum"), (2, 3, "parallel-sum")]);
        assert_eq!(rules("for f in os.listdir(d):"), [(1, 10, "unsorted-listing")]);
        assert_eq!(rules("for f in Path(d).glob(p):"), [(1, 17, "unsorted-listing")]);
        assert_eq!(rules("random.seed(time.time())"), [(1, 7, "time-seed")]);
        assert_eq!(rules("k = os.urandom(8)"), [(1, 5, "system-randomness")]);
        assert_eq!(rules("torch.backends.cudnn.benchmark = True"), [(1, 16, "cudnn-benchmark")]);
        // A call may go on in the next line.
        assert_eq!(rules("default_rng(\n)"), [(1, 1, "unseeded-rng")]);
    }

    #[test]
    fn what_is_in_order_is_left_alone() {
        for fine in [
            "rng = np.random.default_rng(seed)",
            "for f in sorted(os.listdir(d)):",
            "n = len(list(Path(d).glob(p)))",
            "f(n_jobs=1)",
            "f(random_state=42, n_jobs=jobs)",
            "# default_rng()",
            "s = 'default_rng()'",
            "s = \"\"\"\ndefault_rng()\n\"\"\"",
            "s = 'it\\'s default_rng()'",
            "my_default_rng()",
            "if random_state == None: pass",
            "rng = default_rng()  # trainlock: ignore[unseeded-rng]",
            "é = 'default_rng()' # é",
        ] {
            assert!(rules(fine).is_empty(), "{fine}: {:?}", rules(fine));
        }
        assert_eq!(rules("'unfinished\nf(n_jobs=2)").len(), 1);
        assert_eq!(rules("é = default_rng()"), [(1, 5, "unseeded-rng")]);
    }
}
