//! Numbers and times for people.

use std::time::Duration;

use limpet_shared::UnixMicros;

/// A span in the largest unit that fits: `12 s`, `5 min`.
pub(crate) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// How long ago: `now`, `12 s ago`.
pub(crate) fn ago(at: UnixMicros, now: UnixMicros) -> String {
    match now.since(at) {
        since if since < Duration::from_secs(3) => "now".into(),
        since => format!("{} ago", span(since)),
    }
}

/// A share of 0 to 1 as percent: `33.3 %`.
pub(crate) fn percent(share: f64) -> String {
    let text = format!("{:.1}", share * 100.0);
    format!("{} %", text.strip_suffix(".0").unwrap_or(&text))
}

/// A size in the largest unit of which there is one: `3.0 GiB`; empty for 0, which means that nobody knows.
pub(crate) fn bytes(size: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.iter().find(|(unit, _)| size >= *unit) {
        Some((unit, name)) if size >= 10 * unit => format!("{} {name}", size / unit),
        Some((unit, name)) => format!("{:.1} {name}", size as f64 / *unit as f64),
        None if size == 0 => String::new(),
        None => format!("{size} B"),
    }
}

/// `1 gateway`, `2 gateways`.
pub(crate) fn count(number: u64, one: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {one}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_well() {
        let second = 1_000_000;
        let now = UnixMicros(1_700_000_000 * second);
        let before = |seconds: u64| ago(UnixMicros(now.0 - seconds * second), now);
        assert_eq!(["now", "5 s ago", "2 min ago", "3 h ago"], [before(1), before(5), before(120), before(10_900)]);
        assert_eq!(ago(UnixMicros(now.0 + second), now), "now", "clocks differ a little");
        assert_eq!([percent(1.0), percent(0.33333), percent(0.0)], ["100 %", "33.3 %", "0 %"]);
        let sizes = [0, 1023, 1536, 38 << 20, 3 << 30].map(bytes);
        assert_eq!(sizes, ["", "1023 B", "1.5 KiB", "38 MiB", "3.0 GiB"]);
        assert_eq!([count(1, "gateway"), count(0, "gateway")], ["1 gateway", "0 gateways"]);
    }
}
