//! Why something ended without an event: every reason, so that each is there from the start as zero, and the documentation names
//! each (docs/operations/scraping.md, which the tests below compare).

/// Of `limpet_worker_dropped_total`.
pub const DROPS: [&str; 51] = [
    // Datagrams.
    "unknown_version",
    "unknown_type",
    "not_from_gateway",
    "not_push_data",
    "json_malformed",
    "too_many_packets",
    // Packets.
    "rxpk_malformed",
    "rxpk_frequency",
    "rxpk_modulation",
    "rxpk_data_rate",
    "rxpk_data",
    "rxpk_too_long",
    "unknown_modulation",
    "crc_error",
    // Frames.
    "too_short",
    "too_long",
    "unknown_major",
    "join_request_length",
    "join_accept_length",
    "fopts_too_long",
    "fopts_with_port0",
    "payload_without_port",
    "other_type",
    "downlink_heard",
    "rejoin_unsupported",
    "proprietary",
    "repeated",
    // Whose they are.
    "no_region",
    "ambiguous_region",
    "unknown_gateway",
    "unknown_dev_addr",
    "unknown_dev_eui",
    "unknown_device",
    "device_disabled",
    "bad_mic",
    // Uplinks.
    "duplicate",
    "replay",
    "outdated",
    "no_reception",
    // Joins.
    "no_app_key",
    "otaa_unsupported",
    "region_mismatch",
    "dev_nonce_used",
    "dev_nonce_not_ascending",
    "join_nonces_used_up",
    "join_superseded",
    "join_too_late",
    // Downlinks.
    "downlink_without_balancer",
    "downlink_link_full",
    "not_from_server",
    // A mistake in this list; the log has its name.
    "other",
];

/// Of `limpet_worker_pending_dropped_total`.
pub const PENDING: [&str; 5] = ["overflow", "too_old", "refused", "integration_removed", "operator"];

/// The reason as a label. One that is missing above is a mistake, which tests find.
pub fn known(reason: &'static str) -> &'static str {
    let known = DROPS.contains(&reason);
    debug_assert!(known, "{reason} is missing in the list of reasons");
    if known { reason } else { "other" }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names in the first column of the table below this heading.
    fn documented(heading: &str) -> Vec<&'static str> {
        let page = include_str!("../../../docs/operations/scraping.md");
        let (_, section) = page.split_once(heading).unwrap_or_else(|| panic!("no heading {heading}"));
        let lines = section.lines().take_while(|line| !line.starts_with('#'));
        let rows = lines.filter(|line| line.starts_with("| `"));
        let mut names: Vec<&str> =
            rows.flat_map(|row| row.split('|').nth(1).unwrap_or_default().split('`').skip(1).step_by(2)).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn the_documentation_has_every_reason() {
        let mut drops = DROPS.to_vec();
        drops.sort_unstable();
        assert_eq!(documented("#### Reasons of `limpet_worker_dropped_total`\n"), drops);
        let mut pending = PENDING.to_vec();
        pending.sort_unstable();
        assert_eq!(documented("#### Reasons of `limpet_worker_pending_dropped_total`\n"), pending);
    }

    /// Words in the code that become a reason must be in the list: a new one cannot be forgotten.
    #[test]
    fn the_code_has_no_other_reason() {
        let sources = [
            include_str!("../pipeline/intake.rs"),
            include_str!("../pipeline/data.rs"),
            include_str!("../pipeline/join.rs"),
            include_str!("../pipeline/foreign.rs"),
            include_str!("../../core/src/join.rs"),
            include_str!("../regions.rs"),
            include_str!("../links.rs"),
            include_str!("../pipeline/pending/bounds.rs"),
            include_str!("../pipeline/pending/refusal.rs"),
            include_str!("../pipeline/pending/sending.rs"),
            include_str!("../../../shared/src/lorawan.rs"),
            include_str!("../../../shared/src/gwmp/header.rs"),
            include_str!("../../../shared/src/gwmp/rxpk.rs"),
        ];
        let begins =
            ["Err(\"", "verdict(\"", "drop_unknown(\"", "refuse(\"", "refuse_and_tell(\"", "dropped(\"", "ok_or(\""];
        let mut found = 0;
        for source in sources {
            let code = source.split("#[cfg(test)]").next().unwrap_or_default();
            // As the labels of an error: `Self::Variant => "reason",`.
            let labels = code.match_indices("fn reason(").flat_map(|(at, _)| {
                let body = code[at..].split("\n    }\n").next().unwrap_or_default();
                body.split("=> \"").skip(1)
            });
            let called = begins.iter().flat_map(|begin| code.split(begin).skip(1));
            for rest in called.chain(labels) {
                let reason = rest.split('"').next().unwrap_or_default();
                assert!(
                    DROPS.contains(&reason) || PENDING.contains(&reason),
                    "{reason} is missing in the list of reasons"
                );
                found += 1;
            }
        }
        let elsewhere = [include_str!("../pipeline.rs"), include_str!("../../../shared/src/gwmp.rs")];
        let somewhere =
            |reason: &str| sources.iter().chain(&elsewhere).any(|code| code.contains(&format!("\"{reason}\"")));
        for reason in DROPS.iter().filter(|reason| **reason != "other") {
            assert!(somewhere(reason), "{reason} is listed, and in no code");
        }
        assert!(found > 40, "only {found} were found: the code is written otherwise now");
    }
}
