//! What devices ask for by MAC commands, and what the network answers.

use alloc::vec::Vec;

use limpet_shared::{
    UnixMicros,
    lorawan::{
        MAX_FOPTS,
        mac::{self, DownlinkCommand, UplinkCommand},
    },
    region::Region,
};

use crate::{adr::required_snr, model::Reception};

/// What the device must be answered.
pub fn answers(
    commands: &[UplinkCommand],
    receptions: &[Reception],
    received_at: UnixMicros,
    region: &Region,
) -> Vec<DownlinkCommand> {
    let mut answers = Vec::new();
    for command in commands {
        match command {
            UplinkCommand::LinkCheckReq => answers.push(link_check(receptions, region)),
            UplinkCommand::DeviceTimeReq => {
                let (gps_seconds, fraction) = mac::gps_time(received_at);
                answers.push(DownlinkCommand::DeviceTimeAns { gps_seconds, fraction });
            }
            _ => {}
        }
    }
    answers
}

/// LinkCheckAns (5.1): the margin above what the data rate needs, and the number of gateways (not of receptions).
fn link_check(receptions: &[Reception], region: &Region) -> DownlinkCommand {
    let best = receptions.iter().map(|r| r.rx.snr).fold(f32::NEG_INFINITY, f32::max);
    let needed = receptions
        .first()
        .and_then(|r| region.modulation(r.data_rate))
        .and_then(|m| required_snr(&m))
        .unwrap_or_default();
    let mut gateways: Vec<_> = receptions.iter().map(|r| r.gateway).collect();
    gateways.sort_unstable();
    gateways.dedup();
    DownlinkCommand::LinkCheckAns {
        // A float-to-integer cast saturates and takes NaN to 0, so any reported SNR is safe.
        margin: (best - needed).clamp(0.0, 254.0) as u8,
        gateways: gateways.len().min(255) as u8,
    }
}

/// The commands as FOpts: those that do not fit are left for another time.
pub fn encode(answers: &[DownlinkCommand]) -> Vec<u8> {
    let mut fopts = Vec::new();
    for answer in answers {
        if fopts.len() + answer.len() <= MAX_FOPTS {
            answer.encode(&mut fopts);
        }
    }
    fopts
}
