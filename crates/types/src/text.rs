//! Searching text for the byte that ends a part of it.

/// How many bytes are looked at together.
const CHUNK: usize = 16;

/// Where the first byte stands that `stops`; the length of `bytes` if none does.
///
/// It looks at many bytes at once, so that a manifest or lock of megabytes is read fast; `stops` should be made of
/// comparisons alone, which the compiler can then do for all of them together.
pub fn position_of(bytes: &[u8], stops: impl Fn(u8) -> bool) -> usize {
    let mut clear = 0;
    for chunk in bytes.as_chunks::<CHUNK>().0 {
        if chunk.iter().fold(false, |any, byte| any | stops(*byte)) {
            break;
        }
        clear += CHUNK;
    }
    let rest = &bytes[clear..];
    clear + rest.iter().position(|byte| stops(*byte)).unwrap_or(rest.len())
}

/// A part of an address in plain text: `%20` is a space.
pub fn percent_decoded(text: &str) -> String {
    let (mut out, bytes, mut at) = (Vec::with_capacity(text.len()), text.as_bytes(), 0);
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_all_places() {
        for length in 0..70 {
            let mut bytes = vec![b'a'; length];
            assert_eq!(position_of(&bytes, |b| b == b'"'), length);
            for at in (0..length).rev() {
                bytes[at] = b'"';
                assert_eq!(position_of(&bytes, |b| b == b'"'), at);
            }
        }
    }
}
