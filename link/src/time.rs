//! The wall clock, and times for people.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use limpet_shared::UnixMicros;

pub use crate::host::now;

/// Clocks that differ by less are not worth a word.
pub const AGREE: Duration = Duration::from_secs(2);

/// What is wrong with this machine's clock, seen from one that shows `theirs`; `None` if they agree.
pub fn skew(ours: UnixMicros, theirs: UnixMicros) -> Option<String> {
    let (apart, way) = match ours.since(theirs) {
        Duration::ZERO => (theirs.since(ours), "behind"),
        ahead => (ahead, "ahead of"),
    };
    (apart > AGREE).then(|| format!("this machine's clock is {} s {way} the balancer's", apart.as_secs()))
}

/// `at` as the standard library has it.
pub(crate) fn system(at: UnixMicros) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_micros(at.0)).unwrap_or(UNIX_EPOCH)
}

/// A time as RFC 3339 in UTC with whole seconds: `2026-05-09T07:30:00Z`.
pub fn rfc3339(at: UnixMicros) -> String {
    let seconds = at.0 / 1_000_000;
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Days are counted from 0000-03-01, so that the leap day is the last of its year (era of 400 years = 146,097 days).
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_compared_with_some_tolerance() {
        let noon = UnixMicros(1_700_000_000_000_000);
        assert_eq!(skew(noon, noon + Duration::from_secs(1)), None);
        let ahead = skew(noon + Duration::from_secs(600), noon);
        assert_eq!(ahead.as_deref(), Some("this machine's clock is 600 s ahead of the balancer's"));
        let behind = skew(noon, noon + Duration::from_secs(600));
        assert_eq!(behind.as_deref(), Some("this machine's clock is 600 s behind the balancer's"));
    }

    #[test]
    fn times_read_as_the_calendar_has_them() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_799, "2000-02-29T23:59:59Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_735_689_600, "2025-01-01T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(UnixMicros(seconds * 1_000_000)), text);
        }
    }
}
