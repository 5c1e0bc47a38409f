//! When to try again.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

/// How long to wait before retry number `retry` (from 0): doubled each time, at most `longest`, and
/// between a half and all of that at random, so that many clients do not come back at one moment.
pub(crate) fn backoff(first: Duration, longest: Duration, retry: u32) -> Duration {
    let full = first.saturating_mul(2u32.saturating_pow(retry)).min(longest);
    // The standard library seeds each `RandomState` from the system's randomness.
    let random = RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64;
    full.mul_f64(0.5 + random / 2.0)
}

/// The wait that a `Retry-After` header asks for: seconds, or a date that is compared with the
/// answer's own `Date`, so that this machine's clock does not matter. None if it says neither.
pub(crate) fn retry_after(header: &str, date: Option<&str>) -> Option<Duration> {
    let header = header.trim();
    if header.bytes().all(|b| b.is_ascii_digit()) {
        return if header.is_empty() { None } else { Some(Duration::from_secs(header.parse().unwrap_or(u64::MAX))) };
    }
    let (then, now) = (http_date(header)?, http_date(date?.trim())?);
    Some(Duration::from_secs(then.saturating_sub(now)))
}

/// Seconds since the beginning of 1970 of a date as HTTP servers write it (RFC 9110, IMF-fixdate):
/// `Sun, 06 Nov 1994 08:49:37 GMT`.
pub(crate) fn http_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let [_, day, month, year, time, "GMT"] = text.split(' ').collect::<Vec<_>>()[..] else {
        return None;
    };
    let [hours, minutes, seconds] = time.split(':').map(|n| n.parse::<u64>().ok()).collect::<Option<Vec<_>>>()?[..]
    else {
        return None;
    };
    let (day, year): (u64, u64) = (day.parse().ok()?, year.parse().ok()?);
    let month = MONTHS.iter().position(|m| *m == month)? as u64 + 1;
    if !(1970..10_000).contains(&year) || !(1..=31).contains(&day) || hours > 23 || minutes > 59 || seconds > 60 {
        return None;
    }
    // Days since 0000-03-01 in the Gregorian calendar, from which leap days come at the end of a year.
    let (shifted_year, shifted_month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = shifted_year * 365 + shifted_year / 4 - shifted_year / 100
        + shifted_year / 400
        + (shifted_month * 153 + 2) / 5
        + day
        - 1;
    Some((days - 719_468) * 86_400 + hours * 3600 + minutes * 60 + seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_end() {
        let (first, longest) = (Duration::from_millis(100), Duration::from_secs(2));
        for (retry, full) in [(0, 100), (1, 200), (4, 1600), (5, 2000), (1000, 2000)] {
            let wait = backoff(first, longest, retry);
            assert!(
                wait >= Duration::from_millis(full / 2) && wait <= Duration::from_millis(full),
                "{retry}: {wait:?}"
            );
        }
    }

    #[test]
    fn retry_after_in_seconds_and_as_a_date() {
        let now = "Sun, 06 Nov 1994 08:49:37 GMT";
        let date = Some(now);
        assert_eq!(http_date(now), Some(784_111_777));
        assert_eq!(http_date("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(http_date("Tue, 29 Feb 2028 23:59:59 GMT"), Some(1_835_481_599));
        assert_eq!(retry_after("120", None), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("99999999999999999999999", None), Some(Duration::from_secs(u64::MAX)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:50:37 GMT", date), Some(Duration::from_secs(60)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:40:37 GMT", date), Some(Duration::ZERO));
        for bad in ["", "soon", "-1", "Sun, 06 Foo 1994 08:49:37 GMT", "Sun, 06 Nov 0000 08:49:37 GMT"] {
            assert_eq!(retry_after(bad, date), None, "{bad}");
        }
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:50:37 GMT", None), None);
    }
}
