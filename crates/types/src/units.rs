//! Sizes and times as people write and read them.

use std::fmt;
use std::time::Duration;

/// Why a text is no size or time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not a size.
    #[error("`{0}` is no size: write for example `512MiB` or `8GiB`")]
    Size(String),
    /// Not a time.
    #[error("`{0}` is no time: write for example `90s`, `30m` or `2h`")]
    Duration(String),
}

/// A size in bytes from a text such as `8GiB` or `500MB`.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    text.parse::<bytesize::ByteSize>().map(|b| b.as_u64()).map_err(|_| UnitError::Size(text.to_owned()))
}

/// A time from a text such as `90s` or `2h 30m`; zero is refused.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    match humantime::parse_duration(text) {
        Ok(time) if !time.is_zero() => Ok(time),
        _ => Err(UnitError::Duration(text.to_owned())),
    }
}

/// A number of bytes, shown with a binary unit: `57 B`, `56.2 KiB`, `4.0 GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HumanSize(pub u64);

impl fmt::Display for HumanSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let mut value = self.0 as f64 / 1024.0;
        let mut unit = 0;
        while value >= 1023.95 {
            value /= 1024.0;
            unit += 1;
        }
        write!(f, "{value:.1} {}", UNITS[unit])
    }
}

/// A time, shown as cargo shows it: `0.42s`, `12.3s`, `2m 05s`, `1h 02m`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct HumanDuration(pub Duration);

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        match seconds {
            0..10 => write!(f, "{:.2}s", self.0.as_secs_f64()),
            10..60 => write!(f, "{:.1}s", self.0.as_secs_f64()),
            60..3600 => write!(f, "{}m {:02}s", seconds / 60, seconds % 60),
            _ => write!(f, "{}h {:02}m", seconds / 3600, seconds / 60 % 60),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_size("8GiB"), Ok(8 << 30));
        assert_eq!(parse_size("500MB"), Ok(500_000_000));
        assert!(parse_size("many").is_err());
        for (bytes, text) in [(57, "57 B"), (57_523, "56.2 KiB"), (4 << 30, "4.0 GiB"), (1_048_575, "1.0 MiB")] {
            assert_eq!(HumanSize(bytes).to_string(), text);
        }
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("2h"), Ok(Duration::from_secs(7200)));
        assert!(parse_duration("0s").is_err());
        assert!(parse_duration("2").is_err());
        for (ms, text) in [(420, "0.42s"), (12_340, "12.3s"), (125_000, "2m 05s"), (3_720_000, "1h 02m")] {
            assert_eq!(HumanDuration(Duration::from_millis(ms)).to_string(), text);
        }
    }
}
