//! Where log lines go and what they look like: to standard error, as text or JSON, one event a line.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

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
        .with_writer(std::io::stderr)
        // A line that nobody reads any more is no reason to panic, which telling it on standard error would be.
        .log_internal_errors(false);
    // A second start in one process (there is none outside of tests) leaves the first as it is.
    let _ = if json {
        builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
    } else {
        builder.with_ansi(std::io::stderr().is_terminal()).try_init()
    };
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
