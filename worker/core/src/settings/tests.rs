use limpet_shared::region::Region;

use super::*;

fn region(name: &str) -> Scope {
    Scope::Region(Region::by_name(name).unwrap())
}

fn refused(scope: Scope, name: &str, value: &str) -> String {
    let mut settings = NetworkSettings::default();
    let refused = change(&mut settings, scope, name, Some(value)).expect_err(value).to_string();
    assert_eq!(settings, NetworkSettings::default(), "{name}={value} leaves nothing behind");
    refused
}

#[test]
fn what_is_set_is_shown_and_can_be_taken_back() {
    let mut settings = NetworkSettings::default();
    let given = [
        (Scope::Network, "net_id", "00002D", "00002d"),
        (Scope::Network, "reply_delay", "250ms", "250ms"),
        (Scope::Network, "deduplication_delay", "1s", "1s"),
        (region("eu868"), "rx1_delay", "5", "5"),
        (region("eu868"), "rx1_dr_offset", "5", "5"),
        (region("eu868"), "rx2_dr", "3", "3"),
        (region("eu868"), "rx2_frequency", "868300000", "868300000"),
        (region("eu868"), "downlink_tx_power", "27", "27"),
        (region("eu868"), "extra_channels", "867100000, 867300000", "867100000,867300000"),
        (region("us915_1"), "rx1_dr_offset", "3", "3"),
        (region("us915_1"), "rx2_dr", "13", "13"),
        (region("us915_1"), "rx2_frequency", "923900000", "923900000"),
        (region("us915_1"), "downlink_tx_power", "26", "26"),
        (region("as923_2"), "rx1_dr_offset", "7", "7"),
        (region("au915_1"), "uplink_dwell_time_400ms", "true", "true"),
        (region("as923_2"), "downlink_dwell_time_400ms", "true", "true"),
        (region("eu868"), "uplink_dwell_time_400ms", "false", "false"),
        (region("in865"), "repeater_compatible", "true", "true"),
    ];
    let find = |settings: &NetworkSettings, scope, name: &str| {
        shown(settings, scope).into_iter().find(|setting| setting.name == name).unwrap()
    };
    for (scope, name, text, kept) in given {
        change(&mut settings, scope, name, Some(text)).unwrap();
        let setting = find(&settings, scope, name);
        assert_eq!((setting.value.as_str(), setting.is_set), (kept, true), "{name}");
    }
    assert_eq!(settings.of(Region::by_name("us915_2").unwrap()), &RegionSettings::default(), "of another one nothing");
    for (scope, name, ..) in given {
        change(&mut settings, scope, name, None).unwrap();
        let setting = find(&settings, scope, name);
        assert_eq!((&setting.value, setting.is_set), (&setting.default, false), "{name}");
    }
    assert_eq!(settings, NetworkSettings::default());
}

#[test]
fn a_value_that_is_not_allowed_is_named_with_what_is() {
    assert_eq!(
        refused(region("eu868"), "rx1_delay", "16"),
        "rx1_delay: \"16\" is not allowed for eu868; allowed is 1 to 15 (seconds)"
    );
    assert_eq!(
        refused(region("us915_1"), "rx2_dr", "5"),
        "rx2_dr: \"5\" is not allowed for us915_1; allowed is a downlink data rate of US915: 8,9,10,11,12,13"
    );
    let unknown = refused(Scope::Network, "rx1_delay", "5");
    assert_eq!(unknown, "network has no setting \"rx1_delay\"; it has net_id, reply_delay, deduplication_delay");
    for (scope, name, values) in [
        (Scope::Network, "net_id", ["", "2d", "+00001", "1000000"].as_slice()),
        (Scope::Network, "reply_delay", &["100", "", "-1ms", "10001ms", "11s", "1.5s", "4294967295s"]),
        (Scope::Network, "deduplication_delay", &["1001ms", "2s", "ms"]),
        (region("eu868"), "rx1_delay", &["0", "+1", "", "one", "256"]),
        (region("eu868"), "rx1_dr_offset", &["6", "-1"]),
        (region("us915"), "rx1_dr_offset", &["4"]),
        (region("eu868"), "rx2_dr", &["8", "12", ""]),
        (region("eu868"), "rx2_frequency", &["869525001", "870000100", "862999900", "0", ""]),
        (region("us915_1"), "rx2_frequency", &["923400000", "902300000", "928100000"]),
        (region("eu868"), "downlink_tx_power", &["28", "-2", "14.5"]),
        (region("us915"), "downlink_tx_power", &["31"]),
        (region("us915"), "extra_channels", &["", "902300000"]),
        (region("as923"), "rx1_dr_offset", &["8"]),
        (region("in865"), "rx2_dr", &["6", "8"]),
        (region("au915_1"), "rx2_dr", &["7", "14"]),
        (region("cn470_3"), "extra_channels", &[""]),
        (region("as923_4"), "extra_channels", &["916999900", "920000100", "917300000"]),
        (region("as923"), "uplink_dwell_time_400ms", &["yes", "", "1"]),
        (region("eu868"), "uplink_dwell_time_400ms", &["true"]),
        (region("us915_1"), "downlink_dwell_time_400ms", &["true"]),
        (region("eu868"), "repeater_compatible", &["no"]),
        (
            region("eu868"),
            "extra_channels",
            &[
                "862999900",
                "870000100",
                "867100050",
                "868100000",
                "867100000,867100000",
                "867100000,",
                "867100000,867300000,867500000,867700000,867900000,866100000",
            ],
        ),
    ] {
        for value in values {
            refused(scope, name, value);
        }
    }
}

#[test]
fn the_bands_own_power_may_be_said() {
    let mut settings = NetworkSettings::default();
    for scope in [region("eu868"), region("us915_1")] {
        change(&mut settings, scope, "downlink_tx_power", Some("-1")).unwrap();
    }
    assert_eq!(settings, NetworkSettings::default());
}

#[test]
fn no_extra_channels_are_another_thing_than_the_regions_own() {
    let mut settings = NetworkSettings::default();
    let eu868 = Region::by_name("eu868").unwrap();
    change(&mut settings, region("eu868"), "extra_channels", Some("")).unwrap();
    assert_eq!(settings.of(eu868).extra_channels, Some(Vec::new()));
    let setting = shown(&settings, region("eu868")).pop().unwrap();
    assert_eq!((setting.is_set, setting.value.as_str()), (true, ""));
    assert_eq!(setting.default, "867100000,867300000,867500000,867700000,867900000");
}

#[test]
fn power_never_exceeds_what_the_band_allows_on_a_frequency() {
    let settings = |wanted| RegionSettings { downlink_tx_power: wanted, ..RegionSettings::default() };
    let (eu868, us915) = (Region::by_name("eu868").unwrap(), Region::by_name("us915").unwrap());
    let eu = |wanted| [868_100_000, 869_525_000].map(|frequency| settings(wanted).power(eu868, frequency));
    assert_eq!((eu(None), eu(Some(27)), eu(Some(10))), ([14, 27], [14, 27], [10, 10]));
    let us = |wanted| settings(wanted).power(us915, 923_300_000);
    assert_eq!((us(None), us(Some(26)), us(Some(30))), (20, 26, 30));
}
