//! Where log lines go and what they look like: to standard error, as text or JSON, one event a line. A reader that is gone, or
//! that does not read, stops nothing.

mod outlet;

use std::{backtrace, io::IsTerminal, time::Duration};

use tracing_subscriber::EnvFilter;

pub use outlet::Outlet;

/// At the end of the process its last lines are waited for so long.
const LAST_LINES: Duration = Duration::from_secs(1);

/// What chatty libraries may say, unless the operator names them. That the database is away we say ourselves; its driver
/// would, several times a second.
const LIBRARIES: [(&str, &str); 8] = [
    ("quinn", "warn"),
    ("quinn_proto", "warn"),
    ("quinn_udp", "warn"),
    ("rustls", "warn"),
    ("h2", "warn"),
    ("hyper_util", "warn"),
    ("hyper", "warn"),
    ("scylla", "off"),
];

/// Starts logging. `filter` was checked when the configuration was read.
pub fn start(filter: &str, json: bool) {
    let filter = EnvFilter::new(with_libraries(filter));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Outlet::stderr)
        // A line that nobody reads any more is no reason to panic, which telling it on standard error would be.
        .log_internal_errors(false);
    // A second start in one process (there is none outside of tests) leaves the first as it is.
    let _ = if json {
        builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
    } else {
        builder.with_ansi(std::io::stderr().is_terminal()).try_init()
    };
    // The usual hook writes to standard error itself, and would wait there.
    std::panic::set_hook(Box::new(|panic| {
        let trace = backtrace::Backtrace::capture();
        match trace.status() {
            backtrace::BacktraceStatus::Captured => tracing::error!(%trace, "{panic}"),
            _ => tracing::error!("{panic}"),
        }
    }));
}

/// Says on standard error why the process ends, however full of log lines it is.
pub fn say_last(text: &str) {
    Outlet::stderr().write_last(text.as_bytes(), LAST_LINES);
}

/// Waits for what was written last, if somebody reads it.
pub fn finish() {
    Outlet::stdout().finish(LAST_LINES);
    Outlet::stderr().finish(LAST_LINES);
}

fn with_libraries(filter: &str) -> String {
    let mut all = filter.to_owned();
    for (library, level) in LIBRARIES {
        if !filter.split(',').any(|part| part.trim().starts_with(&format!("{library}="))) {
            all.push_str(&format!(",{library}={level}"));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_quiet_unless_they_are_named() {
        let filter = with_libraries("debug,rustls=trace");
        assert!(filter.starts_with("debug,rustls=trace,"));
        assert!(filter.contains("quinn=warn,") && filter.contains("scylla=off") && !filter.contains("rustls=warn"));
        EnvFilter::try_new(filter).unwrap();
    }
}
