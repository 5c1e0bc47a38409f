//! Files that state digests of files beside them, as `sha256sum` and its BSD cousin write them.

use trainlock_types::Digest;

/// Endings of what states the digest of one file.
const OF_ONE: &[&str] = &[".sha256", ".sha256sum", ".sha256.txt"];

/// What such a file states of the file of this name: `HEX  NAME`, `HEX *NAME` (perhaps in a folder) or `SHA256 (NAME) = HEX`; one that is
/// about this file alone may have the digest alone.
pub(crate) fn stated(text: &str, name: &str, alone: bool) -> Option<Digest> {
    let is_name = |file: &str| file.trim_start_matches('*').rsplit('/').next() == Some(name);
    let line = |line: &str| {
        let line = line.trim();
        if let Some((file, hex)) = line.strip_prefix("SHA256 (").and_then(|rest| rest.rsplit_once(") = ")) {
            return is_name(file).then(|| hex.parse().ok())?;
        }
        match line.split_once(char::is_whitespace) {
            Some((hex, file)) => is_name(file.trim_start()).then(|| hex.parse().ok())?,
            None => alone.then(|| line.parse().ok())?,
        }
    };
    text.lines().find_map(line)
}

/// Which of these files may state the digest of the file of this name, the likeliest first, and whether it is about that alone.
pub(crate) fn beside<'a>(name: &str, all: impl Iterator<Item = &'a str>) -> Vec<(&'a str, bool)> {
    let rank = |file: &'a str| {
        if OF_ONE.iter().any(|end| file.strip_suffix(end) == Some(name)) {
            return Some((0, file, true));
        }
        let lower = file.to_ascii_lowercase();
        let is_of_another = OF_ONE.iter().any(|end| lower.strip_suffix(end).is_some_and(|rest| rest.contains('.')));
        let is_signature = [".sig", ".asc", ".pem", ".minisig", ".sigstore", ".json", ".crt"];
        let is_signature = is_signature.iter().any(|end| lower.ends_with(end));
        let is_list = ["sha256", "shasums256", "checksums"].iter().any(|word| lower.contains(word));
        (is_list && !is_of_another && !is_signature).then_some((1, file, false))
    };
    let mut found: Vec<_> = all.filter_map(rank).collect();
    found.sort_unstable();
    found.into_iter().map(|(_, file, alone)| (file, alone)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_lists() {
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        for text in [
            format!("{two}  b\n{one}  a.tar.gz\n"),
            format!("{one} *a.tar.gz\r\n"),
            format!("{one}  ./dist/a.tar.gz\n"),
            format!("SHA256 (a.tar.gz) = {one}\n"),
        ] {
            assert_eq!(stated(&text, "a.tar.gz", false), Some(one), "{text}");
        }
        let other = format!("{two}  a.tar.gz.sig\n{two}  xa.tar.gz\nnothing a.tar.gz\n\n{two}\n");
        assert_eq!(stated(&other, "a.tar.gz", false), None);
        assert_eq!(stated(&format!("{one}\n"), "a", true), Some(one));
    }

    #[test]
    fn files_that_may_state_it() {
        let all =
            ["a.zip", "a.zip.sha256", "b.zip.sha256", "SHA256SUMS", "SHA256SUMS.asc", "t_1.0_checksums.txt", "notes"];
        let found = beside("a.zip", all.into_iter());
        assert_eq!(found, [("a.zip.sha256", true), ("SHA256SUMS", false), ("t_1.0_checksums.txt", false)]);
    }
}
