//! The network's settings, for people.

use limpet_shared::admin::{DeviceSession, RegionSettings, Request};

use super::table;

/// One with all that can be set, several with what is.
pub(super) fn text(request: &Request, regions: &[RegionSettings]) -> String {
    match request {
        Request::Regions { id: Some(_) } => regions.iter().map(all).collect(),
        _ => {
            let rows = regions.iter().map(|region| {
                let set = region.settings.iter().filter(|setting| setting.is_set);
                let set: Vec<_> = set.map(|setting| format!("{}={}", setting.name, setting.value)).collect();
                vec![region.id.clone(), region.band.clone(), set.join(" ")]
            });
            table(&["REGION", "BAND", "SET"], rows.collect())
        }
    }
}

fn all(region: &RegionSettings) -> String {
    let rows = region.settings.iter().map(|setting| {
        let by = if setting.is_set { "set" } else { "default" };
        vec![setting.name.clone(), setting.value.clone(), by.into(), setting.default.clone(), setting.allowed.clone()]
    });
    table(&["SETTING", "VALUE", "", "DEFAULT", "ALLOWED"], rows.collect())
}

/// As the device has them; nothing if a server of a version before answers.
pub(super) fn windows(session: &DeviceSession) -> String {
    let DeviceSession { rx1_delay, rx1_dr_offset, rx2_dr, rx2_frequency, .. } = session;
    if *rx2_frequency == 0 {
        return String::new();
    }
    format!("RX1 after {rx1_delay} s at offset {rx1_dr_offset}, RX2 at DR{rx2_dr} on {rx2_frequency} Hz")
}
