//! What Python has compiled, in an image: files of the store have one time, which it must name to be used.
//!
//! A `.pyc` begins with a mark of the version, flags, and the time and size of the source that it was made of (PEP 3147,
//! PEP 552). Python compiles the source anew where these are not the source's own; in a file system that is read-only it
//! does so at every start, which for large packages takes seconds.

use trainlock_store::FIXED_TIME;
use trainlock_types::RelPath;

/// The source of a compiled file: of `d/__pycache__/m.cpython-311.pyc` it is `d/m.py`.
pub(super) fn source_of(path: &RelPath) -> Option<RelPath> {
    let (folder, name) = path.as_str().rsplit_once('/')?;
    let module = name.strip_suffix(".pyc")?.split('.').next()?;
    let folder = folder.strip_suffix("__pycache__")?;
    RelPath::parse(&format!("{folder}{module}.py")).ok()
}

/// The same compiled file for a source with the store's time, if it is for one with this time (seconds since 1970) and size
/// in bytes.
pub(super) fn for_the_store(mut compiled: Vec<u8>, (time, size): (u64, u64)) -> Option<Vec<u8>> {
    // Of both, Python keeps the lower 32 bits.
    let word = |number: u64| (number as u32).to_le_bytes();
    let head = [[0; 4], word(time), word(size)].concat();
    if compiled.get(2..4)? != b"\r\n" || compiled.get(4..16)? != head {
        return None;
    }
    compiled[8..12].copy_from_slice(&word(FIXED_TIME.unsigned_abs()));
    Some(compiled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources() {
        let of = |path: &str| source_of(&RelPath::parse(path).unwrap()).map(|source| source.to_string());
        assert_eq!(of("usr/lib/__pycache__/os.cpython-311.pyc").as_deref(), Some("usr/lib/os.py"));
        assert_eq!(of("__pycache__/a.cpython-313.opt-1.pyc").as_deref(), Some("a.py"));
        for other in ["lib/a.pyc", "__pycache__/a.py", "x__pycache__.pyc", "a.pyc"] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn only_what_is_of_this_source() {
        let compiled = |flags: u32, time: u32, size: u32| {
            [b"\xa7\x0d\r\n", &flags.to_le_bytes(), &time.to_le_bytes(), &size.to_le_bytes(), &b"code"[..]].concat()
        };
        let source = (1_700_000_000, 7);
        let expected = Some(compiled(0, 315_532_800, 7));
        assert_eq!(for_the_store(compiled(0, 1_700_000_000, 7), source), expected);
        assert_eq!(for_the_store(compiled(0, 1_700_000_000, 7), ((1 << 32) + 1_700_000_000, 7)), expected);
        for other in [compiled(0, 1_700_000_001, 7), compiled(0, 1_700_000_000, 8), compiled(1, 1_700_000_000, 7)] {
            assert_eq!(for_the_store(other, source), None);
        }
        assert_eq!(for_the_store(b"\xa7\x0d\r\n".to_vec(), source), None);
    }
}
